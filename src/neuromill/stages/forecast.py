"""Plan before pay: what a run would read, write and take, before anything is fetched."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuromill.models.config import CrissCrossConfig
from neuromill.models.eegssm_config import EEGSSMConfig
from neuromill.records import ConfigError
from neuromill.signals.steps import Resample
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.eegssm_training import refuse_other_tokens
from neuromill.stages.outcomes import Stage
from neuromill.stages.running import PIPELINE_STAGES, plan_chosen
from neuromill.stages.sections import signal_preparation
from neuromill.tokenizers.config import TokenizerConfig
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.training.config import TrainConfig
from neuromill.training.eegssm_config import EEGSSMTrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neuromill.records import DatasetVersion, Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.planning import StagePlan
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace

FEATURE_BYTES = 2  # float16
MAX_UINT8_CODEBOOK = 256  # larger ones have codes of two bytes
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
    """Forecast these stages; one whose input does not exist yet is told as such.

    Raises
    ------
    ConfigError
        Nothing is chosen, or the pipeline trains a model that does not take the tokens of its published tokenizer.
    """
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

        refuse_other_tokens(context)
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
    notes = [f"{n} {code}" for code, n in sorted(plan.failures_by_code.items())]
    if pipeline.prepare.kind == "spikes" and plan.stage is not Stage.INGEST:
        bytes_out = _bytes_by_experience(workspace, chosen, plan, recordings)
        if bytes_out is None:
            notes.append("units and hours are only known from the files")
    else:
        bytes_out = _bytes_out(pipeline, plan.stage, recordings)
    return StageForecast(
        stage=plan.stage,
        identity=plan.identity,
        found=plan.found,
        done=len(plan.done),
        failed=len(plan.failed),
        todo=len(plan.todo),
        bytes_in=plan.bytes_to_do if plan.stage is Stage.INGEST else 0,
        bytes_out=bytes_out,
        seconds=_seconds(workspace, chosen, plan.stage, recordings),
        note=", ".join(notes),
    )


def _bytes_out(pipeline: Pipeline, stage: Stage, recordings: Sequence[Recording]) -> int | None:
    """Bytes on disk where the sidecars say channels and durations of every recording.

    Channels are those that the sidecars count for the modality (for MEG without references, triggers and EEG, so what
    ``pick: meg`` keeps); which of them a narrower pick drops is only known from the file, so those count in full.
    """
    if stage is Stage.INGEST:
        return sum(recording.size for recording in recordings)
    preparation, codes, dims = signal_preparation(pipeline), _code_rate(pipeline), 0
    if stage is Stage.EMBED:
        known = _feature_dims(pipeline)
        if known is None:
            return None
        dims = known
    total = 0.0
    for recording in recordings:
        n_channels, seconds, sfreq = recording.n_channels, recording.duration_seconds, recording.sfreq
        if n_channels is None or seconds is None or sfreq is None:
            return None
        if stage is Stage.PREPARE:
            rate = next((s.sfreq for s in preparation.steps if isinstance(s, Resample)), sfreq)
            total += n_channels * seconds * rate * BYTES_PER_SAMPLE[preparation.dtype]
        elif stage is Stage.TOKENIZE:
            total += n_channels * seconds * codes.bytes_per_frame * codes.frames_per_second
        else:
            total += n_channels * seconds * codes.frames_per_second * dims * FEATURE_BYTES
    return int(total)


@dataclass(frozen=True, slots=True)
class _CodeRate:
    """Frames of one channel, and bytes of the codes of one."""

    frames_per_second: float
    bytes_per_frame: int


def _code_rate(pipeline: Pipeline) -> _CodeRate:
    """Rate of the codes as the settings of the tokenizer have it."""
    tokenizer = pipeline.tokenizer
    if isinstance(tokenizer, Ndt3TokenizerConfig):
        raise ConfigError("tokens of spikes need spikes", where="tokenizer.kind", next_step="see docs/pipelines.md")
    if isinstance(tokenizer, TokenizerConfig):
        network = tokenizer.network
        return _CodeRate(tokenizer.normalization.sfreq / network.hop_samples, network.n_quantizers)
    code_bytes = 1 if tokenizer.codebook_size <= MAX_UINT8_CODEBOOK else 2
    return _CodeRate(tokenizer.sfreq / tokenizer.hop_samples, tokenizer.n_quantizers * code_bytes)


def _bytes_by_experience(
    workspace: Workspace, chosen: Chosen, plan: StagePlan, recordings: Sequence[Recording]
) -> int | None:
    """Bytes that recordings become, from what came of each source byte of those that are done; None before any is."""
    from neuromill.catalog.work import Scope, WorkState

    if not recordings:
        return 0
    sizes = {recording.id: recording.size for recording in chosen.selected}
    rows = workspace.ledger.rows(Scope(stage=plan.stage.value, identity=plan.identity), states=[WorkState.DONE])
    seen = [(row.bytes_out, sizes[row.key.recording_id]) for row in rows if row.key.recording_id in sizes]
    written, read = sum(out or 0 for out, _ in seen), sum(size for _, size in seen)
    return round(sum(recording.size for recording in recordings) * written / read) if written and read else None


def _feature_dims(pipeline: Pipeline) -> int | None:
    """Length of a feature vector: that of the model the pipeline trains, or of the one it is given."""
    train, settings = pipeline.train, {}
    if pipeline.pretrained_model:
        file = Path(pipeline.pretrained_model).expanduser() / "config.json"
        settings = json.loads(file.read_text(encoding="utf-8"))["config"]
    if isinstance(train, EEGSSMTrainConfig):
        return (EEGSSMConfig.model_validate(settings) if settings else train.model).out_channels
    if isinstance(train, TrainConfig):
        return (CrissCrossConfig.model_validate(settings) if settings else train.model).latent_dim
    return None


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
