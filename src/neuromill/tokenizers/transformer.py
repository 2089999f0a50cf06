"""The transformer that the TFDual encoder and its decoders share: tokens of a (channel, patch) grid, all see all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from neuromill.tokenizers.tfdual_config import TfDualNetworkConfig

NORM_EPSILON = 1e-6
INIT_STD = 0.02


class Attention(nn.Module):
    """Multi-head attention; queries and values have a bias, keys have none."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Float [batch, token, width] -> the same."""
        batch, tokens, width = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = functional.linear(x, self.qkv.weight, bias).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return cast("Tensor", self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width)))


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Float [batch, token, width] -> the same."""
        x = x + self.attn(self.norm1(x))
        return cast("Tensor", x + self.mlp(self.norm2(x)))


class GridTransformer(nn.Module):
    """Adds learned channel and patch positions and a class token, runs the blocks, gives the patch tokens back.

    A channel's position is its place in the window, from 1; row 0 of the channel table is the class token's.
    """

    def __init__(self, config: TfDualNetworkConfig, depth: int) -> None:
        super().__init__()
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.channel_embed = nn.Parameter(torch.zeros(config.max_channels + 1, width))
        self.patch_embed = nn.Parameter(torch.zeros(config.max_patches, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self._initialise()

    def forward(self, grid: Tensor) -> Tensor:
        """Float [batch, channel, patch, width] -> the same shape, layer-normalised."""
        batch, channels, patches, width = grid.shape
        grid = grid + self.channel_embed[1 : channels + 1, None] + self.patch_embed[:patches]
        first = (self.cls_token + self.channel_embed[0]).expand(batch, 1, width)
        tokens = torch.cat([first, grid.reshape(batch, channels * patches, width)], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return cast("Tensor", self.norm(tokens[:, 1:])).view(batch, channels, patches, width)

    def _initialise(self) -> None:
        for table in (self.cls_token, self.channel_embed, self.patch_embed):
            nn.init.trunc_normal_(table, std=INIT_STD)
        for depth, block in enumerate(self.blocks, 1):
            block.apply(initialise_linear)
            one = cast("Block", block)
            for last in (one.attn.proj, cast("nn.Linear", one.mlp[2])):
                last.weight.data.div_(math.sqrt(2 * depth))


def initialise_linear(module: nn.Module, std: float = INIT_STD) -> None:
    """Truncated normal weights, no bias."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=std)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
