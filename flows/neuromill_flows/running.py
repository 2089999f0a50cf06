"""How a stage runs under Prefect: plan, artifact, shards as mapped task runs in windows, index, table."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect import Flow, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from neuromill.records import NeuroMillError
from neuromill.stages.outcomes import ShardResult, Stage, StageResult
from neuromill_flows import work
from neuromill_flows.failures import StageFailedError, TooManyFailedError, check_share, worth_a_retry
from neuromill_flows.parameters import EngineChoice, Request, TaskRunnerChoice
from neuromill_flows.reporting import LogReport, plan_markdown, summary_markdown
from neuromill_flows.work import SHARDED, ShardJob, StageWork

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# 500 task runs are 3 s of server CPU and 7-14 MB of its database; a page of the UI still draws them.
MAX_SHARDS_PER_FLOW_RUN = 500
RETRY_DELAYS_SECONDS = [10.0, 60.0, 300.0]


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of the task runs: counts, and one line per shard that failed."""

    result: ShardResult
    problems: tuple[str, ...] = ()

    def __add__(self, other: Ended) -> Ended:
        return Ended(self.result + other.result, self.problems + other.problems)


class ShardCall:
    """What one task run needs.

    No dataclass, no model: Prefect walks through those looking for futures, here 256 recordings deep.
    """

    __slots__ = ("archives", "job", "max_failed_share", "request")

    def __init__(self, request: Request, job: ShardJob, archives: tuple[str, ...], max_failed_share: float) -> None:
        self.request, self.job = request, job
        self.archives, self.max_failed_share = archives, max_failed_share


@task(
    name="shard",
    task_run_name="{call.job.label}",
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=worth_a_retry,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def shard_task(call: ShardCall) -> ShardResult:
    """Drive the recordings of one shard. Returns counts; which recording failed and why is in the ledger."""
    with archive_slots(call.archives):
        result = work.run_shard(call.request, call.job, LogReport(get_run_logger()))
    return check_share(call.job.label, result, call.max_failed_share)


@task(name="whole stage", task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False)
def whole_task(stage: Stage, request: Request) -> StageResult:
    """Run a stage that is one piece of work: fit or train. It resumes from its own checkpoints."""
    return work.run_whole(request, stage, LogReport(get_run_logger()))


def run_stage(stage: Stage, request: Request) -> StageResult:
    """Run one stage inside a flow run.

    Raises
    ------
    StageFailedError
        At least one shard failed. The other shards were run, and the index names what they published.
    """
    if stage not in SHARDED:
        result = whole_task(stage, request)
        create_markdown_artifact(summary_markdown([result]), key=f"{stage}-summary", description=f"Result of {stage}")
        return result
    started = time.monotonic()
    with work.hold(request, stage):
        stage_work = work.plan(request, stage)
        create_markdown_artifact(plan_markdown(stage_work), key=f"{stage}-plan", description=f"Plan of {stage}")
        ended = _run_windows(request, stage_work)
        work.finish(request, stage)
    result = _summarise(stage_work, ended, time.monotonic() - started)
    create_markdown_artifact(
        summary_markdown([result], ended.problems), key=f"{stage}-summary", description=f"Result of {stage}"
    )
    if ended.problems:
        raise StageFailedError(
            f"{len(ended.problems)} of {len(stage_work.jobs)} shards failed",
            where=ended.problems[0],
            next_step="run the flow again: it plans only what is missing",
        )
    return result


def _summarise(stage_work: StageWork, ended: Ended, seconds: float) -> StageResult:
    plan = stage_work.plan
    return StageResult(
        stage=plan.stage,
        identity=plan.identity,
        found=plan.found,
        already_done=len(plan.done),
        done=ended.result.done,
        failed=ended.result.failed + len(plan.failed),
        seconds=seconds,
        bytes_out=ended.result.bytes_out,
        note="" if plan.todo else "nothing to do",
    )


def _run_windows(request: Request, stage_work: StageWork) -> Ended:
    """Map the shards: within this flow run where they fit, else one subflow run per window of 500."""
    jobs = stage_work.jobs
    if not jobs:
        return Ended(ShardResult())
    starts = range(0, len(jobs), MAX_SHARDS_PER_FLOW_RUN)
    windows = [jobs[start : start + MAX_SHARDS_PER_FLOW_RUN] for start in starts]
    with dask_cluster(request) as ready:
        if len(windows) == 1:
            return _map_shards(ready, jobs, stage_work)
        ended = Ended(ShardResult())
        for number, window in enumerate(windows, 1):
            ended += _window_flow(ready, window, stage_work)(stage_work.plan.stage, number, len(windows))
        return ended


def _window_flow(request: Request, jobs: Sequence[ShardJob], stage_work: StageWork) -> Flow[[Stage, int, int], Ended]:
    # The jobs stay in the closure: parameters of a flow run are stored by the server, 500 shards do not belong there.
    @flow(name="window", flow_run_name="{stage} window {number}/{of}", persist_result=False)
    def window(stage: Stage, number: int, of: int) -> Ended:  # noqa: ARG001
        return _map_shards(request, jobs, stage_work)

    return window


def _map_shards(request: Request, jobs: Sequence[ShardJob], stage_work: StageWork) -> Ended:
    calls = [ShardCall(request, job, stage_work.archives, stage_work.max_failed_share) for job in jobs]
    with task_runner(request) as runner:
        futures = [runner.submit(shard_task, {"call": call}) for call in calls]
        outcomes = [future.result(raise_on_failure=False) for future in futures]
    ended = Ended(ShardResult())
    for job, outcome in zip(jobs, outcomes, strict=True):
        ended += _end_of(job, outcome)
    return ended


def _end_of(job: ShardJob, outcome: object) -> Ended:
    if isinstance(outcome, ShardResult):
        return Ended(outcome)
    if isinstance(outcome, TooManyFailedError):
        return Ended(outcome.result, (str(outcome),))
    reason = str(outcome) if isinstance(outcome, NeuroMillError) else f"{type(outcome).__name__}: {outcome}"
    return Ended(ShardResult(), (f"{job.label}: {reason}",))


def task_runner(request: Request) -> TaskRunner[Any]:
    """Return the runner that carries the task runs: threads that drive processes we own, or Dask workers."""
    engine = request.engine
    if engine.task_runner is TaskRunnerChoice.THREADS:
        return ThreadPoolTaskRunner(max_workers=engine.shards_at_once)
    from prefect_dask.task_runners import DaskTaskRunner

    if engine.address:
        return DaskTaskRunner(address=engine.address)
    return DaskTaskRunner(cluster_kwargs=_local_cluster(engine.shards_at_once))


@contextmanager
def dask_cluster(request: Request) -> Iterator[Request]:
    """Start one local Dask cluster for the flow where the engine is Dask and no address is given (1.4 s, once).

    With Dask carrying the task runs, the recordings of a shard are looped in the worker: a Dask worker may neither
    spawn a pool nor wait for its own cluster.
    """
    engine = request.engine
    with ExitStack() as stack:
        if engine.task_runner is TaskRunnerChoice.DASK:
            serial = engine.model_copy(update={"kind": EngineChoice.SERIAL})
            yield request.model_copy(update={"engine": serial})
        elif engine.kind is EngineChoice.DASK and not engine.address:
            from distributed import LocalCluster

            n_workers = request.to_settings().engine.n_workers
            cluster = LocalCluster(**_local_cluster(n_workers))
            stack.enter_context(cluster)
            yield request.at_dask(cluster.scheduler_address)
        else:
            yield request


def _local_cluster(n_workers: int) -> dict[str, object]:
    return {"n_workers": n_workers, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}


@contextmanager
def archive_slots(archives: Sequence[str]) -> Iterator[None]:
    """Hold one slot of each archive's concurrency limit, over all flow runs; no limit set up, nothing to hold."""
    if not archives:
        yield
        return
    with concurrency([archive_limit_name(archive) for archive in archives], occupy=1):
        yield


def archive_limit_name(archive: str) -> str:
    """Name of the global concurrency limit of an archive."""
    return f"neuromill-archive-{archive}"
