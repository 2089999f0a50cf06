"""R2 against a direct computation."""

import numpy as np
import pytest
import torch

from neuromill.training.r2 import r2_of, sums_of


def sums(values: np.ndarray, predictions: np.ndarray, valid: np.ndarray) -> np.ndarray:
    dimension = np.broadcast_to(np.arange(values.shape[1]), values.shape)[valid]
    columns = (values[valid], predictions[valid], dimension)
    return sums_of(*map(torch.from_numpy, columns), values.shape[1]).numpy()


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_equals_the_definition(offset: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 3)) * [1, 5, 0.1] + offset
    predictions = values + rng.normal(size=values.shape)
    valid = rng.random(values.shape) < 0.8
    per_covariate, weights = [], []
    for y, p, keep in zip(values.T, predictions.T, valid.T, strict=True):
        total = ((y[keep] - y[keep].mean()) ** 2).sum()
        per_covariate.append(1 - ((y[keep] - p[keep]) ** 2).sum() / total)
        weights.append(total)
    found = sums(values, predictions, valid)
    assert [r2_of(row) for row in found] == pytest.approx(per_covariate, rel=1e-9)
    assert r2_of(found) == pytest.approx(np.average(per_covariate, weights=weights), rel=1e-9)


def test_batches_add_up() -> None:
    rng = np.random.default_rng(2)
    values, predictions = rng.normal(size=(2, 100, 2))
    whole = np.ones((100, 2), bool)
    first = whole & (np.arange(100) < 37)[:, None]
    parts = sums(values, predictions, first) + sums(values, predictions, whole & ~first)
    assert r2_of(parts) == pytest.approx(r2_of(sums(values, predictions, whole)))


def test_what_never_varies_has_no_r2() -> None:
    values = np.full((10, 1), 0.3)
    assert r2_of(sums(values, values + 1, np.ones((10, 1), bool))) is None
    assert r2_of(np.zeros((3, 4))) is None


def test_the_mean_scores_zero() -> None:
    values = np.random.default_rng(3).normal(size=(50, 2))
    mean = np.broadcast_to(values.mean(axis=0), values.shape)
    assert r2_of(sums(values, mean, np.ones(values.shape, bool))) == pytest.approx(0, abs=1e-12)
