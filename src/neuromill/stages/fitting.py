"""Fit a tokenizer on the train split of prepared recordings, and publish it if its codebooks are alive."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from neuromill.records import ConfigError, NeuroMillError
from neuromill.stages.channels import channel_table, good_channels
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import done_recordings, require_whole, training_recordings
from neuromill.stages.identities import fit_identity, prepare_identity, vocabulary_identity
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.sections import rvq_tokenizer
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from neuromill.records import Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.report import Report
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace
    from neuromill.store.contents import IndexedRecording
    from neuromill.store.reader import StoreReader
    from neuromill.tokenizers.fitting import FitReport
    from neuromill.tokenizers.gate import GateProblem
    from neuromill.tokenizers.windows import WindowPlan

GATE_ROWS = 32
GATE_SEED_OFFSET = 1_000_003  # windows of the verdict are drawn apart from those of the fit


def fit_tokenizer(workspace: Workspace, pipeline: Pipeline, selection: Selection, report: Report) -> StageResult:
    """Fit, judge and publish the tokenizer of a pipeline; resumes a fit that was interrupted.

    Raises
    ------
    ConfigError
        Nothing is prepared, no recording is as long as a window, signals are not prepared at the tokenizer's rate,
        the split of a card leaks, or the selection is a part.
    NeuroMillError
        The gate refuses: a codebook is dead. What was measured is kept in ``refused.json`` beside the checkpoint.
    """
    begin = time.perf_counter()
    if isinstance(pipeline.tokenizer, Ndt3TokenizerConfig):
        return _result(vocabulary_identity(pipeline.tokenizer), begin, already=1, note="tokens by rule: nothing to fit")
    if pipeline.pretrained is None:
        require_whole(selection, "neuromill tokenizer fit", "neuromill prepare")
    chosen = choose(workspace, pipeline, selection)
    chosen.require_no_leaks()
    training = training_recordings(workspace, pipeline, chosen)
    identity = fit_identity(pipeline, training)
    if pipeline.pretrained is not None:
        return _result(identity, begin, already=1, note=f"published tokenizer {pipeline.pretrained.source}")
    folder = workspace.tokenizer_folder(identity)
    if folder.is_dir():
        return _result(identity, begin, already=1, note="nothing to do")
    if not training:
        raise ConfigError(
            "no prepared recording is in the train split", where=pipeline.name, next_step="run `neuromill prepare`"
        )
    _fit_and_publish(workspace, pipeline, chosen, training, folder, report)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return _result(identity, begin, done=1, bytes_out=size)


def _result(
    identity: str, begin: float, *, already: int = 0, done: int = 0, bytes_out: int = 0, note: str = ""
) -> StageResult:
    seconds = time.perf_counter() - begin
    return StageResult(Stage.FIT, identity, already + done, already, done, 0, seconds, bytes_out, note)


def _fit_and_publish(
    workspace: Workspace,
    pipeline: Pipeline,
    chosen: Chosen,
    training: Sequence[Recording],
    folder: Path,
    report: Report,
) -> None:
    from neuromill.sources.locking import exclusive
    from neuromill.tokenizers.files import save_pretrained

    waiting = partial(report.say, "another run fits this tokenizer; waiting for it")
    with exclusive(workspace.home / "locks" / f"fit-{folder.name}.lock", waiting):
        if folder.is_dir():
            return
        number = workspace.ledger.begin_run(Stage.FIT.value, folder.name)
        fitted, run = _fit(workspace, pipeline, chosen, training, folder, report)
        facts = fitted.summary() | run | {"recordings": [str(r.id) for r in training]}
        problems = _judge(pipeline, fitted)
        state = _checkpoint(folder)
        workspace.ledger.end_run(number, facts=facts | {"problems": [str(problem) for problem in problems]})
        if problems:
            _refuse(state.parent, facts, problems)
        save_pretrained(fitted.tokenizer, folder, facts=facts)
        state.unlink()
        state.parent.rmdir()


def _fit(
    workspace: Workspace,
    pipeline: Pipeline,
    chosen: Chosen,
    training: Sequence[Recording],
    folder: Path,
    report: Report,
) -> tuple[FitReport, dict[str, Any]]:
    """Fit, and evaluate on recordings that are not in training where there are any; with where and on what."""
    import torch

    from neuromill.tokenizers.fitting import fit

    config = pipeline.fit
    torch.set_num_threads(config.cpu_threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    windows = Windows.over(workspace, pipeline, training, config.batch_size, config.seed)
    gate_windows, held_out = _gate_windows(workspace, pipeline, chosen, training)
    if not held_out:
        report.say("no window is held out: the tokenizer is judged on recordings it was fitted on")
    report.begin(Stage.FIT.value, config.steps, "steps")
    fitted = fit(
        rvq_tokenizer(pipeline),
        config,
        windows.batch,
        validation=(gate_windows.batch(step) for step in range(pipeline.gate.n_windows)),
        checkpoint=_checkpoint(folder),
        data_identity=folder.name,
        device=device,
        progress=lambda losses: report.advance(1, f"loss {losses.total:.3f}"),
    )
    report.end(f"correlation {fitted.quality.correlation:.3f}" if fitted.quality else "")
    return fitted, {"held_out": held_out, "device": device}


def _gate_windows(
    workspace: Workspace, pipeline: Pipeline, chosen: Chosen, training: Sequence[Recording]
) -> tuple[Windows, bool]:
    """Windows of the verdict, and whether they are of recordings that the fit does not see."""
    prepared = done_recordings(workspace, chosen, Stage.PREPARE, prepare_identity(pipeline))
    held_out = [recording for recording in prepared if chosen.split_of(recording) == "validation"]
    groups = [opened.recordings[0] for opened in _open(workspace, pipeline, held_out)]
    enough = any(group.n_rows >= _window_samples(pipeline) for group in groups)
    seed = pipeline.fit.seed + GATE_SEED_OFFSET
    return Windows.over(workspace, pipeline, held_out if enough else training, GATE_ROWS, seed), enough


def _window_samples(pipeline: Pipeline) -> int:
    return round(pipeline.fit.segment_seconds * rvq_tokenizer(pipeline).normalization.sfreq)


def _open(workspace: Workspace, pipeline: Pipeline, recordings: Sequence[Recording]) -> tuple[StoreReader, ...]:
    """Open the prepared group of each recording, with a reader of its own."""
    from neuromill.store.reader import StoreReader

    identity = prepare_identity(pipeline)
    return tuple(
        StoreReader.of_groups(workspace.store(r.id.dataset_version, Stage.PREPARE, identity), (r.id.name,))
        for r in recordings
    )


def _check_rate(pipeline: Pipeline, groups: Sequence[IndexedRecording]) -> None:
    """Refuse signals at another rate than the tokenizer's: its frames would not be as long as it says."""
    expected = rvq_tokenizer(pipeline).normalization.sfreq
    for group in groups:
        if not math.isclose(group.sfreq, expected, rel_tol=1e-6):
            raise ConfigError(
                f"signals are prepared at {group.sfreq:g} Hz, the tokenizer is for {expected:g} Hz",
                where=group.name,
                next_step="make the resample step of `prepare` and `tokenizer.normalization.sfreq` agree",
            )


def _judge(pipeline: Pipeline, fitted: FitReport) -> tuple[GateProblem, ...]:
    from neuromill.tokenizers.gate import check_gate

    if fitted.quality is None:
        raise ConfigError("a tokenizer needs windows to be judged on", where="gate.n_windows")
    return check_gate(fitted.quality.usage, pipeline.gate, correlation=fitted.quality.correlation)


def _refuse(folder: Path, facts: dict[str, Any], problems: Sequence[GateProblem]) -> None:
    reasons = [str(problem) for problem in problems]
    document = json.dumps(facts | {"problems": reasons}, indent=1, sort_keys=True)
    (folder / "refused.json").write_text(document + "\n", encoding="utf-8")
    raise NeuroMillError(
        f"the tokenizer is not published: {'; '.join(reasons)}",
        where=str(folder / "refused.json"),
        next_step="fit longer, on more recordings, or with smaller codebooks; thresholds are under `gate`",
    )


def _checkpoint(folder: Path) -> Path:
    return folder.parent / f"fit-{folder.name}" / "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Windows:
    """Batches of rows, drawn from prepared stores by a plan that is a pure function of seed and step."""

    readers: tuple[StoreReader, ...]
    names: tuple[str, ...]
    plan: WindowPlan

    @classmethod
    def over(
        cls,
        workspace: Workspace,
        pipeline: Pipeline,
        recordings: Sequence[Recording],
        rows: int,
        seed: int,
    ) -> Windows:
        """Open the prepared groups of these recordings; ConfigError where their rate is not the tokenizer's."""
        from neuromill.tokenizers.windows import WindowPlan

        readers = _open(workspace, pipeline, recordings)
        groups = [reader.recordings[0] for reader in readers]
        _check_rate(pipeline, groups)
        plan = WindowPlan(
            n_times=tuple(group.n_rows for group in groups),
            channels=tuple(good_channels(channel_table(r, r.recordings[0].name)) for r in readers),
            window_samples=_window_samples(pipeline),
            rows=rows,
            seed=seed,
        )
        return cls(readers, tuple(group.name for group in groups), plan)

    def batch(self, step: int) -> Tensor:
        """Rows of one batch: float32 [row, time] in physical units."""
        import numpy as np
        import torch

        stop = self.plan.window_samples
        blocks = [
            self.readers[pick.recording]
            .read_physical(self.names[pick.recording], pick.start, pick.start + stop)[:, list(pick.channels)]
            .T
            for pick in self.plan.batch(step)
        ]
        return torch.from_numpy(np.ascontiguousarray(np.concatenate(blocks), dtype=np.float32))
