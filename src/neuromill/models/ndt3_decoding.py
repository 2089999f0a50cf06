"""Behaviour read out of spikes by a trained NDT3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from neuromill.models.ndt3_batch import collate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neuromill.models.ndt3 import Ndt3
    from neuromill.models.ndt3_batch import Chunk, SpikeTokenBatch


def covariate_grid(batch: SpikeTokenBatch, values: Tensor) -> list[NDArray[np.float32]]:
    """Values [covariate token] of a batch as one float32 [bin, covariate] per chunk; NaN where there is no token.

    The published dummy, which stands behind the last bin of a chunk without covariates, is left out.
    """
    chunk, bins, dimension = (place.cpu().numpy() for place in batch.covariate_places())
    numbers = values.detach().float().cpu().numpy()
    grids = []
    for number, n_bins in enumerate(batch.n_bins.tolist()):
        here = (chunk == number) & (bins < n_bins)
        n_covariates = int(dimension[here].max()) + 1 if here.any() else 0
        grid = np.full((n_bins, n_covariates), np.nan, np.float32)
        grid[bins[here], dimension[here]] = numbers[here]
        grids.append(grid)
    return grids


def decode(model: Ndt3, chunks: Sequence[Chunk], *, chunks_per_pass: int = 16) -> list[NDArray[np.float32]]:
    """Decode covariates, normalised: one float32 [bin, covariate] per chunk. Times their scale they have units.

    Bin t is decoded from the spikes of its chunk up to and including bin t. The values of the covariate tokens are
    not read (the model hides them); the tokens say which covariates are wanted. Call it on a model in evaluation
    mode.
    """
    device = next(model.parameters()).device
    decoded = []
    with torch.inference_mode():
        for first in range(0, len(chunks), chunks_per_pass):
            batch = collate(chunks[first : first + chunks_per_pass]).to(device)
            decoded += covariate_grid(batch, model(batch).covariates)
    return decoded
