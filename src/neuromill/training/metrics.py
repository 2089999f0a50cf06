"""Metrics of a run: counts that add up over steps and ranks, and the JSON lines they end in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import Tensor

    from neuromill.training.objective import Outcome

DIGITS = 6


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """Scores that are a line of metrics: numbers, tuples of numbers, and either by name."""

    def row(self) -> dict[str, Any]:
        """Return the numbers of a line of metrics."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Read back a line of metrics, which may say more."""
        return cls(**{field.name: _tupled(row[field.name]) for field in fields(cls)})


def _tupled(value: Any) -> Any:
    """JSON knows lists only."""
    if isinstance(value, dict):
        return {name: _tupled(one) for name, one in value.items()}
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Scores(ScoreRow):
    """Loss and accuracy over some steps.

    Attributes
    ----------
    loss
        Mean over masked positions, nats; chance is ln(256) = 5.545.
    accuracy
        Mean over levels of the share of codes predicted right.
    per_level
        Accuracy of each quantizer level.
    per_dataset
        Accuracy of each level, by data set; data sets that did not occur are left out.
    positions
        Masked positions these numbers rest on.
    """

    loss: float
    accuracy: float
    per_level: tuple[float, ...]
    per_dataset: dict[str, tuple[float, ...]]
    positions: int


class Tally:
    """Adds up outcomes on the device; nothing waits for the device until :meth:`scores`."""

    def __init__(self, datasets: Sequence[str], n_levels: int, device: torch.device) -> None:
        self.datasets = datasets
        width = 1 + n_levels
        self._sums = torch.zeros(len(datasets), width, dtype=torch.float64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, outcome: Outcome) -> None:
        """Count a batch."""
        self._sums[:, 0] += outcome.positions
        self._sums[:, 1:] += outcome.correct
        self._loss += outcome.loss.detach().double() * outcome.positions.sum()

    def scores(self, fabric: Fabric | None = None) -> Scores:
        """Loss and accuracies so far, over all ranks."""
        packed = sum_over_ranks(torch.cat((self._loss.reshape(1), self._sums.flatten())), fabric)
        loss, sums = packed[0].item(), packed[1:].reshape(self._sums.shape).cpu()
        total = sums.sum(dim=0)
        per_level = shares_of(total)
        return Scores(
            loss=loss / max(total[0].item(), 1.0),
            accuracy=sum(per_level) / len(per_level),
            per_level=per_level,
            per_dataset={
                name: shares_of(row) for name, row in zip(self.datasets, sums, strict=True) if row[0].item() > 0
            },
            positions=int(total[0].item()),
        )


class MetricsFile:
    """Metrics of a run, one JSON object per line: ``kind`` is "train", "validation", "baseline", "test" or "model".

    ``step`` counts from 1; baselines are of step 0, the test is of the last step. "model" says, where a run keeps the
    best weights, of which step they are (``weights_of_step``); it comes before the test, which is theirs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """All complete lines; a last line torn by a crash is left out."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def rewind(self, step: int) -> None:
        """Forget what was written after ``step``: those steps will be made again."""
        kept = [row for row in self.rows() if row["step"] <= step]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        temporary.replace(self.path)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one line."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def sum_over_ranks(tensor: Tensor, fabric: Fabric | None) -> Tensor:
    """Sum of a tensor over the ranks of a run, which have it in one shape and dtype; itself where there is but one."""
    if fabric is None or fabric.world_size == 1:
        return tensor
    return cast("Tensor", fabric.all_reduce(tensor, reduce_op="sum"))


def shares_of(row: Tensor) -> tuple[float, ...]:
    """Shares of the first number that the others are, rounded."""
    count = max(row[0].item(), 1.0)
    return tuple(round(value / count, DIGITS) for value in row[1:].tolist())
