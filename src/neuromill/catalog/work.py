"""The nouns of the ledger: a piece of work, its state, its history, the counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from neuromill.records import DatasetVersion, FailureCode, RecordingId

if TYPE_CHECKING:
    from collections.abc import Mapping


class WorkState(StrEnum):
    """Where a piece of work stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Happening(StrEnum):
    """What the history of a piece of work tells."""

    EXPECTED = "expected"
    CHANGED = "changed"  # the input is another one now
    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    RETRIED = "retried"


@dataclass(frozen=True, slots=True, order=True)
class WorkKey:
    """One stage of one recording under one identity (pipeline, code, inputs)."""

    dataset: str
    version: str
    recording: str
    stage: str
    identity: str

    @classmethod
    def of(cls, recording: RecordingId, stage: str, identity: str) -> Self:
        """Key of a stage of a recording."""
        return cls(recording.dataset, recording.version, recording.name, stage, identity)

    @property
    def recording_id(self) -> RecordingId:
        """The recording it is about."""
        return RecordingId(self.dataset, self.version, self.recording)

    def __str__(self) -> str:
        return f"{self.dataset}@{self.version}/{self.recording} {self.stage}/{self.identity}"


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of work to expect, with the digest of what goes in."""

    key: WorkKey
    input_digest: str


@dataclass(frozen=True, slots=True)
class WorkRow:
    """What the ledger knows about a piece of work. Times are seconds since 1970 in UTC."""

    key: WorkKey
    state: WorkState
    input_digest: str
    code: FailureCode | None = None
    message: str = ""
    next_step: str = ""
    attempts: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    seconds: float | None = None
    bytes_out: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    worker: str = ""


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One thing that happened to a piece of work; ``number`` grows with time."""

    number: int
    key: WorkKey
    at: float
    happening: Happening
    code: FailureCode | None = None
    message: str = ""
    next_step: str = ""
    attempt: int = 0
    input_digest: str = ""
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """How far a stage is: found = done + failed + waiting, always; ``running`` is the part of waiting under way."""

    found: int
    done: int
    failed: int
    waiting: int
    running: int = 0
    by_code: Mapping[FailureCode, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.found != self.done + self.failed + self.waiting or self.running > self.waiting:
            raise ValueError(f"the ledger's counts do not add up: {self}")
        if sum(self.by_code.values()) != self.failed:
            raise ValueError(f"every failure has one code: {self}")


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows an operation is about; None means all.

    ``dataset_version`` None and ``stage`` None together are the whole ledger.
    """

    dataset_version: DatasetVersion | None = None
    stage: str | None = None
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of a stage over many recordings; ``ended_at`` None while it runs, or where it was killed."""

    number: int
    stage: str
    identity: str
    dataset: str
    started_at: float
    ended_at: float | None = None
    seconds: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
