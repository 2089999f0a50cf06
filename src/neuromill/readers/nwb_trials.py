"""The trials of an NWB file: start, stop, what made one a success, and the columns a card keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.readers.complaints import missing_fact, truncated, unreadable
from neuromill.readers.nwb_units import meets
from neuromill.readers.trees import join
from neuromill.records import TrialTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neuromill.readers.clocks import BlockClock
    from neuromill.readers.trees import Tree
    from neuromill.records import ColumnIs, TrialsLayout

TIMES = ("start_time", "stop_time")


@dataclass(frozen=True, slots=True, eq=False)
class RawTrials:
    """Trials as the file has them, but for rows without times: in file order, on the clock of the file."""

    starts: NDArray[np.float64]
    stops: NDArray[np.float64]
    success: NDArray[np.bool_]
    columns: Mapping[str, NDArray[np.float64] | tuple[str, ...]]
    notes: tuple[str, ...] = ()


def no_trials(*notes: str) -> RawTrials:
    """A table without rows."""
    return RawTrials(np.empty(0), np.empty(0), np.empty(0, dtype=bool), {}, notes)


def column_names(tree: Tree, layout: TrialsLayout) -> tuple[str, ...]:
    """Names of the columns that are read beside start and stop: those of the card, or all that are simple."""
    names = [name for name in sorted(tree.children(layout.path)) if name not in (*TIMES, "id")]
    simple = [name for name in names if _is_simple(tree, layout.path, name)]
    return tuple(name for name in layout.columns if name in simple) if layout.columns else tuple(simple)


def _is_simple(tree: Tree, group: str, name: str) -> bool:
    path = join(group, name)
    if name.endswith("_index") or tree.kind(path) != "array" or tree.kind(f"{path}_index") == "array":
        return False
    array = tree.array(path)
    return array.values in ("number", "bool", "text") and len(array.shape) == 1


def read_trials(tree: Tree, layout: TrialsLayout | None) -> RawTrials:
    """Read the trials table; a file without one has no trials, and that is noted where a card wants more than that.

    Raises
    ------
    RecordingError
        ``missing_fact`` (no start or stop; a column that decides on success is not there), ``truncated`` (a column
        ends early), ``unreadable`` (times that are not numbers).
    """
    if layout is None:
        return no_trials()
    if tree.kind(layout.path) != "group":
        return no_trials(*([f"no trials at {layout.path}"] if layout.columns or layout.success else []))
    starts, stops = (_times(tree, join(layout.path, name)) for name in TIMES)
    n = len(starts)
    if len(stops) != n:
        raise truncated(f"{layout.path} has {n} starts and {len(stops)} stops", tree.where)
    success = _condition(tree, layout.path, layout.success, n, default=True)
    discard = _condition(tree, layout.path, layout.discard, n, default=False)
    columns = {name: _column(tree, join(layout.path, name), n) for name in column_names(tree, layout)}
    absent = [name for name in layout.columns if name not in columns]
    notes = [f"trials have no simple column {name}" for name in absent]
    good = np.isfinite(starts) & np.isfinite(stops) & (stops >= starts)
    if not good.all():
        notes.append(f"{int((~good).sum())} of {n} trials are left out: no start, no stop, or a stop before the start")
    return RawTrials(
        starts[good],
        stops[good],
        (success & ~discard)[good],
        {name: _rows(column, np.flatnonzero(good)) for name, column in columns.items()},
        tuple(notes),
    )


def _times(tree: Tree, path: str) -> NDArray[np.float64]:
    if tree.kind(path) != "array":
        raise missing_fact(f"trials have no {path.rsplit('/', 1)[-1]}", tree.where)
    array = tree.array(path)
    if array.values != "number" or len(array.shape) != 1:
        raise unreadable(f"{path} is not a list of numbers", tree.where)
    return array.read().astype(np.float64)


def _column(tree: Tree, path: str, n: int) -> NDArray[np.float64] | tuple[str, ...]:
    array = tree.array(path)
    if array.shape[0] != n:
        raise truncated(f"{path} has {array.shape[0]} of {n} rows", tree.where)
    values = array.read()
    return tuple(values.tolist()) if array.values == "text" else values.astype(np.float64)


def _condition(tree: Tree, group: str, condition: ColumnIs | None, n: int, *, default: bool) -> NDArray[np.bool_]:
    if condition is None:
        return np.full(n, default)
    if not _is_simple(tree, group, condition.column):
        raise missing_fact(f"trials have no column {condition.column}, which the card names", tree.where)
    values = _column(tree, join(group, condition.column), n)
    return np.array([meets(value, condition) for value in values], dtype=bool).reshape(n)


def _rows(column: NDArray[np.float64] | tuple[str, ...], rows: NDArray[np.int64]) -> Any:
    return column[rows] if isinstance(column, np.ndarray) else tuple(column[row] for row in rows.tolist())


def trial_table(raw: RawTrials, clock: BlockClock) -> tuple[TrialTable, tuple[str, ...]]:
    """Trials on one clock, sorted by start, and what was odd; raises ``ValueError`` where they have other blocks."""
    shifts = clock.shifts(raw.starts)
    starts, stops = raw.starts + shifts, raw.stops + shifts
    order = np.argsort(starts, kind="stable")
    moved = {name: _moved(column, raw, shifts) for name, column in raw.columns.items()}
    table = TrialTable(
        starts[order], stops[order], raw.success[order], {name: _rows(moved[name], order) for name in moved}
    )
    notes = [*raw.notes]
    if (np.diff(starts) < 0).any():
        notes.append("trials are not in the order of time: sorted")
    overlapping = int((table.starts[1:] < np.maximum.accumulate(table.stops)[:-1]).sum()) if len(table) else 0
    if overlapping:
        notes.append(f"{overlapping} of {len(table)} trials begin before the one before them ends")
    return table, tuple(notes)


def _moved(column: Any, raw: RawTrials, shifts: NDArray[np.float64]) -> Any:
    """A column on the new clock: one of times moves with it, and times of a trial lie mostly within the trial."""
    if not isinstance(column, np.ndarray) or not shifts.any():
        return column
    stated = np.isfinite(column)
    within = (column >= raw.starts) & (column <= raw.stops)
    return column + shifts if 2 * int(within.sum()) > int(stated.sum()) else column
