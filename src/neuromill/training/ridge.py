"""Ridge regression of behaviour on binned spikes: the linear baseline of the NDT3 paper. Pure numpy, float64.

Counts are smoothed by a causal exponential filter; the current and the L bins before it are the predictors. Lags and
filter never reach over a gap or a join. One pass over the data collects the sums of each fold of the
cross-validation; everything else happens on those: with the eigenvectors V and eigenvalues s of the centred
X'X, the weights for a penalty a are V (s + a)^-1 V' X'Y.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import reduce
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from neuromill.records import FailureCode, RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from neuromill.training.ndt3_config import RidgeConfig

    Array = NDArray[np.float64]

BLOCK_BINS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class RidgeColumns:
    """Weights of covariates that are observed in the same bins.

    Attributes
    ----------
    covariates
        Which columns these are.
    weights, intercepts
        float64 [(lag + 1) * unit, covariate], current bin first, and float64 [covariate].
    n_lags, alpha, cv_r2
        What the cross-validation chose, and its variance-weighted R2 there.
    """

    covariates: tuple[int, ...]
    weights: Array
    intercepts: Array
    n_lags: int
    alpha: float
    cv_r2: float


@dataclass(frozen=True, slots=True, eq=False)
class RidgeDecoder:
    """A fitted decoder of one recording."""

    config: RidgeConfig
    bin_seconds: float
    n_covariates: int
    columns: tuple[RidgeColumns, ...]

    def predict(self, counts: NDArray[np.uint8], segments: NDArray[np.int32]) -> Array:
        """Decode float64 [time, covariate] from counts [time, unit].

        NaN in bins that were not observed, and for covariates that had no row to learn from.
        """
        out = np.full((len(counts), self.n_covariates), np.nan)
        n_lags = max((one.n_lags for one in self.columns), default=0)
        for rows, design in _blocks(self.config, counts, segments, self.bin_seconds, n_lags):
            for one in self.columns:
                out[rows, one.covariates] = design[:, : len(one.weights)] @ one.weights + one.intercepts
        out[segments < 0] = np.nan
        return out


def fit_ridge(
    config: RidgeConfig,
    counts: NDArray[np.uint8],
    segments: NDArray[np.int32],
    values: NDArray[np.floating[Any]],
    rows: NDArray[np.bool_],
    *,
    bin_seconds: float,
) -> RidgeDecoder:
    """Choose lags and penalty by cross-validation over blocks of time, then fit on all rows.

    Parameters
    ----------
    counts
        uint8 [time, unit].
    segments
        int32 [time]: bins of one stretch share a number, -1 where nothing was observed.
    values, rows
        [time, covariate]: what to decode, and which bins to learn from (observed, and in training).

    Raises
    ------
    RecordingError
        ``too_short``: no covariate has two bins per fold; one that has fewer beside others is not decoded.
    """
    observed = rows & (segments >= 0)[:, None]
    columns = [
        _fit_columns(config, counts, segments, values[:, covariates], observed[:, covariates[0]], covariates,
                     bin_seconds=bin_seconds)
        for covariates in _with_enough_bins(observed, 2 * config.folds)
    ]  # fmt: skip
    return RidgeDecoder(config, bin_seconds, values.shape[1], tuple(columns))


def smoothing_taps(config: RidgeConfig, bin_seconds: float) -> Array:
    """Weights float64 [tap] of the current bin and the ones before it; they sum to 1."""
    taps = np.exp(-np.arange(config.n_taps) * bin_seconds / config.tau_seconds)
    return np.asarray(taps / taps.sum(), np.float64)


def design_matrix(
    config: RidgeConfig, counts: NDArray[np.uint8], segments: NDArray[np.int32], *, bin_seconds: float, n_lags: int
) -> Array:
    """Predictors float64 [time, (lag + 1) * unit]: smoothed counts of the current bin, of the one before, and so on."""
    smooth = _sum_of_past(counts.astype(np.float64), segments, smoothing_taps(config, bin_seconds))
    return np.concatenate([_past(smooth, segments, lag) for lag in range(n_lags + 1)], axis=1)


def penalties(config: RidgeConfig) -> Array:
    """Penalties that are tried: float64 [alpha]."""
    return np.geomspace(config.min_alpha, config.max_alpha, config.n_alphas)


@dataclass(slots=True, eq=False)
class _Sums:
    """Sums over rows of predictors X and targets Y, from which any ridge fit and its R2 follow."""

    n: int
    x: Array
    y: Array
    xx: Array
    xy: Array
    yy: Array

    @classmethod
    def zero(cls, n_predictors: int, n_targets: int) -> Self:
        shape = (n_predictors, n_targets)
        return cls(0, np.zeros(shape[0]), np.zeros(shape[1]), np.zeros((shape[0],) * 2), np.zeros(shape),
                   np.zeros(shape[1]))  # fmt: skip

    def add(self, x: Array, y: Array) -> None:
        self.n += len(x)
        self.x += x.sum(axis=0)
        self.y += y.sum(axis=0)
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += (y * y).sum(axis=0)

    def first(self, n_predictors: int) -> _Sums:
        """Sums of the first predictors: fewer lags are a corner of more."""
        p = n_predictors
        return _Sums(self.n, self.x[:p], self.y, self.xx[:p, :p], self.xy[:p], self.yy)

    def plus(self, other: _Sums, sign: int = 1) -> _Sums:
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return _Sums(*(mine + sign * theirs for mine, theirs in pairs))

    def without(self, other: _Sums) -> _Sums:
        return self.plus(other, -1)

    def solve(self, alphas: Array) -> tuple[list[Array], list[Array]]:
        """Weights [predictor, target] and intercepts [target] for each penalty."""
        mean_x, mean_y = self.x / self.n, self.y / self.n
        scatter = self.xx - self.n * np.outer(mean_x, mean_x)
        cross = self.xy - self.n * np.outer(mean_x, mean_y)
        eigenvalues, vectors = np.linalg.eigh(scatter)
        eigenvalues, rotated = np.maximum(eigenvalues, 0), vectors.T @ cross
        weights = [vectors @ (rotated / (eigenvalues + alpha)[:, None]) for alpha in alphas]
        return weights, [mean_y - mean_x @ one for one in weights]

    def r2(self, weights: Array, intercepts: Array) -> float:
        """Variance-weighted R2 of a fit on these rows; 0 where nothing varies."""
        total = self.yy - self.y**2 / self.n
        square = np.einsum("pk,pk->k", weights, self.xx @ weights)
        square += 2 * intercepts * (weights.T @ self.x) + self.n * intercepts**2
        product = np.einsum("pk,pk->k", weights, self.xy) + intercepts * self.y
        residual = self.yy - 2 * product + square
        varies = total > 0
        return float(1 - residual[varies].sum() / total[varies].sum()) if varies.any() else 0.0


def _fit_columns(
    config: RidgeConfig,
    counts: NDArray[np.uint8],
    segments: NDArray[np.int32],
    values: NDArray[np.floating[Any]],
    rows: NDArray[np.bool_],
    covariates: Sequence[int],
    *,
    bin_seconds: float,
) -> RidgeColumns:
    n_rows, n_units = int(rows.sum()), counts.shape[1]
    fold = np.full(len(rows), -1)
    fold[rows] = np.repeat(
        np.arange(config.folds), [len(part) for part in np.array_split(np.arange(n_rows), config.folds)]
    )
    width = n_units * (max(config.lags) + 1)
    folds = [_Sums.zero(width, values.shape[1]) for _ in range(config.folds)]
    for block, design in _blocks(config, counts, segments, bin_seconds, max(config.lags)):
        for number, sums in enumerate(folds):
            chosen = fold[block] == number
            if chosen.any():
                sums.add(design[chosen], values[block][chosen].astype(np.float64))
    return _choose(config, folds, n_units, tuple(covariates))


def _choose(config: RidgeConfig, folds: Sequence[_Sums], n_units: int, covariates: tuple[int, ...]) -> RidgeColumns:
    alphas = penalties(config)
    whole = reduce(_Sums.plus, folds)
    scores = np.zeros((len(config.lags), len(alphas)))
    for i, n_lags in enumerate(config.lags):
        width = n_units * (n_lags + 1)
        for one in folds:
            fits = whole.first(width).without(one.first(width)).solve(alphas)
            scores[i] += [one.first(width).r2(*fit) for fit in zip(*fits, strict=True)]
    best_lags, best_alpha = np.unravel_index(scores.argmax(), scores.shape)
    n_lags, alpha = config.lags[best_lags], float(alphas[best_alpha])
    weights, intercepts = whole.first(n_units * (n_lags + 1)).solve(np.array([alpha]))
    cv_r2 = float(scores[best_lags, best_alpha]) / len(folds)
    return RidgeColumns(covariates, weights[0], intercepts[0], n_lags, alpha, cv_r2)


def _with_enough_bins(rows: NDArray[np.bool_], n_bins: int) -> list[list[int]]:
    groups = _observed_together(rows)
    found = [int(rows[:, group[0]].sum()) for group in groups]
    if found and max(found) < n_bins:
        raise RecordingError(FailureCode.TOO_SHORT, f"{max(found)} bins are too few, {n_bins} are needed")
    return [group for group, n in zip(groups, found, strict=True) if n >= n_bins]


def _observed_together(rows: NDArray[np.bool_]) -> list[list[int]]:
    """Covariates with the same observed bins, in order of their first; those never observed are left out."""
    groups: dict[bytes, list[int]] = {}
    for index in range(rows.shape[1]):
        if rows[:, index].any():
            groups.setdefault(np.packbits(rows[:, index]).tobytes(), []).append(index)
    return list(groups.values())


def _blocks(
    config: RidgeConfig, counts: NDArray[np.uint8], segments: NDArray[np.int32], bin_seconds: float, n_lags: int
) -> Iterator[tuple[slice, Array]]:
    """Rows of the design, block by block: a whole one would take (lag + 1) times eight bytes per count."""
    context = config.n_taps - 1 + n_lags
    for start in range(0, len(counts), BLOCK_BINS):
        stop, before = min(start + BLOCK_BINS, len(counts)), max(0, start - context)
        piece = slice(before, stop)
        design = design_matrix(config, counts[piece], segments[piece], bin_seconds=bin_seconds, n_lags=n_lags)
        yield slice(start, stop), design[start - before :]


def _sum_of_past(x: Array, segments: NDArray[np.int32], taps: Array) -> Array:
    out = np.zeros_like(x)
    for lag, weight in enumerate(taps):
        out += weight * _past(x, segments, lag)
    return out


def _past(x: Array, segments: NDArray[np.int32], lag: int) -> Array:
    """Rows ``lag`` bins earlier; zero where those are of another stretch or not observed."""
    out = np.zeros_like(x)
    if lag < len(x):
        same = (segments[lag:] == segments[: len(x) - lag]) & (segments[lag:] >= 0)
        out[lag:][same] = x[: len(x) - lag][same]
    return out
