"""Narrow a section of a pipeline to the kind that a stage function works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from neuromill.records import ConfigError
from neuromill.stages.pipeline import FIRST_KINDS
from neuromill.stages.prepare_config import PrepareConfig, SpikePrepareConfig
from neuromill.tokenizers.config import TokenizerConfig
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.training.config import TrainConfig
from neuromill.training.eegssm_config import EEGSSMTrainConfig
from neuromill.training.ndt3_config import Ndt3TrainConfig

if TYPE_CHECKING:
    from neuromill.records import Config
    from neuromill.stages.pipeline import Pipeline

C = TypeVar("C", bound="Config")


def signal_preparation(pipeline: Pipeline) -> PrepareConfig:
    """Return `prepare` of a pipeline for continuous signals; ConfigError for another kind."""
    return _of_kind(pipeline.prepare, PrepareConfig, pipeline, "prepare.kind")


def spike_preparation(pipeline: Pipeline) -> SpikePrepareConfig:
    """Return `prepare` of a pipeline for spikes; ConfigError for another kind."""
    return _of_kind(pipeline.prepare, SpikePrepareConfig, pipeline, "prepare.kind")


def rvq_tokenizer(pipeline: Pipeline) -> TokenizerConfig:
    """Return `tokenizer` of kind ``biocodec``; ConfigError for another kind."""
    return _of_kind(pipeline.tokenizer, TokenizerConfig, pipeline, "tokenizer.kind")


def spike_tokenizer(pipeline: Pipeline) -> Ndt3TokenizerConfig:
    """Return `tokenizer` of kind ``ndt3``; ConfigError for another kind."""
    return _of_kind(pipeline.tokenizer, Ndt3TokenizerConfig, pipeline, "tokenizer.kind")


def criss_cross_training(pipeline: Pipeline) -> TrainConfig:
    """Return `train` of kind ``criss_cross``; ConfigError for another kind."""
    return _of_kind(pipeline.train, TrainConfig, pipeline, "train.kind")


def ndt3_training(pipeline: Pipeline) -> Ndt3TrainConfig:
    """Return `train` of kind ``ndt3``; ConfigError for another kind."""
    return _of_kind(pipeline.train, Ndt3TrainConfig, pipeline, "train.kind")


def eegssm_training(pipeline: Pipeline) -> EEGSSMTrainConfig:
    """Return `train` of kind ``eegssm``; ConfigError for another kind."""
    return _of_kind(pipeline.train, EEGSSMTrainConfig, pipeline, "train.kind")


@dataclass(frozen=True, slots=True)
class FeatureWindows:
    """How much context a model is given when features are made.

    Attributes
    ----------
    frames
        Length of a window, in frames of the tokens.
    settings
        Everything about it that decides the bytes of features, for an identity.
    """

    frames: int
    settings: dict[str, Any]


def feature_windows(pipeline: Pipeline) -> FeatureWindows:
    """Return the windows that ``embed`` uses: those that the model is trained on.

    Raises
    ------
    ConfigError
        Models of this kind of training have no features per channel and frame.
    """
    train = pipeline.train
    if isinstance(train, TrainConfig):
        return FeatureWindows(train.windows.window_frames, {"window_frames": train.windows.window_frames})
    if isinstance(train, EEGSSMTrainConfig):
        frames = train.windows.window_patches
        parity = {"parity": True} if train.parity else {}  # a channel that is rejected takes its window along
        return FeatureWindows(frames, {"kind": train.kind, "window_patches": frames, **parity})
    raise ConfigError(
        f"{pipeline.name} has train.kind: {train.kind}, whose models have no features per channel and frame",
        where="train.kind",
        next_step="`neuromill embed` takes pipelines of criss_cross and eegssm",
    )


def settings_of(section: Config) -> dict[str, Any]:
    """Non-default settings of a section for an identity, with its kind where it is not the first there was."""
    kind = getattr(section, "kind", "")
    named = {"kind": kind} if kind and kind not in FIRST_KINDS else {}
    return named | section.non_defaults()


def _of_kind(section: Any, kind: type[C], pipeline: Pipeline, where: str) -> C:
    if isinstance(section, kind):
        return section
    wanted = kind.model_fields["kind"].default
    raise ConfigError(
        f"{pipeline.name} has {where}: {getattr(section, 'kind', '')}, this needs {wanted}",
        where=where,
        next_step="see docs/pipelines.md",
    )
