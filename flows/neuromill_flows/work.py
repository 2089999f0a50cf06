"""The calls that flows make into ``neuromill.stages``, each with a request in place of open objects.

A task run may sit on another machine, so nothing but the request (names, paths, numbers) and the items of its
shard travel; the workspace is opened where the work is.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from neuromill.records import FailureCode, RecordingError
from neuromill.stages.outcomes import Shard, ShardResult, Stage, StageResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.planning import StagePlan
    from neuromill.stages.report import Report
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace
    from neuromill_flows.parameters import Request

SHARDED = frozenset({Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE})
LOCAL_ARCHIVE = "local"


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One task run: a shard and its place among the others."""

    stage: Stage
    number: int
    of: int
    shard: Shard

    @property
    def label(self) -> str:
        """Name of the task run."""
        return f"{self.stage} shard {self.number}/{self.of}, recordings: {len(self.shard.items)}"


@dataclass(frozen=True, slots=True)
class StageWork:
    """The plan of a stage, the task runs it comes to, and what they must respect."""

    plan: StagePlan
    jobs: tuple[ShardJob, ...]
    archives: tuple[str, ...]
    max_failed_share: float


@contextmanager
def hold(request: Request, stage: Stage) -> Iterator[None]:
    """Keep other runs of the same work on this machine out, and take back what a killed run left as running."""
    from neuromill.stages.running import hold_stage

    with _open(request) as opened, hold_stage(*opened, stage):
        yield


def plan(request: Request, stage: Stage) -> StageWork:
    """Plan a stage from the ledger (only what is missing) and cut it into jobs."""
    from neuromill.stages.planning import cut_shards
    from neuromill.stages.running import plan_stage

    with _open(request) as opened:
        stage_plan = plan_stage(*opened, stage)
        settings = opened.workspace.settings.shards
        shards = cut_shards(stage_plan.todo, settings)
        archives = {dataset.card.archive for dataset in opened.workspace.datasets(opened.pipeline, opened.selection)}
    limit = request.options.max_failed_share
    return StageWork(
        plan=stage_plan,
        jobs=tuple(ShardJob(stage, number, len(shards), shard) for number, shard in enumerate(shards, 1)),
        archives=tuple(sorted(archives - {LOCAL_ARCHIVE})) if stage is Stage.INGEST else (),
        max_failed_share=settings.max_failed_share if limit is None else limit,
    )


def run_shard(request: Request, job: ShardJob, report: Report) -> ShardResult:
    """Drive the recordings of one shard through the engine; failures go to the ledger.

    What an attempt that broke off had claimed is given back, so that the next attempt finds it.
    """
    from neuromill.stages.running import run_shard as run

    with _open(request) as opened:
        _give_back(opened.workspace, job)
        report.begin(job.label, len(job.shard.items), "recordings")
        try:
            result = run(*opened, job.shard, opened.workspace.settings.engine, report)
        finally:
            _give_back(opened.workspace, job)
        report.end(f"{result.done} done, {result.failed} failed")
    return result


def finish(request: Request, stage: Stage) -> None:
    """Write the index of what the stage published."""
    from neuromill.stages.running import finish_stage

    with _open(request) as opened:
        finish_stage(*opened, stage)


def run_whole(request: Request, stage: Stage, report: Report) -> StageResult:
    """Run a stage in one go: fit and train, and every stage where there is no Prefect server."""
    from neuromill.stages.running import run_stage

    with _open(request) as opened:
        return run_stage(*opened, stage, report)


def run_all(request: Request, until: Stage, report: Report) -> tuple[StageResult, ...]:
    """Run all stages, up to and with ``until``, with no Prefect at all."""
    from neuromill.stages.running import run_pipeline

    with _open(request) as opened:
        return run_pipeline(*opened, until=until, report=report)


class _Opened(NamedTuple):
    """In the order in which the stages take them."""

    workspace: Workspace
    pipeline: Pipeline
    selection: Selection


@contextmanager
def _open(request: Request) -> Iterator[_Opened]:
    from neuromill.stages.pipeline import load_pipeline
    from neuromill.stages.shipped import find_pipeline
    from neuromill.stages.workspace import Workspace

    pipeline = load_pipeline(find_pipeline(request.pipeline), request.options.overrides)
    workspace = Workspace(request.to_settings())
    try:
        yield _Opened(workspace, pipeline, request.selection.to_stages())
    finally:
        workspace.close()


def _give_back(workspace: Workspace, job: ShardJob) -> None:
    """Mark as interrupted what this process claimed of the shard and never ended."""
    from neuromill.catalog.work import Scope, WorkState

    items = {item.recording.id: item for item in job.shard.items}
    me = f"{socket.gethostname()}:{os.getpid()}"
    for version in sorted({recording.dataset_version for recording in items}, key=str):
        scope = Scope(version, job.stage.value, job.shard.items[0].identity)
        for row in workspace.ledger.rows(scope, states=[WorkState.RUNNING]):
            if row.worker == me and row.key.recording_id in items:
                error = RecordingError(
                    FailureCode.INTERRUPTED, "the attempt broke off", next_step="nothing: it is tried again"
                )
                workspace.ledger.fail(row.key, error)
