"""Fit a BioCodec tokenizer. Interrupted and resumed, the loss curve is the one of an undisturbed fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from neuromill.records import ConfigError, identity
from neuromill.tokenizers.biocodec import BioCodec
from neuromill.tokenizers.losses import codec_losses
from neuromill.tokenizers.metrics import evaluate
from neuromill.tokenizers.normalization import normalize_blocks
from neuromill.tokenizers.quantizer import Learning
from neuromill.tokenizers.resuming import drive
from neuromill.tokenizers.tokenizer import CODE_VERSION, RvqTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import Tensor

    from neuromill.tokenizers.config import FitConfig, TokenizerConfig
    from neuromill.tokenizers.losses import Losses
    from neuromill.tokenizers.metrics import Quality

    Batches = Callable[[int], Tensor]


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
        # Means of a tenth of the curve: single steps scatter too much to be compared.
        n = max(1, len(self.losses) // 10)
        return {
            "steps": len(self.losses),
            "first_loss": round(sum(x.total for x in self.losses[:n]) / n, 5),
            "last_loss": round(sum(x.total for x in self.losses[-n:]) / n, 5),
            "quality": None if self.quality is None else self.quality.summary(),
        }


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
    batches: Batches,
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
    checkpoint
        File that holds the state of an unfinished fit: written every ``checkpoint_every`` steps and at the end,
        continued from if it is there.
    data_identity
        Names what ``batches`` draws from; a checkpoint of other data is refused.
    device
        Where to fit.
    progress
        Called after every step.

    Raises
    ------
    ConfigError
        If the checkpoint belongs to another fit, or the loss stops being a number.
    """
    run = _Run(tokenizer, config, data_identity, torch.device(device))
    drive(
        run,
        batches,
        steps=config.steps,
        checkpoint=checkpoint,
        checkpoint_every=config.checkpoint_every,
        progress=progress,
    )
    fitted = RvqTokenizer(tokenizer, run.codec)
    windows = list(validation)
    return FitReport(fitted, tuple(run.history), evaluate(fitted, windows) if windows else None)


class _Run:
    """State of a fit in progress: weights, optimiser, generator, loss curve."""

    def __init__(self, tokenizer: TokenizerConfig, config: FitConfig, data_identity: str, device: torch.device) -> None:
        self.tokenizer, self.config, self.device = tokenizer, config, device
        self.identity = identity(
            "tokenizer-fit",
            config={
                "tokenizer": tokenizer.model_dump(mode="json"),
                "fit": config.model_dump(mode="json", exclude={"checkpoint_every"}),
            },
            code_versions={"tokenizers": CODE_VERSION},
            inputs=(data_identity,),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.codec = BioCodec(tokenizer.network)
        self.codec.to(device).train()
        self.optimizer = torch.optim.Adam(self.codec.parameters(), lr=config.lr, betas=config.betas)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.history: list[StepLosses] = []

    def step(self, signal: Tensor) -> StepLosses:
        """One optimiser step on float32 [row, time]."""
        index = len(self.history)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(index, self.config)
        rows = normalize_blocks(signal.to(self.device), self.tokenizer.normalization)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._losses(rows, index)
        record = StepLosses(
            index, *(float(x.detach()) for x in (losses.total, losses.time, losses.frequency, losses.commitment))
        )
        if not math.isfinite(record.total):
            raise ConfigError(
                f"the loss is {record.total} at step {index}", where="fit", next_step="lower lr, or set max_grad_norm"
            )
        torch.autograd.backward(losses.total)
        if self.config.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.codec.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.history.append(record)
        return record

    def _losses(self, rows: Tensor, index: int) -> Losses:
        config = self.config
        learning = Learning(
            self.generator,
            decay=config.ema_decay,
            kmeans_iterations=config.kmeans_iterations,
            revival=config.revival,
            revive=index % config.revival.every == config.revival.every - 1,
        )
        half = config.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            result = self.codec(rows, learning)
        return codec_losses(result, config.losses)

    def state(self) -> dict[str, Any]:
        """Everything a later process needs to go on, as tensors and plain values."""
        curve = [[x.total, x.time, x.frequency, x.commitment] for x in self.history]
        return {
            "identity": self.identity,
            "codec": self.codec.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "curve": torch.tensor(curve, dtype=torch.float64),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.codec.load_state_dict(state["codec"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.history = [StepLosses(i, *row) for i, row in enumerate(state["curve"].tolist())]
