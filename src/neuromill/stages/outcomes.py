"""What goes into a worker and what comes back: small, frozen, picklable; never an array."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuromill.records import FailureCode, Recording


class Stage(StrEnum):
    """The stages, in order."""

    INGEST = "ingest"
    PREPARE = "prepare"
    FIT = "fit"
    TOKENIZE = "tokenize"
    TRAIN = "train"
    EMBED = "embed"


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One recording at one stage. ``identity`` names the store (or cache) it ends in."""

    stage: Stage
    identity: str
    recording: Recording
    input_digest: str


@dataclass(frozen=True, slots=True)
class Shard:
    """The items of one task run."""

    index: int
    items: tuple[WorkItem, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item. ``code`` is None where it was done; facts are JSON values for the ledger."""

    item: WorkItem
    code: FailureCode | None = None
    message: str = ""
    next_step: str = ""
    seconds: float = 0.0
    bytes_out: int = 0
    adopted: bool = False
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the item ended as it should."""
        return self.code is None


@dataclass(frozen=True, slots=True)
class ShardResult:
    """Counts of one shard: all that a task run returns."""

    done: int = 0
    failed: int = 0
    bytes_out: int = 0

    def __add__(self, other: ShardResult) -> ShardResult:
        return ShardResult(self.done + other.done, self.failed + other.failed, self.bytes_out + other.bytes_out)


@dataclass(frozen=True, slots=True)
class StageResult:
    """One line of a run's summary."""

    stage: Stage
    identity: str
    found: int
    already_done: int
    done: int
    failed: int
    seconds: float
    bytes_out: int
    note: str = ""

    @property
    def nothing_to_do(self) -> bool:
        """Whether the stage was complete before it started."""
        return self.done == 0 and self.failed == 0
