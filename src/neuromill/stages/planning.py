"""Pure planning: which recordings a stage still has to do, and how they are cut into shards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuromill.stages.outcomes import Shard, Stage, WorkItem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from neuromill.records import FailureCode, PartId, Recording, RecordingId
    from neuromill.stages.settings import ShardSettings


@dataclass(frozen=True, slots=True)
class PastWork:
    """What the ledger says of one recording at one stage and identity."""

    done: bool
    code: FailureCode | None
    input_digest: str


@dataclass(frozen=True, slots=True)
class FailedItem:
    """An item that failed for good: nothing will be tried until its input, the pipeline or the ledger changes."""

    recording: RecordingId
    code: FailureCode


@dataclass(frozen=True, slots=True)
class StagePlan:
    """found = done + failed + todo, always."""

    stage: Stage
    identity: str
    todo: tuple[WorkItem, ...]
    done: tuple[RecordingId, ...]
    failed: tuple[FailedItem, ...]

    @property
    def found(self) -> int:
        """Number of recordings the stage is about."""
        return len(self.todo) + len(self.done) + len(self.failed)

    @property
    def bytes_to_do(self) -> int:
        """Source bytes behind the items that are left."""
        return sum(item.recording.size for item in self.todo)

    @property
    def failures_by_code(self) -> Counter[str]:
        """How many recordings failed for which reason."""
        return Counter(failed.code.value for failed in self.failed)


def plan_items(
    items: Iterable[WorkItem],
    past: Mapping[RecordingId, PastWork],
    *,
    is_there: Callable[[WorkItem], bool],
) -> tuple[list[WorkItem], list[RecordingId], list[FailedItem]]:
    """Split items into what is left, what is done and what failed for good.

    Done means: the ledger says so for this very input, and what it says is still in place (``is_there``).
    A transient failure is tried again by itself; a final one waits for ``retry`` or for another input.
    """
    todo: list[WorkItem] = []
    done: list[RecordingId] = []
    failed: list[FailedItem] = []
    for item in items:
        work = past.get(item.recording.id)
        fresh = work is None or work.input_digest != item.input_digest
        if not fresh and work is not None and work.done and is_there(item):
            done.append(item.recording.id)
        elif not fresh and work is not None and work.code is not None and not work.code.transient:
            failed.append(FailedItem(item.recording.id, work.code))
        else:
            todo.append(item)
    return todo, done, failed


def cut_shards(items: Sequence[WorkItem], settings: ShardSettings) -> tuple[Shard, ...]:
    """Cut items, in order, into shards of at most ``max_recordings`` and ``max_bytes`` (one big item is a shard)."""
    shards: list[list[WorkItem]] = []
    size = 0
    for item in items:
        full = (
            not shards or len(shards[-1]) >= settings.max_recordings or size + item.recording.size > settings.max_bytes
        )
        if full:
            shards.append([])
            size = 0
        shards[-1].append(item)
        size += item.recording.size
    return tuple(Shard(index, tuple(items)) for index, items in enumerate(shards))


def share_of(recordings: Sequence[Recording], part: PartId | None) -> tuple[Recording, ...]:
    """Return the recordings that part i of N works on: every N-th of the sorted list, no queue needed."""
    ordered = sorted(recordings, key=lambda recording: str(recording.id))
    return tuple(r for position, r in enumerate(ordered) if part is None or part.owns(position))
