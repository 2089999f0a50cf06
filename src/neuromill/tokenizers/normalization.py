"""Block-wise robust scaling of rows, the first half of what a tokenizer does to a signal (MEG-XL, preprocessing)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from neuromill.tokenizers.config import NormalizationConfig

LOWER, UPPER = 0.25, 0.75
FLAT_EPSILONS = 16
"""A block whose IQR is below this many float32 rounding steps of its largest value is rounding noise, not signal."""


def normalize_blocks(signal: Tensor, config: NormalizationConfig) -> Tensor:
    """Scale every block of every row by its median and inter-quartile range, then clip.

    Parameters
    ----------
    signal
        float32 [row, time], any physical unit (values around 1e-13 T are as good as values around one).
    config
        Block length and clip. A shorter last block is processed as is.

    Returns
    -------
    Tensor
        float32 [row, time], dimensionless, within +-clip. Blocks without spread become zeros; so do whole rows
        that hold a non-finite sample (a bad channel is silence).

    Notes
    -----
    Percentiles are linearly interpolated, so a block equals scikit-learn's ``RobustScaler`` up to rounding. The
    mean of a baseline and the sensor type have no influence: both cancel per channel and block.
    """
    rows = _rescaled(signal)
    n_whole = rows.shape[-1] // config.block_samples * config.block_samples
    parts = []
    if n_whole:
        whole = rows[:, :n_whole].reshape(len(rows), -1, config.block_samples)
        parts.append(_robust(whole).flatten(-2))
    if n_whole < rows.shape[-1]:
        parts.append(_robust(rows[:, n_whole:]))
    return torch.cat(parts, dim=-1).clamp(-config.clip, config.clip)


def _rescaled(signal: Tensor) -> Tensor:
    """Divide each row by a power of two so that its largest value is about one; exact, and far from underflow."""
    finite = torch.isfinite(signal).all(dim=-1, keepdim=True)
    rows = torch.where(finite, signal, 0.0).float()
    _, exponent = torch.frexp(rows.abs().amax(dim=-1, keepdim=True))
    # In two steps: 2 ** -exponent alone leaves float32 for values near its smallest ones.
    half = torch.div(-exponent, 2, rounding_mode="floor")
    return torch.ldexp(torch.ldexp(rows, half), -exponent - half)


def _robust(blocks: Tensor) -> Tensor:
    """(x - median) / IQR along the last axis; zeros where there is no spread."""
    ordered = blocks.sort(dim=-1).values
    spread = _quantile(ordered, UPPER) - _quantile(ordered, LOWER)
    largest = torch.maximum(ordered[..., :1].abs(), ordered[..., -1:].abs())
    flat = spread <= FLAT_EPSILONS * torch.finfo(torch.float32).eps * largest
    scaled = (blocks - _quantile(ordered, 0.5)) / torch.where(flat, 1.0, spread)
    return torch.where(flat, 0.0, scaled)


def _quantile(ordered: Tensor, q: float) -> Tensor:
    """Linearly interpolated quantile of sorted values, last axis kept with length one."""
    position = q * (ordered.shape[-1] - 1)
    below = int(position)
    low = ordered[..., below : below + 1]
    high = ordered[..., min(below + 1, ordered.shape[-1] - 1) :][..., :1]
    return low + (high - low) * (position - below)
