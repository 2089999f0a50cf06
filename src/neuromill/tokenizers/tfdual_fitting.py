"""Fit a TFDual tokenizer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuromill.records import ConfigError
from neuromill.tokenizers.driving import arithmetic, curve_summary, drive, quality_of, seeded
from neuromill.tokenizers.tfdual import TFDUAL_CODE_VERSION, TfDualTokenizer, scale_windows
from neuromill.tokenizers.tfdual_losses import split_halves, tfdual_losses
from neuromill.tokenizers.tfdual_network import TfDual
from neuromill.tokenizers.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from neuromill.tokenizers.metrics import Quality
    from neuromill.tokenizers.quantizer import Learning
    from neuromill.tokenizers.tfdual_config import TfDualFitConfig, TfDualTokenizerConfig
    from neuromill.tokenizers.tfdual_losses import TfDualLosses


@dataclass(frozen=True, slots=True)
class TfDualStep:
    """Losses of one step: the weighted total, its parts unweighted, and how the codebooks did until now.

    ``health`` is the one of the last whole log window and None before its end.
    """

    step: int
    total: float
    time: float
    amplitude: float
    phase: float
    commitment: float
    contrastive: float
    health: CodebookHealth | None = None

    def __str__(self) -> str:
        """One line for a progress bar."""
        return f"loss {self.total:.3f}" + (f", {self.health}" if self.health else "")


@dataclass(frozen=True, slots=True)
class CodebookHealth:
    """Use of the codebooks over one log window: temporal first, frequency second; steps below ``until``."""

    until: int
    perplexity: tuple[float, ...]
    used: tuple[int, ...]
    dominant_share: tuple[float, ...]

    @classmethod
    def of(cls, until: int, usage: Usage) -> CodebookHealth:
        """Summarise the counts of a log window."""
        return cls(
            until,
            tuple(round(float(v), 3) for v in usage.perplexity),
            tuple(int(v) for v in usage.used_codes),
            tuple(round(float(v), 4) for v in usage.dominant_share),
        )

    def summary(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "until": self.until,
            "perplexity": list(self.perplexity),
            "used": list(self.used),
            "dominant_share": list(self.dominant_share),
        }

    def as_row(self) -> list[float]:
        """All of it as numbers, for a checkpoint."""
        return [self.until, *self.perplexity, *self.used, *self.dominant_share]

    @classmethod
    def of_row(cls, row: Sequence[float]) -> CodebookHealth:
        """Inverse of ``as_row``."""
        n = (len(row) - 1) // 3
        until, values = int(row[0]), row[1:]
        return cls(until, tuple(values[:n]), tuple(int(v) for v in values[n : 2 * n]), tuple(values[2 * n :]))

    def __str__(self) -> str:
        """Perplexity, codes used and share of the commonest, temporal / frequency."""
        columns = (
            ("perplexity", [f"{v:.0f}" for v in self.perplexity]),
            ("used", [str(v) for v in self.used]),
            ("dominant", [f"{v:.0%}" for v in self.dominant_share]),
        )
        return ", ".join(f"{name} {'/'.join(values)}" for name, values in columns)


@dataclass(frozen=True, slots=True, eq=False)
class TfDualFitReport:
    """What a fit gives back: tokenizer, loss curve, codebook health per log window, quality on held-out windows."""

    tokenizer: TfDualTokenizer
    losses: tuple[TfDualStep, ...]
    health: tuple[CodebookHealth, ...]
    quality: Quality | None = None

    def summary(self) -> dict[str, Any]:
        """JSON values, without times or places: the same fit gives the same summary."""
        return curve_summary(self.losses, self.quality) | {"health": [one.summary() for one in self.health]}


def tfdual_learning_rate(step: int, config: TfDualFitConfig) -> float:
    """Linear warm-up to ``lr``, then half a cosine that ends at ``min_lr``."""
    warmup = round(config.warmup_share * config.steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, config.steps - warmup - 1)
    return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def fit_tfdual(
    tokenizer: TfDualTokenizerConfig,
    config: TfDualFitConfig,
    batches: Callable[[int], Tensor],
    *,
    validation: Iterable[Tensor] = (),
    checkpoint: Path | None = None,
    data_identity: str = "",
    device: torch.device | str = "cpu",
    progress: Callable[[TfDualStep], None] | None = None,
    contrast_silence: bool = True,
) -> TfDualFitReport:
    """Fit a tokenizer on windows of the train split.

    Parameters
    ----------
    tokenizer, config
        What to fit, and how.
    batches
        ``batches(step)`` gives float32 [window, position, time] in physical units, whole patches, all NaN where a
        channel is missing or bad; the same step must always give the same windows.
    validation
        Held-out windows for the quality in the report.
    checkpoint, data_identity, device, progress
        As ``driving.drive`` takes them; ``str`` of what ``progress`` gets tells loss and codebook health.
    contrast_silence
        Whether features at channels that are not there count in the contrastive loss. Without, two halves are not
        alike because the same channels are missing in both.

    Raises
    ------
    ConfigError
        If the checkpoint belongs to another fit, the loss stops being a number, or a batch has no channel at all.
    """
    kind = _TfDualKind(tokenizer, config, contrast_silence=contrast_silence)
    losses = drive(kind, batches, checkpoint=checkpoint, data_identity=data_identity, device=device, progress=progress)
    fitted = TfDualTokenizer(tokenizer, kind.network)
    return TfDualFitReport(fitted, losses, tuple(kind.health), quality_of(fitted, validation))


class _TfDualKind:
    """Implements ``Kind``; counts the codes of a log window."""

    code_version = TFDUAL_CODE_VERSION
    parts: tuple[str, ...] = ("total", "time", "amplitude", "phase", "commitment", "contrastive")
    weights = "network"

    def __init__(self, tokenizer: TfDualTokenizerConfig, config: TfDualFitConfig, *, contrast_silence: bool) -> None:
        self.tokenizer, self.config, self.contrast_silence = tokenizer, config, contrast_silence
        self.network = seeded(lambda: TfDual(tokenizer), config.seed)
        self.health: list[CodebookHealth] = []
        self.counts = np.zeros((tokenizer.n_quantizers, tokenizer.codebook_size), np.int64)

    def optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )

    def learning_rate(self, step: int) -> float:
        return tfdual_learning_rate(step, self.config)

    def losses(self, batch: Tensor, step: int, learning: Learning) -> TfDualLosses:
        """Of float32 [window, position, time]."""
        scaled = scale_windows(batch, self.tokenizer.input, self.tokenizer.hop_samples)
        if not bool(scaled.valid.any()):
            raise ConfigError(
                "no channel of a batch has values", where="fit", next_step="give windows of good channels"
            )
        config = self.config
        valid = None if bool(scaled.valid.all()) else scaled.valid
        with arithmetic(config, batch):
            if step == 0:
                self.network.start(scaled.x, learning, kmeans=config.kmeans_init, valid=valid)
            result = self.network(scaled.x, learning, valid)
            halves = self.network.features(split_halves(scaled.x)) if config.losses.contrastive_weight else None
        if halves is not None and valid is not None and not self.contrast_silence:
            halves = halves * valid.repeat(2, 1)[..., None, None]
        self._count(result.codes.transpose(1, 2)[scaled.valid].cpu().numpy(), step)
        return tfdual_losses(result, scaled.x, halves, self.tokenizer, config.losses, valid)

    def record(self, step: int, values: Sequence[float]) -> TfDualStep:
        done = (step + 1) // self.config.log_every
        health = self.health[done - 1] if done else None
        return TfDualStep(step, health=health, **dict(zip(self.parts, values, strict=True)))

    def state(self) -> dict[str, Tensor]:
        return {
            "health": torch.tensor([one.as_row() for one in self.health], dtype=torch.float64),
            "counts": torch.from_numpy(self.counts.copy()),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.counts = state["counts"].numpy().copy()
        self.health = [CodebookHealth.of_row(row) for row in state["health"].tolist()]

    def _count(self, codes: NDArray[np.int64], step: int) -> None:
        """Count codes [row, quantizer, frame] of a step; a whole log window becomes its health."""
        self.counts += Usage.of(codes, self.tokenizer.codebook_size).counts
        if (step + 1) % self.config.log_every == 0:
            self.health.append(CodebookHealth.of(step + 1, Usage(self.counts)))
            self.counts = np.zeros_like(self.counts)
