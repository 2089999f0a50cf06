"""Run stages: plan, drive shards through an engine, keep the ledger, write the index of what was made."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import done_recordings, work_context
from neuromill.stages.eegssm_training import refuse_other_tokens
from neuromill.stages.embedding import input_note
from neuromill.stages.engines import open_engine
from neuromill.stages.outcomes import Shard, ShardResult, Stage, StageResult, WorkItem
from neuromill.stages.planning import PastWork, StagePlan, cut_shards, plan_items
from neuromill.stages.raw_files import has_raw
from neuromill.stages.report import Silent
from neuromill.stages.work import WorkContext, do_item

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from neuromill.catalog.work import Scope, WorkKey
    from neuromill.records import PartId, Recording, RecordingId
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.engines import Engine
    from neuromill.stages.outcomes import Outcome
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.report import Report
    from neuromill.stages.selection import Selection
    from neuromill.stages.settings import EngineSettings
    from neuromill.stages.workspace import Workspace

ITEM_STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE, Stage.EMBED)
PIPELINE_STAGES = (Stage.INGEST, Stage.PREPARE, Stage.FIT, Stage.TOKENIZE, Stage.TRAIN)
_BEFORE = {Stage.PREPARE: Stage.INGEST, Stage.TOKENIZE: Stage.PREPARE, Stage.EMBED: Stage.TOKENIZE}
SILENT = Silent()
SPLIT_COLUMN = "dataset_split"  # `split` is a BIDS entity
TIME_BLOCKS_COLUMN = "time_blocks"


def plan_stage(workspace: Workspace, pipeline: Pipeline, selection: Selection, stage: Stage) -> StagePlan:
    """Say what a stage of recordings still has to do; fetches nothing but listings, changes nothing.

    A recording that failed at a stage before is not part of this one.

    Raises
    ------
    ConfigError
        The stage needs something that is not there yet (a fitted tokenizer, a trained model), or the pipeline trains a
        model that does not take the tokens of its published tokenizer.
    """
    chosen = choose(workspace, pipeline, selection)
    return plan_chosen(workspace, chosen, work_context(workspace, pipeline, chosen, stage), stage)


def plan_chosen(workspace: Workspace, chosen: Chosen, context: WorkContext, stage: Stage) -> StagePlan:
    """Plan a stage for recordings that are chosen already (see ``plan_stage``)."""
    refuse_other_tokens(context)
    identity = context.identity(stage)
    failed_before = _failed_before(workspace, chosen, context, stage)
    items = [
        WorkItem(stage, identity, recording, recording.input_digest)
        for recording in chosen.recordings
        if recording.id not in failed_before
    ]
    todo, done, failed = plan_items(
        items,
        _past(workspace, chosen, stage, identity),
        is_there=lambda item: _is_there(context, item),
    )
    return StagePlan(stage, identity, tuple(todo), tuple(done), tuple(failed))


def run_shard(
    workspace: Workspace,
    pipeline: Pipeline,
    selection: Selection,
    shard: Shard,
    engine: EngineSettings | None = None,
    report: Report = SILENT,
) -> ShardResult:
    """Drive the recordings of one shard through an engine of its own and write the ledger."""
    stage = shard.items[0].stage
    context = work_context(workspace, pipeline, choose(workspace, pipeline, selection), stage)
    with open_engine(engine or workspace.settings.engine) as running:
        return drive(workspace, context, shard, running, report)


def drive(workspace: Workspace, context: WorkContext, shard: Shard, engine: Engine, report: Report) -> ShardResult:
    """Drive one shard through an engine that is open already; the ledger is written as outcomes come.

    An item whose input the stage before has not made yet stays waiting.
    """
    from neuromill.catalog.work import Work, WorkKey

    ledger = workspace.ledger
    keys = {id(item): WorkKey.of(item.recording.id, item.stage.value, item.identity) for item in shard.items}
    ledger.expect([Work(keys[id(item)], item.input_digest) for item in shard.items])
    worker = f"{socket.gethostname()}:{os.getpid()}"
    attempts: dict[WorkKey, int] = {}
    ready = [item for item in shard.items if _has_input(context, item)]
    if len(ready) < len(shard.items):
        stage = shard.items[0].stage
        report.say(f"{len(shard.items) - len(ready)} recordings wait for `neuromill {_BEFORE[stage].value}`")
    for item in ready:
        attempt = ledger.start(keys[id(item)], worker=worker)
        if attempt is not None:
            attempts[keys[id(item)]] = attempt
    mine = [item for item in ready if keys[id(item)] in attempts]
    total = ShardResult()
    for outcome in engine.run(partial(do_item, context), mine):
        key = WorkKey.of(outcome.item.recording.id, outcome.item.stage.value, outcome.item.identity)
        total += _note(workspace, outcome, key, attempts[key])
        report.advance(1, outcome.item.recording.id.name)
        if outcome.code is not None:
            report.say(f"{outcome.item.recording.id}: {outcome.code.value}: {outcome.message}")
    return total


def _note(workspace: Workspace, outcome: Outcome, key: WorkKey, attempt: int) -> ShardResult:
    if outcome.code is None:
        workspace.ledger.finish(
            key, attempt=attempt, seconds=outcome.seconds, bytes_out=outcome.bytes_out, facts=outcome.facts
        )
        return ShardResult(done=1, bytes_out=outcome.bytes_out)
    error = RecordingError(outcome.code, outcome.message, next_step=outcome.next_step)
    workspace.ledger.fail(key, error, attempt=attempt, seconds=outcome.seconds)
    return ShardResult(failed=1)


def finish_stage(
    workspace: Workspace, pipeline: Pipeline, selection: Selection, stage: Stage, report: Report = SILENT
) -> None:
    """Write the index of each store that the stage fills, from the groups' own manifests; damaged ones are told."""
    chosen = choose(workspace, pipeline, selection)
    _write_indexes(workspace, chosen, work_context(workspace, pipeline, chosen, stage), stage, report)


def _write_indexes(workspace: Workspace, chosen: Chosen, context: WorkContext, stage: Stage, report: Report) -> None:
    from neuromill.catalog.index import read_index
    from neuromill.store.index import rebuild_index

    if stage is Stage.INGEST:
        return
    for dataset in chosen.datasets:
        version = dataset.card.dataset_version
        store = workspace.store(version, stage, context.identity(stage))
        if store.is_dir():
            everything = read_index(workspace.index_path(version))
            blocks = dataset.card.splits.time_blocks
            same = {TIME_BLOCKS_COLUMN: blocks.model_dump_json()} if blocks is not None else {}
            splits = {r.id.name: {SPLIT_COLUMN: chosen.split_of(r)} | same for r in everything}
            for name, error in rebuild_index(store, extra=splits).damaged.items():
                report.say(f"{version}/{name}: left out of the index of {stage.value}: {error}")


def run_stage(
    workspace: Workspace, pipeline: Pipeline, selection: Selection, stage: Stage, report: Report = SILENT
) -> StageResult:
    """Run one stage to its end; what is done already is not done again.

    Raises
    ------
    ConfigError
        The stage needs something that is not there yet.
    NeuroMillError
        ``fit``: the gate refuses the tokenizer.
    """
    if stage in ITEM_STAGES:
        return _run_items(workspace, pipeline, selection, stage, report)
    from neuromill.stages.fitting import fit_tokenizer
    from neuromill.stages.training import train_model

    function = fit_tokenizer if stage is Stage.FIT else train_model
    return function(workspace, pipeline, selection, report)


def run_pipeline(
    workspace: Workspace,
    pipeline: Pipeline,
    selection: Selection,
    *,
    until: Stage | None = None,
    report: Report = SILENT,
) -> tuple[StageResult, ...]:
    """Run all stages in order, or up to and including ``until``; ends early where a stage leaves nothing for the next.

    The note of the last result tells so.
    """
    if until is not None and until not in PIPELINE_STAGES:
        raise ConfigError(f"{until.value!r} is not a stage of a pipeline run", where="--until")
    choose(workspace, pipeline, selection).require_no_leaks()  # before hours of work, not after them
    last = PIPELINE_STAGES.index(until or PIPELINE_STAGES[-1])
    results: list[StageResult] = []
    for stage, following in zip(PIPELINE_STAGES[: last + 1], (*PIPELINE_STAGES[1 : last + 1], None), strict=True):
        result = run_stage(workspace, pipeline, selection, stage, report)
        results.append(result)
        if following is not None and result.failed and _leaves_nothing(workspace, pipeline, selection, result):
            note = f"nothing is left for {following.value}"
            report.say(f"{stage.value}: {note}: all {result.failed} recordings failed")
            results[-1] = replace(result, note=note)
            break
    return tuple(results)


def _leaves_nothing(workspace: Workspace, pipeline: Pipeline, selection: Selection, result: StageResult) -> bool:
    """Whether no chosen recording, of any part, is done at the stage of this result."""
    chosen = choose(workspace, pipeline, selection)
    return not done_recordings(workspace, chosen, result.stage, result.identity)


def _run_items(
    workspace: Workspace, pipeline: Pipeline, selection: Selection, stage: Stage, report: Report
) -> StageResult:
    begin = time.perf_counter()
    chosen = choose(workspace, pipeline, selection)
    context = work_context(workspace, pipeline, chosen, stage)
    with _hold(workspace, chosen, context, stage, selection.part, report):
        plan = plan_chosen(workspace, chosen, context, stage)
        told = input_note(context) if stage is Stage.EMBED else ""
        total = ShardResult()
        if plan.todo:
            report.begin(stage.value, len(plan.todo), "recordings")
            with open_engine(workspace.settings.engine) as engine:
                for shard in cut_shards(plan.todo, workspace.settings.shards):
                    total += drive(workspace, context, shard, engine, report)
            report.end(f"{total.done} done, {total.failed} failed")
        _write_indexes(workspace, chosen, context, stage, report)
    return StageResult(
        stage=stage,
        identity=plan.identity,
        found=plan.found,
        already_done=len(plan.done),
        done=total.done,
        failed=total.failed + len(plan.failed),
        seconds=time.perf_counter() - begin,
        bytes_out=total.bytes_out,
        note="; ".join(note for note in (_waiting(plan, total), told) if note),
    )


def _waiting(plan: StagePlan, total: ShardResult) -> str:
    waiting = len(plan.todo) - total.done - total.failed
    if not plan.todo:
        return "nothing to do"
    return f"{waiting} waiting" if waiting else ""


@contextmanager
def hold_stage(
    workspace: Workspace, pipeline: Pipeline, selection: Selection, stage: Stage, report: Report = SILENT
) -> Iterator[None]:
    """Keep other runs of the same work out (waiting is told), and take back what a killed run left as running.

    The lock belongs to this machine and is let go by the kernel when its holder dies. It is per dataset version,
    stage, identity and part, so that different work and the parts of ``--part i/N`` go on side by side.
    """
    chosen = choose(workspace, pipeline, selection)
    context = work_context(workspace, pipeline, chosen, stage)
    with _hold(workspace, chosen, context, stage, selection.part, report):
        yield


@contextmanager
def _hold(
    workspace: Workspace, chosen: Chosen, context: WorkContext, stage: Stage, part_id: PartId | None, report: Report
) -> Iterator[None]:
    from neuromill.catalog.work import Scope
    from neuromill.sources.locking import exclusive
    from neuromill.stages.scratch import clean_scratch
    from neuromill.store.verify import clean_leftovers

    identity = context.identity(stage)
    part = f"-{part_id.index}of{part_id.count}" if part_id else ""
    with ExitStack() as stack:
        for dataset in sorted(chosen.datasets, key=lambda d: d.card.id):
            version = dataset.card.dataset_version
            name = f"{version}-{stage.value}-{identity}{part}.lock"
            waits = f"another run holds {stage.value} of {version}; waiting"
            stack.enter_context(exclusive(workspace.home / "locks" / name, partial(report.say, waits)))
            _take_back(workspace, chosen, Scope(version, stage.value, identity), whole=part_id is None)
            if stage is not Stage.INGEST:
                clean_leftovers(workspace.store(version, stage, identity))
        clean_scratch(context.scratch())
        yield


def _take_back(workspace: Workspace, chosen: Chosen, scope: Scope, *, whole: bool) -> None:
    """Take back what a killed run left as running: everything, or the share of this part."""
    from neuromill.catalog.work import WorkState

    if whole:
        workspace.ledger.release_running(scope)
        return
    mine = {recording.id for recording in chosen.recordings}
    killed = RecordingError(FailureCode.INTERRUPTED, "the run was killed", next_step="nothing: it is tried again")
    for row in workspace.ledger.rows(scope, states=[WorkState.RUNNING]):
        if row.key.recording_id in mine:
            workspace.ledger.fail(row.key, killed)


def _past(workspace: Workspace, chosen: Chosen, stage: Stage, identity: str) -> dict[RecordingId, PastWork]:
    from neuromill.catalog.work import Scope, WorkState

    rows = [
        row
        for dataset in chosen.datasets
        for row in workspace.ledger.rows(Scope(dataset.card.dataset_version, stage.value, identity))
    ]
    return {row.key.recording_id: PastWork(row.state is WorkState.DONE, row.code, row.input_digest) for row in rows}


def _failed_before(workspace: Workspace, chosen: Chosen, context: WorkContext, stage: Stage) -> set[RecordingId]:
    """Recordings that failed at a stage before, under the identities this one builds on, with their present input."""
    now = {recording.id: recording.input_digest for recording in chosen.recordings}
    failed: set[RecordingId] = set()
    earlier = _BEFORE.get(stage)
    while earlier is not None:
        past = _past(workspace, chosen, earlier, context.identity(earlier))
        failed |= {name for name, work in past.items() if work.code is not None and work.input_digest == now.get(name)}
        earlier = _BEFORE.get(earlier)
    return failed


def _is_there(context: WorkContext, item: WorkItem) -> bool:
    """Whether what the ledger calls done is still in place and whole; a damaged group is work to do again."""
    if item.stage is Stage.INGEST:
        return not context.pipeline.keep_raw or has_raw(context, item.recording)
    return _is_published(context.store(item), item.recording)


def _has_input(context: WorkContext, item: WorkItem) -> bool:
    """Whether the group that an item is made from is in place; raw files are fetched where they are missing."""
    if item.stage is Stage.TOKENIZE:
        return _is_published(context.prepared_store(item), item.recording)
    if item.stage is not Stage.EMBED:
        return True
    signal_too = context.pipeline.train.kind == "eegssm"
    stores = (context.token_store(item), *((context.prepared_store(item),) if signal_too else ()))
    return all(_is_published(store, item.recording) for store in stores)


def _is_published(store: Path, recording: Recording) -> bool:
    from neuromill.store.verify import group_damage

    return group_damage(store, recording.id.name) is None
