"""Time in whole microseconds, in which bins, intervals and trials are compared: every edge is a decimal there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

TICKS = 1_000_000  # per second


def tick(seconds: float) -> int:
    """One moment or length as whole microseconds, half to even."""
    return round(seconds * TICKS)


def ticks_of(seconds: ArrayLike) -> NDArray[np.float64]:
    """Seconds as whole microseconds, half to even; in float64, where they are exact up to 142 years."""
    return np.rint(np.multiply(seconds, TICKS, dtype=np.float64))


def is_width(seconds: float) -> bool:
    """Whether bins can be this wide: a positive whole number of microseconds, as far as a double can say it."""
    ticks = seconds * TICKS
    return bool(np.isfinite(ticks)) and round(ticks) >= 1 and abs(ticks - round(ticks)) < 1e-9 * ticks


def bin_edges(start_seconds: float, bin_seconds: float, n_bins: int) -> NDArray[np.float64]:
    """[bin + 1] seconds: where bins start, and where the last one ends; the doubles nearest to the decimals."""
    return (tick(start_seconds) + np.arange(n_bins + 1) * tick(bin_seconds)) / TICKS


def bins_within(
    starts: NDArray[np.float64], stops: NDArray[np.float64], width: int, n_bins: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bins that lie wholly in intervals: those from ``first`` up to before ``stop``, none where it is not above.

    Parameters
    ----------
    starts, stops
        float64 [interval] whole microseconds since the start of bin 0.
    width
        Of a bin, in microseconds.
    n_bins
        How many there are.

    Returns
    -------
    first, stop : ndarray
        int64 [interval], 0 to ``n_bins``.
    """
    first, stop = (np.clip(edge, 0, n_bins).astype(np.int64) for edge in (-(-starts // width), stops // width))
    return first, stop
