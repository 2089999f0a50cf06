"""Plan before pay: what a run would read, write and take, before anything is fetched."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuromill.models.config import CrissCrossConfig
from neuromill.records import ConfigError
from neuromill.signals.steps import Resample
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.outcomes import Stage
from neuromill.stages.running import PIPELINE_STAGES, plan_chosen
from neuromill.stages.sections import criss_cross_training, rvq_tokenizer, signal_preparation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neuromill.records import DatasetVersion, Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.planning import StagePlan
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace

FEATURE_BYTES = 2  # float16
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
        from neuromill.models.files import is_complete
        from neuromill.stages.training import model_folder

        folder = model_folder(workspace, chosen, context)
        done = int(is_complete(folder))
        return StageForecast(stage, folder.parent.name, 1, done, 0, 1 - done)
    plan = plan_chosen(workspace, chosen, context, stage)
    return _item_forecast(workspace, pipeline, chosen, plan)


def _fit_forecast(workspace: Workspace, pipeline: Pipeline, chosen: Chosen) -> StageForecast:
    from neuromill.stages.contexts import training_recordings
    from neuromill.stages.identities import fit_identity

    if pipeline.tokenizer.kind == "ndt3":
        return StageForecast(Stage.FIT, "", 1, 1, 0, 0, note="tokens by rule: nothing to fit")
    if pipeline.pretrained is not None:
        return StageForecast(Stage.FIT, "", 1, 1, 0, 0, note=f"uses {pipeline.pretrained.source}")
    training = training_recordings(workspace, pipeline, chosen)
    identity = fit_identity(pipeline, training)
    done = int(workspace.tokenizer_folder(identity).is_dir())
    note = f"on {len(training)} prepared recordings" if training else "after recordings are prepared"
    return StageForecast(Stage.FIT, identity if training else "", 1, done, 0, 1 - done, note="" if done else note)


def _item_forecast(workspace: Workspace, pipeline: Pipeline, chosen: Chosen, plan: StagePlan) -> StageForecast:
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
        seconds=_seconds(workspace, chosen, plan.stage, recordings),
        note=reasons,
    )


def _bytes_out(pipeline: Pipeline, stage: Stage, recordings: Sequence[Recording]) -> int | None:
    """Bytes on disk where the sidecars say channels and durations of every recording.

    Channels are those that the sidecars count for the modality (for MEG without references, triggers and EEG, so what
    ``pick: meg`` keeps); which of them a narrower pick drops is only known from the file, so those count in full.
    """
    if stage is Stage.INGEST:
        return sum(recording.size for recording in recordings)
    if pipeline.prepare.kind == "spikes":
        return None  # units and seconds are only known from the file
    preparation, tokenizer = signal_preparation(pipeline), rvq_tokenizer(pipeline)
    network, clock = tokenizer.network, tokenizer.normalization.sfreq
    total = 0.0
    for recording in recordings:
        n_channels, seconds, sfreq = recording.n_channels, recording.duration_seconds, recording.sfreq
        if n_channels is None or seconds is None or sfreq is None:
            return None
        n_frames = seconds * clock / network.hop_samples
        if stage is Stage.PREPARE:
            rate = next((s.sfreq for s in preparation.steps if isinstance(s, Resample)), sfreq)
            total += n_channels * seconds * rate * BYTES_PER_SAMPLE[preparation.dtype]
        elif stage is Stage.TOKENIZE:
            total += n_channels * n_frames * network.n_quantizers
        else:
            total += n_channels * n_frames * _feature_dims(pipeline) * FEATURE_BYTES
    return int(total)


def _feature_dims(pipeline: Pipeline) -> int:
    """Length of a feature vector: that of the model the pipeline trains, or of the one it is given."""
    if not pipeline.pretrained_model:
        return criss_cross_training(pipeline).model.latent_dim
    settings = json.loads((Path(pipeline.pretrained_model).expanduser() / "config.json").read_text(encoding="utf-8"))
    return CrissCrossConfig.model_validate(settings["config"]).latent_dim


def _seconds(workspace: Workspace, chosen: Chosen, stage: Stage, recordings: Sequence[Recording]) -> float | None:
    """Wall time from the seconds per source byte that the ledger saw at this stage, spread over the workers.

    How fast an archive answers says nothing of another one, so ``ingest`` counts only what came from the same.
    """
    if not recordings:
        return None
    archives = {card.dataset_version: card.archive for card in workspace.cards()}
    archives |= {dataset.card.dataset_version: dataset.card.archive for dataset in chosen.datasets}

    def pool(version: DatasetVersion) -> str:
        return archives.get(version, "") if stage is Stage.INGEST else ""

    seen = _seconds_and_bytes(workspace, stage, pool)
    spent = 0.0
    for recording in recordings:
        seconds, n_bytes = seen[pool(recording.id.dataset_version)]
        if not seconds or not n_bytes:
            return None
        spent += recording.size * seconds / n_bytes
    return spent / workspace.settings.engine.n_workers


def _seconds_and_bytes(
    workspace: Workspace, stage: Stage, pool: Callable[[DatasetVersion], str]
) -> defaultdict[str, tuple[float, int]]:
    """Seconds that finished work took, and the source bytes behind it as the recording indexes know them."""
    from neuromill.catalog.index import read_index
    from neuromill.catalog.work import Scope, WorkState

    rows = workspace.ledger.rows(Scope(stage=stage.value), states=[WorkState.DONE])
    indexes = [workspace.index_path(version) for version in {row.key.recording_id.dataset_version for row in rows}]
    sizes = {r.id: r.size for path in indexes if path.is_file() for r in read_index(path)}
    seen: defaultdict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for row in rows:
        recording, size = row.key.recording_id, sizes.get(row.key.recording_id)
        if row.seconds and size:
            seconds, n_bytes = seen[pool(recording.dataset_version)]
            seen[pool(recording.dataset_version)] = (seconds + row.seconds, n_bytes + size)
    return seen
