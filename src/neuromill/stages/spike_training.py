"""Train NDT3 on stores of spike tokens: which bins are held out, what names the run, and the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuromill.records import ConfigError, Digest, canonical_json
from neuromill.stages.contexts import done_recordings
from neuromill.stages.identities import prepare_identity, train_identity
from neuromill.stages.outcomes import Stage
from neuromill.stages.sections import ndt3_training

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from neuromill.catalog.time_blocks import TimeBlocks
    from neuromill.records import Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.training import Halves
    from neuromill.stages.work import WorkContext
    from neuromill.stages.workspace import Workspace
    from neuromill.store.contents import IndexedRecording
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
    """Train or fine-tune NDT3 on the tokens of both halves; recordings of the split "test" are scored at the end."""
    from neuromill.training.ndt3_task import train_ndt3

    tokenized = done_recordings(workspace, chosen, Stage.TOKENIZE, context.token_identity)
    tested = [recording for recording in tokenized if chosen.split_of(recording) == "test"]
    source = open_spike_tokens(workspace, chosen, context, (*split.train, *split.validation, *tested))
    return train_ndt3(ndt3_training(context.pipeline), source, folder, on_step=on_step)


def open_spike_tokens(
    workspace: Workspace, chosen: Chosen, context: WorkContext, recordings: Sequence[Recording]
) -> StoreSpikeTokens:
    """Open the token stores of these recordings, with the spans of the splits that the stores say.

    Raises
    ------
    ConfigError
        A card has other splits by now: what names the run would not be what it is trained on.
    """
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

    def spans(one: IndexedRecording, n_bins: int) -> tuple[Span, ...]:
        recording = wanted[one.attributes["recording_id"]]
        if stored_splits(one.extra) not in (None, card_splits(chosen, recording)):
            raise ConfigError(
                "the card has other splits than the index of its tokens",
                where=str(recording.id),
                next_step="run `neuromill tokenize`: it writes the splits of the card there",
            )
        return spans_of(chosen, recording, n_bins, float(one.attributes["bin_seconds"]), one.extra)

    return StoreSpikeTokens.open(stores, spans, pick=lambda one: one.attributes["recording_id"] in wanted)


def spans_of(
    chosen: Chosen, recording: Recording, n_bins: int, bin_seconds: float, columns: Mapping[str, str] | None = None
) -> tuple[Span, ...]:
    """Which bins of a recording belong to which split: time blocks of a training recording, else all bins to one.

    ``columns`` are those of the index of its tokens; the card speaks where they say nothing.
    """
    from neuromill.catalog.splits import block_spans
    from neuromill.training.spike_source import Span

    split, blocks = stored_splits(columns or {}) or card_splits(chosen, recording)
    if split != "train" or blocks is None:
        return (Span(split, 0, n_bins),)
    return tuple(Span(span.split, span.start, span.stop) for span in block_spans(blocks, n_bins, bin_seconds))


def card_splits(chosen: Chosen, recording: Recording) -> tuple[str, TimeBlocks | None]:
    """Split and time blocks of a recording by its card."""
    card = next(one.card for one in chosen.datasets if one.card.dataset_version == recording.id.dataset_version)
    return chosen.split_of(recording), card.splits.time_blocks


def stored_splits(columns: Mapping[str, str]) -> tuple[str, TimeBlocks | None] | None:
    """Split and time blocks by the columns of an index; None where it says no split."""
    from neuromill.catalog.time_blocks import TimeBlocks
    from neuromill.stages.running import SPLIT_COLUMN, TIME_BLOCKS_COLUMN

    split, blocks = columns.get(SPLIT_COLUMN), columns.get(TIME_BLOCKS_COLUMN)
    return (split, TimeBlocks.model_validate_json(blocks) if blocks else None) if split else None


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
