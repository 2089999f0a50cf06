"""Train EEGSSM on prepared signals and their tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuromill.records import ConfigError
from neuromill.stages.consistency import model_input
from neuromill.stages.identities import prepare_identity
from neuromill.stages.outcomes import Stage
from neuromill.stages.sections import eegssm_training
from neuromill.tokenizers.tfdual_config import TfDualTokenizerConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.models.eegssm_config import ModelInput
    from neuromill.records import Recording
    from neuromill.stages.work import WorkContext
    from neuromill.stages.workspace import Workspace
    from neuromill.tokenizers.protocol import Tokenizer
    from neuromill.training.store_coded_signals import StoreCodedSignals


def open_coded(workspace: Workspace, context: WorkContext, recordings: Sequence[Recording]) -> StoreCodedSignals:
    """Open signals and tokens of these recordings; the order is that of the stores and of their indexes.

    The token identity, which names the run, names the prepared signals, too.

    Raises
    ------
    ConfigError
        The tokens are of another kind than TFDual's, see ``input_of``.
    """
    from neuromill.training.store_coded_signals import CodedStore, StoreCodedSignals

    input_of(context.tokenizer())
    wanted = {str(recording.id) for recording in recordings}
    versions = sorted({recording.id.dataset_version for recording in recordings}, key=str)
    prepared = prepare_identity(context.pipeline)
    return StoreCodedSignals.open(
        [
            CodedStore(
                workspace.store(version, Stage.TOKENIZE, context.token_identity),
                workspace.store(version, Stage.PREPARE, prepared),
            )
            for version in versions
        ],
        pick=lambda one: one.attributes["recording_id"] in wanted,
        parity=eegssm_training(context.pipeline).parity,
    )


def input_of(tokenizer: Tokenizer) -> ModelInput:
    """What a model is given that learns the codes of a tokenizer: signals at its rate, over the divisor it stored.

    A pipeline file that names a tokenizer of another kind is refused when it is read; one that is opened from a folder
    or a hub (``pretrained``) says what it is only here, which ``refuse_other_tokens`` asks before any work.

    Raises
    ------
    ConfigError
        It is not TFDual: the divisor it stores does not turn the prepared signal into what it was given.
    """
    config = tokenizer.config
    if not isinstance(config, TfDualTokenizerConfig):
        raise _other_tokens(config.kind)
    return model_input(config)


def refuse_other_tokens(context: WorkContext) -> None:
    """Refuse, when a stage is planned, a published tokenizer whose tokens EEGSSM does not take.

    A folder is looked into before any work, a repository once ``tokenize`` has fetched it. Only the settings are read:
    a tokenizer that is opened now would be kept in memory, and the folder may hold another one when it is used. What
    cannot be read is left to the stage that needs it.

    Raises
    ------
    ConfigError
        See ``input_of``.
    """
    from neuromill.tokenizers.files import kind_of

    published = context.pipeline.pretrained
    if published is None or context.pipeline.train.kind != "eegssm":
        return
    source, revision = context.tokenizer_source, context.tokenizer_revision
    if not source:
        if not Path(published.source).is_dir():
            return
        source, revision = published.source, published.revision
    try:
        kind = kind_of(source, revision=revision or None)
    except ConfigError:
        return
    if kind != "tfdual":
        raise _other_tokens(kind)


def _other_tokens(kind: str) -> ConfigError:
    return ConfigError(
        f"train.kind eegssm takes tokens of tfdual, the tokenizer is {kind}",
        where="pretrained",
        next_step="name a TFDual tokenizer, or take another train.kind",
    )


def unchecked_input(known: ModelInput, given: ModelInput) -> str:
    """Say what a model does not tell of the signals it was trained on, and what it is given; "" where it tells all."""
    facts = {"rate": known.sfreq, "unit": known.unit_volts}
    missing = " nor its ".join(name for name, fact in facts.items() if fact is None)
    unit = given.unit_volts
    told = "scaled segment by segment" if isinstance(unit, str) else f"in units of {1e6 * (unit or 0.0):g} uV"
    return (
        f"the model does not tell its {missing}: it was given {given.sfreq:g} Hz {told}, unchecked" if missing else ""
    )
