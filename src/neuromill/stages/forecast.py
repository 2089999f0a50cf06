"""Plan before pay: what a run would read, write and take, before anything is fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuromill.records import ConfigError
from neuromill.signals.steps import Resample
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.outcomes import Stage
from neuromill.stages.running import PIPELINE_STAGES, plan_chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.records import Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.planning import StagePlan
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace

BYTES_PER_SAMPLE = {"float16": 2, "int16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class StageForecast:
    """What one stage would do. None where nothing known allows an estimate; times come from what the ledger saw."""

    stage: Stage
    identity: str
    found: int
    done: int
    failed: int
    todo: int
    bytes_in: int = 0
    bytes_out: int | None = None
    seconds: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        names = ("identity", "found", "done", "failed", "todo", "bytes_in", "bytes_out", "seconds", "note")
        return {"stage": self.stage.value} | {name: getattr(self, name) for name in names}


def forecast(
    workspace: Workspace, pipeline: Pipeline, selection: Selection, stages: Sequence[Stage] = PIPELINE_STAGES
) -> tuple[StageForecast, ...]:
    """Forecast these stages; one whose input does not exist yet is told as such."""
    chosen = choose(workspace, pipeline, selection)
    return tuple(_stage_forecast(workspace, pipeline, chosen, stage) for stage in stages)


def _stage_forecast(workspace: Workspace, pipeline: Pipeline, chosen: Chosen, stage: Stage) -> StageForecast:
    if stage is Stage.FIT:
        return _fit_forecast(workspace, pipeline, chosen)
    try:
        context = work_context(workspace, pipeline, chosen, stage)
    except ConfigError as error:
        count = 1 if stage is Stage.TRAIN else len(chosen.recordings)
        return StageForecast(stage, "", count, 0, 0, count, note=f"not yet: {error.what}")
    if stage is Stage.TRAIN:
        from neuromill.stages.training import model_folder

        folder = model_folder(workspace, chosen, context)
        done = int(folder.is_dir())
        return StageForecast(stage, folder.parent.name, 1, done, 0, 1 - done)
    plan = plan_chosen(workspace, chosen, context, stage)
    return _item_forecast(workspace, pipeline, plan)


def _fit_forecast(workspace: Workspace, pipeline: Pipeline, chosen: Chosen) -> StageForecast:
    from neuromill.stages.contexts import training_recordings
    from neuromill.stages.identities import fit_identity

    if pipeline.pretrained is not None:
        return StageForecast(Stage.FIT, "", 1, 1, 0, 0, note=f"uses {pipeline.pretrained.source}")
    training = training_recordings(workspace, pipeline, chosen)
    identity = fit_identity(pipeline, training)
    done = int(workspace.tokenizer_folder(identity).is_dir())
    note = f"on {len(training)} prepared recordings" if training else "after recordings are prepared"
    return StageForecast(Stage.FIT, identity if training else "", 1, done, 0, 1 - done, note="" if done else note)


def _item_forecast(workspace: Workspace, pipeline: Pipeline, plan: StagePlan) -> StageForecast:
    recordings = [item.recording for item in plan.todo]
    reasons = ", ".join(f"{n} {code}" for code, n in sorted(plan.failures_by_code.items()))
    return StageForecast(
        stage=plan.stage,
        identity=plan.identity,
        found=plan.found,
        done=len(plan.done),
        failed=len(plan.failed),
        todo=len(plan.todo),
        bytes_in=plan.bytes_to_do if plan.stage is Stage.INGEST else 0,
        bytes_out=_bytes_out(pipeline, plan.stage, recordings),
        seconds=_seconds(workspace, plan.stage, recordings),
        note=reasons,
    )


def _bytes_out(pipeline: Pipeline, stage: Stage, recordings: Sequence[Recording]) -> int | None:
    """Bytes on disk where the sidecars say channels and durations of every recording."""
    if stage is Stage.INGEST:
        return sum(recording.size for recording in recordings)
    known = [(r.n_channels, r.duration_seconds, r.sfreq) for r in recordings]
    total = 0.0
    for n_channels, seconds, sfreq in known:
        if n_channels is None or seconds is None or sfreq is None:
            return None
        if stage is Stage.PREPARE:
            rate = next((s.sfreq for s in pipeline.prepare.steps if isinstance(s, Resample)), sfreq)
            total += n_channels * seconds * rate * BYTES_PER_SAMPLE[pipeline.prepare.dtype]
        else:
            network, clock = pipeline.tokenizer.network, pipeline.tokenizer.normalization.sfreq
            total += n_channels * seconds * clock / network.hop_samples * network.n_quantizers
    return int(total)


def _seconds(workspace: Workspace, stage: Stage, recordings: Sequence[Recording]) -> float | None:
    """Wall time from the mean seconds per recording that the ledger saw at this stage, spread over the workers."""
    from neuromill.catalog.work import Scope, WorkState

    rows = workspace.ledger.rows(Scope(stage=stage.value), states=[WorkState.DONE])
    spent = sum(row.seconds or 0.0 for row in rows)
    if not rows or not spent or not recordings:
        return None
    per_recording = spent / len(rows)
    return per_recording * len(recordings) / workspace.settings.engine.n_workers
