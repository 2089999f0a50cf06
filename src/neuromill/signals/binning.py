"""Spikes per bin: exact edges, counts that never wrap, memory of one unit beside the result.

Bin i of a grid holds the spikes with start + i * width <= t < start + (i + 1) * width. Start and width are whole
microseconds, so that every edge is a decimal. A time less than a nanosecond before an edge lies on it: a file writes
times as decimals and we read doubles, 29 * 0.02 s is 0.58, and 0.58 / 0.02 is 28.999999999999996. Where doubles are
coarser than that (seconds since 1970 come in steps of 0.24 us), four of their steps take the place of the nanosecond.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.records.ticks import TICKS, bin_edges, bins_within, is_width, tick, ticks_of
from neuromill.signals.row_bins import number_rows, shared_and_skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

SLACK = 1e-3  # microseconds; times of 0.5 us resolution exist, so whole microseconds would move spikes
SLACK_STEPS = 4  # of a double: one each for the time, the product, the difference and the quotient
MAX_COUNT = 255
MAX_BINS = 2**27  # a month of 20 ms bins: a longer recording is a clock that jumped
MAX_TICKS = 2.0**52  # up to here products and quotients of whole ticks are exact in float64
UNITS_AT_ONCE = 64  # laid into [time, unit] together: half the time of 8 or 32 at once
SPIKES_AT_ONCE = 2**14  # their arithmetic stays in the cache of a core
RASTER_ROWS_PER_BIN = 4  # from here on a row that straddles an edge is off by an eighth of a bin at most
MAX_SMALL = 2**31 - 1
REBIN_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class BinGrid:
    """The clock of a prepared recording.

    Attributes
    ----------
    start_seconds
        Start of bin 0, on the clock of the recording; a whole number of microseconds.
    n_bins
        Bins; an incomplete last one does not count.
    bin_seconds
        Width; a whole number of microseconds.

    Raises
    ------
    ConfigError
        If the width is no positive whole number of microseconds.
    """

    start_seconds: float
    n_bins: int
    bin_seconds: float

    def __post_init__(self) -> None:
        if not is_width(self.bin_seconds):
            raise ConfigError(
                "width of a bin is no whole number of microseconds",
                where=f"bin_seconds: {self.bin_seconds}",
                next_step="round it, e.g. 0.016667 for 60 Hz",
            )

    @property
    def width(self) -> int:
        """Width of a bin in microseconds."""
        return tick(self.bin_seconds)

    @property
    def origin(self) -> int:
        """Start of bin 0 in microseconds."""
        return tick(self.start_seconds)

    @property
    def stop_seconds(self) -> float:
        """End of the last bin."""
        return (self.origin + self.n_bins * self.width) / TICKS

    @property
    def slack(self) -> float:
        """Microseconds before an edge that count as the edge."""
        largest = max(abs(self.origin), abs(self.origin + self.n_bins * self.width))
        return max(SLACK, SLACK_STEPS * float(np.spacing(float(largest))))

    def edges(self) -> NDArray[np.float64]:
        """[bin + 1] seconds: where bins start, and where the last one ends; the doubles nearest to the decimals."""
        return bin_edges(self.start_seconds, self.bin_seconds, self.n_bins)


@dataclass(frozen=True, slots=True, eq=False)
class UnitCounts:
    """Spikes of one unit.

    Attributes
    ----------
    counts
        uint8 [bin].
    n_before, n_after
        Spikes before the first bin and after the last; they are in no bin.
    n_saturated
        Bins that hold more than 255 spikes and say 255.
    """

    counts: NDArray[np.uint8]
    n_before: int
    n_after: int
    n_saturated: int


@dataclass(frozen=True, slots=True, eq=False)
class SessionCounts:
    """Spikes of all units of a recording: counts uint8 [bin, unit], the rest as ``UnitCounts``, int64 [unit].

    Of rows as wide as a bin, ``n_shared`` share theirs with the row before, whose counts are added, and ``n_skipped``
    bins were left out between two rows although none is missing.
    """

    counts: NDArray[np.uint8]
    n_before: NDArray[np.int64]
    n_after: NDArray[np.int64]
    n_saturated: NDArray[np.int64]
    n_shared: int = 0
    n_skipped: int = 0


class _Scratch:
    """Memory for the arithmetic of one unit; fresh pages for each unit took longer than all the rest."""

    def __init__(self, grid: BinGrid) -> None:
        self._n_bins, self._width, self._origin = grid.n_bins, grid.width, grid.origin - grid.width - grid.slack
        self._ticks, self._small = np.empty(SPIKES_AT_ONCE), np.empty(SPIKES_AT_ONCE, np.int32)
        self._bins = np.empty(0, np.int64)

    def count(self, times: NDArray[np.float64]) -> tuple[NDArray[np.int64], int, int, int]:
        """Counts up to 255 [bin], and how many spikes are before, are after, and how many bins are saturated."""
        _require_ascending(times)
        if len(times) > len(self._bins):
            self._bins = np.empty(len(times), np.int64)
        bins = self._bins[: len(times)]
        for start in range(0, len(times), SPIKES_AT_ONCE):
            self._number(times[start : start + SPIKES_AT_ONCE], bins[start : start + SPIKES_AT_ONCE])
        first, stop = (int(spike) for spike in np.searchsorted(bins, (1, self._n_bins + 1)))
        counts = np.bincount(bins[first:stop], minlength=self._n_bins + 1)[1:]
        n_saturated = 0
        if stop - first > MAX_COUNT and counts.max() > MAX_COUNT:
            n_saturated = int(np.count_nonzero(counts > MAX_COUNT))
            np.minimum(counts, MAX_COUNT, out=counts)
        return counts, first, len(times) - stop, n_saturated

    def _number(self, times: NDArray[np.float64], out: NDArray[np.int64]) -> None:
        """Bins of spikes, counted from 1; 0 or less before the grid."""
        ticks = self._ticks[: len(times)]
        np.multiply(times, TICKS, out=ticks)
        np.subtract(ticks, self._origin, out=ticks)
        np.multiply(ticks, 1 / self._width, out=ticks)
        if ticks[0] > -MAX_SMALL and ticks[-1] < MAX_SMALL:  # by way of int32 the cast takes 0.6 of its time
            np.copyto(self._small[: len(ticks)], ticks, casting="unsafe")
            np.copyto(out, self._small[: len(ticks)])
        else:
            np.copyto(out, ticks, casting="unsafe")


def grid_over(intervals: NDArray[np.float64], bin_seconds: float) -> BinGrid:
    """Bins from the first moment of observation to the last; what is left over at the end is no bin.

    Parameters
    ----------
    intervals
        float64 [interval, 2] seconds, sorted.

    Raises
    ------
    RecordingError
        ``bad_timestamps`` for intervals that are not finite or end before they start, ``too_short`` for less than a
        bin, ``too_large`` for more than ``MAX_BINS``.
    """
    if not len(intervals):
        raise RecordingError(FailureCode.TOO_SHORT, "recording was never observed")
    first, last = float(ticks_of(intervals[0, 0])), float(ticks_of(intervals[-1, 1]))
    if not (np.isfinite(intervals).all() and (intervals[:, 1] >= intervals[:, 0]).all() and last >= first):
        raise RecordingError(FailureCode.BAD_TIMESTAMPS, "intervals of observation are no intervals")
    grid = BinGrid(first / TICKS, 0, bin_seconds)
    n_bins = int((last - first) // grid.width)
    if n_bins == 0:
        raise RecordingError(FailureCode.TOO_SHORT, f"recording is shorter than a bin of {bin_seconds} s")
    if n_bins > MAX_BINS or max(abs(first), abs(last)) > MAX_TICKS:
        raise RecordingError(
            FailureCode.TOO_LARGE,
            f"recording spans {(last - first) / TICKS:.0f} s",
            next_step="its clock may have jumped",
        )
    return BinGrid(first / TICKS, n_bins, bin_seconds)


def count_spikes(times: NDArray[np.float64], grid: BinGrid) -> UnitCounts:
    """Count one unit.

    Parameters
    ----------
    times
        float64 [spike] seconds, ascending.

    Raises
    ------
    RecordingError
        ``bad_timestamps`` where times go back or are not finite.
    """
    counts, n_before, n_after, n_saturated = _Scratch(grid).count(times)
    return UnitCounts(counts.astype(np.uint8), n_before, n_after, n_saturated)


def count_session(times: Iterable[NDArray[np.float64]], n_units: int, grid: BinGrid) -> SessionCounts:
    """Count all units, one after the other: their spike times need not be in memory together.

    Parameters
    ----------
    times
        Spike times of each unit, as ``count_spikes`` takes them, in the order of the columns.
    n_units
        How many there are.

    Raises
    ------
    RecordingError
        As ``count_spikes``.
    """
    counts = np.empty((grid.n_bins, n_units), np.uint8)
    lost = np.zeros((3, n_units), np.int64)
    rows = np.empty((min(UNITS_AT_ONCE, n_units), grid.n_bins), np.uint8)
    unit, scratch = -1, _Scratch(grid)
    for unit, unit_times in enumerate(times):
        rows[unit % UNITS_AT_ONCE], *lost[:, unit] = scratch.count(unit_times)
        first = unit - unit % UNITS_AT_ONCE
        if unit + 1 in (first + UNITS_AT_ONCE, n_units):
            counts[:, first : unit + 1] = rows[: unit + 1 - first].T
    if unit + 1 != n_units:
        raise ValueError(f"spike times of {unit + 1} units, {n_units} were announced")
    return SessionCounts(counts, *lost)


def rebin_session(
    stamps: NDArray[np.float64], counts: NDArray[np.integer], width_seconds: float, bin_edge: str, grid: BinGrid
) -> SessionCounts:
    """Lay counts that a file holds into bins; a row goes to the bin that holds the middle of its interval.

    Rows as wide as a bin are taken one by one (``row_bins.number_rows``), also where their stamps tremble; a bin
    without a row is 0.

    Parameters
    ----------
    stamps
        float64 [row] seconds, ascending.
    counts
        [row, unit] non-negative integers.
    width_seconds
        Width of a row: that of a bin, a whole fraction of it, or anything below a quarter of it.
    bin_edge
        ``start`` or ``end``: which edge of its row a stamp is.

    Raises
    ------
    RecordingError
        ``bad_timestamps`` where stamps go back, ``unsupported_format`` where rows do not fit into bins or counts are
        negative.
    """
    _require_ascending(stamps)
    _require_fitting(width_seconds, grid)
    middle = ticks_of(stamps) - grid.origin + width_seconds * TICKS * (0.5 if bin_edge == "start" else -0.5)
    per_bin = round(grid.bin_seconds / width_seconds) == 1
    middle = middle / grid.width
    numbers = number_rows(middle) if per_bin else np.floor(middle).astype(np.int64)
    first, stop = (int(row) for row in np.searchsorted(numbers, (0, grid.n_bins)))
    bins = numbers[first:stop]
    n_units = counts.shape[1]
    out, saturated = np.zeros((grid.n_bins, n_units), np.uint8), np.zeros(n_units, np.int64)
    for rows in _whole_bins(bins, max(1, REBIN_BYTES // (8 * max(n_units, 1)))):
        block = counts[first + rows.start : first + rows.stop]
        if block.min(initial=0) < 0:
            raise RecordingError(FailureCode.UNSUPPORTED_FORMAT, "counts of spikes are negative")
        own, starts = np.unique(bins[rows], return_index=True)
        sums = np.add.reduceat(block, starts, axis=0, dtype=np.int64)
        saturated += np.count_nonzero(sums > MAX_COUNT, axis=0)
        out[own] = np.minimum(sums, MAX_COUNT)
    before, after = (piece.sum(axis=0, dtype=np.int64) for piece in (counts[:first], counts[stop:]))
    odd = shared_and_skipped(bins, middle[first:stop]) if per_bin else (0, 0)
    return SessionCounts(out, before, after, saturated, *odd)


def segments(grid: BinGrid, intervals: NDArray[np.float64], joins: Sequence[float] = ()) -> NDArray[np.int32]:
    """Name the stretches of bins that were observed without a break.

    A bin belongs to a segment if it lies wholly in one interval: of a bin that an interval cuts, the count is too low.
    Intervals that touch are one, unless a join is declared there.

    Parameters
    ----------
    intervals
        float64 [interval, 2] seconds, sorted, disjoint.
    joins
        Seconds at which pieces meet that do not follow on from each other; a bin across one is not observed.

    Returns
    -------
    ndarray
        int32 [bin]: segments counted from 0, -1 where not observed.
    """
    out = np.full(grid.n_bins, -1, np.int32)
    if not len(intervals):
        return out
    cuts = ticks_of(np.sort(np.asarray(joins, np.float64))) - grid.origin
    starts, stops = np.array(list(_pieces(ticks_of(intervals) - grid.origin, cuts))).T
    name = 0
    for first, stop in np.stack(bins_within(starts, stops, grid.width, grid.n_bins), axis=1).tolist():
        if first < stop:
            out[first:stop] = name
            name += 1
    return out


def _pieces(intervals: NDArray[np.float64], joins: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    """Yield intervals with touching ones put together, cut at the joins."""
    apart = np.flatnonzero(intervals[1:, 0] > intervals[:-1, 1]) + 1
    starts = intervals[np.concatenate([[0], apart]), 0]
    stops = intervals[np.concatenate([apart - 1, [len(intervals) - 1]]), 1]
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        inside = joins[(joins > start) & (joins < stop)].tolist()
        yield from zip([start, *inside], [*inside, stop], strict=True)


def _whole_bins(bins: NDArray[np.int64], n_rows: int) -> Iterator[slice]:
    """Runs of about ``n_rows`` rows (at least one bin) that part no bin."""
    start = 0
    while start < len(bins):
        stop = int(np.searchsorted(bins, bins[min(start + n_rows, len(bins)) - 1], side="right"))
        yield slice(start, stop)
        start = stop


def _require_ascending(times: NDArray[np.float64]) -> None:
    if not len(times):
        return
    limit = MAX_TICKS / TICKS
    if not ((times[1:] >= times[:-1]).all() and times[0] >= -limit and times[-1] <= limit):
        raise RecordingError(FailureCode.BAD_TIMESTAMPS, "times go back, or are not finite")


def _require_fitting(width_seconds: float, grid: BinGrid) -> None:
    rows = grid.bin_seconds / width_seconds if width_seconds > 0 else 0.0
    whole = round(rows) >= 1 and abs(rows - round(rows)) < 1e-6 * rows
    if not (np.isfinite(rows) and (whole or rows >= RASTER_ROWS_PER_BIN)):
        raise RecordingError(
            FailureCode.UNSUPPORTED_FORMAT,
            f"counts per {width_seconds} s do not fit into bins of {grid.bin_seconds} s",
            next_step="prepare them at their own width",
        )
