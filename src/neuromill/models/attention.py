"""Multi-head self-attention of one branch, with rotary positions and key masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional

from neuromill.models.rotary import rotate

if TYPE_CHECKING:
    from torch import Tensor

    from neuromill.models.rotary import Rotation


class SelfAttention(nn.Module):
    """Scaled dot-product self-attention over the second axis of [batch, item, feature].

    ``drop_in_eval`` reproduces the published network, which drops attention weights in evaluation too, so that
    two passes over the same input differ (7.7 % in relative norm for random weights).
    """

    def __init__(self, dim: int, n_heads: int, *, dropout: float, drop_in_eval: bool) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.drop_in_eval = drop_in_eval
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, *, keys: Tensor | None = None, rotation: Rotation | None = None) -> Tensor:
        """Attend; ``keys`` is bool [batch, item], False for items nobody may look at.

        Returns
        -------
        float [batch, item, feature]; rows of masked items are computed as well and mean nothing.
        """
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        if rotation is not None:  # before the split into heads: head h owns the h-th block of frequencies
            query, key = rotate(query, rotation), rotate(key, rotation)
        mixed = functional.scaled_dot_product_attention(
            self._split(query),
            self._split(key),
            self._split(value),
            attn_mask=None if keys is None else keys[:, None, None, :],
            dropout_p=self.dropout if self.training or self.drop_in_eval else 0.0,
        )
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.n_heads, -1).transpose(1, 2)
