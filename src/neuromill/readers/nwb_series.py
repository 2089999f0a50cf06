"""One NWB ``TimeSeries``: values in their unit, stamps as the file has them, names of its dimensions."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.readers.complaints import bad_timestamps, missing_fact, unreadable
from neuromill.readers.trees import FLOAT_BYTES, check_room, join

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neuromill.readers.trees import Tree

NOT_UNITS = ("", "unknown", "na", "n/a", "none", "unit", "n.a.")
LISTED = re.compile(r"columns\s*=\s*[\[(](.*?)[\])]")
AXIS = re.compile(r"[A-Za-z][\w .-]{0,31}")
XYZ = ("x", "y", "z")
MIN_HZ = 1.0  # behaviour sampled more slowly than this is more likely a period that stands in the field of the rate


@dataclass(frozen=True, slots=True, eq=False)
class RawSeries:
    """A series as the file has it, times neither checked nor merged.

    Attributes
    ----------
    path
        Of the group.
    axes
        One name per dimension; ("",) for a series that has no dimensions.
    unit
        Of the values; "" where unknown.
    stamps
        float64 [time] seconds.
    values
        float64 [time, dimension], conversion and offset applied.
    notes
        What was odd.
    """

    path: str
    axes: tuple[str, ...]
    unit: str
    stamps: NDArray[np.float64]
    values: NDArray[np.float64]
    notes: tuple[str, ...] = ()


def is_series(tree: Tree, path: str) -> bool:
    """Whether there is a time series at a path: a group with ``data``, also where that is a link that leads nowhere."""
    return tree.kind(path) == "group" and "data" in tree.children(path)


def read_series(tree: Tree, path: str, clock: str) -> RawSeries:
    """Read a series.

    Raises
    ------
    RecordingError
        ``bad_timestamps`` (other number of rows than stamps, stamps that are not finite, a period of more than a
        second), ``missing_fact`` (neither stamps nor a rate), ``unreadable`` (values that are not numbers),
        ``missing_member`` (values in another file that is not there).
    """
    data = join(path, "data")
    array = tree.array(data)
    if array.values not in ("number", "bool") or len(array.shape) not in (1, 2):
        raise unreadable(f"{data} is not a series of numbers, [time] or [time, dimension]", tree.where)
    check_room(data, array.shape, FLOAT_BYTES, tree.where)
    stamps = read_stamps(tree, path, array.shape[0], clock)
    attributes, notes = tree.attributes(data), []
    values = array.read().astype(np.float64)
    conversion, offset = _factor(attributes, "conversion", 1.0), _factor(attributes, "offset", 0.0)
    unit = str(attributes.get("unit", "")).strip()
    unit = "" if unit.lower() in NOT_UNITS else unit
    if not unit:
        notes.append(f"unit of {path} is not known")
    if conversion is None or offset is None:
        raise unreadable(f"conversion or offset of {data} is not a finite number", tree.where)
    if "conversion" not in attributes:
        notes.append(f"{path} has no conversion: taken as 1, as the standard has it")
    if conversion == 0:
        notes.append(f"conversion of {path} is 0: all its values become the same")
    axes = ("",) if values.ndim == 1 else axis_names(tree.attributes(path), values.shape[1])
    scaled = values * conversion + offset if (conversion, offset) != (1.0, 0.0) else values
    notes += _rate_notes(tree, path)
    return RawSeries(path, axes, unit, stamps, scaled.reshape(len(scaled), len(axes)), tuple(notes))


def _factor(attributes: Mapping[str, Any], name: str, default: float) -> float | None:
    value = attributes.get(name, default)
    good = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if good else None


def _rate_notes(tree: Tree, path: str) -> tuple[str, ...]:
    rate = tree.attributes(join(path, "starting_time")).get("rate")
    if isinstance(rate, int | float) and rate < MIN_HZ and tree.kind(join(path, "timestamps")) == "":
        return (f"{path} states a rate of {rate:g}: where that is a period, the card has to say `clock: period`",)
    return ()


def axis_names(attributes: Mapping[str, Any], n: int) -> tuple[str, ...]:
    """Names of the dimensions of a series, from ``comments`` or ``description`` where they list ``n`` of them.

    ``columns=[x,y]`` (Neural Latents Benchmark) anywhere, or a text that is nothing but a list with commas (FALCON
    H1). Else x, y, z for two or three, and numbers from 0 for any other number.
    """
    for text in (str(attributes.get("comments", "")), str(attributes.get("description", ""))):
        listed = LISTED.search(text)
        parts = [part.strip().strip("'\"").strip() for part in (listed.group(1) if listed else text).split(",")]
        if len(parts) == n and n > 1 and len(set(parts)) == n and all(AXIS.fullmatch(part) for part in parts):
            return tuple(part.replace(" ", "_") for part in parts)
    return XYZ[:n] if n in (2, 3) else tuple(map(str, range(n)))


def has_clock(tree: Tree, path: str) -> bool:
    """Whether a series says when its rows were taken."""
    rate = tree.attributes(join(path, "starting_time")).get("rate")
    return tree.kind(join(path, "timestamps")) == "array" or rate is not None


def read_stamps(tree: Tree, path: str, n_rows: int, clock: str) -> NDArray[np.float64]:
    """Stamps of the ``n_rows`` rows of a series, float64 [time] seconds, by the clock that a layout declares.

    Raises
    ------
    RecordingError
        ``missing_fact`` (no stamps, or no rate), ``bad_timestamps`` (another number of stamps than rows, stamps that
        are not finite, a start or rate that is no such number, a period above a second), ``unreadable`` (stamps that
        are no list of numbers), ``too_large``.
    """
    explicit = tree.kind(join(path, "timestamps")) == "array"
    if clock == "timestamps" or (clock == "auto" and explicit):
        return _explicit(tree, join(path, "timestamps"), n_rows)
    return _regular(tree, join(path, "starting_time"), n_rows, is_period=clock == "period")


def _explicit(tree: Tree, path: str, n_rows: int) -> NDArray[np.float64]:
    if tree.kind(path) != "array":
        raise missing_fact(f"there are no time stamps at {path}, which the card names", tree.where)
    array = tree.array(path)
    if array.values != "number" or len(array.shape) != 1:
        raise unreadable(f"{path} is not a list of numbers", tree.where)
    if array.shape[0] != n_rows:
        raise bad_timestamps(f"{path} has {array.shape[0]} stamps for {n_rows} rows", tree.where)
    stamps = array.read().astype(np.float64)
    if not np.isfinite(stamps).all():
        raise bad_timestamps(f"{path} has stamps that are not finite", tree.where)
    return stamps


def _regular(tree: Tree, path: str, n_rows: int, *, is_period: bool) -> NDArray[np.float64]:
    rate = tree.attributes(path).get("rate")
    if tree.kind(path) != "array" or rate is None:
        raise missing_fact(f"{path.rpartition('/')[0]} has neither time stamps nor a rate", tree.where)
    array = tree.array(path)
    start = np.ravel(array.read()) if array.values == "number" else np.empty(0)
    good = isinstance(rate, int | float) and math.isfinite(rate) and rate > 0
    if not good or start.size != 1 or not np.isfinite(start).all():
        raise bad_timestamps(f"{path} and its rate are not a time and a positive number", tree.where)
    if is_period and rate > 1:
        raise bad_timestamps(f"the rate of {path} is {rate:g}: not seconds per sample, as the card says", tree.where)
    check_room(path, (n_rows,), FLOAT_BYTES, tree.where)
    samples = np.arange(n_rows, dtype=np.float64)
    seconds: NDArray[np.float64] = samples * rate if is_period else samples / rate
    return seconds + float(start[0])
