"""Fit a BioCodec tokenizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from neuromill.tokenizers.biocodec import BioCodec
from neuromill.tokenizers.driving import arithmetic, curve_summary, drive, quality_of, seeded
from neuromill.tokenizers.losses import codec_losses
from neuromill.tokenizers.normalization import normalize_blocks
from neuromill.tokenizers.tokenizer import CODE_VERSION, RvqTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from neuromill.tokenizers.config import FitConfig, TokenizerConfig
    from neuromill.tokenizers.losses import Losses
    from neuromill.tokenizers.metrics import Quality
    from neuromill.tokenizers.quantizer import Learning


@dataclass(frozen=True, slots=True)
class StepLosses:
    """Losses of one step: the weighted total, and its parts unweighted."""

    step: int
    total: float
    time: float
    frequency: float
    commitment: float

    def __str__(self) -> str:
        """One line for a progress bar."""
        return f"loss {self.total:.3f}"


@dataclass(frozen=True, slots=True, eq=False)
class FitReport:
    """What a fit gives back: the tokenizer, its loss curve, and its quality on held-out windows if there were any."""

    tokenizer: RvqTokenizer
    losses: tuple[StepLosses, ...]
    quality: Quality | None = None

    def summary(self) -> dict[str, Any]:
        """JSON values, without times or places: the same fit gives the same summary."""
        return curve_summary(self.losses, self.quality)


def learning_rate(step: int, config: FitConfig) -> float:
    """Linear warm-up, then half a cosine to zero at the last step."""
    warmup = config.warmup_share * config.steps
    if step < warmup:
        return config.lr * (config.warmup_start + (1 - config.warmup_start) * step / warmup)
    done = (step - warmup) / max(1.0, config.steps - warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


def fit(
    tokenizer: TokenizerConfig,
    config: FitConfig,
    batches: Callable[[int], Tensor],
    *,
    validation: Iterable[Tensor] = (),
    checkpoint: Path | None = None,
    data_identity: str = "",
    device: torch.device | str = "cpu",
    progress: Callable[[StepLosses], None] | None = None,
) -> FitReport:
    """Fit a tokenizer on windows of the train split.

    Parameters
    ----------
    tokenizer, config
        What to fit, and how.
    batches
        ``batches(step)`` gives float32 [row, time] in physical units; the same step must always give the same rows.
    validation
        Held-out windows for the quality in the report.
    checkpoint, data_identity, device, progress
        As ``driving.drive`` takes them.

    Raises
    ------
    ConfigError
        If the checkpoint belongs to another fit, or the loss stops being a number.
    """
    kind = _BioCodecKind(tokenizer, config)
    losses = drive(kind, batches, checkpoint=checkpoint, data_identity=data_identity, device=device, progress=progress)
    fitted = RvqTokenizer(tokenizer, kind.network)
    return FitReport(fitted, losses, quality_of(fitted, validation))


class _BioCodecKind:
    """Implements ``Kind``."""

    code_version = CODE_VERSION
    parts: tuple[str, ...] = ("total", "time", "frequency", "commitment")
    weights = "codec"

    def __init__(self, tokenizer: TokenizerConfig, config: FitConfig) -> None:
        self.tokenizer, self.config = tokenizer, config
        self.network = seeded(lambda: BioCodec(tokenizer.network), config.seed)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), lr=self.config.lr, betas=self.config.betas)

    def learning_rate(self, step: int) -> float:
        return learning_rate(step, self.config)

    def losses(self, batch: Tensor, step: int, learning: Learning) -> Losses:  # noqa: ARG002
        """Of float32 [row, time]."""
        rows = normalize_blocks(batch, self.tokenizer.normalization)
        with arithmetic(self.config, rows):
            result = self.network(rows, learning)
        return codec_losses(result, self.config.losses)

    def record(self, step: int, values: Sequence[float]) -> StepLosses:
        return StepLosses(step, *values)

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing of its own to restore."""
