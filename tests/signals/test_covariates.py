from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import resample_poly

from neuromill.records import RecordingError
from neuromill.signals.binning import BinGrid
from neuromill.signals.covariates import apply_steps, boxcar, mask_on_grid, scale_of, to_grid
from neuromill.signals.spike_steps import SmoothCovariates

FLOAT32 = {"rtol": 2e-7, "atol": 0}  # what is stored; everything before it is float64


def grid_of(n_bins: int, start: float = 0.0) -> tuple[BinGrid, np.ndarray]:
    return BinGrid(start, n_bins, 0.02), np.zeros(n_bins, np.int32)


def walk(n: int, n_covariates: int = 2, seed: int = 0) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).standard_normal((n, n_covariates)), axis=0) + 100.0


@pytest.mark.parametrize(("sfreq", "up", "down"), [(100, 1, 2), (250, 4, 20), (1000, 1, 20), (500, 1, 10)])
@pytest.mark.parametrize("n", [60, 1000, 5003])
def test_regular_samples_equal_scipy(sfreq: int, up: int, down: int, n: int) -> None:
    x = walk(n)
    expected = resample_poly(x, up, down, axis=0, padtype="line")
    grid, segment = grid_of(n // (sfreq // 50), start=3.5)
    stamps = 3.5 + np.arange(n) / sfreq
    at_start = to_grid(stamps, x, grid, segment, moment="start")
    assert_allclose(at_start.values, expected[: grid.n_bins], **FLOAT32)
    assert at_start.valid.all()
    at_end = to_grid(stamps, x, grid, segment)  # the end of a bin is the start of the next
    known = at_end.valid.all(axis=1)
    assert known[:-1].all()
    assert_allclose(at_end.values[known], expected[1 : known.sum() + 1], **FLOAT32)


def test_golden_numbers_of_resampling() -> None:
    grid, segment = grid_of(200)
    for sfreq, n in ((100, 400), (250, 1000)):
        made = to_grid(np.arange(n) / sfreq, np.full((n, 1), 0.37), grid, segment, moment="start")
        assert made.values.shape == (200, 1)  # 1000 samples at 250 Hz are 200 bins
        assert_allclose(made.values, 0.37, **FLOAT32)


@pytest.mark.parametrize(("moment", "offset"), [("start", 0.0), ("centre", 0.01), ("end", 0.02)])
@pytest.mark.parametrize("sfreq", [50.0, 60.0, 130.0, 1000.0, 1017.25])
def test_a_value_stands_for_the_moment_that_is_declared(moment: str, offset: float, sfreq: float) -> None:
    grid, segment = grid_of(100)
    stamps = np.arange(round(2.2 * sfreq)) / sfreq
    made = to_grid(stamps, 3 * stamps[:, None] - 1, grid, segment, moment=moment)
    assert made.valid.all()
    # Stamps are whole microseconds; a line passes every linear method, and the low-pass by its number.
    assert_allclose(made.values[:, 0], 3 * (np.arange(100) * 0.02 + offset) - 1, atol=1e-5)


def test_samples_between_moments_are_filtered_too() -> None:
    """A quantised position on a clock that never meets a bin: 200 Hz noise must not fold back."""
    rng = np.random.default_rng(0)
    stamps = 0.0004 + np.arange(4000) / 1000
    noise = np.diff(rng.standard_normal(4001))[:, None]
    grid, segment = grid_of(195)
    made = to_grid(stamps, noise, grid, segment).values
    aliased = np.interp(np.arange(1, 196) * 0.02, stamps, noise[:, 0])
    assert made.std() < 0.05 * aliased.std()


def test_irregular_samples_are_interpolated() -> None:
    rng = np.random.default_rng(0)
    stamps = np.unique(rng.uniform(0, 4, 300).round(6))
    x = np.sin(stamps)[:, None]
    grid, segment = grid_of(190)
    moments = np.arange(1, 191) * 0.02
    made = to_grid(stamps, x, grid, segment)
    expected = np.interp(moments, stamps, x[:, 0])
    known = made.valid[:, 0]
    assert known.mean() > 0.3  # steps beyond 1.5 of the median and a bin are gaps
    assert_allclose(made.values[known, 0], expected[known], rtol=1e-6)


def test_nothing_is_interpolated_over_a_gap() -> None:
    stamps = np.concatenate([np.arange(1000), np.arange(1500, 3000)]) / 1000
    x = walk(len(stamps), 1)
    grid, segment = grid_of(150)
    made = to_grid(stamps, x, grid, segment, moment="start")
    assert np.flatnonzero(~made.valid[:, 0]).tolist() == list(range(50, 75))
    first, second = x[:1000], x[1000:]
    for own, part in ((slice(0, 50), first), (slice(75, 150), second)):  # each part alone, with its own padding
        assert_allclose(made.values[own], resample_poly(part, 1, 20, axis=0, padtype="line"), **FLOAT32)


def test_a_hole_shorter_than_a_bin_is_no_gap() -> None:
    stamps = np.delete(np.arange(3000), [700, 701, 1500]) / 1000
    grid, segment = grid_of(150)
    made = to_grid(stamps, np.sin(stamps)[:, None], grid, segment, moment="start")
    whole = resample_poly(np.sin(np.arange(3000) / 1000), 1, 20, padtype="line")
    assert made.valid.all()
    assert_allclose(made.values[:, 0], whole, atol=1e-6)


def test_nan_belongs_to_its_covariate() -> None:
    stamps = np.arange(300) / 100
    x = walk(300)
    x[100:150, 1] = np.nan
    grid, segment = grid_of(150)
    made = to_grid(stamps, x, grid, segment, moment="start")
    assert_allclose(made.values[:, 0], resample_poly(x[:, 0], 1, 2, padtype="line"), **FLOAT32)
    assert np.flatnonzero(~made.valid[:, 1]).tolist() == list(range(50, 75))
    assert_array_equal(made.valid, np.isfinite(made.values))


def test_segments_share_no_samples() -> None:
    stamps = np.arange(400) / 100
    x = np.where(stamps < 2, 0.0, 1000.0)[:, None]  # the clock was reset at 2 s: another place
    grid, segment = grid_of(200)
    segment[100:] = 1
    made = to_grid(stamps, x, grid, segment, moment="start")
    assert set(np.unique(made.values)) == {0.0, 1000.0}
    at_end = to_grid(stamps, x, grid, segment)
    assert np.flatnonzero(~at_end.valid[:, 0]).tolist() == [99, 199]  # their ends have no sample of their own


def test_what_was_not_observed_has_no_value() -> None:
    grid, segment = grid_of(200)
    segment[50:60] = -1
    segment[60:] = 1
    stamps = np.arange(500) / 100
    made = to_grid(stamps, walk(500), grid, segment)
    assert np.flatnonzero(~made.valid[:, 0]).tolist() == list(range(50, 60))
    given = to_grid(np.arange(200) * 0.02, walk(200), grid, segment, bin_edge="start")
    assert np.flatnonzero(~given.valid[:, 0]).tolist() == list(range(50, 60))


def test_behaviour_that_begins_late_and_ends_early() -> None:
    grid, segment = grid_of(100)
    stamps = np.arange(50, 150) / 100
    made = to_grid(stamps, walk(100, 1), grid, segment)
    assert np.flatnonzero(made.valid[:, 0]).tolist() == list(range(24, 74))  # ends 0.5 s to 1.48 s


@pytest.mark.parametrize(("edge", "offset"), [("start", 0.0), ("end", 0.02)])
def test_values_per_bin_are_taken_as_given(edge: str, offset: float) -> None:
    rng = np.random.default_rng(0)
    x = walk(100)
    x[40:45] = np.nan
    stamps = np.delete(np.arange(100) * 0.02 + offset + rng.uniform(-0.004, 0.004, 100), [10, 11])
    grid, segment = grid_of(100)
    made = to_grid(stamps, np.delete(x, [10, 11], axis=0), grid, segment, bin_edge=edge)
    x[10:12] = np.nan
    assert_array_equal(made.values, x.astype(np.float32))


def test_values_per_other_bins_are_samples() -> None:
    grid = BinGrid(0.0, 200, 0.01)
    stamps = np.arange(101) * 0.02
    made = to_grid(stamps, stamps[:, None], grid, np.zeros(200, np.int32), bin_edge="start")
    assert_allclose(made.values[:, 0], np.arange(1, 201) * 0.01, rtol=1e-6)


def test_derivative_before_is_that_of_the_samples() -> None:
    x = walk(3000)
    grid, segment = grid_of(150)
    made = to_grid(np.arange(3000) / 1000, x, grid, segment, "before", moment="start")
    expected = resample_poly(np.gradient(x, 1e-3, axis=0), 1, 20, axis=0, padtype="line")
    assert_allclose(made.values, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_derivative_after_is_that_of_the_bins() -> None:
    x = walk(1000)
    grid, segment = grid_of(200)
    segment[100:] = 1
    made = to_grid(np.arange(1000) / 250, x, grid, segment, "after", moment="start")
    for own, part in ((slice(0, 100), x[:500]), (slice(100, 200), x[500:])):
        position = resample_poly(part, 4, 20, axis=0, padtype="line")
        assert_allclose(made.values[own], np.gradient(position, axis=0) * 50, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("derivative", ["before", "after"])
def test_one_value_has_no_derivative(derivative: str) -> None:
    x = np.where(np.arange(20) == 10, 1.0, np.nan)[:, None]
    made = to_grid(np.arange(20) / 50, x, *grid_of(20), derivative)
    assert not made.valid.any()


def test_change_points_may_lie_far_apart() -> None:
    stamps = np.array([0.0, 0.01, 0.02, 0.03, 0.15, 0.16, 0.17])
    grid, segment = grid_of(8)
    strict = to_grid(stamps, stamps[:, None], grid, segment)
    assert np.flatnonzero(strict.valid[:, 0]).tolist() == [0, 7]
    held = to_grid(stamps, stamps[:, None], grid, segment, longest_step=0.2)
    assert_allclose(held.values[:, 0], np.arange(1, 9) * 0.02, rtol=1e-6)


@pytest.mark.parametrize("stamps", [[0.0, 0.0], [0.1, 0.0], [0.0, np.nan], [0.0], [0.0, np.inf]])
def test_a_clock_that_does_not_go_on_is_refused(stamps: list[float]) -> None:
    grid, segment = grid_of(10)
    with pytest.raises(RecordingError) as error:
        to_grid(np.array(stamps), np.zeros((2, 1)), grid, segment)
    assert error.value.code == "bad_timestamps"


def test_no_samples_are_no_values() -> None:
    grid, segment = grid_of(10)
    made = to_grid(np.empty(0), np.empty((0, 3)), grid, segment)
    assert made.values.shape == (10, 3)
    assert not made.valid.any()


def test_the_scale_is_a_quantile_of_the_absolute_value() -> None:
    x = np.arange(1000, dtype=np.float32) * np.where(np.arange(1000) % 2, 1, -1)
    values = np.stack([x, np.zeros(1000), np.where(np.arange(1000) == 7, np.nan, 2.0)], axis=1).astype(np.float32)
    valid = np.isfinite(values)
    assert_allclose(scale_of(values, valid, 0.999), [998.001, 1.0, 2.0], rtol=1e-7)  # NDT3 golden number
    assert scale_of(values, np.zeros_like(valid), 0.999).tolist() == [1.0, 1.0, 1.0]
    assert scale_of(values[:, :1], valid[:, :1], 1.0).tolist() == [999.0]


def test_a_mask_lets_no_bin_pass_that_it_excludes() -> None:
    grid = BinGrid(0.0, 10, 0.02)
    stamps = np.array([0.02, 0.08, 0.12, 0.15])
    bools = np.array([True, False, True, True])
    # before 0.02 nothing is said; False from 0.08 to 0.12, which ends bin 5 and begins bin 6
    assert np.flatnonzero(mask_on_grid(stamps, bools, grid)).tolist() == [1, 2, 6, 7, 8, 9]
    assert not mask_on_grid(np.empty(0), np.empty(0, bool), grid).any()


@given(st.lists(st.integers(0, 250), min_size=1, max_size=40, unique=True), st.integers(0, 2**40 - 1))
def test_masks_equal_looking_at_every_moment(moments: list[int], bits: int) -> None:
    stamps = np.sort(np.array(moments)) / 1000
    bools = np.array([bits >> i & 1 for i in range(len(stamps))], bool)
    made = mask_on_grid(stamps, bools, BinGrid(0.0, 10, 0.02))
    for i in range(10):
        held = [np.searchsorted(stamps, m / 1000, side="right") - 1 for m in range(20 * i, 20 * i + 21)]
        assert made[i] == all(h >= 0 and bools[h] for h in held)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.integers(0, 9), st.integers(0, 9))
def test_boxcar_equals_means(x: list[float], n_back: int, n_ahead: int) -> None:
    made = boxcar(np.array(x), n_back, n_ahead)
    expected = [np.mean(x[max(0, i - n_back) : i + n_ahead + 1]) for i in range(len(x))]
    assert_allclose(made, expected, atol=1e-9)


@pytest.mark.parametrize(("direction", "first", "last"), [("causal", 20, 22), ("centred", 19, 21)])
def test_smoothing_stays_in_its_stretch(direction: str, first: int, last: int) -> None:
    values = np.zeros((60, 1), np.float32)
    values[20] = 3.0
    values[40:45] = np.nan
    values[45:] = 9.0
    grid, segment = grid_of(60)
    segment[50:] = 1
    values[50:] = -9.0
    made = apply_steps(values, (SmoothCovariates(seconds=0.06, direction=direction),), grid, segment)
    assert np.flatnonzero(made[:40, 0]).tolist() == list(range(first, last + 1))
    assert_allclose(made[first : last + 1, 0], 1.0, rtol=1e-6)
    assert np.isnan(made[40:45]).all()
    assert made[45:, 0].tolist() == [9.0] * 5 + [-9.0] * 10
    assert made.dtype == np.float32


def test_no_steps_change_nothing() -> None:
    values = walk(30).astype(np.float32)
    assert_array_equal(apply_steps(values, (), *grid_of(30)), values)


@pytest.mark.data
def test_a_real_session_equals_scipy(data: Path) -> None:
    """Hand velocity of the maze task, 1 kHz: the bins begin at its first sample."""
    with h5py.File(data / "nwb" / "mc_maze_trial748.nwb") as file:
        series = file["processing/behavior/hand_vel"]
        stamps, x = series["timestamps"][:], series["data"][:]
    grid = BinGrid(round(float(stamps[0]), 6), len(stamps) // 20, 0.02)
    made = to_grid(stamps, x, grid, np.zeros(grid.n_bins, np.int32), moment="start")
    expected = resample_poly(x, 1, 20, axis=0, padtype="line")[: grid.n_bins]
    assert_allclose(made.values, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
