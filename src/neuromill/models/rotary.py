"""Rotary position embedding over the whole feature vector (MEG-XL: the heads share out one set of frequencies)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosines and sines [position, pair] float32 of the angles by which feature pairs turn."""

    cos: Tensor
    sin: Tensor


def make_rotation(n_positions: int, dim: int, device: torch.device) -> Rotation:
    """Angles ``position * BASE**(-2 i / dim)`` for the ``dim / 2`` pairs of adjacent features."""
    pairs = torch.arange(0, dim, 2, dtype=torch.float32, device=device)
    frequencies = BASE ** (-pairs / dim)
    angles = torch.arange(n_positions, dtype=torch.float32, device=device)[:, None] * frequencies
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair of adjacent features of ``x`` [batch, position, dim] by its angle, in float32."""
    even, odd = x.float().reshape(*x.shape[:-1], -1, 2).unbind(-1)
    turned = (even * rotation.cos - odd * rotation.sin, even * rotation.sin + odd * rotation.cos)
    return torch.stack(turned, dim=-1).flatten(-2).to(x.dtype)
