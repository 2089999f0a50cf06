"""Finite scalar quantization: each dimension is bounded and rounded to a few levels (FSQ paper); nothing collapses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuromill.tokenizers.norm_ema import Looked

if TYPE_CHECKING:
    from neuromill.tokenizers.quantizer import Learning

MARGIN = 1e-3
"""The bound reaches this much beyond the outermost level, as published, so that rounding can reach it."""


class FiniteScalar(nn.Module):
    """Same calls as ``NormEmaCodebook``; no buffer is learned and the commitment is zero.

    Parameters
    ----------
    levels
        Levels per dimension; their product is the number of codes.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        strides = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("basis", torch.tensor(strides), persistent=False)

    def forward(self, z: Tensor, learning: Learning | None = None, valid: Tensor | None = None) -> Looked:
        """Quantize float32 [n, dim]; gradients pass straight through the rounding."""
        del valid
        bounded = self._bounded(z)
        rounded = bounded.round()
        half = self.levels // 2
        codes = ((rounded.detach() + half).long() * self.basis).sum(dim=-1)
        through = rounded if learning is None else bounded + (rounded - bounded).detach()
        return Looked(through / half, codes, z.new_zeros(()))

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors of integer codes [...]: float32 [..., dim] in [-1, 1]."""
        half = self.levels // 2
        steps = codes.long()[..., None] // self.basis % self.levels
        return (steps - half).float() / half

    def start(self, z: Tensor, learning: Learning, *, kmeans: bool) -> None:
        """Nothing to place."""

    def _bounded(self, z: Tensor) -> Tensor:
        half = (self.levels - 1) * (1 + MARGIN) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return (z + (offset / half).atanh()).tanh() * half - offset
