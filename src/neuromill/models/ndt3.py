"""NDT3: a causal transformer over tokens of spikes and behaviour that predicts the next one.

Sizes, tables and order of operations are those of the NDT3 paper's code; see ``docs/ndt3.md``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from neuromill.hub.mixin import HubMixin
from neuromill.models.ndt3_attention import Trunk
from neuromill.models.ndt3_batch import CHANNELS_PER_PATCH, N_SLOTS

if TYPE_CHECKING:
    from torch import Tensor

    from neuromill.models.ndt3_batch import SpikeTokenBatch
    from neuromill.models.ndt3_config import Ndt3Config

N_RETURNS = 51  # the dummy, then returns of 0 to 49
N_REWARDS = 3  # the dummy, then 0 and 1


class Ndt3Predictions(NamedTuple):
    """What the model says of the tokens of a batch, in the order of the batch's own content arrays.

    Attributes
    ----------
    spike_logits
        float [spike token, channel, class].
    covariates
        float [covariate token], normalised.
    """

    spike_logits: Tensor
    covariates: Tensor


class Ndt3(HubMixin, nn.Module, files="neuromill.models.files"):
    """Predicts each spike patch and each covariate from the spikes before it.

    The input at a token is the content of the token before and the address (slot and bin) of the token itself.
    The content of covariates is never shown, so a covariate of bin t is decoded from the spikes up to and
    including bin t.

    Parameters
    ----------
    config
        Sizes; see :class:`Ndt3Config`.
    """

    def __init__(self, config: Ndt3Config) -> None:
        super().__init__()
        self.config = config
        dim = config.hidden_dim
        self.count_embedding = nn.Embedding(config.max_count + 1, dim // CHANNELS_PER_PATCH)
        self.covariate_embedding = nn.Linear(1, dim)
        self.constraint_embedding = nn.Parameter(torch.randn(3, dim))
        self.return_embedding = nn.Embedding(N_RETURNS, dim, padding_idx=0)
        self.reward_embedding = nn.Embedding(N_REWARDS, dim, padding_idx=0)
        self.slot_embedding = nn.Embedding(N_SLOTS + 1, dim, padding_idx=N_SLOTS)
        self.start = nn.Parameter(torch.randn(dim) / math.sqrt(dim))
        self.trunk = Trunk(config)
        self.spike_head = nn.Linear(dim, CHANNELS_PER_PATCH * config.n_classes)
        self.covariate_head = nn.Linear(dim, 1)

    def forward(self, batch: SpikeTokenBatch) -> Ndt3Predictions:
        """Predict all spike patches and covariates of a batch."""
        features = self.features(batch).flatten(0, 1)
        spikes = self.spike_head(features[batch.spike_positions])
        return Ndt3Predictions(
            spikes.reshape(len(spikes), CHANNELS_PER_PATCH, self.config.n_classes),
            self.covariate_head(features[batch.covariate_positions]).squeeze(-1),
        )

    def features(self, batch: SpikeTokenBatch) -> Tensor:
        """Features float [batch, token, hidden_dim]; those of padding mean nothing."""
        content = self._content(batch)
        start = self.start.to(content.dtype).expand(len(content), 1, -1)
        shifted = torch.cat((start, content[:, :-1]), dim=1)
        return self.trunk(shifted + self.slot_embedding(batch.slots), batch.bins)  # type: ignore[no-any-return]

    def _content(self, batch: SpikeTokenBatch) -> Tensor:
        """Content float [batch, token, hidden_dim] of each token, zero for covariates and padding."""
        counts = batch.patches.long().clamp(max=self.config.max_count)
        returns, rewards = batch.returns.long().unbind(-1)
        pieces = (
            (batch.spike_positions, self.count_embedding(counts).flatten(-2)),
            (batch.covariate_positions, self._hidden(batch.covariates)),
            (batch.constraint_positions, batch.constraints.float() @ self.constraint_embedding),
            (batch.return_positions, self.return_embedding(returns) + self.reward_embedding(rewards)),
        )
        content = self.start.new_zeros(batch.slots.numel(), self.config.hidden_dim)
        positions = torch.cat([where for where, _ in pieces])
        content = content.index_copy(0, positions, torch.cat([what.to(content.dtype) for _, what in pieces]))
        return content.reshape(*batch.slots.shape, -1)

    def _hidden(self, covariates: Tensor) -> Tensor:
        # The published network masks every covariate it reads. The embedding stays in the graph: data-parallel
        # training wants a gradient for every parameter, and here it is exactly zero.
        embedded: Tensor = self.covariate_embedding(covariates[:, None])
        return torch.where(torch.zeros_like(embedded, dtype=torch.bool), embedded, 0)
