"""Variance-weighted R2, from sums that add up over batches and ranks.

For each covariate d with the valid bins t of all held-out chunks, one after the other:

    residual_d = sum_t (y_td - p_td)^2        total_d = sum_t (y_td - mean_t y_td)^2
    R2_d = 1 - residual_d / total_d           R2 = 1 - sum_d residual_d / sum_d total_d

the second sums over the covariates that vary at all. This is ``sklearn.metrics.r2_score`` with
``multioutput="variance_weighted"`` where every covariate is valid in the same bins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

N_SUMS = 4  # bins, sum of values, sum of their squares, sum of squared errors


def sums_of(values: Tensor, predictions: Tensor, series: Tensor, n_series: int) -> Tensor:
    """Sums float64 [series, 4] of ``values`` [bin] and their ``predictions``; ``series`` [bin] says whose they are."""
    values, error = values.double(), (values.double() - predictions.double())
    rows = torch.stack((torch.ones_like(values), values, values.square(), error.square()), dim=1)
    return rows.new_zeros(n_series, N_SUMS).index_add_(0, series, rows)


def r2_of(sums: NDArray[np.float64]) -> float | None:
    """R2 of one covariate (sums float64 [4]), or of several weighted by their variance ([covariate, 4]).

    None where nothing varies.
    """
    n, first, second, residual = np.atleast_2d(sums).T
    total = second - first**2 / np.maximum(n, 1)
    varies = total > 1e-12 * np.maximum(second, 1e-300)  # below, the difference is rounding
    if not varies.any():
        return None
    return float(1 - residual[varies].sum() / total[varies].sum())
