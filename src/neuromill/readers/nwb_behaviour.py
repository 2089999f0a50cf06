"""Behaviour of an NWB file: which series there are, and what a card makes of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from neuromill.readers.complaints import missing_fact, unreadable
from neuromill.readers.nwb_series import RawSeries, has_clock, is_series, read_series, read_stamps
from neuromill.readers.trees import join
from neuromill.records import CovariateLayout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from neuromill.readers.trees import Tree
    from neuromill.records import MaskLayout, SpikeLayout

BEHAVIOUR = "processing/behavior"
MAX_DEPTH = 4
MARKS = ("IntervalSeries", "AnnotationSeries", "ImageSeries")  # marks and pictures: no quantity that is sampled
TABLES = ("DynamicTable", "TimeIntervals")


@dataclass(frozen=True, slots=True, eq=False)
class RawCovariate:
    """A series and what the card says of it; several where a container was declared."""

    layout: CovariateLayout
    name: str
    series: RawSeries


@dataclass(frozen=True, slots=True, eq=False)
class RawMask:
    """A mask as the file has it: float64 [time] seconds, bool [time]."""

    path: str
    stamps: NDArray[np.float64]
    values: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Behaviour:
    """All behaviour a layout takes from a file, and what was left out or odd."""

    covariates: tuple[RawCovariate, ...] = ()
    notes: tuple[str, ...] = ()


def series_below(tree: Tree, path: str, depth: int = 0) -> Iterator[str]:
    """Paths of the series at or below a path, sorted: a store of objects keeps no other order."""
    is_table = str(tree.attributes(path).get("neurodata_type", "")) in TABLES
    if is_series(tree, path) and not is_table:
        yield path
    elif depth < MAX_DEPTH and tree.kind(path) == "group" and not is_table:
        for name in sorted(tree.children(path)):
            yield from series_below(tree, join(path, name), depth + 1)


def declared(tree: Tree, layout: SpikeLayout) -> tuple[CovariateLayout, ...]:
    """Covariates a layout takes: those it names, or one per series of behaviour."""
    if layout.covariates != "auto":
        return layout.covariates
    return tuple(CovariateLayout(path=path) for path in series_below(tree, BEHAVIOUR))


def read_behaviour(tree: Tree, layout: SpikeLayout) -> Behaviour:
    """Read the covariates of a file.

    A covariate that the card names and the file lacks is noted and left out; ``need_covariates`` decides elsewhere
    whether none at all is a failure. Raises what ``read_series`` raises.
    """
    found: list[RawCovariate] = []
    notes: list[str] = []
    for one in declared(tree, layout):
        reason = why_not(tree, one.path) if layout.covariates == "auto" else ""
        if reason:
            notes.append(f"{one.path} is not taken: {reason}")
            continue
        read = [covariate for covariate in _read_declared(tree, one) if covariate.series.values.size]
        if not read:
            notes.append(f"no behaviour at {one.path}")
        found += read
    notes += [note for one in found for note in one.series.notes]
    return Behaviour(_with_own_names(found), tuple(notes))


def why_not(tree: Tree, path: str) -> str:
    """Reason why ``auto`` does not take a series; "" for one that it takes."""
    kind = str(tree.attributes(path).get("neurodata_type", ""))
    if kind in MARKS:
        return f"it is of type {kind}"
    array = tree.array(join(path, "data")) if tree.kind(join(path, "data")) == "array" else None
    if array is None or array.values not in ("number", "bool"):
        return "its values are not numbers"
    if len(array.shape) not in (1, 2):
        return f"it has {len(array.shape)} dimensions"
    return "it holds no value" if 0 in array.shape else ""


def _read_declared(tree: Tree, layout: CovariateLayout) -> Iterator[RawCovariate]:
    name = layout.name or layout.path.rstrip("/").rsplit("/", 1)[-1]
    paths = list(series_below(tree, layout.path.strip("/")))
    read = [read_series(tree, path, layout.clock) for path in paths]
    if paths and paths != [layout.path.strip("/")]:
        read = _stacked([_named_by_child(series) for series in read])
        if layout.axes and len(read) > 1:
            raise missing_fact(f"series of {layout.path} have clocks of their own: name each of them", tree.where)
    for series in read:
        picked = _picked(series, layout, tree.where)
        unit = layout.unit or series.unit
        notes = tuple(note for note in series.notes if not (layout.unit and note.startswith("unit of")))
        yield RawCovariate(layout, name, replace(picked, unit=unit, notes=notes))


def _named_by_child(series: RawSeries) -> RawSeries:
    child = series.path.rsplit("/", 1)[-1]
    return replace(series, axes=tuple(f"{child}_{axis}" if axis else child for axis in series.axes))


def _stacked(series: Sequence[RawSeries]) -> list[RawSeries]:
    """Series side by side where they have one clock and one unit; else as they are."""
    first = series[0]
    alike = all(one.unit == first.unit and np.array_equal(one.stamps, first.stamps) for one in series)
    if len(series) < 2 or not alike:  # noqa: PLR2004 - nothing to put side by side
        return list(series)
    axes = tuple(axis for one in series for axis in one.axes)
    values = np.concatenate([one.values for one in series], axis=1)
    notes = tuple(note for one in series for note in one.notes)
    return [replace(first, axes=axes, values=values, notes=notes)]


def _picked(series: RawSeries, layout: CovariateLayout, where: str) -> RawSeries:
    """The dimensions that a layout keeps, under its names, times its factor."""
    axes, n = layout.axes, len(series.axes)
    if layout.columns:
        picks = list(layout.columns)
        if not all(0 <= pick < n for pick in picks):
            raise missing_fact(f"{series.path} has {n} dimensions, the card takes {picks}", where)
        names = axes or tuple(series.axes[pick] for pick in picks)
    elif axes and len(axes) != n and set(axes) <= set(series.axes):
        picks, names = [series.axes.index(axis) for axis in axes], axes
    elif axes and len(axes) != n:
        raise missing_fact(f"{series.path} has {n} dimensions, the card names {', '.join(axes)}", where)
    else:
        in_file = bool(axes) and set(axes) == set(series.axes)
        picks = [series.axes.index(axis) for axis in axes] if in_file else list(range(n))
        names = axes or series.axes
    values = series.values if picks == list(range(n)) else series.values[:, picks]
    return replace(series, axes=tuple(names), values=values * layout.factor if layout.factor != 1 else values)


def _with_own_names(found: Sequence[RawCovariate]) -> tuple[RawCovariate, ...]:
    """Covariates whose dimensions differ in name: where some do not, the name of the container goes before them."""
    names = Counter(name for one in found for name in covariate_names(one))
    paths = [[part for part in one.series.path.split("/") if part] for one in found]
    return tuple(
        replace(one, name="_".join(path[-2:])) if max(names[name] for name in covariate_names(one)) > 1 else one
        for one, path in zip(found, paths, strict=True)
    )


def covariate_names(one: RawCovariate) -> tuple[str, ...]:
    """Full names of the dimensions of a covariate."""
    return tuple(f"{one.name}_{axis}" if axis else one.name for axis in one.series.axes)


def read_masks(tree: Tree, layouts: Sequence[MaskLayout], covariates: Sequence[RawCovariate]) -> tuple[RawMask, ...]:
    """Read the masks a layout declares.

    Raises
    ------
    RecordingError
        ``missing_fact`` where one is not there or has no clock, ``unreadable`` where it is no list [time] of numbers or
        booleans, and what ``read_stamps`` raises.
    """
    return tuple(_read_mask(tree, layout, covariates) for layout in layouts)


def _read_mask(tree: Tree, layout: MaskLayout, covariates: Sequence[RawCovariate]) -> RawMask:
    path = layout.path
    data = join(path, "data") if tree.kind(path) == "group" else path
    if tree.kind(data) != "array":
        raise missing_fact(f"there is no mask at {path}, which the card names", tree.where)
    array = tree.array(data)
    if array.values not in ("number", "bool") or len(array.shape) not in (1, 2) or array.shape[1:] not in ((), (1,)):
        raise unreadable(f"mask {path} is not a list of booleans", tree.where)
    n_rows = array.shape[0]
    shared = [one.series.stamps for one in covariates if len(one.series.stamps) == n_rows]
    if data != path and (has_clock(tree, path) or not shared):
        stamps = read_stamps(tree, path, n_rows, layout.clock)
    elif shared:
        stamps = shared[0]
    else:
        raise missing_fact(f"mask {path} has no clock, and no covariate has as many rows", tree.where)
    return RawMask(path, stamps, array.read().reshape(n_rows).astype(bool))
