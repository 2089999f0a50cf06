"""Run a fit to its end, from wherever an earlier process left it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from neuromill.records import ConfigError
from neuromill.tokenizers.files import load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor


class Step(Protocol):
    """What a step of any fit tells."""

    @property
    def step(self) -> int:
        """Number of the step, from 0."""

    @property
    def total(self) -> float:
        """The loss that was minimised."""


S = TypeVar("S", bound=Step)


class Run(Protocol[S]):
    """State of a fit in progress."""

    history: list[S]

    @property
    def identity(self) -> str:
        """Names settings, data and code; a checkpoint of another identity is refused."""

    def step(self, signal: Tensor) -> S:
        """Take one optimiser step."""

    def state(self) -> dict[str, Any]:
        """Everything a later process needs to go on, as tensors and plain values; ``identity`` among them."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same identity."""


def drive(
    run: Run[S],
    batches: Callable[[int], Tensor],
    *,
    steps: int,
    checkpoint: Path | None,
    checkpoint_every: int,
    progress: Callable[[S], None] | None,
) -> None:
    """Take the steps that are left; the checkpoint is written every so many steps and at the end.

    Raises
    ------
    ConfigError
        If the checkpoint belongs to another fit.
    """
    if checkpoint is not None and checkpoint.exists():
        state = load_checkpoint(checkpoint)
        if state.get("identity") != run.identity:
            raise ConfigError(
                "checkpoint belongs to another fit: settings, data or code differ",
                where=str(checkpoint),
                next_step="delete it, or put it aside, to start over",
            )
        run.restore(state)
    while len(run.history) < steps:
        losses = run.step(batches(len(run.history)))
        done = len(run.history)
        if checkpoint is not None and (done % checkpoint_every == 0 or done == steps):
            save_checkpoint(checkpoint, run.state())
        if progress is not None:
            progress(losses)
