"""Train on token stores, by their index; never sees a raw file and never runs a tokenizer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuromill.records import ConfigError
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import done_recordings, work_context
from neuromill.stages.identities import train_identity
from neuromill.stages.outcomes import Stage, StageResult

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from neuromill.records import Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.report import Report
    from neuromill.stages.selection import Selection
    from neuromill.stages.work import WorkContext
    from neuromill.stages.workspace import Workspace
    from neuromill.tokenizers.tokenizer import RvqTokenizer
    from neuromill.training.config import TrainConfig
    from neuromill.training.loop import TrainResult
    from neuromill.training.store_tokens import StoreTokens

MODEL = "model"


@dataclass(frozen=True, slots=True)
class Halves:
    """Tokenized recordings to learn from and held-out ones; the test split is in neither."""

    train: tuple[Recording, ...]
    validation: tuple[Recording, ...]


def halves(workspace: Workspace, chosen: Chosen, context: WorkContext) -> Halves:
    """Tokenized recordings by split."""
    tokenized = done_recordings(workspace, chosen, Stage.TOKENIZE, context.token_identity)
    return Halves(
        tuple(recording for recording in tokenized if chosen.split_of(recording) == "train"),
        tuple(recording for recording in tokenized if chosen.split_of(recording) == "validation"),
    )


def model_folder(workspace: Workspace, chosen: Chosen, context: WorkContext) -> Path:
    """Folder of the model that a finished run on these tokens has written."""
    return _run_folder(workspace, context, halves(workspace, chosen, context)) / MODEL


def train_model(workspace: Workspace, pipeline: Pipeline, selection: Selection, report: Report) -> StageResult:
    """Train the model of a pipeline on its tokens, or continue the run that was interrupted.

    Raises
    ------
    ConfigError
        Nothing is tokenized, or a subject is in training and in validation.
    """
    begin = time.perf_counter()
    chosen = choose(workspace, pipeline, selection)
    chosen.require_no_leaks()
    context = work_context(workspace, pipeline, chosen, Stage.TRAIN)
    split = halves(workspace, chosen, context)
    folder = _run_folder(workspace, context, split)
    if (folder / MODEL).is_dir():
        return StageResult(Stage.TRAIN, folder.name, 1, 1, 0, 0, time.perf_counter() - begin, 0, "nothing to do")
    if not split.train:
        raise ConfigError(
            "no tokenized recording is in the train split", where=pipeline.name, next_step="run `neuromill tokenize`"
        )
    result = _train(workspace, context, split, folder, report)
    size = sum(file.stat().st_size for file in result.model_folder.iterdir())
    note = f"loss {result.first_loss:.3f} -> {result.last_loss:.3f}"
    return StageResult(Stage.TRAIN, folder.name, 1, 0, 1, 0, time.perf_counter() - begin, size, note)


def _run_folder(workspace: Workspace, context: WorkContext, split: Halves) -> Path:
    recordings = [*split.train, *split.validation]
    return workspace.run_folder(train_identity(context.pipeline, context.token_identity, recordings))


def _train(workspace: Workspace, context: WorkContext, split: Halves, folder: Path, report: Report) -> TrainResult:
    import torch

    from neuromill.sources.locking import exclusive
    from neuromill.training.loop import Progress, train

    torch.set_num_threads(context.pipeline.train.cpu_threads)
    tokenizer = context.tokenizer()
    done_before = 0

    def on_step(progress: Progress) -> None:
        nonlocal done_before
        if done_before == 0:
            report.begin(Stage.TRAIN.value, progress.total_steps, "steps")
        note = "" if progress.loss is None else f"loss {progress.loss:.3f}"
        report.advance(progress.step - done_before, note)
        done_before = progress.step

    train_tokens = open_tokens(workspace, context, split.train)
    held_out = open_tokens(workspace, context, split.validation) if split.validation else None
    for error in train_tokens.left_out + (held_out.left_out if held_out else ()):
        report.say(f"left out of training: {error}")
    with exclusive(workspace.home / "locks" / f"train-{folder.name}.lock"):
        number = workspace.ledger.begin_run(Stage.TRAIN.value, folder.name)
        result = train(
            model_settings(context.pipeline.train, tokenizer),
            train_tokens,
            held_out,
            codebooks(tokenizer),
            folder,
            on_step=on_step,
        )
        report.end(f"loss {result.first_loss:.3f} -> {result.last_loss:.3f}")
        facts = {"steps": result.steps, "first_loss": result.first_loss, "last_loss": result.last_loss}
        workspace.ledger.end_run(number, facts=facts)
    return result


def model_settings(config: TrainConfig, tokenizer: RvqTokenizer) -> TrainConfig:
    """Take the sizes of the codes from the tokenizer that made them, so that a pipeline file states them once."""
    network = tokenizer.config.network
    sizes = {
        "n_quantizers": network.n_quantizers,
        "codebook_size": network.codebook_size,
        "codebook_dim": network.codebook_dim,
    }
    clock = {"sfreq": tokenizer.sfreq, "hop_samples": tokenizer.hop_samples}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update=sizes),
            "masking": config.masking.model_copy(update=clock),
        }
    )


def codebooks(tokenizer: RvqTokenizer) -> NDArray[np.float32]:
    """Codebooks of a tokenizer: float32 [quantizer, code, codebook_dim]."""
    import numpy as np

    tables = [layer.codebook.embed for layer in tokenizer.codec.quantizer.levels]
    return np.stack([table.detach().cpu().numpy() for table in tables]).astype(np.float32)


def open_tokens(workspace: Workspace, context: WorkContext, recordings: Sequence[Recording]) -> StoreTokens:
    """Open the token stores of these recordings; the order is that of the stores and of their indexes."""
    from neuromill.training.store_tokens import StoreTokens

    wanted = {str(recording.id) for recording in recordings}
    versions = sorted({recording.id.dataset_version for recording in recordings}, key=str)
    return StoreTokens.open(
        [workspace.store(version, Stage.TOKENIZE, context.token_identity) for version in versions],
        pick=lambda one: one.attributes["recording_id"] in wanted,
        parity=context.pipeline.train.model.parity,
    )
