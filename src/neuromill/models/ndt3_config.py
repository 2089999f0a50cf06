"""Settings of the NDT3 model. Imports no torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from neuromill.records import Config


class Ndt3Config(Config):
    """Sizes of NDT3; the defaults are the published 45M model (44.92 M parameters).

    Attributes
    ----------
    hidden_dim, n_layers, n_heads
        Width, depth and attention heads of the causal transformer.
    mlp_factor
        Hidden width of the gated MLP in units of ``hidden_dim``.
    dropout
        Of attention weights and of each branch.
    max_count
        Spike inputs are clipped to it; targets run one further.
    parity
        The published behaviour where ours differs: no residual add and no norm after the last layer, no target for
        counts above 20.
    """

    hidden_dim: int = Field(default=1024, ge=32, multiple_of=32)
    n_layers: int = Field(default=6, ge=1)
    n_heads: int = Field(default=8, ge=1)
    mlp_factor: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    max_count: int = Field(default=20, ge=1, le=254)
    parity: bool = False

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_dim % (2 * self.n_heads):
            raise ValueError("hidden_dim is a multiple of 2 * n_heads: rotary positions turn pairs of features")
        return self

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_dim // self.n_heads

    @property
    def n_classes(self) -> int:
        """Counts a spike head tells apart: 0 to ``max_count + 1``, the last one for all that are higher."""
        return self.max_count + 2


COMPACT = Ndt3Config(hidden_dim=256, n_layers=4, n_heads=4)
"""About 2 M parameters: trains on a CPU."""

PUBLISHED = {
    "45M": Ndt3Config(),
    "350M": Ndt3Config(hidden_dim=2048, n_layers=12, n_heads=16),
    "700M": Ndt3Config(hidden_dim=2048, n_layers=24, n_heads=16),
}
"""The sizes of the NDT3 paper by name."""
