"""Stands in for the calls of ``neuromill_flows.work``: recordings without files, outcomes by decree."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from neuromill.records import Digest, Recording, RecordingId, SourceFile
from neuromill.stages.outcomes import Shard, ShardResult, Stage, StageResult, WorkItem
from neuromill.stages.planning import StagePlan
from neuromill.stages.report import Report
from neuromill_flows import work
from neuromill_flows.parameters import Request
from neuromill_flows.work import ShardJob, StageWork


def work_item(number: int, stage: Stage) -> WorkItem:
    name = f"sub-{number:04d}_meg"
    member = SourceFile(f"{name}.fif", 1024, Digest.of(name.encode()))
    recording = Recording(RecordingId("ds000001", "1.0.0", name), member.path, (member,))
    return WorkItem(stage, "0123456789abcdef", recording, recording.input_digest)


@dataclass
class FakeWork:
    """``failing`` recordings of each shard fail; ``troubles`` are raised first, one per attempt, on any shard."""

    n_shards: int = 3
    per_shard: int = 4
    failing: int = 0
    troubles: list[Exception] = field(default_factory=list)
    max_failed_share: float = 0.5
    ran: list[tuple[Stage, int]] = field(default_factory=list)
    finished: list[Stage] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "FakeWork":
        for name in ("hold", "plan", "run_shard", "finish", "run_whole", "run_all"):
            monkeypatch.setattr(work, name, getattr(self, name))
        return self

    @contextmanager
    def hold(self, request: Request, stage: Stage) -> Iterator[None]:
        yield

    def plan(self, request: Request, stage: Stage) -> StageWork:
        items = [work_item(number, stage) for number in range(self.n_shards * self.per_shard)]
        shards = [Shard(n, tuple(items[n * self.per_shard : (n + 1) * self.per_shard])) for n in range(self.n_shards)]
        return StageWork(
            plan=StagePlan(stage, "0123456789abcdef", tuple(items), (), ()),
            jobs=tuple(ShardJob(stage, number, self.n_shards, shard) for number, shard in enumerate(shards, 1)),
            archives=(),
            max_failed_share=self.max_failed_share,
        )

    def run_shard(self, request: Request, job: ShardJob, report: Report) -> ShardResult:
        with self._lock:
            self.requests.append(request)
            if self.troubles:
                raise self.troubles.pop(0)
            self.ran.append((job.stage, job.number))
        return ShardResult(self.per_shard - self.failing, self.failing, 1000)

    def finish(self, request: Request, stage: Stage) -> None:
        self.finished.append(stage)

    def run_whole(self, request: Request, stage: Stage, report: Report) -> StageResult:
        self.ran.append((stage, 0))
        return StageResult(stage, "0123456789abcdef", 4, 0, 4, 0, 1.0, 10)

    def run_all(self, request: Request, until: Stage, report: Report) -> tuple[StageResult, ...]:
        return (self.run_whole(request, until, report),)
