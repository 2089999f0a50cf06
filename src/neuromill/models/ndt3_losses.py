"""What NDT3 is trained on: counts against a Poisson-softened target, covariates by squared error."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from neuromill.models.ndt3 import Ndt3Predictions
    from neuromill.models.ndt3_batch import SpikeTokenBatch


class Ndt3Losses(NamedTuple):
    """Means over the valid elements of a batch, and how many there were; a mean over nothing is 0.

    Attributes
    ----------
    spike
        Nats per channel and bin. It cannot fall below the entropy of the softened target.
    covariate
        Mean squared error of normalised values.
    n_spike, n_covariate
        Integer tensors: elements in the means, for batches that are accumulated.
    """

    spike: Tensor
    covariate: Tensor
    n_spike: Tensor
    n_covariate: Tensor


def poisson_targets(max_count: int = 20, *, parity: bool = False) -> Tensor:
    """Target distribution of each count: float32 [count, class], both 0 to ``max_count + 1``.

    Row n is Poisson(n) over the classes, renormalised. The last row stands for all higher counts; the published table
    leaves it empty, so that they teach nothing (``parity``).
    """
    return _poisson_table(max_count, parity).clone()


@lru_cache(maxsize=8)
def _poisson_table(max_count: int, parity: bool) -> Tensor:  # noqa: FBT001
    classes = torch.arange(max_count + 2, dtype=torch.float64)
    rates = classes[:, None]
    log_odds = torch.xlogy(classes, rates) - rates - torch.lgamma(classes + 1)
    table = log_odds.softmax(dim=-1)
    if parity:
        table[-1] = 0
    return table.float()


def spike_losses(logits: Tensor, counts: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy float32 [token, channel] of ``logits`` [token, channel, class] against integer ``counts``."""
    wanted = targets.to(logits.device)[counts.long().clamp(max=len(targets) - 1)]
    return -(wanted * logits.float().log_softmax(dim=-1)).sum(dim=-1)


def ndt3_losses(
    batch: SpikeTokenBatch,
    predictions: Ndt3Predictions,
    *,
    parity: bool = False,
    per_chunk: bool = False,
) -> Ndt3Losses:
    """Losses of a batch. Padded channels and invalid covariates do not count.

    Parameters
    ----------
    parity
        Counts above ``max_count`` have no target; they still are in the denominator, as published.
    per_chunk
        Every chunk weighs the same; otherwise (published) every element does, and recordings with many channels or
        covariates weigh more.
    """
    n_channels = batch.patches.shape[-1]
    real = torch.arange(n_channels, device=batch.patches.device) < batch.patch_channels[:, None]
    targets = poisson_targets(predictions.spike_logits.shape[-1] - 2, parity=parity)
    spike = spike_losses(predictions.spike_logits, batch.patches, targets)
    covariate = (predictions.covariates.float() - batch.covariates).square()
    n_tokens, n_chunks = batch.slots.shape[1], batch.slots.shape[0]
    mean = _mean_per_chunk if per_chunk else _mean
    return Ndt3Losses(
        mean(spike.flatten(), real.flatten(), _chunks(batch.spike_positions, n_tokens, n_channels), n_chunks),
        mean(covariate, batch.covariate_valid, _chunks(batch.covariate_positions, n_tokens, 1), n_chunks),
        real.sum(),
        batch.covariate_valid.sum(),
    )


def _chunks(positions: Tensor, n_tokens: int, repeats: int) -> Tensor:
    return (positions // n_tokens).repeat_interleave(repeats)


def _mean(values: Tensor, valid: Tensor, _chunk: Tensor, _n_chunks: int) -> Tensor:
    return torch.where(valid, values, 0).sum() / valid.sum().clamp(min=1)


def _mean_per_chunk(values: Tensor, valid: Tensor, chunk: Tensor, n_chunks: int) -> Tensor:
    sums = values.new_zeros(n_chunks).index_add(0, chunk, torch.where(valid, values, 0))
    counts = values.new_zeros(n_chunks).index_add(0, chunk, valid.to(values.dtype))
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)
