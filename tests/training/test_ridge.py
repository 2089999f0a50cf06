"""The linear baseline against direct solutions."""

import numpy as np
import pytest

from neuromill.records import FailureCode, RecordingError
from neuromill.training.ndt3_config import RidgeConfig
from neuromill.training.ridge import BLOCK_BINS, design_matrix, fit_ridge, penalties, smoothing_taps

CONFIG = RidgeConfig(n_taps=3, lags=(0, 2), n_alphas=4)
BIN = 0.02


def data(n: int = 300, n_units: int = 4, n_covariates: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.5, size=(n, n_units)).astype(np.uint8)
    drive = rng.normal(size=(n_units, n_covariates))
    return counts, counts @ drive + np.roll(counts, 1, axis=0) @ drive[::-1] + rng.normal(size=(n, n_covariates))


def direct(x: np.ndarray, y: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    centred = x - x.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + alpha * np.eye(x.shape[1]), centred.T @ (y - y.mean(axis=0)))
    return weights, y.mean(axis=0) - x.mean(axis=0) @ weights


def weighted_r2(y: np.ndarray, predicted: np.ndarray) -> float:
    return 1 - ((y - predicted) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum()


def test_taps_are_causal_and_sum_to_one() -> None:
    taps = smoothing_taps(RidgeConfig(), BIN)
    assert len(taps) == 12
    assert taps.sum() == pytest.approx(1)
    np.testing.assert_allclose(taps[1:] / taps[:-1], np.exp(-20 / 240))
    assert penalties(RidgeConfig())[[0, -1]] == pytest.approx([1e-5, 1e5])


def test_an_impulse_only_shows_later_and_in_its_own_stretch() -> None:
    counts = np.zeros((12, 1), np.uint8)
    counts[3] = 1
    segments = np.array([0] * 5 + [1] * 4 + [-1] * 1 + [2] * 2, np.int32)
    taps = smoothing_taps(CONFIG, BIN)
    design = design_matrix(CONFIG, counts, segments, bin_seconds=BIN, n_lags=1)
    np.testing.assert_allclose(design[:, 0], [0, 0, 0, taps[0], taps[1], *[0] * 7])
    np.testing.assert_allclose(design[:, 1], [0, 0, 0, 0, taps[0], *[0] * 7])


def test_equals_a_direct_solution_and_a_direct_cross_validation() -> None:
    counts, values = data()
    segments = np.repeat(np.array([0, 1, 2], np.int32), 100)
    rows = np.ones(values.shape, bool)
    rows[250:] = False
    (fitted,) = fit_ridge(CONFIG, counts, segments, values, rows, bin_seconds=BIN).columns
    scores = {}
    for n_lags in CONFIG.lags:
        x, y = design_matrix(CONFIG, counts, segments, bin_seconds=BIN, n_lags=n_lags)[:250], values[:250]
        for alpha in penalties(CONFIG):
            folds = np.array_split(np.arange(250), 5)
            parts = []
            for fold in folds:
                rest = np.setdiff1d(np.arange(250), fold)
                weights, intercept = direct(x[rest], y[rest], alpha)
                parts.append(weighted_r2(y[fold], x[fold] @ weights + intercept))
            scores[n_lags, alpha] = np.mean(parts)
    best = max(scores, key=lambda key: scores[key])
    assert (fitted.n_lags, fitted.alpha) == pytest.approx(best)
    assert fitted.cv_r2 == pytest.approx(scores[best], abs=1e-9)
    x = design_matrix(CONFIG, counts, segments, bin_seconds=BIN, n_lags=fitted.n_lags)[:250]
    weights, intercept = direct(x, values[:250], fitted.alpha)
    np.testing.assert_allclose(fitted.weights, weights, atol=1e-8)
    np.testing.assert_allclose(fitted.intercepts, intercept, atol=1e-8)


def test_blocks_do_not_show() -> None:
    counts, values = data(BLOCK_BINS + 500)
    segments = np.zeros(len(counts), np.int32)
    decoder = fit_ridge(CONFIG, counts, segments, values, np.ones(values.shape, bool), bin_seconds=BIN)
    (fitted,) = decoder.columns
    design = design_matrix(CONFIG, counts, segments, bin_seconds=BIN, n_lags=fitted.n_lags)
    np.testing.assert_allclose(decoder.predict(counts, segments), design @ fitted.weights + fitted.intercepts)


def test_covariates_learn_from_their_own_bins() -> None:
    counts, values = data(n_covariates=3)
    segments = np.zeros(len(counts), np.int32)
    rows = np.ones(values.shape, bool)
    rows[:100, 1] = False
    rows[:, 2] = False
    decoder = fit_ridge(CONFIG, counts, segments, values, rows, bin_seconds=BIN)
    assert [one.covariates for one in decoder.columns] == [(0,), (1,)]
    alone = fit_ridge(CONFIG, counts, segments, values[:, 1:2], rows[:, 1:2], bin_seconds=BIN)
    predicted = decoder.predict(counts, segments)
    np.testing.assert_array_equal(predicted[:, 1], alone.predict(counts, segments)[:, 0])
    assert np.isnan(predicted[:, 2]).all()


def test_a_covariate_of_few_bins_costs_the_others_nothing() -> None:
    counts, values = data(n_covariates=2)
    segments = np.zeros(len(counts), np.int32)
    rows = np.ones(values.shape, bool)
    rows[3:, 0] = False
    predicted = fit_ridge(CONFIG, counts, segments, values, rows, bin_seconds=BIN).predict(counts, segments)
    rows[:, 0] = False
    never = fit_ridge(CONFIG, counts, segments, values, rows, bin_seconds=BIN).predict(counts, segments)
    np.testing.assert_array_equal(predicted, never)
    assert np.isfinite(predicted[:, 1]).all()


def test_unobserved_bins_are_neither_learned_from_nor_decoded() -> None:
    counts, values = data()
    segments = np.zeros(len(counts), np.int32)
    segments[40:60] = -1
    segments[60:] = 1
    whole, junk = values.copy(), values.copy()
    junk[40:60] = 1e9
    rows = np.ones(values.shape, bool)
    first, second = (fit_ridge(CONFIG, counts, segments, v, rows, bin_seconds=BIN) for v in (whole, junk))
    np.testing.assert_array_equal(first.predict(counts, segments), second.predict(counts, segments))
    assert np.isnan(first.predict(counts, segments)[40:60]).all()


def test_silent_and_equal_units_do_no_harm() -> None:
    counts, values = data()
    wide = np.concatenate((counts, counts, np.zeros_like(counts)), axis=1)
    segments = np.zeros(len(counts), np.int32)
    decoder = fit_ridge(CONFIG, wide, segments, values, np.ones(values.shape, bool), bin_seconds=BIN)
    assert weighted_r2(values, decoder.predict(wide, segments)) > 0.6


def test_too_few_bins_are_said() -> None:
    counts, values = data(9)
    with pytest.raises(RecordingError, match="9 bins are too few") as caught:
        fit_ridge(CONFIG, counts, np.zeros(9, np.int32), values, np.ones(values.shape, bool), bin_seconds=BIN)
    assert caught.value.code is FailureCode.TOO_SHORT
