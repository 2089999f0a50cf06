"""Whole microseconds: edges that are decimals, and which bins an interval holds."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records.ticks import TICKS, bin_edges, bins_within, is_width, tick, ticks_of


@pytest.mark.parametrize(
    ("seconds", "ticks"),
    [(0.58, 580_000), (29 * 0.02, 580_000), (0.1 + 0.2, 300_000), (-0.02, -20_000), (5e-7, 0), (1.5e-6, 2)],
)
def test_seconds_become_whole_microseconds(seconds: float, ticks: int) -> None:
    assert tick(seconds) == ticks
    assert ticks_of([seconds]) == [ticks]


@pytest.mark.parametrize(
    ("seconds", "fits"),
    [
        (0.02, True),
        (0.016667, True),
        (1e-6, True),
        (3600.0, True),
        (1 / 60, False),
        (1.5e-6, False),
        (4e-7, False),
        (0.0, False),
        (-0.02, False),
        (float("nan"), False),
        (float("inf"), False),
    ],
)
def test_widths_of_bins(seconds: float, fits: bool) -> None:  # noqa: FBT001
    assert is_width(seconds) is fits


@given(st.integers(-(10**9), 10**12), st.integers(1, 10**7), st.integers(0, 50))
def test_edges_are_the_doubles_nearest_to_the_decimals(start: int, width: int, n_bins: int) -> None:
    edges = bin_edges(start / TICKS, width / TICKS, n_bins)
    assert edges.tolist() == [float(Fraction(start + number * width, TICKS)) for number in range(n_bins + 1)]


@given(
    st.lists(st.tuples(st.integers(-(10**6), 10**12), st.integers(0, 10**9)), max_size=9),
    st.integers(1, 10**7),
    st.integers(0, 10**6),
)
def test_bins_within_intervals(intervals: list[tuple[int, int]], width: int, n_bins: int) -> None:
    starts = np.array([start for start, _ in intervals], np.float64)
    stops = np.array([start + length for start, length in intervals], np.float64)
    first, stop = bins_within(starts, stops, width, n_bins)
    assert (first.dtype, stop.dtype) == (np.int64, np.int64)
    for a, b, (start, length) in zip(first.tolist(), stop.tolist(), intervals, strict=True):
        assert a == min(max(ceil(Fraction(start, width)), 0), n_bins)
        assert b == min(max(floor(Fraction(start + length, width)), 0), n_bins)
