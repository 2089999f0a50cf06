"""Train on token stores, by their index; never sees a raw file and never runs a tokenizer."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from neuromill.records import ConfigError
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import done_recordings, require_whole, work_context
from neuromill.stages.identities import train_identity
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.sections import criss_cross_training, eegssm_training
from neuromill.stages.spike_training import spike_run_identity, train_spikes
from neuromill.training.eegssm_config import EEGSSMTrainConfig
from neuromill.training.ndt3_config import Ndt3TrainConfig
from neuromill.training.task import TEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from neuromill.records import Recording, RecordingError
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.report import Report
    from neuromill.stages.selection import Selection
    from neuromill.stages.work import WorkContext
    from neuromill.stages.workspace import Workspace
    from neuromill.tokenizers.tokenizer import RvqTokenizer
    from neuromill.training.config import RunConfig, TrainConfig
    from neuromill.training.eegssm_metrics import CodesScores
    from neuromill.training.loop import Progress, TrainResult
    from neuromill.training.metrics import Scores
    from neuromill.training.store_tokens import StoreTokens

MODEL = "model"
HELD_OUT_SCORES = ("r2", "accuracy")  # kept in the ledger, each beside that of the baselines
# Where launchers (torchrun, Fabric's own, Slurm) tell a process its rank, the most telling first: a process that Fabric
# started within a Slurm task has the task's SLURM_PROCID and a LOCAL_RANK of its own.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
LAUNCHED_FROM_OUTSIDE = ("RANK", "LOCAL_RANK")
COMMAND_MODULE = "neuromill.cli.main"


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
    return _run_folder(workspace, chosen, context, halves(workspace, chosen, context)) / MODEL


def train_model(workspace: Workspace, pipeline: Pipeline, selection: Selection, report: Report) -> StageResult:
    """Train the model of a pipeline on its tokens, or continue the run that was interrupted.

    On several devices this runs in a process per device. Only that of rank 0 takes the lock of the run, writes the
    ledger and tells of progress: the others would wait for the lock while it waits for them.

    Raises
    ------
    ConfigError
        Nothing is tokenized, a subject is in training and in validation, the selection is a part, or several devices
        are wanted and nothing can start a process for each.
    """
    begin = time.perf_counter()
    require_whole(selection, "neuromill train", "neuromill tokenize")
    _require_launcher(pipeline)
    chosen = choose(workspace, pipeline, selection)
    chosen.require_no_leaks()
    context = work_context(workspace, pipeline, chosen, Stage.TRAIN)
    split = halves(workspace, chosen, context)
    folder = _run_folder(workspace, chosen, context, split)
    if _is_trained(folder):
        return StageResult(Stage.TRAIN, folder.name, 1, 1, 0, 0, time.perf_counter() - begin, 0, "nothing to do")
    if not split.train:
        raise ConfigError(
            "no tokenized recording is in the train split", where=pipeline.name, next_step="run `neuromill tokenize`"
        )
    learner = _learner(workspace, chosen, context, split, folder)
    result = _train(workspace, context, learner, folder, report)
    size, note = sum(file.stat().st_size for file in result.model_folder.iterdir()), learner.summary(result)
    return StageResult(Stage.TRAIN, folder.name, 1, 0, 1, 0, time.perf_counter() - begin, size, note)


def global_rank(config: RunConfig) -> int:
    """Rank of this process among those of a run; 0 where the run has but one."""
    if config.devices == 1:
        return 0
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)


def _require_launcher(pipeline: Pipeline) -> None:
    """Refuse several devices where Fabric would start the other ranks by running some other program again."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    is_command = spec.name == COMMAND_MODULE if spec else os.path.basename(sys.argv[0]) == "neuromill"  # noqa: PTH119
    outside = any(name in os.environ for name in LAUNCHED_FROM_OUTSIDE) or "SLURM_NTASKS" in os.environ
    devices = pipeline.train.devices
    if devices > 1 and not is_command and not outside:
        raise ConfigError(
            f"{devices} devices need a process each, and only the command can start itself again",
            where="train.devices",
            next_step=f"run `torchrun --nproc-per-node {devices} -m {COMMAND_MODULE} train ...`, or `neuromill train`",
        )


def _run_folder(workspace: Workspace, chosen: Chosen, context: WorkContext, split: Halves) -> Path:
    if isinstance(context.pipeline.train, Ndt3TrainConfig):
        return workspace.run_folder(spike_run_identity(chosen, context, split))
    return workspace.run_folder(train_identity(context.pipeline, context.token_identity, split.train, split.validation))


def _is_trained(folder: Path) -> bool:
    from neuromill.models.files import is_complete

    return is_complete(folder / MODEL)


@dataclass(frozen=True, slots=True)
class _Learner:
    """What the stage needs to know of one kind of training.

    Attributes
    ----------
    learn
        Train, or continue; told what to call after each step.
    summary
        One line on what came out.
    left_out
        Recordings that cannot be trained on.
    """

    learn: Callable[[Callable[[Progress], None] | None], TrainResult[Any]]
    summary: Callable[[TrainResult[Any]], str]
    left_out: tuple[RecordingError, ...] = ()


def _learner(workspace: Workspace, chosen: Chosen, context: WorkContext, split: Halves, folder: Path) -> _Learner:
    if isinstance(context.pipeline.train, Ndt3TrainConfig):
        from neuromill.training.ndt3_task import summary

        return _Learner(partial(train_spikes, workspace, chosen, context, split, folder), summary)
    if isinstance(context.pipeline.train, EEGSSMTrainConfig):
        return _signal_learner(workspace, context, split, folder)
    return _code_learner(workspace, context, split, folder)


def _code_learner(workspace: Workspace, context: WorkContext, split: Halves, folder: Path) -> _Learner:
    from neuromill.training.criss_cross_task import train

    tokenizer = context.rvq_tokenizer()
    train_tokens = open_tokens(workspace, context, split.train)
    held_out = open_tokens(workspace, context, split.validation) if split.validation else None
    settings = model_settings(criss_cross_training(context.pipeline), tokenizer)

    def learn(on_step: Callable[[Progress], None] | None) -> TrainResult[Scores]:
        return train(settings, train_tokens, held_out, codebooks(tokenizer), folder, on_step=on_step)

    return _Learner(learn, _losses, train_tokens.left_out + (held_out.left_out if held_out else ()))


def _signal_learner(workspace: Workspace, context: WorkContext, split: Halves, folder: Path) -> _Learner:
    from neuromill.stages.eegssm_training import input_of, open_coded
    from neuromill.training.eegssm_task import summary, train_eegssm

    training = open_coded(workspace, context, split.train)
    held_out = open_coded(workspace, context, split.validation)
    config, given = eegssm_training(context.pipeline), input_of(context.tokenizer())

    def learn(on_step: Callable[[Progress], None] | None) -> TrainResult[CodesScores]:
        validation = held_out if held_out.recordings else None
        return train_eegssm(config, training, validation, folder, given=given, on_step=on_step)

    return _Learner(learn, summary, training.left_out + held_out.left_out)


def _losses(result: TrainResult[Any]) -> str:
    return f"loss {result.first_loss:.3f} -> {result.last_loss:.3f}"


def _train(
    workspace: Workspace, context: WorkContext, learner: _Learner, folder: Path, report: Report
) -> TrainResult[Any]:
    import torch

    config = context.pipeline.train
    torch.set_num_threads(config.cpu_threads)
    if global_rank(config) > 0:
        return learner.learn(None)
    for error in learner.left_out:
        report.say(f"left out of training: {error}")
    with _noted(workspace, folder, report) as facts:
        result = learner.learn(_teller(report))
        report.end(learner.summary(result))
        facts.update(_facts(result))
    return result


@contextmanager
def _noted(workspace: Workspace, folder: Path, report: Report) -> Iterator[dict[str, Any]]:
    """Hold the lock of a run and note in the ledger that it begins and, unless it fails, what it came to."""
    from neuromill.sources.locking import exclusive

    waiting = partial(report.say, "another run trains this model; waiting for it")
    with exclusive(workspace.home / "locks" / f"train-{folder.name}.lock", waiting):
        number = workspace.ledger.begin_run(Stage.TRAIN.value, folder.name)
        facts: dict[str, Any] = {}
        yield facts
        workspace.ledger.end_run(number, facts=facts)


def _facts(result: TrainResult[Any]) -> dict[str, Any]:
    kept = ("steps", "model_step", "first_loss", "last_loss", "device", "precision", "world_size")
    facts = {name: getattr(result, name) for name in kept}
    validation = _held_out(result.validation, result.baselines)
    test = {f"{TEST}_{name}": value for name, value in _held_out(result.test, result.test_baselines).items()}
    return facts | {name: value for name, value in (validation | test).items() if value is not None}


def _held_out(found: object, baselines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores on held-out data, and those of each baseline by its name."""
    scores = {name: getattr(found, name, None) for name in HELD_OUT_SCORES}
    return scores | {f"{row['name']}_{name}": row.get(name) for row in baselines for name in HELD_OUT_SCORES}


def _teller(report: Report) -> Callable[[Progress], None]:
    done_before = 0

    def tell(progress: Progress) -> None:
        nonlocal done_before
        if done_before == 0:
            report.begin(Stage.TRAIN.value, progress.total_steps, "steps")
        note = "" if progress.loss is None else f"loss {progress.loss:.3f}"
        report.advance(progress.step - done_before, note)
        done_before = progress.step

    return tell


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
        parity=criss_cross_training(context.pipeline).model.parity,
    )
