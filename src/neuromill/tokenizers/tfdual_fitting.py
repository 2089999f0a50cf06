"""Fit a TFDual tokenizer. Interrupted and resumed, curve and weights are those of an undisturbed fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuromill.records import ConfigError, identity
from neuromill.tokenizers.metrics import evaluate
from neuromill.tokenizers.quantizer import Learning
from neuromill.tokenizers.resuming import drive
from neuromill.tokenizers.tfdual import TFDUAL_CODE_VERSION, TfDualTokenizer, scale_windows
from neuromill.tokenizers.tfdual_losses import split_halves, tfdual_losses
from neuromill.tokenizers.tfdual_network import TfDual
from neuromill.tokenizers.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import Tensor

    from neuromill.tokenizers.metrics import Quality
    from neuromill.tokenizers.tfdual import Scaled
    from neuromill.tokenizers.tfdual_config import TfDualFitConfig, TfDualTokenizerConfig
    from neuromill.tokenizers.tfdual_losses import TfDualLosses

PARTS = ("total", "time", "amplitude", "phase", "commitment", "contrastive")


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
        # Means of a tenth of the curve: single steps scatter too much to be compared.
        n = max(1, len(self.losses) // 10)
        return {
            "steps": len(self.losses),
            "first_loss": round(sum(x.total for x in self.losses[:n]) / n, 5),
            "last_loss": round(sum(x.total for x in self.losses[-n:]) / n, 5),
            "health": [
                {
                    "until": one.until,
                    "perplexity": list(one.perplexity),
                    "used": list(one.used),
                    "dominant_share": list(one.dominant_share),
                }
                for one in self.health
            ],
            "quality": None if self.quality is None else self.quality.summary(),
        }


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
    checkpoint
        File that holds the state of an unfinished fit: written every ``checkpoint_every`` steps and at the end,
        continued from if it is there.
    data_identity
        Names what ``batches`` draws from; a checkpoint of other data is refused.
    device
        Where to fit.
    progress
        Called after every step; ``str`` of what it gets tells loss and codebook health.
    contrast_silence
        Whether features at channels that are not there count in the contrastive loss. Without, two halves are not
        alike because the same channels are missing in both.

    Raises
    ------
    ConfigError
        If the checkpoint belongs to another fit, the loss stops being a number, or a batch has no channel at all.
    """
    run = _Run(tokenizer, config, data_identity, torch.device(device), contrast_silence=contrast_silence)
    drive(
        run,
        batches,
        steps=config.steps,
        checkpoint=checkpoint,
        checkpoint_every=config.checkpoint_every,
        progress=progress,
    )
    fitted = TfDualTokenizer(tokenizer, run.network)
    windows = list(validation)
    quality = evaluate(fitted, windows) if windows else None
    return TfDualFitReport(fitted, tuple(run.history), tuple(run.health), quality)


class _Run:
    """State of a fit in progress: weights, optimiser, generator, curve, counts of the log window."""

    def __init__(
        self,
        tokenizer: TfDualTokenizerConfig,
        config: TfDualFitConfig,
        data_identity: str,
        device: torch.device,
        *,
        contrast_silence: bool,
    ) -> None:
        self.tokenizer, self.config, self.device = tokenizer, config, device
        self.contrast_silence = contrast_silence
        self.identity = identity(
            "tokenizer-fit",
            config={
                "tokenizer": tokenizer.model_dump(mode="json"),
                "fit": config.model_dump(mode="json", exclude={"checkpoint_every"}),
            },
            code_versions={"tokenizers": TFDUAL_CODE_VERSION},
            inputs=(data_identity,),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = TfDual(tokenizer)
        self.network.to(device).train()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.history: list[TfDualStep] = []
        self.health: list[CodebookHealth] = []
        self.counts = np.zeros((tokenizer.n_quantizers, tokenizer.codebook_size), np.int64)

    def step(self, signal: Tensor) -> TfDualStep:
        """One optimiser step on float32 [window, position, time]."""
        index = len(self.history)
        for group in self.optimizer.param_groups:
            group["lr"] = tfdual_learning_rate(index, self.config)
        scaled = scale_windows(signal.to(self.device), self.tokenizer.input, self.tokenizer.hop_samples)
        if not bool(scaled.valid.any()):
            raise ConfigError(
                "no channel of a batch has values", where="fit", next_step="give windows of good channels"
            )
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._losses(scaled, index)
        values = [float(getattr(losses, name).detach()) for name in PARTS]
        if not math.isfinite(values[0]):
            raise ConfigError(
                f"the loss is {values[0]} at step {index}", where="fit", next_step="lower lr, or set max_grad_norm"
            )
        torch.autograd.backward(losses.total)
        if self.config.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        if (index + 1) % self.config.log_every == 0:
            self.health.append(CodebookHealth.of(index + 1, Usage(self.counts)))
            self.counts = np.zeros_like(self.counts)
        record = _step(index, values, self.health[-1] if self.health else None)
        self.history.append(record)
        return record

    def _losses(self, scaled: Scaled, index: int) -> TfDualLosses:
        config = self.config
        learning = Learning(
            self.generator,
            decay=config.ema_decay,
            kmeans_iterations=config.kmeans_iterations,
            revival=config.revival,
            revive=index % config.revival.every == config.revival.every - 1,
        )
        half = config.precision == "bfloat16"
        valid = None if bool(scaled.valid.all()) else scaled.valid
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            if index == 0:
                self.network.start(scaled.x, learning, kmeans=config.kmeans_init, valid=valid)
            result = self.network(scaled.x, learning, valid)
            halves = self.network.features(split_halves(scaled.x)) if config.losses.contrastive_weight else None
        if halves is not None and valid is not None and not self.contrast_silence:
            halves = halves * valid.repeat(2, 1)[..., None, None]
        chosen = result.codes.transpose(1, 2)[scaled.valid].cpu().numpy()
        self.counts += Usage.of(chosen, self.tokenizer.codebook_size).counts
        return tfdual_losses(result, scaled.x, halves, self.tokenizer, config.losses, valid)

    def state(self) -> dict[str, Any]:
        """Everything a later process needs to go on, as tensors and plain values."""
        health = [[one.until, *one.perplexity, *one.used, *one.dominant_share] for one in self.health]
        return {
            "identity": self.identity,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "curve": torch.tensor([[getattr(x, name) for name in PARTS] for x in self.history], dtype=torch.float64),
            "health": torch.tensor(health, dtype=torch.float64),
            "counts": torch.from_numpy(self.counts.copy()),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.counts = state["counts"].numpy().copy()
        self.health = [_health(row) for row in state["health"].tolist()]
        self.history = [_step(i, row, self._health_at(i)) for i, row in enumerate(state["curve"].tolist())]

    def _health_at(self, step: int) -> CodebookHealth | None:
        done = (step + 1) // self.config.log_every
        return self.health[done - 1] if done else None


def _step(index: int, values: list[float], health: CodebookHealth | None) -> TfDualStep:
    return TfDualStep(index, health=health, **dict(zip(PARTS, values, strict=True)))


def _health(row: list[float]) -> CodebookHealth:
    n = (len(row) - 1) // 3
    until, values = int(row[0]), row[1:]
    return CodebookHealth(until, tuple(values[:n]), tuple(int(v) for v in values[n : 2 * n]), tuple(values[2 * n :]))
