"""Settings of the networks; importing this module imports no torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from neuromill.records import Config


class CrissCrossConfig(Config):
    """Sizes of the criss-cross transformer; the defaults are those of the published MEG-XL model.

    Attributes
    ----------
    latent_dim
        Width of a token. One half goes through temporal, the other through spatial attention.
    n_heads
        Heads of both branches together; each branch has half of them.
    fourier_dim
        Length of the Fourier feature (sines and cosines together) of a position or an orientation.
    dropout
        Dropout of the attention weights and of the feed-forward output.
    parity
        Reproduce the published behaviour where it differs from what is meant: attention dropout also in evaluation,
        no key mask for padded channels or frames, masking by adding and subtracting. See ``docs/training.md``.
    checkpoint_activations
        Recompute each layer in the backward pass instead of keeping its activations. Same numbers, less memory.
    """

    latent_dim: int = Field(default=512, ge=8)
    n_layers: int = Field(default=8, ge=1)
    n_heads: int = Field(default=8, ge=2)
    feedforward_factor: int = Field(default=4, ge=1)
    fourier_dim: int = Field(default=250, ge=2)
    position_bandwidth: float = Field(default=1.8, gt=0)
    orientation_bandwidth: float = Field(default=1.0, gt=0)
    n_sensor_types: int = Field(default=2, ge=1)
    n_quantizers: int = Field(default=6, ge=1)
    codebook_size: int = Field(default=256, ge=2, le=256)
    codebook_dim: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    parity: bool = False
    checkpoint_activations: bool = False

    @model_validator(mode="after")
    def _dimensions_divide(self) -> Self:
        if self.n_heads % 2 or self.latent_dim % self.n_heads or (self.latent_dim // self.n_heads) % 2:
            raise ValueError("n_heads must be even and latent_dim a multiple of 2 * n_heads")
        if self.fourier_dim % 2:
            raise ValueError("fourier_dim counts sines and cosines, so it is even")
        return self

    @property
    def branch_dim(self) -> int:
        """Width of one attention branch."""
        return self.latent_dim // 2

    @property
    def branch_heads(self) -> int:
        """Heads of one attention branch."""
        return self.n_heads // 2
