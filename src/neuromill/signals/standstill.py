"""Stretches in which behaviour does not change at all: tracking that ended, with the last value written on.

A rat that rests still moves by a pixel now and then: in a real session of 33 minutes its position stood still for 26 s
at the longest, until tracking ended and 997 s of one value followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_SECONDS = 60.0
LEAST_SHARE = 0.1  # of the samples


@dataclass(frozen=True, slots=True)
class Standstill:
    """A stretch of equal samples: stamps of its first and its last one, and its share of all samples."""

    first_seconds: float
    last_seconds: float
    share: float

    def __str__(self) -> str:
        span = f"{self.first_seconds:.1f} to {self.last_seconds:.1f} s"
        return f"no change from {span} ({self.share:.0%} of the samples): was it tracked there?"


def standstills(stamps: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[Standstill, ...]:
    """Find stretches in which no dimension changes, of ``LEAST_SECONDS`` and ``LEAST_SHARE`` of the samples or more.

    Parameters
    ----------
    stamps
        float64 [time], seconds, increasing.
    values
        float64 [time, dimension]; NaN, where nothing was observed, is no standstill.
    """
    near = np.diff(stamps) < LEAST_SECONDS  # equal values on both sides of a gap say nothing of the time between
    same = np.concatenate(([False], (values[1:] == values[:-1]).all(axis=1) & near, [False]))
    turns = np.diff(same.astype(np.int8))
    firsts, lasts = np.flatnonzero(turns == 1), np.flatnonzero(turns == -1)
    found = [
        Standstill(float(stamps[first]), float(stamps[last]), (last - first + 1) / len(stamps))
        for first, last in zip(firsts, lasts, strict=True)
    ]
    return tuple(
        one for one in found if one.last_seconds - one.first_seconds >= LEAST_SECONDS and one.share >= LEAST_SHARE
    )
