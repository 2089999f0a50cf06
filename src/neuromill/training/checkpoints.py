"""Checkpoints of a run: a folder per step, complete or absent, from which the run continues as if never stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from neuromill.models.files import flush, from_pretrained, load_plain, save_pretrained
from neuromill.records import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

OPTIMIZER = "optimizer.pt"
STATE = "state.json"
STEP_DIGITS = 8
NEXT_STEP = "remove this folder to continue from the one before"


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands, and what it is a run of.

    Attributes
    ----------
    step
        Optimiser steps made.
    epoch, batch
        The next batch: number ``batch`` of epoch ``epoch``.
    world_size
        Ranks; batches are counted per rank, so a run continues with as many.
    settings
        JSON of everything that decides the numbers: settings and data. Another run has other settings.
    """

    step: int
    epoch: int
    batch: int
    world_size: int
    settings: dict[str, Any]


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: RunState, *, keep: int | None = None
) -> Path:
    """Publish ``folder/step-00000123`` by renaming a complete folder; remove all but the newest ``keep``."""
    target = folder / f"step-{state.step:0{STEP_DIGITS}d}"
    temporary = folder / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_pretrained(model, temporary)
    torch.save(optimizer.state_dict(), temporary / OPTIMIZER)
    (temporary / STATE).write_text(json.dumps(asdict(state), indent=2, sort_keys=True) + "\n")
    flush(*temporary.iterdir(), temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    flush(folder)
    for old in _all(folder)[:-keep] if keep else []:
        shutil.rmtree(old)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """Newest complete checkpoint, None where there is none."""
    return next(reversed(_all(folder)), None)


def load_state(checkpoint: Path) -> RunState:
    """Where the run stood; ConfigError where the file is damaged."""
    try:
        return RunState(**json.loads((checkpoint / STATE).read_text()))
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise _damaged(checkpoint, str(error)) from error


def restore(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load weights and optimiser state into objects of the same configuration.

    Raises
    ------
    ConfigError
        A file is damaged, or the optimiser state is of another model.
    """
    try:
        weights = from_pretrained(checkpoint, type(model)).state_dict()
    except ConfigError as error:
        raise _damaged(checkpoint, error.what) from error
    model.load_state_dict(weights)
    saved = load_plain(checkpoint / OPTIMIZER, NEXT_STEP)
    try:
        optimizer.load_state_dict(saved)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(checkpoint, str(error)) from error


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / STATE).exists())


def _damaged(checkpoint: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"checkpoint cannot be read: {reason}",
        where=str(checkpoint),
        next_step=NEXT_STEP,
    )
