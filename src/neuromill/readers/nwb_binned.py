"""Spikes that an NWB file holds as counts or as a raster: a series [time, unit]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.readers.clocks import union
from neuromill.readers.complaints import bad_timestamps, missing_fact, no_spikes, unreadable
from neuromill.readers.nwb_series import read_stamps
from neuromill.readers.trees import check_room, join

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from neuromill.readers.spike_protocol import Binned
    from neuromill.readers.trees import Tree, TreeArray
    from neuromill.records import UnitsLayout

BLOCK_BYTES = 32 * 2**20
TYPES = (np.uint8, np.uint16, np.uint32)
BREAK = 1.05  # a step longer than this many bins is a hole (FALCON H2: 21 ms between bins of 20 ms)


@dataclass(frozen=True, slots=True, eq=False)
class RawCounts:
    """Counts of the kept units [time, unit], stamps of the file, and columns that are masked for a reason."""

    stamps: NDArray[np.float64]
    counts: NDArray[np.integer]
    bads: Mapping[int, str]


def counts_array(tree: Tree, layout: UnitsLayout) -> TreeArray:
    """Return the array of a series of counts; raises ``no_spikes`` where there is none, ``unreadable`` for others."""
    path = join(layout.path, "data")
    if tree.kind(layout.path) != "group" or tree.kind(path) != "array":
        raise no_spikes(f"no series of spikes at {layout.path}", tree.where)
    array = tree.array(path)
    if array.values not in ("number", "bool") or len(array.shape) != 2:  # noqa: PLR2004 - time and unit
        raise unreadable(f"{path} is not a table of numbers [time, unit]", tree.where)
    if 0 in array.shape:
        raise no_spikes(f"{path} has the shape {array.shape}", tree.where)
    return array


def read_counts(tree: Tree, layout: UnitsLayout, columns: Sequence[int]) -> RawCounts:
    """Read the counts of some columns, in the smallest unsigned type that holds them.

    A column with a value that is no count is masked: its counts are 0.

    Raises
    ------
    RecordingError
        ``no_spikes`` where there is no series or nothing in it, ``unreadable`` where it is no table of numbers [time,
        unit] or a count needs more than 32 bits, ``too_large``, and what ``read_stamps`` raises.
    """
    array = counts_array(tree, layout)
    n_times, n_columns = array.shape
    stamps = read_stamps(tree, layout.path, n_times, "auto")
    check_room(join(layout.path, "data"), (n_times, len(columns)), 1, tree.where)
    counts: NDArray[np.integer] = np.zeros((n_times, len(columns)), dtype=np.uint8)
    bads: dict[int, str] = {}
    whole = max(array.chunk_rows, 1)  # no chunk is read twice
    step = whole * max(BLOCK_BYTES // (8 * n_columns * whole), 1)
    for start in range(0, n_times, step):
        block = array.read(start, start + step)[:, list(columns)]
        bads = _judge(block) | bads
        block = np.where(np.isin(np.arange(len(columns)), list(bads)), 0, block)
        kind = next((one for one in TYPES if block.max(initial=0) <= np.iinfo(one).max), None)
        if kind is None:
            raise unreadable(f"{layout.path} has counts beyond 32 bits", tree.where)
        counts = counts.astype(np.promote_types(counts.dtype, kind), copy=False)
        counts[start : start + step] = block
    counts[:, list(bads)] = 0
    return RawCounts(stamps, counts, bads)


def _judge(block: NDArray[np.generic]) -> dict[int, str]:
    values = block.astype(np.float64)
    finite = np.isfinite(values)
    whole = finite & (values >= 0) & (values == np.floor(np.where(finite, values, 0)))
    return {int(i): "not_counts" if finite[:, i].all() else "non_finite" for i in np.flatnonzero(~whole.all(axis=0))}


def bin_width(stamps: NDArray[np.float64], where: str) -> float:
    """Distance of regular stamps, float64 [time] seconds, in seconds, to the nanosecond.

    Raises
    ------
    RecordingError
        ``missing_fact`` (one bin), ``bad_timestamps`` (stamps that repeat, or bins of several widths).
    """
    steps = np.diff(stamps)
    if not steps.size:
        raise missing_fact("one bin of spikes: how long it is, is not stated", where)
    width = round(float(np.median(steps)), 9)
    if steps.min() < width / BREAK:
        raise bad_timestamps(f"bins of spikes lie {steps.min():g} s apart, most of them {width:g} s", where)
    return width


def observed_by(binned: Binned) -> NDArray[np.float64]:
    """Intervals float64 [interval, 2], seconds, that bins cover; bins that follow on from each other are one."""
    starts = binned.stamps - (binned.width_seconds if binned.bin_edge == "end" else 0.0)
    steps = np.diff(starts)
    stops = np.append(np.where(steps <= BREAK * binned.width_seconds, starts[1:], starts[:-1] + binned.width_seconds),
                      starts[-1] + binned.width_seconds)  # fmt: skip
    return union(np.stack([starts, stops], axis=1))
