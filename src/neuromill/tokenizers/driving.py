"""One fit of a tokenizer of any kind, from wherever an earlier process left it. What the kinds differ in is a ``Kind``.

Interrupted and resumed, curve and weights are those of an undisturbed fit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch

from neuromill.records import ConfigError, identity
from neuromill.tokenizers.files import load_checkpoint, save_checkpoint
from neuromill.tokenizers.metrics import evaluate
from neuromill.tokenizers.quantizer import Learning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from neuromill.tokenizers.config import FitConfig, TokenizerConfig
    from neuromill.tokenizers.metrics import Quality
    from neuromill.tokenizers.protocol import Tokenizer
    from neuromill.tokenizers.tfdual_config import TfDualFitConfig, TfDualTokenizerConfig

    N = TypeVar("N", bound=nn.Module)


class Step(Protocol):
    """What a step of any fit tells; its other fields are named by ``Kind.parts``."""

    @property
    def total(self) -> float:
        """The loss that was minimised."""


class Losses(Protocol):
    """Scalars with gradients; the others are named by ``Kind.parts``."""

    @property
    def total(self) -> Tensor:
        """What is minimised: float32 scalar."""


S = TypeVar("S", bound=Step)
S_co = TypeVar("S_co", bound=Step, covariant=True)


class Kind(Protocol[S_co]):
    """What one kind of tokenizer adds to a fit."""

    code_version: str
    parts: tuple[str, ...]
    """Losses of a step that make up the curve, ``total`` first."""
    weights: str
    """Key of the network's tensors in a checkpoint: as in those written before the kinds shared a driver."""

    @property
    def tokenizer(self) -> TokenizerConfig | TfDualTokenizerConfig:
        """What is fitted."""

    @property
    def config(self) -> FitConfig | TfDualFitConfig:
        """How."""

    @property
    def network(self) -> nn.Module:
        """With the random start of the seed."""

    def optimizer(self) -> torch.optim.Optimizer:
        """Make the optimiser of the network; called once, when the network is on its device."""

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step."""

    def losses(self, batch: Tensor, step: int, learning: Learning) -> Losses:
        """Forward pass of one batch on the network's device; codebooks learn as ``learning`` says.

        ``batch`` is float32 in physical units: [row, time] for BioCodec, [window, position, time] for TFDual.
        """

    def record(self, step: int, values: Sequence[float]) -> S_co:
        """Make the record of a step from its ``parts``; called after the losses of that step, and when resuming."""

    def state(self) -> dict[str, Tensor]:
        """What a later process needs to go on, beyond network, optimiser, generator and curve."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``; called before the records of the steps are made again."""


def seeded(build: Callable[[], N], seed: int) -> N:
    """Build a network whose random start is that of the seed; the caller's random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def arithmetic(config: FitConfig | TfDualFitConfig, batch: Tensor) -> torch.autocast:
    """Precision of the network's forward pass on the device of ``batch``, as configured."""
    return torch.autocast(batch.device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16")


def drive(
    kind: Kind[S],
    batches: Callable[[int], Tensor],
    *,
    checkpoint: Path | None,
    data_identity: str,
    device: torch.device | str,
    progress: Callable[[S], None] | None,
) -> tuple[S, ...]:
    """Take the steps that are left and return the record of every step; ``kind.network`` is fitted then.

    Parameters
    ----------
    kind
        What to fit, and how.
    batches
        ``batches(step)`` gives what ``kind.losses`` takes; the same step must always give the same batch.
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
    run = _Run(kind, data_identity, torch.device(device))
    if checkpoint is not None and checkpoint.exists():
        run.resume(checkpoint)
    config = kind.config
    while len(run.history) < config.steps:
        record = run.step(batches(len(run.history)))
        done = len(run.history)
        if checkpoint is not None and (done % config.checkpoint_every == 0 or done == config.steps):
            save_checkpoint(checkpoint, run.state())
        if progress is not None:
            progress(record)
    return tuple(run.history)


def quality_of(tokenizer: Tokenizer, validation: Iterable[Tensor]) -> Quality | None:
    """Quality on held-out windows, as ``metrics.evaluate`` takes them and with its errors; None without any."""
    windows = list(validation)
    return evaluate(tokenizer, windows) if windows else None


def curve_summary(losses: Sequence[Step], quality: Quality | None) -> dict[str, Any]:
    """JSON values, without times or places: the same fit gives the same summary."""
    # Means of a tenth of the curve: single steps scatter too much to be compared.
    n = max(1, len(losses) // 10)
    return {
        "steps": len(losses),
        "first_loss": round(sum(x.total for x in losses[:n]) / n, 5),
        "last_loss": round(sum(x.total for x in losses[-n:]) / n, 5),
        "quality": None if quality is None else quality.summary(),
    }


class _Run(Generic[S]):
    """State of a fit in progress: network, optimiser, generator, loss curve."""

    def __init__(self, kind: Kind[S], data_identity: str, device: torch.device) -> None:
        self.kind, self.config, self.device = kind, kind.config, device
        self.identity = identity(
            "tokenizer-fit",
            config={
                "tokenizer": kind.tokenizer.model_dump(mode="json"),
                "fit": kind.config.model_dump(mode="json", exclude={"checkpoint_every"}),
            },
            code_versions={"tokenizers": kind.code_version},
            inputs=(data_identity,),
        )
        self.network = kind.network.to(device).train()
        self.optimizer = kind.optimizer()
        self.generator = torch.Generator().manual_seed(kind.config.seed)
        self.history: list[S] = []

    def step(self, batch: Tensor) -> S:
        """Take one optimiser step."""
        index = len(self.history)
        for group in self.optimizer.param_groups:
            group["lr"] = self.kind.learning_rate(index)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.kind.losses(batch.to(self.device), index, self._learning(index))
        record = self.kind.record(index, [float(getattr(losses, name).detach()) for name in self.kind.parts])
        if not math.isfinite(record.total):
            raise ConfigError(
                f"the loss is {record.total} at step {index}", where="fit", next_step="lower lr, or set max_grad_norm"
            )
        torch.autograd.backward(losses.total)
        if self.config.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.history.append(record)
        return record

    def _learning(self, index: int) -> Learning:
        config = self.config
        return Learning(
            self.generator,
            decay=config.ema_decay,
            kmeans_iterations=config.kmeans_iterations,
            revival=config.revival,
            revive=index % config.revival.every == config.revival.every - 1,
        )

    def state(self) -> dict[str, Any]:
        """Everything a later process needs to go on, as tensors and plain values."""
        curve = [[getattr(record, name) for name in self.kind.parts] for record in self.history]
        return {
            "identity": self.identity,
            self.kind.weights: self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "curve": torch.tensor(curve, dtype=torch.float64),
            **self.kind.state(),
        }

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint, or refuse that of another fit."""
        state = load_checkpoint(checkpoint)
        if state.get("identity") != self.identity:
            raise ConfigError(
                "checkpoint belongs to another fit: settings, data or code differ",
                where=str(checkpoint),
                next_step="delete it, or put it aside, to start over",
            )
        self.network.load_state_dict(state[self.kind.weights])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.kind.restore(state)
        self.history = [self.kind.record(index, row) for index, row in enumerate(state["curve"].tolist())]
