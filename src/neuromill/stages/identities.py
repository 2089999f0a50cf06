"""What names the work of each stage: the fields, code versions and inputs that decide its bytes, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuromill.records import identity
from neuromill.signals.steps import code_versions
from neuromill.stages.prepare_config import SpikePrepareConfig
from neuromill.stages.sections import feature_windows, settings_of
from neuromill.tokenizers.config import GateConfig
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.training.config import FREE_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.records import Recording
    from neuromill.signals.steps import BaseStep
    from neuromill.stages.pipeline import Pipeline
    from neuromill.training.probe_config import ProbeConfig

# Raise one when the same settings and inputs give other bytes for a reason that no step's own version covers.
STORE_CODE = "1"
READER_CODE = "2"  # slow channels of EDF sample by sample; types by label; silences of spikes; electrodes.tsv
TOKENIZER_CODE = "1"
TRAINING_CODE = "1"
SPIKE_CODE = "2"  # standstills of behaviour are noted
REJECTION_CODE = "1"
PROBE_CODE = "2"
RAW_IDENTITY = "raw"


def prepare_identity(pipeline: Pipeline) -> str:
    """Name of prepared signals: the steps in order, how they are stored, the code that runs them."""
    steps = pipeline.prepare.steps
    if isinstance(pipeline.prepare, SpikePrepareConfig):
        versions = {str(step.step): step.code_version for step in pipeline.prepare.steps} | {"spikes": SPIKE_CODE}
    else:
        versions = dict(code_versions(steps))
    versions |= {"reader": READER_CODE, "store": STORE_CODE}
    return identity("prepare", config=prepare_config(pipeline), code_versions=versions)


def prepare_config(pipeline: Pipeline) -> dict[str, Any]:
    """Non-default settings of the prepare stage, the steps in order and with their names."""
    return settings_of(pipeline.prepare) | {"steps": [_step(step) for step in pipeline.prepare.steps]}


def fit_identity(pipeline: Pipeline, training: Sequence[Recording]) -> str:
    """Name of a fitted tokenizer: its settings and the recordings it saw (or the published weights it is)."""
    if pipeline.pretrained is not None:
        return identity("fit", config={"pretrained": pipeline.pretrained.non_defaults()}, code_versions=_tokenizer())
    config = {name: settings_of(getattr(pipeline, name)) for name in ("tokenizer", "fit", "gate")}
    inputs = [prepare_identity(pipeline), *_inputs(training)]
    # Fits used to draw rejected windows as well; the others keep their names.
    versions = _tokenizer() | ({"rejection": REJECTION_CODE} if rejects(pipeline) else {})
    return identity("fit", config=config, code_versions=versions, inputs=inputs)


def learning_identity(pipeline: Pipeline, training: Sequence[Recording]) -> str:
    """Name of the steps of a fit, whatever gate comes after them: the fitted tokenizer's under the default gate."""
    return fit_identity(pipeline.model_copy(update={"gate": GateConfig()}), training)


def rejects(pipeline: Pipeline) -> bool:
    """Whether preparation marks windows that a fit must not learn from."""
    return any(getattr(step, "step", "") == "reject" for step in pipeline.prepare.steps)


def vocabulary_identity(tokenizer: Ndt3TokenizerConfig) -> str:
    """Name of tokens by rule: their settings are all there is."""
    return identity("vocabulary", config=settings_of(tokenizer), code_versions=_tokenizer())


def tokenize_identity(
    pipeline: Pipeline, tokenizer_digest: str, *, joint: bool = False, held_out: Sequence[str] = ()
) -> str:
    """Name of a token store: the prepared signals, the very tokenizer (``joint`` as it says), the segment grid.

    ``held_out`` are blocks of time that decide the bytes, too, where covariates are scaled by the rest.
    """
    inputs = [prepare_identity(pipeline), tokenizer_digest, *held_out]
    versions = _tokenizer() | {"store": STORE_CODE}
    if joint and rejects(pipeline):  # joint tokenizers used to see rejected windows; the others keep their names
        versions |= {"rejection": REJECTION_CODE}
    return identity("tokenize", config=tokenize_config(pipeline), code_versions=versions, inputs=inputs)


def tokenize_config(pipeline: Pipeline) -> dict[str, Any]:
    """Settings of the tokenize stage that decide its bytes beside the tokenizer: the segment grid, or spike chunks."""
    by_rule = pipeline.tokenizer
    return settings_of(by_rule) if isinstance(by_rule, Ndt3TokenizerConfig) else pipeline.tokenize.non_defaults()


def train_identity(
    pipeline: Pipeline, token_identity: str, training: Sequence[Recording], validation: Sequence[Recording] = ()
) -> str:
    """Name of a training run: model, optimisation, ranks, and the tokens it learns from and is validated on."""
    config = {key: value for key, value in settings_of(pipeline.train).items() if key not in FREE_SETTINGS}
    halves = (("train", training), ("validation", validation))
    inputs = [token_identity, *(f"{split}:{one}" for split, recordings in halves for one in _inputs(recordings))]
    return identity("train", config=config, code_versions={"training": TRAINING_CODE}, inputs=inputs)


def embed_identity(pipeline: Pipeline, token_identity: str, model_digest: str) -> str:
    """Name of a feature store: the tokens, the very model, and how much context it sees at once."""
    return identity(
        "embed",
        config=feature_windows(pipeline).settings,
        code_versions={"training": TRAINING_CODE, "store": STORE_CODE},
        inputs=[token_identity, model_digest],
    )


def probe_identity(pipeline: Pipeline, task: ProbeConfig, model_digest: str, recordings: Sequence[Recording]) -> str:
    """Name of a probe: the task (by what it asks, not by its name), the very model, and what it is probed on."""
    config = {key: value for key, value in task.non_defaults().items() if key not in ("name", "model")}
    inputs = [prepare_identity(pipeline), model_digest, *_inputs(recordings)]
    return identity("probe", config=config, code_versions={"probe": PROBE_CODE}, inputs=inputs)


def _step(step: BaseStep) -> dict[str, Any]:
    # The name of a step is the default of its own field, so it must be added to what differs from the defaults.
    return {"step": getattr(step, "step", "")} | step.non_defaults()


def _tokenizer() -> dict[str, str]:
    return {"tokenizer": TOKENIZER_CODE}


def _inputs(recordings: Sequence[Recording]) -> list[str]:
    return [f"{recording.id}:{recording.input_digest}" for recording in recordings]
