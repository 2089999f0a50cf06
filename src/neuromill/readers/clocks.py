"""Time stamps put on one clock that never goes back: pure functions on arrays.

A clock that was reset within a file (dandiset 000070) leaves series, trials and spikes that jump back. Each stretch
between two resets is a block; blocks are laid one after the other, a gap apart, the first where it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

QUIET_SECONDS = 600.0  # where nothing states when was listened, silence of all units beyond this is a pause
GAP_STEPS = 5.0  # a step longer than this many median steps is a gap, not a held value


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """A series without repeated stamps: float64 [time] ascending, float64 [time, dimension], and how many rows went."""

    stamps: NDArray[np.float64]
    values: NDArray[np.float64]
    n_merged: int


def run_starts(stamps: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices int64 [run] at which stretches of ``stamps``, float64 [time], that never go back begin.

    The first of them is 0; none for no stamps.
    """
    if not stamps.size:
        return np.empty(0, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(np.diff(stamps) < 0) + 1]).astype(np.int64)


def run_spans(starts: NDArray[np.float64], stops: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """First start and last stop of each stretch that never goes back, float64 [run, 2]."""
    stops = starts if stops is None else stops
    first = run_starts(starts)
    if not first.size:
        return np.empty((0, 2))
    return np.stack([starts[first], np.maximum.reduceat(stops, first)], axis=1)


@dataclass(frozen=True, slots=True)
class BlockClock:
    """How the blocks of a file lie on one clock.

    Attributes
    ----------
    offsets
        Seconds added to the times of each block; (0,) for a file whose clock was never reset.
    spans
        First and last time of each block after that.
    """

    offsets: tuple[float, ...] = (0.0,)
    spans: tuple[tuple[float, float], ...] = ()

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def joins(self) -> tuple[float, ...]:
        """Middle of each gap between two blocks: there, no bin of either block is cut."""
        return tuple((before[1] + after[0]) / 2 for before, after in pairwise(self.spans))

    def shifts(self, stamps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds to add to each stamp: float64 [time], as ``stamps``.

        Raises
        ------
        ValueError
            Where the stamps do not go back exactly once between any two blocks.
        """
        if len(self) == 1 or not len(stamps):
            return np.zeros(len(stamps))
        starts = run_starts(stamps)
        if len(starts) != len(self):
            raise ValueError(f"{len(starts)} stretches for {len(self)} blocks")
        return np.repeat(np.array(self.offsets), np.diff([*starts, len(stamps)]))


def lay_out(spans: Sequence[NDArray[np.float64]], gap_seconds: float) -> BlockClock:
    """Lay blocks one after the other.

    Parameters
    ----------
    spans
        For each clock of the file (series, trials, units), float64 [block, 2]: first and last time of each block.
    gap_seconds
        From the end of a block to the start of the next.

    Raises
    ------
    ValueError
        Where clocks differ in the number of blocks.
    """
    if not spans:
        return BlockClock()
    if len({len(each) for each in spans}) > 1:
        raise ValueError(f"clocks differ in their number of blocks: {sorted({len(each) for each in spans})}")
    lows = np.min([each[:, 0] for each in spans], axis=0)
    highs = np.max([each[:, 1] for each in spans], axis=0)
    offsets, laid, end = [], [], 0.0
    for i, (low, high) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
        offset = end + gap_seconds - low if i else 0.0
        end = high + offset
        offsets.append(offset)
        laid.append((low + offset, end))
    return BlockClock(tuple(offsets), tuple(laid)) if offsets else BlockClock()


def merge_repeats(stamps: NDArray[np.float64], values: NDArray[np.float64]) -> Merged:
    """Replace rows of the same stamp by their mean; a NaN counts only where all of them are.

    ``stamps`` float64 [time] must not go back, ``values`` are float64 [time, dimension].
    """
    first = np.flatnonzero(np.diff(stamps, prepend=-np.inf) > 0)
    if len(first) == len(stamps):
        return Merged(stamps, values, 0)
    seen = np.isfinite(values)
    counts = np.add.reduceat(seen, first, axis=0, dtype=np.int64)
    sums = np.add.reduceat(np.where(seen, values, 0.0), first, axis=0)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    alone = np.diff([*first, len(stamps)]) == 1
    means[alone] = values[first[alone]]
    return Merged(stamps[first], means, len(stamps) - len(first))


def change_points(stamps: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Bool [time]: which rows of a series of held values are samples, those at which any value changes.

    Both ends of the series, of every gap and of every stretch of NaN are kept, so that what is held up to there stays
    known up to there. ``stamps`` are float64 [time] seconds, ``values`` float64 [time, dimension].
    """
    if len(stamps) < 2:  # noqa: PLR2004 - nothing to compare
        return np.ones(len(stamps), dtype=bool)
    observed = np.isfinite(values)
    same = (values[1:] == values[:-1]) | (~observed[1:] & ~observed[:-1])
    steps = np.diff(stamps)
    border = (observed[1:] != observed[:-1]).any(axis=1) | (steps > GAP_STEPS * np.median(steps))
    keep = np.concatenate([[True], ~same.all(axis=1) | border])
    keep[:-1] |= border
    keep[-1] = True
    return keep


def held_samples(
    stamps: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Change points of a series of held values, with a row of NaN in the middle of every gap.

    Rests and gaps both leave long steps between change points; the row of NaN tells them apart. What comes back are
    stamps and values like those given: float64 [time] seconds, ascending, and float64 [time, dimension].
    """
    steps = np.diff(stamps)
    gaps = np.flatnonzero(steps > GAP_STEPS * np.median(steps)) if len(steps) else np.empty(0, np.int64)
    keep = change_points(stamps, values)
    places = np.cumsum(keep)[gaps]
    middles = stamps[gaps] + steps[gaps] / 2
    return np.insert(stamps[keep], places, middles), np.insert(values[keep], places, np.nan, axis=0)


def stretches(times: NDArray[np.float64], longest: float) -> NDArray[np.float64]:
    """First and last time of each run of ascending times without a step above ``longest``, float64 [run, 2]."""
    if not times.size:
        return np.empty((0, 2))
    last = np.append(np.flatnonzero(np.diff(times) > longest), len(times) - 1)
    return np.stack([times[np.append(0, last[:-1] + 1)], times[last]], axis=1)


def joined(intervals: NDArray[np.float64], longest: float) -> NDArray[np.float64]:
    """Union float64 [interval, 2] of intervals in which such that lie up to ``longest`` apart are one."""
    united = union(intervals)
    apart = united[1:, 0] - united[:-1, 1] > longest
    first, last = np.append(True, apart)[: len(united)], np.append(apart, True)[: len(united)]
    return np.stack([united[first, 0], united[last, 1]], axis=1)


def union(intervals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Union of intervals, float64 [interval, 2], as sorted, disjoint ones; such that touch become one."""
    ordered = intervals[np.argsort(intervals[:, 0], kind="stable")]
    if not len(ordered):
        return ordered.reshape(0, 2)
    reach = np.maximum.accumulate(ordered[:, 1])
    begins = np.concatenate([[True], ordered[1:, 0] > reach[:-1]])
    ends = np.concatenate([begins[1:], [True]])
    return np.stack([ordered[begins, 0], reach[ends]], axis=1)
