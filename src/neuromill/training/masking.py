"""Which frames of a window are hidden from the model. Pure numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuromill.training.config import MaskingConfig

WORD = 2**32


def mask_rng(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """Random numbers of one sample: the same whichever rank or thread asks, and whatever was drawn before."""
    words = [seed, epoch, sample, 0x6D61736B]
    # numpy takes words of 32 bits as they are and ints one by one, to the same stream: 8.6 us where a list takes 12.
    return np.random.default_rng(np.array(words, np.uint32) if max(words) < WORD else words)


def draw_mask(
    config: MaskingConfig, n_real: int, n_frames: int, rng: np.random.Generator, *, parity: bool = False
) -> NDArray[np.bool_]:
    """Frames to hide, bool [n_frames]; only the first ``n_real`` frames are real, the others are never hidden."""
    mask = np.zeros(n_frames, dtype=np.bool_)
    mask[:n_real] = (_published if parity else _scaled)(config, n_real, rng)
    return mask


def _scaled(config: MaskingConfig, n_frames: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Hide ``share`` of the blocks of a grid with random phase: every frame has the same chance, the last included.

    In expectation the share of hidden frames is ``config.share``; at least one block is hidden and one is seen.
    """
    if n_frames < 2:  # noqa: PLR2004 - nothing could be seen
        return np.zeros(n_frames, dtype=np.bool_)
    block = min(config.block_frames, n_frames // 2)
    blocks = (np.arange(n_frames) + rng.integers(block)) // block
    n_blocks = int(blocks[-1]) + 1
    n_hidden = int(np.floor(config.share * n_blocks + rng.random()))
    hidden = np.zeros(n_blocks, dtype=np.bool_)
    hidden[rng.choice(n_blocks, size=min(max(n_hidden, 1), n_blocks - 1), replace=False)] = True
    mask: NDArray[np.bool_] = hidden[blocks]
    return mask


def _published(config: MaskingConfig, n_frames: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """MEG-XL: a fixed number of blocks out of a fixed grid; blocks start at its multiples, the rest is never hidden."""
    mask = np.zeros(n_frames, dtype=np.bool_)
    n_blocks = int(n_frames * config.hop_samples / config.sfreq / config.block_seconds)
    if n_blocks == 0:
        return mask
    grid = n_frames // n_blocks
    for block in rng.choice(n_blocks, size=min(config.published_blocks, n_blocks), replace=False):
        mask[block * grid : block * grid + config.block_frames] = True
    return mask
