"""The causal transformer of NDT3: pre-norm layers, norms on queries and keys, rotary phase of the time bin."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from neuromill.models.ndt3_config import Ndt3Config

NORM_EPSILON = 1e-5
ROTARY_BASE = 10_000.0


class Phases(NamedTuple):
    """Cosines and sines float32 [batch, 1, token, head_dim / 2] of the angles by which feature pairs turn."""

    cos: Tensor
    sin: Tensor


def make_phases(bins: Tensor, head_dim: int) -> Phases:
    """Angles of integer ``bins`` [batch, token]; tokens of one bin share them, whatever their slot."""
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32, device=bins.device)
    angles = bins[:, None, :, None].float() * ROTARY_BASE ** (-pairs / head_dim)
    return Phases(angles.cos(), angles.sin())


def turn(x: Tensor, phases: Phases) -> Tensor:
    """Turn feature i with feature i + head_dim / 2 of ``x`` [batch, head, token, head_dim], in float32."""
    first, second = x.float().chunk(2, dim=-1)
    turned = (first * phases.cos - second * phases.sin, first * phases.sin + second * phases.cos)
    return torch.cat(turned, dim=-1).to(x.dtype)


class CausalAttention(nn.Module):
    """Self-attention in which a token sees itself and what comes before it in the sequence."""

    def __init__(self, config: Ndt3Config) -> None:
        super().__init__()
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.qkv = nn.Linear(config.hidden_dim, 3 * config.hidden_dim)
        self.query_norm = nn.LayerNorm(config.head_dim, eps=NORM_EPSILON, bias=False)
        self.key_norm = nn.LayerNorm(config.head_dim, eps=NORM_EPSILON, bias=False)
        self.out = nn.Linear(config.hidden_dim, config.hidden_dim)

    def forward(self, x: Tensor, phases: Phases) -> Tensor:
        """Attend over the second axis of float [batch, token, feature]."""
        query, key, value = (self._split(part) for part in self.qkv(x).chunk(3, dim=-1))
        mixed = functional.scaled_dot_product_attention(
            turn(self.query_norm(query), phases).to(value.dtype),
            turn(self.key_norm(key), phases).to(value.dtype),
            value,
            is_causal=True,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)


class GatedMlp(nn.Module):
    """One linear map to value and gate, value times SiLU of the gate, one linear map back."""

    def __init__(self, config: Ndt3Config) -> None:
        super().__init__()
        inner = config.mlp_factor * config.hidden_dim
        self.value_and_gate = nn.Linear(config.hidden_dim, 2 * inner)
        self.out = nn.Linear(inner, config.hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to float [..., feature]."""
        value, gate = self.value_and_gate(x).chunk(2, dim=-1)
        return self.out(value * functional.silu(gate))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention and MLP. Each adds the branch before it to the residual stream and hands its own branch on."""

    def __init__(self, config: Ndt3Config) -> None:
        super().__init__()
        self.attention = CausalAttention(config)
        self.mlp = GatedMlp(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, branch: Tensor, residual: Tensor, phases: Phases) -> tuple[Tensor, Tensor]:
        """Branch and residual stream, both float [batch, token, feature], after this layer."""
        residual = residual + self.drop(branch)
        branch = self.attention(plain_norm(residual), phases)
        residual = residual + self.drop(branch)
        return self.mlp(plain_norm(residual)), residual


class Trunk(nn.Module):
    """A stack of layers.

    The published network hands out the MLP branch of its last layer, neither added to the residual stream nor normed
    (``parity``); here it is added and normed, without further parameters.
    """

    def __init__(self, config: Ndt3Config) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, bins: Tensor) -> Tensor:
        """Features of content ``x`` [batch, token, feature] at integer ``bins`` [batch, token]."""
        phases = make_phases(bins, self.config.head_dim)
        residual = torch.zeros_like(x)
        for layer in self.layers:
            x, residual = layer(x, residual, phases)
        return x if self.config.parity else plain_norm(residual + self.drop(x))


def plain_norm(x: Tensor) -> Tensor:
    """Layer norm of float [..., feature] over the last axis, without parameters."""
    return functional.layer_norm(x, x.shape[-1:], eps=NORM_EPSILON)
