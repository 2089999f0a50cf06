"""Stamps on one clock: what repeats is merged, what restarts is laid out, nothing is lost."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuromill.readers.clocks import (
    BlockClock,
    change_points,
    joined,
    lay_out,
    merge_repeats,
    run_spans,
    run_starts,
    stretches,
    union,
)

SECONDS = st.integers(-(10**6), 10**6).map(lambda n: n / 1000)
STAMPS = st.lists(SECONDS, max_size=50).map(np.array).map(lambda a: a.astype(float))
ASCENDING = STAMPS.map(np.sort)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Stamps that go back between blocks and nowhere else, and the number of each stamp's block."""
    pieces = [np.sort(draw(st.lists(SECONDS, min_size=1, max_size=8)))]
    for _ in range(draw(st.integers(0, 4))):
        piece = np.sort(draw(st.lists(SECONDS, min_size=1, max_size=8)))
        pieces.append(piece - piece[0] + pieces[-1][-1] - draw(st.integers(1, 10**6)) / 1000)
    return np.concatenate(pieces), np.repeat(np.arange(len(pieces)), [len(p) for p in pieces])


@given(STAMPS)
def test_runs_are_the_longest_stretches_that_never_go_back(stamps: np.ndarray) -> None:
    starts = run_starts(stamps)
    pieces = np.split(stamps, starts[1:])
    assert all((np.diff(piece) >= 0).all() for piece in pieces)
    assert all(later[0] < earlier[-1] for earlier, later in pairwise(pieces))
    assert len(run_spans(stamps)) == len(starts)


@given(blocks(), st.integers(1, 10**5).map(lambda n: n / 1000))
def test_blocks_laid_out_are_ascending_a_gap_apart_and_keep_their_steps(
    made: tuple[np.ndarray, np.ndarray], gap: float
) -> None:
    stamps, block = made
    clock = lay_out([run_spans(stamps)], gap)
    moved = stamps + clock.shifts(stamps)
    assert len(clock) == block[-1] + 1
    assert (np.diff(moved) >= 0).all()
    borders = np.flatnonzero(np.diff(block))
    np.testing.assert_allclose(np.diff(moved)[borders], gap, rtol=0, atol=1e-6)
    inside = np.setdiff1d(np.arange(len(stamps) - 1), borders)
    np.testing.assert_allclose(np.diff(moved)[inside], np.diff(stamps)[inside], rtol=0, atol=1e-6)
    np.testing.assert_allclose(clock.joins, moved[borders] + gap / 2, rtol=0, atol=1e-6)
    assert moved[0] == stamps[0]


def test_a_block_reaches_as_far_as_any_clock_says() -> None:
    clock = lay_out([np.array([[1.0, 5.0], [0.0, 2.0]]), np.array([[0.5, 4.0], [1.0, 9.0]])], 10.0)
    assert clock.offsets == (0.0, 15.0)
    assert clock.spans == ((0.5, 5.0), (15.0, 24.0))
    assert clock.joins == (10.0,)


def test_clocks_of_other_block_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="number of blocks"):
        lay_out([np.array([[0.0, 1.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])], 1.0)
    with pytest.raises(ValueError, match="2 blocks"):
        BlockClock((0.0, 60.0)).shifts(np.array([1.0, 2.0, 3.0]))


def test_one_block_moves_nothing_even_where_times_go_back() -> None:
    assert not BlockClock().shifts(np.array([3.0, 1.0, 2.0])).any()
    assert len(lay_out([], 1.0)) == 1


@given(ASCENDING, st.data())
def test_merged_stamps_are_unique_and_rows_their_means(stamps: np.ndarray, data: st.DataObject) -> None:
    values = data.draw(arrays(float, (len(stamps), 2), elements=st.integers(-9, 9).map(float) | st.just(np.nan)))
    merged = merge_repeats(stamps, values)
    assert (np.diff(merged.stamps) > 0).all()
    assert merged.n_merged == len(stamps) - len(set(stamps.tolist()))
    for stamp, row in zip(merged.stamps, merged.values, strict=True):
        for mine, column in zip(row, values[stamps == stamp].T, strict=True):
            observed = column[np.isfinite(column)]
            np.testing.assert_allclose(mine, observed.mean() if observed.size else np.nan)


@given(ASCENDING, st.data())
def test_merging_twice_is_merging_once(stamps: np.ndarray, data: st.DataObject) -> None:
    values = data.draw(arrays(float, (len(stamps), 1), elements=st.integers(-9, 9).map(float)))
    once = merge_repeats(stamps, values)
    twice = merge_repeats(once.stamps, once.values)
    assert twice.n_merged == 0
    np.testing.assert_array_equal(once.values, twice.values)


HELD = [
    ([1, 1, 1, 1], [1, 0, 0, 1]),
    ([1, 1, 2, 2, 2], [1, 0, 1, 0, 1]),
    ([1, 2, 3], [1, 1, 1]),
    ([5, 5, np.nan, np.nan, np.nan, 5, 5], [1, 1, 1, 0, 1, 1, 1]),
    ([7], [1]),
    ([], []),
]


@pytest.mark.parametrize(("values", "kept"), HELD)
def test_change_points_of_held_samples(values: list[float], kept: list[int]) -> None:
    column = np.array(values, dtype=float)[:, None]
    assert change_points(np.arange(float(len(values))), column).astype(int).tolist() == kept


def test_a_value_held_up_to_a_gap_is_known_up_to_there() -> None:
    stamps = np.array([0, 1, 2, 3, 100, 101, 102.0])
    assert change_points(stamps, np.ones((7, 2))).tolist() == [True, False, False, True, True, False, True]


@given(st.lists(st.tuples(SECONDS, SECONDS), max_size=20))
def test_union_covers_what_any_interval_covers(pairs: list[tuple[float, float]]) -> None:
    intervals = np.sort(np.array(pairs, dtype=float).reshape(-1, 2), axis=1)
    joined = union(intervals)
    assert (joined[1:, 0] > joined[:-1, 1]).all()

    def covered(times: np.ndarray, by: np.ndarray) -> list[bool]:
        return [bool(((by[:, 0] <= t) & (t <= by[:, 1])).any()) for t in times]

    probes = np.concatenate([intervals.ravel(), intervals.ravel() + 5e-4, intervals.ravel() - 5e-4])
    assert covered(probes, joined) == covered(probes, intervals)


@given(st.lists(st.integers(0, 400), max_size=30), st.lists(st.integers(0, 400), max_size=30), st.integers(1, 50))
def test_pooled_stretches_are_those_of_all_times(one: list[int], other: list[int], longest: int) -> None:
    first, second = (np.sort(np.array(times, float)) for times in (one, other))
    pooled = joined(np.concatenate([stretches(first, longest), stretches(second, longest)]), longest)
    np.testing.assert_array_equal(pooled, stretches(np.sort(np.concatenate([first, second])), longest))
