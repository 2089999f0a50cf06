"""Behaviour on the clock of the bins: per stretch, never over a gap, one declared moment per bin.

The value of a bin stands for its *end* (``moment``). A decoder that predicts it has seen the spikes up to that very
moment, and none that come after it; a value from the start of the bin would let it see 20 ms of the future. The
published road takes the start: ``moment="start"``. A series that has one value per bin already is taken as given.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from neuromill.records import FailureCode, RecordingError
from neuromill.records.ticks import TICKS, ticks_of
from neuromill.signals.row_bins import number_rows, shared_and_skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from neuromill.signals.binning import BinGrid
    from neuromill.signals.spike_steps import SpikeStep

Moment = Literal["start", "centre", "end"]
MOMENTS: dict[str, float] = {"start": 0.0, "centre": 0.5, "end": 1.0}
GAP_STEPS = 1.5  # of the usual step: beyond it a sample is missing
TREMBLE = 0.1  # of the usual step: how far the steps of a regular clock may be from a multiple of it
REGULAR_SHARE = 0.9  # of the steps: a random clock has a quarter of its steps near a multiple of the usual one
ONE_PER_BIN = 0.01  # of a bin: how far the usual step may be from it where a series has one value per bin
HALF_TAPS = 10  # per sample of the slower rate; this and the window are those of scipy.signal.resample_poly
KAISER_BETA = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class OnGrid:
    """Behaviour per bin.

    Attributes
    ----------
    values
        float32 [bin, covariate], NaN where not ``valid``.
    valid
        bool [bin, covariate].
    n_shared
        Of a series with one value per bin: values that share their bin with the one before; it holds their mean.
    n_skipped
        Of such a series: bins left out between two values although none is missing.
    """

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    n_shared: int = 0
    n_skipped: int = 0


def to_grid(
    stamps: NDArray[np.float64],
    values: NDArray[np.floating],
    grid: BinGrid,
    segment: NDArray[np.int32],
    derivative: str = "",
    bin_edge: str = "",
    *,
    moment: Moment = "end",
    longest_step: float | None = None,
) -> OnGrid:
    """Resample one behaviour series.

    Gaps, NaN and borders of segments cut the series into stretches. Nothing outside a stretch has a part in its
    values, and a bin whose moment lies in no stretch has none. A gap is a step longer than 1.5 usual ones that is
    also longer than a bin: a hole below that holds the moment of one bin at most.

    Where samples are regular and come faster than bins, a stretch first goes through the low-pass of
    ``scipy.signal.resample_poly(..., padtype="line")`` and equals its output wherever samples meet moments. Between
    samples it is linear, as is everything on other clocks.

    Parameters
    ----------
    stamps
        float64 [time] seconds, strictly increasing.
    values
        [time, covariate]; NaN where the behaviour was not observed.
    segment
        int32 [bin], -1 where nothing was observed (``binning.segments``).
    derivative
        ``before`` or ``after``: ``numpy.gradient`` per second of the samples or of the bins; "" leaves the values.
    bin_edge
        ``start`` or ``end``: which edge of its bin a stamp is, of a series with one value per bin, which is then
        taken as given, row by row (``row_bins.number_rows``); "" for samples.
    moment
        Of a bin, for which its value stands.
    longest_step
        Seconds between samples beyond which there is a gap, where the rule above is not right: change points of a
        held value may lie far apart.

    Raises
    ------
    RecordingError
        ``bad_timestamps`` where stamps do not increase, are not finite, or are not as many as the values.
    """
    _require_clock(stamps, values)
    source = _Samples.of(ticks_of(stamps) - float(grid.origin), values, grid.width, longest_step, derivative)
    if bin_edge and abs(source.step - grid.width) <= ONE_PER_BIN * grid.width:
        given = _as_given(source, 0.5 if bin_edge == "start" else -0.5, grid, segment)
        derivative = derivative and "after"
    else:
        moments = (np.arange(grid.n_bins, dtype=np.float64) + MOMENTS[moment]) * grid.width
        given = _Given(_resampled(source, moments, segment, grid.width))
    out = given.values
    if derivative == "after":
        out = _by_stretch(out, segment, lambda run: _gradient(run, np.arange(len(run), dtype=np.float64) * grid.width))
    made = out.astype(np.float32)
    return OnGrid(made, np.isfinite(made), given.n_shared, given.n_skipped)


def scale_of(values: NDArray[np.float32], valid: NDArray[np.bool_], quantile: float) -> NDArray[np.float32]:
    """Scale of each covariate: a quantile of its absolute value, linear between samples (NDT3 section 2.4).

    Returns
    -------
    ndarray
        float32 [covariate]; 1 where that is zero, or nothing is valid.
    """
    scale = np.ones(values.shape[1], np.float32)
    for column in range(values.shape[1]):
        known = np.abs(values[valid[:, column], column]).astype(np.float64)
        found = np.float32(np.quantile(known, quantile)) if len(known) else np.float32(0)
        if found >= np.finfo(np.float32).tiny:
            scale[column] = found
    return scale


def mask_on_grid(stamps: NDArray[np.float64], bools: NDArray[np.bool_], grid: BinGrid) -> NDArray[np.bool_]:
    """Lay a mask over bins: True where it is True from the start of a bin to its end, both included.

    Each value holds until the next, the last one to the end; before the first nothing is said, which is False. Both
    edges count because nothing tells whether a stamp begins or ends its bin: no bin passes that the mask excludes.

    Parameters
    ----------
    stamps
        float64 [time] seconds, ascending.
    bools
        bool [time].
    """
    edges = grid.origin + np.arange(grid.n_bins + 1) * grid.width
    last = np.searchsorted(ticks_of(stamps), edges, side="right") - 1  # the value that holds at each edge
    n_false = np.concatenate([[0], np.cumsum(~np.asarray(bools, bool))])
    before, after = last[:-1], last[1:]
    passed: NDArray[np.bool_] = (before >= 0) & (n_false[after + 1] == n_false[np.maximum(before, 0)])
    return passed


def apply_steps(
    values: NDArray[np.float32], steps: Sequence[SpikeStep], grid: BinGrid, segment: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Run declared steps over float32 [bin, covariate]; NaN stays NaN and takes no part."""
    out = values.astype(np.float64)
    for step in steps:
        n_back, n_ahead = step.reach(grid.bin_seconds)
        out = _by_stretch(out, segment, partial(boxcar, n_back=n_back, n_ahead=n_ahead))
    return out.astype(np.float32)


def boxcar(x: NDArray[np.float64], n_back: int, n_ahead: int) -> NDArray[np.float64]:
    """Mean of each value, ``n_back`` before it and ``n_ahead`` after it; at the ends, of those that there are."""
    sums = np.concatenate([[0.0], np.cumsum(x - x[0])])
    here = np.arange(len(x))
    first, stop = np.maximum(here - n_back, 0), np.minimum(here + n_ahead + 1, len(x))
    means: NDArray[np.float64] = (sums[stop] - sums[first]) / (stop - first) + x[0]
    return means


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """Values float64 [bin, covariate] before derivatives, and the counts of ``OnGrid``."""

    values: NDArray[np.float64]
    n_shared: int = 0
    n_skipped: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Samples:
    """A behaviour series in microseconds from the start of the grid.

    Attributes
    ----------
    ticks
        [time] microseconds.
    values
        [time, covariate].
    step
        Usual distance of two samples.
    decimation
        Samples per bin to the nearest whole number, for the low-pass; 1 where the clock is not regular.
    longest
        Distance beyond which there is a gap.
    differentiate
        Whether stretches are differentiated before anything else.
    """

    ticks: NDArray[np.float64]
    values: NDArray[np.float64]
    step: float
    decimation: int
    longest: float
    differentiate: bool

    @classmethod
    def of(
        cls,
        ticks: NDArray[np.float64],
        values: NDArray[np.floating],
        width: int,
        longest_step: float | None,
        derivative: str,
    ) -> Self:
        """Look at the clock of a series."""
        steps = np.diff(ticks)
        step = max(1.0, float(np.median(steps))) if len(steps) else float(width)
        regular = len(steps) > 0 and float(np.mean(_fits(steps, step))) >= REGULAR_SHARE
        longest = max(GAP_STEPS * step, float(width)) if longest_step is None else longest_step * TICKS
        decimation = round(width / step) if regular else 1
        return cls(ticks, np.asarray(values, np.float64), step, decimation, longest, derivative == "before")

    def stretches(self, first: float, stop: float, column: int, *, with_stop: bool) -> Iterator[slice]:
        """Rows from ``first`` to ``stop`` without NaN and gaps between them."""
        a = int(np.searchsorted(self.ticks, first))
        b = int(np.searchsorted(self.ticks, stop, side="right" if with_stop else "left"))
        rows = a + np.flatnonzero(np.isfinite(self.values[a:b, column]))
        breaks = (np.diff(rows) > 1) | (np.diff(self.ticks[rows]) > self.longest)
        yield from _runs(rows, breaks)

    def at(self, rows: slice, column: int, moments: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of one stretch at moments within it."""
        ticks, x = self.ticks[rows], self.values[rows, column]
        if self.differentiate:
            x = _gradient(x, ticks)
        steps = np.diff(ticks)
        if self.decimation > 1 and _fits(steps, self.step).all():
            number = np.concatenate([[0.0], np.cumsum(np.rint(steps / self.step))])
            every = np.arange(number[-1] + 1)  # holes shorter than a bin are filled
            ticks, x = np.interp(every, number, ticks), low_pass(np.interp(every, number, x), self.decimation)
        return np.interp(moments, ticks, x)


def low_pass(x: NDArray[np.float64], decimation: int) -> NDArray[np.float64]:
    """Filter as ``scipy.signal.resample_poly(x, 1, decimation, padtype="line")`` does, at the rate of the input."""
    from scipy.signal import firwin, oaconvolve

    taps = firwin(2 * HALF_TAPS * decimation + 1, 1 / decimation, window=("kaiser", KAISER_BETA))
    line = np.linspace(x[0], x[-1], len(x))
    return np.asarray(oaconvolve(x - line, taps, mode="same") + line, np.float64)


def _fits(steps: NDArray[np.float64], step: float) -> NDArray[np.bool_]:
    """Whether steps are those of a regular clock that may have left out samples."""
    n_steps = np.maximum(np.rint(steps / step), 1)
    return np.abs(steps - n_steps * step) <= TREMBLE * step


def _resampled(
    source: _Samples, moments: NDArray[np.float64], segment: NDArray[np.int32], width: int
) -> NDArray[np.float64]:
    n_covariates = source.values.shape[1]
    out = np.full((len(moments), n_covariates), np.nan)
    for bins, first, stop, with_stop in _spans(segment, width):
        own = moments[bins]
        for column in range(n_covariates):
            for rows in source.stretches(first, stop, column, with_stop=with_stop):
                ends = source.ticks[rows.start], source.ticks[rows.stop - 1]
                a, b = int(np.searchsorted(own, ends[0])), int(np.searchsorted(own, ends[1], side="right"))
                if a < b:
                    out[bins.start + a : bins.start + b, column] = source.at(rows, column, own[a:b])
    return out


def _spans(segment: NDArray[np.int32], width: int) -> Iterator[tuple[slice, float, float, bool]]:
    """Bins of each segment, the time in microseconds whose samples are theirs, and whether its end is part of it.

    A sample on the edge of two segments is the first of the later one. Before the first segment and after the last
    one, samples go on: nothing is joined there, and a filter does best where it sees them.
    """
    runs = list(_segment_runs(segment))
    for i, bins in enumerate(runs):
        first = bins.start * width if i > 0 else -np.inf
        stop = bins.stop * width if i + 1 < len(runs) else np.inf
        follows = i + 1 < len(runs) and runs[i + 1].start == bins.stop
        yield bins, first, stop, not follows


def _as_given(source: _Samples, middle: float, grid: BinGrid, segment: NDArray[np.int32]) -> _Given:
    """Values by the numbers of their rows, whose middles lie this part of a bin after their stamps."""
    middles = source.ticks / grid.width + middle
    bins = number_rows(middles)
    first, stop = (int(row) for row in np.searchsorted(bins, (0, grid.n_bins)))
    out = np.full((grid.n_bins, source.values.shape[1]), np.nan)
    own, starts = np.unique(bins[first:stop], return_index=True)
    if len(own):
        out[own] = _means(source.values[first:stop], starts)
    out[segment < 0] = np.nan
    return _Given(out, *shared_and_skipped(bins[first:stop], middles[first:stop]))


def _means(x: NDArray[np.float64], starts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Mean of the numbers among the rows from each start to the next; NaN where there is none."""
    known = np.isfinite(x)
    n_known = np.add.reduceat(known, starts, axis=0, dtype=np.int64)
    sums = np.add.reduceat(np.where(known, x, 0.0), starts, axis=0)
    return np.where(n_known > 0, sums / np.maximum(n_known, 1), np.nan)


def _by_stretch(
    x: NDArray[np.float64],
    segment: NDArray[np.int32],
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """Apply a function to each run of bins of one segment without NaN, for each covariate."""
    out = np.full_like(x, np.nan)
    for column in range(x.shape[1]):
        bins = np.flatnonzero(np.isfinite(x[:, column]))
        breaks = (np.diff(bins) > 1) | (np.diff(segment[bins]) != 0)
        for run in _runs(bins, breaks):
            out[run, column] = function(x[run, column])
    return out


def _gradient(x: NDArray[np.float64], ticks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Derivative per second; a single value has none."""
    return np.gradient(x, ticks / TICKS) if len(x) > 1 else np.full(len(x), np.nan)


def _segment_runs(segment: NDArray[np.int32]) -> Iterator[slice]:
    """Bins of each segment, in order."""
    bins = np.flatnonzero(segment >= 0)
    yield from _runs(bins, (np.diff(bins) > 1) | (np.diff(segment[bins]) != 0))


def _runs(rows: NDArray[np.intp], breaks: NDArray[np.bool_]) -> Iterator[slice]:
    """Slices of consecutive rows, cut where ``breaks``, one per pair of neighbours, says so."""
    if len(rows):
        cuts = np.flatnonzero(breaks)
        firsts, lasts = rows[np.concatenate([[0], cuts + 1])], rows[np.concatenate([cuts, [len(rows) - 1]])]
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            yield slice(first, last + 1)


def _require_clock(stamps: NDArray[np.float64], values: NDArray[np.floating]) -> None:
    if len(stamps) != len(values):
        raise RecordingError(FailureCode.BAD_TIMESTAMPS, f"{len(stamps)} stamps for {len(values)} values")
    if not (np.isfinite(stamps).all() and (np.diff(stamps) > 0).all()):
        raise RecordingError(FailureCode.BAD_TIMESTAMPS, "stamps of behaviour do not increase")
