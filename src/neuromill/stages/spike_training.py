"""Train NDT3 on stores of spike tokens: which bins are held out, what names the run, and the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuromill.records import ConfigError, Digest, canonical_json
from neuromill.stages.identities import prepare_identity, train_identity
from neuromill.stages.outcomes import Stage
from neuromill.stages.sections import ndt3_training

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neuromill.records import Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.training import Halves
    from neuromill.stages.work import WorkContext
    from neuromill.stages.workspace import Workspace
    from neuromill.training.loop import Progress, TrainResult
    from neuromill.training.ndt3_metrics import Ndt3Scores
    from neuromill.training.spike_source import Span
    from neuromill.training.store_spike_tokens import StoreSpikeTokens


def spike_run_identity(chosen: Chosen, context: WorkContext, split: Halves) -> str:
    """Name of a run: beside what every run has, the time blocks of the cards and the weights it starts from.

    Raises
    ------
    ConfigError
        ``start_from`` is no whole model.
    """
    blocks = [[dataset.card.id, _blocks(dataset.card.splits.time_blocks)] for dataset in chosen.datasets]
    tokens = f"{context.token_identity}:{Digest.of(canonical_json(blocks)).hex}"
    return train_identity(_with_digest(context.pipeline), tokens, split.train, split.validation)


def train_spikes(
    workspace: Workspace,
    chosen: Chosen,
    context: WorkContext,
    split: Halves,
    folder: Path,
    on_step: Callable[[Progress], None] | None,
) -> TrainResult[Ndt3Scores]:
    """Train or fine-tune NDT3 on the tokens of both halves."""
    from neuromill.training.ndt3_task import train_ndt3

    source = open_spike_tokens(workspace, chosen, context, (*split.train, *split.validation))
    return train_ndt3(ndt3_training(context.pipeline), source, folder, on_step=on_step)


def open_spike_tokens(
    workspace: Workspace, chosen: Chosen, context: WorkContext, recordings: Sequence[Recording]
) -> StoreSpikeTokens:
    """Open the token stores of these recordings, with the spans of the splits their cards declare."""
    from neuromill.training.store_spike_tokens import StoreSpikeTokens, TokenStore

    wanted = {str(recording.id): recording for recording in recordings}
    versions = sorted({recording.id.dataset_version for recording in recordings}, key=str)
    prepared = prepare_identity(context.pipeline)
    stores = [
        TokenStore(
            workspace.store(version, Stage.TOKENIZE, context.token_identity),
            workspace.store(version, Stage.PREPARE, prepared),
        )
        for version in versions
    ]

    def spans(recording_id: str, n_bins: int, bin_seconds: float) -> tuple[Span, ...]:
        return spans_of(chosen, wanted[recording_id], n_bins, bin_seconds)

    return StoreSpikeTokens.open(stores, spans, pick=lambda one: one.attributes["recording_id"] in wanted)


def spans_of(chosen: Chosen, recording: Recording, n_bins: int, bin_seconds: float) -> tuple[Span, ...]:
    """Which bins of a recording belong to which split: the time blocks of its card, else all of them to one."""
    from neuromill.catalog.splits import block_spans
    from neuromill.training.spike_source import Span

    split = chosen.split_of(recording)
    card = next(one.card for one in chosen.datasets if one.card.dataset_version == recording.id.dataset_version)
    blocks = card.splits.time_blocks
    if split != "train" or blocks is None:
        return (Span(split, 0, n_bins),)
    return tuple(Span(span.split, span.start, span.stop) for span in block_spans(blocks, n_bins, bin_seconds))


def _blocks(blocks: object) -> object:
    from neuromill.catalog.time_blocks import TimeBlocks

    return blocks.model_dump(mode="json") if isinstance(blocks, TimeBlocks) else None


def _with_digest(pipeline: Pipeline) -> Pipeline:
    """Name the weights of ``start_from`` by their bytes: a folder may hold others tomorrow."""
    from neuromill.models.files import is_complete
    from neuromill.stages.embedding import model_digest

    config = ndt3_training(pipeline)
    if not config.start_from:
        return pipeline
    if not is_complete(config.start_from):
        raise ConfigError(
            "there is no such model to start from",
            where=config.start_from,
            next_step="give the folder `model` of a run: `neuromill train` tells it",
        )
    named = config.model_copy(update={"start_from": model_digest(Path(config.start_from))})
    return pipeline.model_copy(update={"train": named})
