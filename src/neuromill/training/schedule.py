"""Learning rate and randomness of a step: pure functions of its number, so that nothing of them needs saving."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from neuromill.training.config import OptimConfig


def learning_rate(config: OptimConfig, step: int, total_steps: int, *, parity: bool = False) -> float:
    """Learning rate of step ``step`` (from 0): linear warm-up, then a cosine down to ``final_lr_share``.

    Under parity the cosine starts at step 0: the published warm-up option is stored and never used.
    """
    warmup = 0 if parity else min(config.warmup_steps, total_steps // 2)
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total_steps - warmup)
    floor = config.lr * config.final_lr_share
    return floor + (config.lr - floor) * 0.5 * (1 + math.cos(math.pi * done))


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of the dropout of one step on one rank."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
