"""What a worker needs for a stage, resolved from what is already there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from neuromill.records import ConfigError
from neuromill.stages.identities import embed_identity, fit_identity, prepare_identity, tokenize_identity
from neuromill.stages.outcomes import Stage
from neuromill.stages.work import WorkContext
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig

if TYPE_CHECKING:
    from neuromill.records import Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace


def work_context(workspace: Workspace, pipeline: Pipeline, chosen: Chosen, stage: Stage) -> WorkContext:
    """Make the context of a stage.

    Raises
    ------
    ConfigError
        ``tokenize`` without a fitted tokenizer, ``embed`` without a trained model of the pipeline's kind.
    """
    context = WorkContext(workspace.settings, pipeline, tuple(dataset.origin for dataset in chosen.datasets))
    if stage in (Stage.TOKENIZE, Stage.TRAIN, Stage.EMBED):
        context = _with_tokenizer(workspace, chosen, context)
    if stage is Stage.EMBED:
        context = _with_model(workspace, chosen, context)
    return context


def done_recordings(workspace: Workspace, chosen: Chosen, stage: Stage, identity: str) -> tuple[Recording, ...]:
    """Selected recordings (of every part) that the ledger calls done at a stage, with the input they have now."""
    from neuromill.catalog.work import Scope, WorkState

    rows = [
        row
        for dataset in chosen.datasets
        for row in workspace.ledger.rows(
            Scope(dataset.card.dataset_version, stage.value, identity), states=[WorkState.DONE]
        )
    ]
    done = {row.key.recording_id: row.input_digest for row in rows}
    return tuple(recording for recording in chosen.selected if done.get(recording.id) == recording.input_digest)


def training_recordings(workspace: Workspace, pipeline: Pipeline, chosen: Chosen) -> tuple[Recording, ...]:
    """Recordings a tokenizer is fitted on: prepared, and in the train split."""
    prepared = done_recordings(workspace, chosen, Stage.PREPARE, prepare_identity(pipeline))
    return tuple(recording for recording in prepared if chosen.split_of(recording) == "train")


def require_whole(selection: Selection, verb: str, before: str) -> None:
    """Refuse to learn while the work is shared: the other parts may not be there yet, and each would learn its own.

    Raises
    ------
    ConfigError
        The selection is one of several parts.
    """
    if selection.part is not None and selection.part.count > 1:
        raise ConfigError(
            f"`{verb}` learns from all recordings, not from a part of them",
            where=f"--part {selection.part.index}/{selection.part.count}",
            next_step=f"run every part up to `{before}`, then `{verb}` once, without --part",
        )


def _with_tokenizer(workspace: Workspace, chosen: Chosen, context: WorkContext) -> WorkContext:
    from neuromill.tokenizers.files import open_tokenizer

    pipeline = context.pipeline
    if isinstance(pipeline.tokenizer, Ndt3TokenizerConfig):  # tokens by rule: the vocabulary is the tokenizer
        from neuromill.tokenizers.spike_vocabulary import vocabulary_digest

        digest, held_out = vocabulary_digest(pipeline.tokenizer), _held_out(pipeline.tokenizer, chosen)
        return replace(context, token_identity=tokenize_identity(pipeline, digest, held_out=held_out))
    if pipeline.pretrained is not None:
        source, revision = pipeline.pretrained.source, pipeline.pretrained.revision
    else:
        fit = fit_identity(pipeline, training_recordings(workspace, pipeline, chosen))
        folder = workspace.tokenizer_folder(fit)
        if not folder.is_dir():
            raise ConfigError(
                "no tokenizer is fitted for these recordings and settings",
                where=str(folder),
                next_step=f"run `neuromill tokenizer fit {pipeline.name}` after `neuromill prepare`; "
                "for recordings that are not in training name the tokenizer: --set pretrained.source=FOLDER",
            )
        source, revision = str(folder), ""
    tokenizer = open_tokenizer(source, revision=revision or None)
    token_identity = tokenize_identity(pipeline, tokenizer.digest, joint=tokenizer.is_joint)
    return replace(context, tokenizer_source=source, tokenizer_revision=revision, token_identity=token_identity)


def _held_out(tokenizer: Ndt3TokenizerConfig, chosen: Chosen) -> tuple[str, ...]:
    """Time blocks of the cards where they decide the bytes of tokens, as text for an identity."""
    if tokenizer.scale_from == "recording":
        return ()
    blocks = {dataset.card.id: dataset.card.splits.time_blocks for dataset in chosen.datasets}
    return tuple(f"{card}:{one.model_dump_json()}" for card, one in blocks.items() if one is not None)


def _with_model(workspace: Workspace, chosen: Chosen, context: WorkContext) -> WorkContext:
    from neuromill.models.files import is_complete
    from neuromill.stages.embedding import model_digest, require_model_for
    from neuromill.stages.training import model_folder

    own = context.pipeline.pretrained_model
    folder = Path(own).expanduser().absolute() if own else model_folder(workspace, chosen, context)
    if not is_complete(folder):
        raise ConfigError(
            "there is no such model" if own else "no model is trained on these tokens",
            where=str(folder),
            next_step="give a folder that `neuromill import` wrote" if own else "run `neuromill train` first",
        )
    require_model_for(context, folder)
    identity = embed_identity(context.pipeline, context.token_identity, model_digest(folder))
    return replace(context, model_folder=str(folder), feature_identity=identity)
