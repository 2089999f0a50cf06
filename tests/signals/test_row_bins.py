"""One row per bin, on clocks that tremble, drift, pause and start anywhere in a bin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from neuromill.signals.binning import BinGrid, rebin_session
from neuromill.signals.covariates import to_grid
from neuromill.signals.row_bins import number_rows, shared_and_skipped


@given(
    st.floats(0, 3), st.integers(0, 10**6), st.sampled_from([0.0, 0.005, 0.1, 0.2]), st.sampled_from([(), (200, 201)])
)
def test_no_row_is_lost_to_jitter(phase: float, seed: int, jitter: float, missing: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    middles = np.arange(500) + phase + rng.uniform(-jitter, jitter, 500)
    rows = np.delete(np.arange(500), np.array(missing, int))
    bins = number_rows(middles[rows])
    assert_array_equal(np.diff(bins), np.diff(rows))
    assert np.abs(bins + 0.5 - middles[rows]).max() <= 0.5 + 2 * jitter + 1e-9
    assert shared_and_skipped(bins, middles[rows]) == (0, 0)


@pytest.mark.parametrize(("step", "n_shared", "n_skipped"), [(0.995, 5, 0), (1.005, 0, 5), (1.0, 0, 0)])
def test_a_clock_that_drifts_pays_one_row_per_bin_of_drift(step: float, n_shared: int, n_skipped: int) -> None:
    middles = 0.5 + np.arange(1001) * step + np.random.default_rng(0).uniform(-0.005, 0.005, 1001)
    bins = number_rows(middles)
    shared, skipped = shared_and_skipped(bins, middles)
    assert (abs(shared - n_shared) <= 1, abs(skipped - n_skipped) <= 1) == (True, True)
    assert (shared == 0) == (n_shared == 0)
    assert (skipped == 0) == (n_skipped == 0)
    assert np.abs(bins + 0.5 - middles).max() < 1.2
    assert set(np.diff(bins)) <= {0, 1, 2}


def test_a_pause_begins_a_stretch_with_a_phase_of_its_own() -> None:
    middles = np.concatenate([0.5 + np.arange(50), 100.95 + np.arange(50)])
    assert_array_equal(number_rows(middles), [*range(50), *range(100, 150)])


def test_a_late_row_stays_in_its_place_and_no_rows_are_no_bins() -> None:
    middles = 0.5 + np.arange(20.0)
    middles[[0, 7]] += 0.45
    assert_array_equal(number_rows(middles), np.arange(20))
    assert len(number_rows(np.empty(0))) == 0


@pytest.mark.parametrize("edge", ["start", "end"])
def test_jitter_at_the_edge_of_a_bin_loses_no_value_and_no_spike(edge: str) -> None:
    """50 Hz, phase 10 ms, jitter 0.1 ms: a floor per row lost a quarter of them."""
    rng = np.random.default_rng(0)
    stamps = 0.01 + np.arange(1000) * 0.02 + rng.uniform(-1e-4, 1e-4, 1000)
    grid, x = BinGrid(0.0, 1002, 0.02), rng.standard_normal((1000, 2))
    made = to_grid(stamps, x, grid, np.zeros(1002, np.int32), bin_edge=edge)
    kept = made.values[made.valid.all(axis=1)]
    assert len(kept) >= 999  # the first may lie before the grid
    assert_array_equal(kept, x.astype(np.float32)[-len(kept) :])
    counts = rng.integers(0, 5, (1000, 3))
    binned = rebin_session(stamps, counts, 0.02, edge, grid)
    rows = binned.counts[np.flatnonzero(made.valid[:, 0])]
    assert_array_equal(rows, counts[-len(kept) :])


def test_two_rows_of_one_bin_are_their_mean_or_their_sum() -> None:
    stamps = np.arange(400) * 0.0199
    grid, x = BinGrid(0.0, 400, 0.02), np.arange(400.0)[:, None]
    made = to_grid(stamps, x, grid, np.zeros(400, np.int32), bin_edge="start")
    binned = rebin_session(stamps, np.ones((400, 1), np.uint8), 0.02, "start", grid)
    assert made.n_shared == binned.n_shared == int((binned.counts == 2).sum()) > 0
    assert binned.counts.sum() == 400
    shared = np.flatnonzero(binned.counts[:, 0] == 2)
    assert (made.values[shared, 0] % 1 == 0.5).all()
    assert made.n_skipped == 0
