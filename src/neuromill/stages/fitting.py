"""Fit a tokenizer on the train split of prepared recordings, and publish it if its codebooks are alive."""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from neuromill.records import ConfigError, NeuroMillError, RecordingError
from neuromill.stages.channels import channel_table, good_channels
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import done_recordings, require_whole, training_recordings
from neuromill.stages.identities import fit_identity, learning_identity, prepare_identity, rejects, vocabulary_identity
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.rejections import rejection_of
from neuromill.stages.sections import rvq_tokenizer
from neuromill.tokenizers.fixed_config import MuLawConfig, QuantileConfig
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.tokenizers.tfdual_config import TfDualFitConfig, TfDualTokenizerConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
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
    from neuromill.tokenizers.metrics import Quality
    from neuromill.tokenizers.montage import Group
    from neuromill.tokenizers.protocol import Tokenizer
    from neuromill.tokenizers.tfdual_fitting import TfDualFitReport
    from neuromill.tokenizers.windows import JointPick, JointPlan, WindowPick, WindowPlan

GATE_ROWS = 32
GATE_SEED_OFFSET = 1_000_003  # windows of the verdict are drawn apart from those of the fit


def fit_tokenizer(workspace: Workspace, pipeline: Pipeline, selection: Selection, report: Report) -> StageResult:
    """Fit, judge and publish the tokenizer of a pipeline; resumes a fit that was interrupted.

    Steps that were taken are not taken again because the gate changed: the same fit is judged afresh.

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
    _fit_and_publish(_Job(workspace, pipeline, chosen, training, folder, report))
    size = sum(file.stat().st_size for file in folder.iterdir())
    return _result(identity, begin, done=1, bytes_out=size)


def _result(
    identity: str, begin: float, *, already: int = 0, done: int = 0, bytes_out: int = 0, note: str = ""
) -> StageResult:
    seconds = time.perf_counter() - begin
    return StageResult(Stage.FIT, identity, already + done, already, done, 0, seconds, bytes_out, note)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What is fitted, on what, and where it is published."""

    workspace: Workspace
    pipeline: Pipeline
    chosen: Chosen
    training: Sequence[Recording]
    folder: Path
    report: Report

    @property
    def learning(self) -> str:
        """Name of the steps, whatever gate comes after them."""
        return learning_identity(self.pipeline, self.training)

    @property
    def checkpoint(self) -> Path:
        """Where the steps are kept until a tokenizer is published."""
        return self.folder.parent / f"fit-{self.learning}" / "checkpoint.pt"


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """What the gate judges, and what is kept of it as JSON values."""

    tokenizer: Tokenizer
    quality: Quality | None
    facts: dict[str, Any]


def _fit_and_publish(job: _Job) -> None:
    from neuromill.sources.locking import exclusive
    from neuromill.tokenizers.files import save_pretrained
    from neuromill.tokenizers.fixed import FixedTokenizer

    rule, ledger = job.pipeline.tokenizer, job.workspace.ledger
    waiting = partial(job.report.say, "another run fits this tokenizer; waiting for it")
    with exclusive(job.workspace.home / "locks" / f"fit-{job.learning}.lock", waiting):
        if job.folder.is_dir():
            return
        if isinstance(rule, MuLawConfig | QuantileConfig):  # a rule: nothing to fit, nothing to judge
            save_pretrained(FixedTokenizer(rule), job.folder)
            return
        number = ledger.begin_run(Stage.FIT.value, job.folder.name)
        fitted = _fit(job)
        problems = _judge(job.pipeline, fitted)
        ledger.end_run(number, facts=fitted.facts | {"problems": [str(problem) for problem in problems]})
        if problems:
            _refuse(job, fitted.facts, problems)
        save_pretrained(fitted.tokenizer, job.folder, facts=fitted.facts)
        shutil.rmtree(job.checkpoint.parent, ignore_errors=True)


def _fit(job: _Job) -> _Fitted:
    """Fit, and evaluate on recordings that are not in training where there are any; with where and on what."""
    import torch

    torch.set_num_threads(job.pipeline.fit.cpu_threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    gate_windows, held_out = _gate_windows(job.workspace, job.pipeline, job.chosen, job.training)
    if not held_out:
        job.report.say("no window is held out: the tokenizer is judged on recordings it was fitted on")
    validation = (gate_windows.batch(step) for step in range(job.pipeline.gate.n_windows))
    published = _published(job)
    if published is not None:
        return _judged_afresh(job, published, validation, held_out=held_out)
    fitted = _steps(job, validation, device)
    facts = {"recordings": [str(r.id) for r in job.training], "fit": job.learning, "device": device}
    return _Fitted(fitted.tokenizer, fitted.quality, fitted.summary() | facts | {"held_out": held_out})


def _steps(job: _Job, validation: Iterable[Tensor], device: str) -> FitReport | TfDualFitReport:
    """Take the steps that are left: none where a gate refused the finished fit."""
    config, learn, report = job.pipeline.fit, _learning(job.pipeline), job.report
    windows = Windows.over(job.workspace, job.pipeline, job.training, config.batch_size, config.seed)
    report.begin(Stage.FIT.value, config.steps, "steps")
    fitted = learn(
        windows.batch,
        validation=validation,
        checkpoint=job.checkpoint,
        data_identity=job.learning,
        device=device,
        progress=lambda losses: report.advance(1, str(losses)),
    )
    report.end(f"correlation {fitted.quality.correlation:.3f}" if fitted.quality else "")
    return fitted


def _published(job: _Job) -> Path | None:
    """Folder of a tokenizer that the same steps led to, published under another gate."""
    from neuromill.tokenizers.files import read_facts

    for config in sorted(job.folder.parent.glob("[!.]*/config.json")):
        try:
            facts = read_facts(config.parent)
        except ConfigError:  # another one that is damaged, or of a newer version, is not what is looked for
            continue
        if facts.get("fit") == job.learning:
            return config.parent
    return None


def _judged_afresh(job: _Job, published: Path, validation: Iterable[Tensor], *, held_out: bool) -> _Fitted:
    from neuromill.tokenizers.driving import quality_of
    from neuromill.tokenizers.files import open_tokenizer, read_facts

    job.report.say("fitted already, under another gate: judged afresh")
    tokenizer = open_tokenizer(published)
    quality = quality_of(tokenizer, validation)
    measured = {"quality": None if quality is None else quality.summary(), "held_out": held_out}
    return _Fitted(tokenizer, quality, read_facts(published) | measured)


def _learning(pipeline: Pipeline) -> Callable[..., FitReport | TfDualFitReport]:
    """Return the fit of this kind of tokenizer with its settings; ConfigError where the two are of different kinds."""
    if isinstance(pipeline.tokenizer, TfDualTokenizerConfig):
        from neuromill.tokenizers.tfdual_fitting import fit_tfdual

        if isinstance(pipeline.fit, TfDualFitConfig):
            return partial(fit_tfdual, pipeline.tokenizer, pipeline.fit, contrast_silence=not rejects(pipeline))
    elif not isinstance(pipeline.fit, TfDualFitConfig):
        from neuromill.tokenizers.fitting import fit

        return partial(fit, rvq_tokenizer(pipeline), pipeline.fit)
    raise ConfigError(
        f"a tokenizer of kind {pipeline.tokenizer.kind} cannot be fitted with these settings",
        where="fit.kind",
        next_step=f"set fit.kind: {pipeline.tokenizer.kind}",
    )


def _gate_windows(
    workspace: Workspace, pipeline: Pipeline, chosen: Chosen, training: Sequence[Recording]
) -> tuple[Windows, bool]:
    """Windows of the verdict, and whether they are of recordings that the fit does not see."""
    prepared = done_recordings(workspace, chosen, Stage.PREPARE, prepare_identity(pipeline))
    held_out = [recording for recording in prepared if chosen.split_of(recording) == "validation"]
    groups = [opened.recordings[0] for opened in _open(workspace, pipeline, held_out)]
    seed = pipeline.fit.seed + GATE_SEED_OFFSET
    rows = 1 if isinstance(pipeline.tokenizer, TfDualTokenizerConfig) else GATE_ROWS
    if any(group.n_rows >= _window_samples(pipeline) for group in groups):
        windows = Windows.over(workspace, pipeline, held_out, rows, seed)
        if not windows.plan.is_empty:
            return windows, True
    return Windows.over(workspace, pipeline, training, rows, seed), False


def _window_samples(pipeline: Pipeline) -> int:
    if isinstance(pipeline.tokenizer, TfDualTokenizerConfig):
        return pipeline.tokenizer.window_samples
    seconds: float = getattr(pipeline.fit, "segment_seconds", 0.0)
    return round(seconds * rvq_tokenizer(pipeline).sfreq)


def _sfreq(pipeline: Pipeline) -> float:
    if isinstance(pipeline.tokenizer, TfDualTokenizerConfig):
        return pipeline.tokenizer.sfreq
    return rvq_tokenizer(pipeline).sfreq


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
    expected = _sfreq(pipeline)
    for group in groups:
        if not math.isclose(group.sfreq, expected, rel_tol=1e-6):
            raise ConfigError(
                f"signals are prepared at {group.sfreq:g} Hz, the tokenizer is for {expected:g} Hz",
                where=group.name,
                next_step="make the resample step of `prepare` and the rate of the tokenizer agree",
            )


def _judge(pipeline: Pipeline, fitted: _Fitted) -> tuple[GateProblem, ...]:
    from neuromill.tokenizers.gate import judge

    if fitted.quality is None:
        raise ConfigError("a tokenizer needs windows to be judged on", where="gate.n_windows")
    return judge(fitted.quality, pipeline.gate)


def _refuse(job: _Job, facts: dict[str, Any], problems: Sequence[GateProblem]) -> None:
    reasons = [str(problem) for problem in problems]
    document = json.dumps(facts | {"problems": reasons}, indent=1, sort_keys=True)
    kept = job.checkpoint.with_name("refused.json")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(document + "\n", encoding="utf-8")
    raise NeuroMillError(
        f"the tokenizer is not published: {'; '.join(reasons)}",
        where=str(kept),
        next_step="fit longer, on more recordings, or with smaller codebooks; "
        "thresholds are under `gate`: with others this very fit is judged afresh",
    )


@dataclass(frozen=True, slots=True)
class Windows:
    """Batches of windows, drawn from prepared stores by a plan that is a pure function of seed and step."""

    readers: tuple[StoreReader, ...]
    names: tuple[str, ...]
    plan: WindowPlan | JointPlan

    @classmethod
    def over(
        cls,
        workspace: Workspace,
        pipeline: Pipeline,
        recordings: Sequence[Recording],
        rows: int,
        seed: int,
    ) -> Windows:
        """Open the prepared groups of these recordings; ConfigError where their rate is not the tokenizer's.

        ``rows`` per batch are channels, or whole windows where the tokenizer sees the channels of a window jointly.
        """
        return cls.of(pipeline, _open(workspace, pipeline, recordings), rows, seed)

    @classmethod
    def of(cls, pipeline: Pipeline, readers: tuple[StoreReader, ...], rows: int, seed: int) -> Windows:
        """See ``over``; each reader has one prepared group."""
        groups = [reader.recordings[0] for reader in readers]
        _check_rate(pipeline, groups)
        return cls(readers, tuple(group.name for group in groups), _plan(pipeline, readers, rows, seed))

    def batch(self, step: int) -> Tensor:
        """Windows of one batch in physical units: float32 [row, time], or [window, position, time] if seen jointly."""
        import numpy as np
        import torch

        from neuromill.tokenizers.windows import JointPlan

        if isinstance(self.plan, JointPlan):
            return torch.from_numpy(np.stack([self._joint(pick) for pick in self.plan.batch(step)]))
        blocks = [self._read(pick)[:, list(pick.channels)].T for pick in self.plan.batch(step)]
        return torch.from_numpy(np.ascontiguousarray(np.concatenate(blocks), dtype=np.float32))

    def _joint(self, pick: JointPick) -> NDArray[np.float32]:
        """One window, float32 [position, time], NaN where a position has no good channel, and where it is rejected."""
        import numpy as np

        signal = self._read(pick)
        rejection = self.plan.rejections[pick.recording]
        if rejection is not None:
            signal = rejection.hidden(signal, pick.start)
        window = np.full((len(pick.group), len(signal)), np.nan, np.float32)
        at = [position for position, channel in enumerate(pick.group) if channel >= 0]
        window[at] = signal[:, [pick.group[position] for position in at]].T
        return window

    def _read(self, pick: WindowPick | JointPick) -> NDArray[np.float32]:
        stop = pick.start + self.plan.window_samples
        return self.readers[pick.recording].read_physical(self.names[pick.recording], pick.start, stop)


def _plan(pipeline: Pipeline, readers: Sequence[StoreReader], rows: int, seed: int) -> WindowPlan | JointPlan:
    from neuromill.tokenizers.windows import JointPlan, WindowPlan

    n_times = tuple(reader.recordings[0].n_rows for reader in readers)
    length = _window_samples(pipeline)
    rejections = tuple(rejection_of(reader, reader.recordings[0].name) for reader in readers)
    if isinstance(pipeline.tokenizer, TfDualTokenizerConfig):
        groups = _groups(pipeline.tokenizer, readers)
        return JointPlan(n_times, groups, window_samples=length, windows=rows, seed=seed, rejections=rejections)
    good = tuple(good_channels(channel_table(reader, reader.recordings[0].name)) for reader in readers)
    return WindowPlan(n_times, good, window_samples=length, rows=rows, seed=seed, rejections=rejections)


def _groups(config: TfDualTokenizerConfig, readers: Sequence[StoreReader]) -> tuple[tuple[Group, ...], ...]:
    """Groups of good channels per recording; none for one that ``tokenize`` will refuse, with a code, all the same.

    Raises
    ------
    ConfigError
        The tokenizer refuses every recording; says why for the first one.
    """
    from neuromill.tokenizers.montage import channel_groups, good_members
    from neuromill.tokenizers.tfdual_checks import require_windows

    groups: list[tuple[Group, ...]] = []
    refusals = []
    for reader in readers:
        signal = reader.recordings[0]
        table = channel_table(reader, signal.name)
        try:
            require_windows(config, table, signal.n_rows, partial(reader.read_physical, signal.name))
        except RecordingError as error:
            refusals.append(f"{signal.name}: {error}")
            groups.append(())
        else:
            groups.append(tuple(good_members(group, table.bads) for group in channel_groups(config, table)))
    if readers and len(refusals) == len(readers):
        raise ConfigError(f"the tokenizer takes none of {len(readers)} recordings; {refusals[0]}", where="tokenizer")
    return tuple(groups)
