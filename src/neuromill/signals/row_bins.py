"""Which bin each row of a series belongs to that has one row per bin, on a clock that trembles or drifts."""

from __future__ import annotations

from math import floor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIT_ROWS = 11  # whose median phase starts a stretch: one late row does not move it
FOLLOW = 0.1  # of a row's difference is taken over by the phase: a clock 1 % off is followed 0.1 bin behind
HALF = 0.5
GAP_BINS = 1.5
TREMBLE = 0.25  # of a bin: after a gap, a row further than this from the old phase begins a stretch of its own


def number_rows(middles: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bins of rows that are about one bin wide; consecutive rows come to consecutive bins.

    The first row of a stretch goes to the bin that holds its middle, by the median phase of the first rows. From
    there rows are numbered by rounding their distance in bins, so a middle that trembles across an edge moves nothing.
    The phase follows a clock that drifts. Where it has moved by half a bin, it is looked at anew: if the middles left
    their bins by then, one bin is left out, or two rows share one, which no numbering can avoid.

    Parameters
    ----------
    middles
        float64 [row] ascending: middle of each row, in bins from the start of the grid.

    Returns
    -------
    ndarray
        int64 [row], never going back; negative before the grid.
    """
    out = np.empty(len(middles), np.int64)
    phase, anchor, last = 0.0, 0.0, -np.inf
    for row, middle in enumerate(middles.tolist()):
        step = middle - last
        place = round(middle - phase)
        if row == 0 or (step > GAP_BINS and abs(middle - phase - place) > TREMBLE):
            phase = anchor = _phase(middles[row : row + FIT_ROWS])
            place = round(middle - phase)
        phase += FOLLOW * (middle - phase - place)
        if abs(phase - anchor) >= HALF:
            moved = floor(phase)
            place, phase = place + moved, phase - moved
            anchor = phase
        out[row], last = place, middle
    return np.maximum.accumulate(out) if len(out) else out


def shared_and_skipped(bins: NDArray[np.int64], middles: NDArray[np.float64]) -> tuple[int, int]:
    """How many rows share a bin with the one before, and how many bins are left out although no row is missing.

    ``bins`` int64 [row] are those of ``number_rows`` for ``middles``, float64 [row] in bins.
    """
    steps = np.diff(bins)
    whole = np.maximum(np.rint(np.diff(middles)), 1)
    return int((steps == 0).sum()), int(np.maximum(steps - whole, 0).sum())


def _phase(middles: NDArray[np.float64]) -> float:
    """Where in its bin the middle of the first row lies, 0 to 1, by the median of the rows that follow it."""
    distance = middles - middles[0]
    first = float(middles[0] + np.median(distance - np.rint(distance)))
    return first - floor(first)
