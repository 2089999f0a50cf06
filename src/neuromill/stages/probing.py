"""Probe: how well a labelled task can be read from EEGSSM, on subjects that the probe has not seen."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.records import ConfigError
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import done_recordings, require_whole, work_context
from neuromill.stages.identities import prepare_identity, probe_identity
from neuromill.stages.outcomes import Stage
from neuromill.stages.probe_examples import Examples, find_examples
from neuromill.stages.probe_signals import BATCH, Signals, features_of, probe_input, rates_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from neuromill.models.eegssm import EEGSSM
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.report import Report
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace
    from neuromill.training.probe_config import ProbeConfig
    from neuromill.training.probe_metrics import ProbeScores

PROBE = "probe"  # what a run of it is called in the ledger


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe came to.

    Attributes
    ----------
    counts
        Examples of each class.
    split
        ``card`` (the held-out recordings of the cards), or ``subjects`` (folds over subjects).
    tested
        Examples that the scores rest on: each is tested once, by a probe that never saw its subject.
    scores
        Of the model, and of the same network with random weights where that was asked for.
    notes
        What a reader of the scores has to know.
    """

    name: str
    mode: str
    model: str
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    n_subjects: int
    split: str
    n_folds: int
    tested: int
    chance: float
    scores: Mapping[str, ProbeScores]
    left_out: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        kept = ("name", "mode", "model", "split", "n_subjects", "n_folds", "tested", "chance")
        return {name: getattr(self, name) for name in kept} | {
            "classes": dict(self.counts),
            "scores": {name: scores.row() for name, scores in self.scores.items()},
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }

    def facts(self) -> dict[str, Any]:
        """Return what the ledger keeps: `as_dict`, with null for an AUROC that no test can tell."""
        found = self.as_dict()
        for scores in found["scores"].values():
            scores |= {name: None for name, value in scores.items() if np.isnan(value)}
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Numbers of the examples to learn from and to test on; no subject is in both."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def run_probe(
    workspace: Workspace, pipeline: Pipeline, selection: Selection, task: ProbeConfig, report: Report
) -> ProbeResult:
    """Learn a task on prepared recordings of some subjects and score it on others; the ledger keeps what came of it.

    Raises
    ------
    ConfigError
        Nothing is prepared or labelled, there is no such model, it was trained at another rate or on another unit, a
        class has too few subjects to be learned and tested on different ones, or the cards' split leaks.
    """
    from neuromill.store.reader import StoreReader
    from neuromill.training.probe_metrics import score

    require_whole(selection, "neuromill probe", "neuromill prepare")
    chosen = choose(workspace, pipeline, selection)
    chosen.require_no_leaks()
    where = _model_source(workspace, pipeline, chosen, task)
    model = _open_model(where)
    identity = prepare_identity(pipeline)
    recordings = done_recordings(workspace, chosen, Stage.PREPARE, identity)
    if not recordings:
        raise ConfigError("no recording is prepared", where=pipeline.name, next_step="run `neuromill prepare`")
    with ExitStack() as stack:
        versions = {recording.id.dataset_version for recording in recordings}
        readers = {
            str(version): stack.enter_context(StoreReader.open(workspace.store(version, Stage.PREPARE, identity)))
            for version in sorted(versions, key=str)
        }
        given = probe_input(model.config.input, rates_of(readers, recordings), task.unit_volts)
        examples = find_examples(workspace, chosen, recordings, readers, task, model.config.patch_size)
        split, folds = make_folds(examples, task)
        signals = Signals(readers, examples.rows, task, model.config.patch_size, given.unit_volts)
        tested = np.concatenate([fold.test for fold in folds])
        number = workspace.ledger.begin_run(PROBE, probe_identity(pipeline, task, _digest_of(where), recordings))
        scores = {}
        for name, network in _contestants(model, task):
            report.begin(f"probe {name}", len(folds), "folds")
            found = _predict(network, signals, examples, folds, task, report)
            report.end()
            scores[name] = score(examples.labels[tested], found)
    result = _result(task, where, examples, split, folds, scores, given.notes)
    workspace.ledger.end_run(number, facts=result.facts() | {"prepare": identity})
    return result


def make_folds(examples: Examples, task: ProbeConfig) -> tuple[str, tuple[Fold, ...]]:
    """Decide who is learned from and who is tested.

    Where the cards hold somebody out ("test", else "validation"), that is the split. Otherwise subjects are dealt into
    folds.

    Raises
    ------
    ConfigError
        A fold would have to be tested on a class that it could not learn, because all who have it are tested.
    """
    splits = np.array([one.split for one in examples.rows])
    held_out = next((name for name in ("test", "validation") if (splits == name).any()), None)
    if held_out is not None:
        folds = [Fold(np.flatnonzero(splits == "train"), np.flatnonzero(splits == held_out))]
    else:
        n_folds = min(task.folds, len(set(examples.subjects)))
        mine = _dealt(examples, n_folds, task.seed)
        folds = [Fold(np.flatnonzero(mine != k), np.flatnonzero(mine == k)) for k in range(n_folds)]
    for fold in folds:
        _require_learnable(fold, examples)
    return ("card" if held_out is not None else "subjects"), tuple(folds)


def _dealt(examples: Examples, n_folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each example: subjects with the same classes go to different folds as far as they can.

    Within them the order is drawn from the seed.
    """
    classes: dict[tuple[str, str], set[int]] = defaultdict(set)
    for one, subject in zip(examples.rows, examples.subjects, strict=True):
        classes[subject].add(one.label)
    subjects = sorted(classes)
    luck = np.random.default_rng(seed).permutation(len(subjects)).tolist()
    order = sorted(range(len(subjects)), key=lambda k: (sorted(classes[subjects[k]]), luck[k]))
    fold_of = {subjects[one]: number % n_folds for number, one in enumerate(order)}
    return np.array([fold_of[subject] for subject in examples.subjects], np.int64)


def _require_learnable(fold: Fold, examples: Examples) -> None:
    subjects = np.array([f"{dataset}/{subject}" for dataset, subject in examples.subjects])
    shared = sorted(set(subjects[fold.train]) & set(subjects[fold.test]))
    if shared:
        raise ConfigError(
            f"subjects are learned from and tested: {', '.join(shared[:5])}", next_step="correct `splits` in the card"
        )
    missing = sorted(set(range(len(examples.classes))) - set(examples.labels[fold.train].tolist()))
    if missing:
        names = ", ".join(examples.classes[number] for number in missing)
        raise ConfigError(
            f"{names}: only tested subjects have it, so it cannot be learned from others",
            where=f"tested: {', '.join(sorted(set(subjects[fold.test]))[:5])}",
            next_step="take more subjects, other folds, or leave the class out (labels.classes)",
        )


def _predict(
    model: EEGSSM, signals: Signals, examples: Examples, folds: Sequence[Fold], task: ProbeConfig, report: Report
) -> NDArray[np.float64]:
    """Probabilities [tested example, class], in the order of the folds' tests."""
    from neuromill.training.probe_learning import fit_logistic

    labels, n_classes, found = examples.labels, len(examples.classes), []
    if task.mode == "linear":
        features = features_of(model, signals, np.arange(len(labels)), task.pool)
    for fold in folds:
        if task.mode == "linear":
            fitted = fit_logistic(features[fold.train], labels[fold.train], n_classes, task.linear.l2)
            found.append(fitted.probabilities(features[fold.test]))
        else:
            found.append(_fine_tuned(model, signals, labels, fold, n_classes, task))
        report.advance(1)
    return np.concatenate(found)


def _fine_tuned(
    model: EEGSSM, signals: Signals, labels: NDArray[np.int64], fold: Fold, n_classes: int, task: ProbeConfig
) -> NDArray[np.float64]:
    from copy import deepcopy

    import torch

    from neuromill.training.probe_learning import fine_tune

    shapes = {signals.shape(row) for row in np.concatenate((fold.train, fold.test)).tolist()}
    if len(shapes) > 1:
        raise ConfigError(
            f"windows of several shapes (channels, samples): {', '.join(map(str, sorted(shapes)))}",
            where="mode: finetune",
            next_step="take one montage and one rate in `prepare`",
        )
    n_chans, n_times = shapes.pop()
    with torch.random.fork_rng():
        torch.manual_seed(task.seed)
        tuned = deepcopy(model)
        tuned.reset_head(n_classes, head=task.finetune.head, n_chans=n_chans, n_times=n_times)
        fine_tune(
            tuned,
            signals.stack,
            fold.train,
            labels[fold.train],
            n_classes,
            task.finetune,
            task.seed,
        )
    return _tested(tuned, signals, fold.test)


def _tested(tuned: EEGSSM, signals: Signals, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probabilities [example, class] that a fine-tuned model gives."""
    import torch

    device, logits = next(tuned.parameters()).device, []
    with torch.no_grad():
        for cut in range(0, len(rows), BATCH):
            x, usable = (one.to(device) for one in signals.stack(rows[cut : cut + BATCH]))
            logits.append(tuned(x, usable=usable).cpu())
    return torch.cat(logits).double().softmax(dim=1).numpy()


def _contestants(model: EEGSSM, task: ProbeConfig) -> Iterator[tuple[str, EEGSSM]]:
    """The model, and the same network with random weights."""
    import torch

    from neuromill.models.eegssm import EEGSSM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    yield "model", model.to(device)
    if task.compare_random:
        with torch.random.fork_rng():
            torch.manual_seed(task.seed)
            fresh = EEGSSM(model.config)
        yield "random weights", fresh.eval().to(device)


def _model_source(workspace: Workspace, pipeline: Pipeline, chosen: Chosen, task: ProbeConfig) -> str:
    """Folder or Hub id of the model: the task's, or the one that the pipeline has trained."""
    from neuromill.models.files import is_complete
    from neuromill.stages.training import model_folder

    if task.model:
        folder = Path(task.model).expanduser()
        return str(folder.absolute()) if folder.is_dir() else task.model
    own = model_folder(workspace, chosen, work_context(workspace, pipeline, chosen, Stage.TRAIN))
    if not is_complete(own):
        raise ConfigError(
            "no model is trained on these tokens",
            where=str(own),
            next_step="run `neuromill train`, or name one: `model:` in the task file, or --model FOLDER",
        )
    return str(own)


def _digest_of(source: str) -> str:
    """Digest of the model of a folder; the name of one on the Hub."""
    from neuromill.stages.embedding import model_digest

    return model_digest(Path(source)) if Path(source).is_dir() else source


def _open_model(source: str) -> EEGSSM:
    from neuromill.models.eegssm import EEGSSM

    return EEGSSM.from_pretrained(source)


def _result(
    task: ProbeConfig,
    model: str,
    examples: Examples,
    split: str,
    folds: Sequence[Fold],
    scores: Mapping[str, ProbeScores],
    notes: tuple[str, ...],
) -> ProbeResult:
    counts = np.bincount(examples.labels, minlength=len(examples.classes)).tolist()
    if split == "subjects" and not task.model:
        known = "the cards hold nobody out: the model was pre-trained, without labels, on the tested subjects too"
        notes = (*notes, known)
    return ProbeResult(
        name=task.name,
        mode=task.mode,
        model=model,
        classes=examples.classes,
        counts=dict(zip(examples.classes, counts, strict=True)),
        n_subjects=len(set(examples.subjects)),
        split=split,
        n_folds=len(folds),
        tested=sum(len(fold.test) for fold in folds),
        chance=1 / len(examples.classes),
        scores=scores,
        left_out=examples.left_out,
        notes=notes,
    )
