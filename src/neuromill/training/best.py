"""The best validation of a run: its weights are kept, and how long ago it was is counted."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING, Any

from neuromill.models.files import from_pretrained, is_complete, save_pretrained

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import nn

    from neuromill.training.config import RunConfig

SMALLER_IS_BETTER = ("loss",)
STEP_DIGITS = 8


class BestValidation:
    """Follows the validations of a run by one of their scores.

    What it knows comes from the lines of metrics, so a run that continues knows what it knew. Weights lie in a folder
    per step; those that a later one has beaten stay until the next checkpoint, because a run that is killed before it
    goes back to the checkpoint there was.

    Parameters
    ----------
    folder
        Gets the weights, where the settings ask for them.
    config
        ``keep``, ``best_by`` and ``patience``.
    writes
        This process is the one that writes.

    Attributes
    ----------
    step
        Of the best validation so far; None before there is one.
    score
        Of it.
    stale
        Validations since then.
    """

    def __init__(self, folder: Path, config: RunConfig, *, writes: bool) -> None:
        self.folder, self.config, self.writes = folder, config, writes
        self.step: int | None = None
        self.score: float | None = None
        self.stale = 0

    @property
    def patience_is_over(self) -> bool:
        """Whether the run has gone on for too long without a better validation."""
        return self.config.patience is not None and self.stale >= self.config.patience

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in the lines of the validations so far, of a run that continues; weights that are gone are forgotten."""
        for row in rows:
            self._take(row)
        if self.config.keep == "best" and self.step is not None and not is_complete(self._of(self.step)):
            self.step, self.score, self.stale = None, None, 0

    def offer(self, row: Mapping[str, Any], model: nn.Module) -> None:
        """Take in a validation, and keep the weights where it is the best so far; of equal ones the first."""
        if self._take(row) and self.config.keep == "best" and self.writes:
            shutil.rmtree(self._of(row["step"]), ignore_errors=True)
            save_pretrained(model, self._of(row["step"]))

    def prune(self) -> None:
        """Remove weights that were beaten: a checkpoint knows of the better ones."""
        for old in self.folder.glob("step-*") if self.writes else ():
            if self.step is None or old != self._of(self.step):
                shutil.rmtree(old)

    def load_into(self, model: nn.Module) -> None:
        """Give a model the best weights; it keeps its own where no validation told anything."""
        if self.step is not None:
            model.load_state_dict(from_pretrained(self._of(self.step), type(model)).state_dict())

    def _take(self, row: Mapping[str, Any]) -> bool:
        score = row[self.config.best_by]
        if score is not None and math.isfinite(score) and self._is_better(score):
            self.step, self.score, self.stale = row["step"], score, 0
            return True
        self.stale += 1
        return False

    def _is_better(self, score: float) -> bool:
        if self.score is None:
            return True
        return score < self.score if self.config.best_by in SMALLER_IS_BETTER else score > self.score

    def _of(self, step: int) -> Path:
        return self.folder / f"step-{step:0{STEP_DIGITS}d}"
