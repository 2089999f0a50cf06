"""Behaviour read out of spikes by a trained NDT3."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from neuromill.models.ndt3_batch import Chunk, collate, crop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neuromill.models.ndt3 import Ndt3
    from neuromill.models.ndt3_batch import SpikeTokenBatch


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


class SlidingDecoder:
    """Decodes bin after bin, each from the bins before it that fit into the window, as at serving time.

    Parameters
    ----------
    model
        In evaluation mode.
    template
        A chunk of the session; its length is the window. Its addresses, constraints and return are used, its spikes
        and covariates are not.
    """

    def __init__(self, model: Ndt3, template: Chunk) -> None:
        self.model, self.template = model, template
        self._recent = np.zeros((0, *_by_bin(template).shape[1:]), np.uint8)

    def step(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Take the counts of the next bin, uint8 [patch, 32]; give its covariates, float32 [covariate], normalised."""
        self._recent = np.concatenate((self._recent, patches[None]))[-self.template.n_bins :]
        window = crop(self.template, 0, len(self._recent))
        tokens = replace(window.tokens, patches=self._recent.reshape(-1, patches.shape[-1]))
        (decoded,) = decode(self.model, [Chunk(tokens, window.patch_channels)])
        latest: NDArray[np.float32] = decoded[-1]
        return latest


def _by_bin(chunk: Chunk) -> NDArray[np.uint8]:
    return chunk.tokens.patches.reshape(chunk.n_bins, len(chunk.patch_channels), -1)
