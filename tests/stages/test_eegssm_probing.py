"""Probing: labels from three places, subjects never on both sides, real EEG, and what is refused."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from neuromill.cli.main import main
from neuromill.models.eegssm import EEGSSM
from neuromill.records import ConfigError, Entities, Recording, RecordingId
from neuromill.stages.looking import came_to
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.probe_examples import OTHER_CLASS, Example, Examples, load_probe
from neuromill.stages.probing import ProbeResult, make_folds, run_probe
from neuromill.stages.report import Silent
from neuromill.stages.report_probes import collect_probes
from neuromill.stages.reporting import write_report
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from neuromill.tokenizers.files import save_pretrained
from neuromill.training.probe_config import ProbeConfig
from neuromill.training.probe_metrics import ProbeScores
from support.stages import workspace_at
from support.tfdual import random_tokenizer
from support.tiny_eeg import HOP, MODEL, RAW_SFREQ, SFREQ, TOKENIZER, pipeline_of, write_eeg

SUBJECTS = ("01", "02", "03", "04", "05", "06")
EVENTS = "onset\tduration\ttrial_type\n" + "".join(
    f"{at}\t0\t{'left' if number % 2 else 'right'}\n" for number, at in enumerate(range(0, 30, 2))
)
PARTICIPANTS = {"source": "participants", "column": "group"}


def groups_and_sides(number: int, signal: np.ndarray) -> None:
    """Patients (every second subject) have a rhythm of 12 Hz; before "left" events C3 is twice as large."""
    seconds = np.arange(signal.shape[1]) / RAW_SFREQ
    if number % 2:
        signal += 30e-6 * np.sin(2 * np.pi * 12 * seconds)
    signal[0, (seconds % 4) >= 2] *= 3
    if number == 0:  # no channel is fit for use from 18 to 24 s
        signal[:, 2050:2150] += 2e-3 * np.sin(np.linspace(0, 60, 100))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    save_pretrained(random_tokenizer(TOKENIZER), folder / "tokenizer")
    root = write_eeg(folder / "lab", SUBJECTS, groups_and_sides, events=EVENTS)
    rows = [f"sub-{one}\t{'patient' if number % 2 else 'control'}" for number, one in enumerate(SUBJECTS)]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tgroup", *rows]) + "\n")
    torch.manual_seed(0)
    EEGSSM(**MODEL).save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def workspace(folder: Path) -> Iterator[Workspace]:
    with workspace_at(folder / "home") as opened:
        for stage in (Stage.INGEST, Stage.PREPARE):
            assert run_stage(opened, pipeline_of(folder / "tokenizer"), Selection(data=folder / "lab"), stage).done == 6
        yield opened


def probe(workspace: Workspace, folder: Path, **task: object) -> ProbeResult:
    config = ProbeConfig.model_validate({"model": str(folder / "model"), "window_seconds": 5, "folds": 3} | task)
    selection = Selection(data=folder / "lab")
    return run_probe(workspace, pipeline_of(folder / "tokenizer"), selection, config, Silent())


def test_groups_of_participants_are_told_apart(workspace: Workspace, folder: Path) -> None:
    result = probe(workspace, folder, labels=PARTICIPANTS)
    assert result.classes == ("control", "patient")
    assert result.counts == {"control": 18, "patient": 18}
    assert (result.split, result.n_folds, result.n_subjects, result.tested) == ("subjects", 3, 6, 36)
    assert list(result.scores) == ["model", "random weights"]
    assert result.scores["model"].balanced_accuracy > 0.9
    assert result.scores["model"].auroc > 0.95
    again = probe(workspace, folder, labels=PARTICIPANTS)
    assert again.as_dict() == result.as_dict()


def test_the_ledger_and_the_page_keep_what_was_probed(workspace: Workspace, folder: Path) -> None:
    before = len(workspace.ledger.runs("probe"))
    results = [probe(workspace, folder, labels=PARTICIPANTS, name="group", folds=folds) for folds in (2, 2, 3)]
    with pytest.raises(ConfigError):  # what is refused leaves no run behind
        probe(workspace, folder, labels={"source": "participants", "column": "sex"})
    runs = workspace.ledger.runs("probe")[before:]
    assert [run.facts["scores"] for run in runs] == [
        {name: scores.row() for name, scores in one.scores.items()} for one in results
    ]
    first, again, third = (run.identity for run in runs)
    assert first == again != third
    model = results[-1].scores["model"].balanced_accuracy
    fresh = results[-1].scores["random weights"].balanced_accuracy
    told = f"group: balanced accuracy {model:.3f} (random weights {fresh:.3f}, chance 0.500)"
    assert came_to(runs[-1]) == told
    pipeline = pipeline_of(folder / "tokenizer")
    shown = [one for one in collect_probes(workspace, pipeline) if one.task == "group" and one.n_folds == 2]
    assert [one.scores for one in shown] == [runs[1].facts["scores"]]  # once, though it was run twice
    page = write_report(workspace, pipeline, Selection(data=folder / "lab"), folder / "probes.html").read_text()
    assert f">{model:.3f}<" in page
    assert "2 folds over subjects" in page
    other = Pipeline.model_validate({"name": "other", "prepare": {"steps": [{"step": "pick", "picks": ["eeg"]}]}})
    assert collect_probes(workspace, other) == ()


def test_an_auroc_that_no_test_can_tell_is_null_in_the_ledger() -> None:
    scores = {"model": ProbeScores(1.0, 0.0, float("nan"), 1.0)}
    result = ProbeResult("t", "linear", "m", ("a", "b"), {"a": 1, "b": 1}, 2, "card", 1, 1, 0.5, scores, {})
    assert result.facts()["scores"]["model"] == {
        "balanced_accuracy": 1.0, "kappa": 0.0, "auroc": None, "accuracy": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("pool", ["channels", "flatten"])
def test_events_are_told_apart(workspace: Workspace, folder: Path, pool: str) -> None:
    result = probe(workspace, folder, labels={"source": "events"}, window_seconds=2, pool=pool, compare_random=False)
    assert result.counts == {"left": 40, "right": 47}
    assert result.left_out == {"rejected in every channel": 3}
    assert list(result.scores) == ["model"]
    assert result.scores["model"].kappa > 0.6


def test_labels_that_mean_nothing_are_not_told_apart(workspace: Workspace, folder: Path) -> None:
    """Each subject has as many of both, at random: what is left is chance."""
    lab = folder / "lab" / "participants.tsv"
    kept = lab.read_text()
    lab.write_text(
        kept.replace("group", "luck").replace("02\tpatient", "02\tcontrol").replace("05\tcontrol", "05\tpatient")
    )
    try:
        result = probe(workspace, folder, labels={"source": "participants", "column": "luck"}, folds=6)
    finally:
        lab.write_text(kept)
    assert result.scores["model"].balanced_accuracy < 0.8


def test_fine_tuning_tells_groups_apart(workspace: Workspace, folder: Path) -> None:
    tuning = {"epochs": 12, "lr": 3e-3, "batch_size": 8}
    result = probe(workspace, folder, labels=PARTICIPANTS, mode="finetune", finetune=tuning, compare_random=False)
    assert (result.mode, result.tested) == ("finetune", 36)
    assert result.scores["model"].balanced_accuracy > 0.8


@pytest.mark.parametrize("head", ["mean", "flatten"])
def test_fine_tuning_and_testing_average_what_is_fit_for_use(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    """One window of the first subject is rejected in part; its silent patches count in neither of the two."""
    seen: list[tuple[torch.Tensor, torch.Tensor | None]] = []
    forward = EEGSSM.forward

    def watched(model: EEGSSM, x: torch.Tensor, **given: torch.Tensor | None) -> object:
        seen.append((x, given.get("usable")))
        return forward(model, x, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(EEGSSM, "forward", watched)
    tuning = {"epochs": 1, "head": head}
    probe(workspace, folder, labels=PARTICIPANTS, mode="finetune", finetune=tuning, compare_random=False)
    assert sum(len(x) for x, _ in seen) == 3 * 36
    partly = 0
    for x, usable in seen:
        assert usable is not None
        silent = (x.unflatten(-1, (-1, HOP)) == 0).all(dim=-1)
        torch.testing.assert_close(usable, ~silent)
        partly += int(silent.any())
    assert partly >= 3


@pytest.mark.parametrize(
    ("facts", "task", "told"),
    [
        ({"sfreq": 200}, {}, "a signal at 50 Hz beside a model trained at 200 Hz"),
        ({"unit_volts": 1e-4}, {"unit_volts": 1e-6}, "in units of 1 uV for a model trained on one in units of 100 uV"),
        ({"unit_volts": "segment"}, {}, "segments that its tokenizer scaled"),
    ],
)
@pytest.mark.parametrize("mode", ["linear", "finetune"])
def test_a_signal_that_the_model_was_not_trained_on_is_refused(
    workspace: Workspace,
    folder: Path,
    tmp_path: Path,
    mode: str,
    facts: dict[str, object],
    task: dict[str, object],
    told: str,
) -> None:
    EEGSSM(**MODEL, **facts).save_pretrained(tmp_path / "model")
    with pytest.raises(ConfigError, match=told):
        probe(workspace, folder, labels=PARTICIPANTS, mode=mode, model=str(tmp_path / "model"), **task)


def test_the_unit_is_that_of_the_model(workspace: Workspace, folder: Path, tmp_path: Path) -> None:
    """The scores of a model that knows 1 uV are those of one that is told; who knows everything has nothing to note."""
    torch.manual_seed(0)
    EEGSSM(**MODEL, sfreq=SFREQ, unit_volts=1e-6).save_pretrained(tmp_path / "model")
    knowing = probe(workspace, folder, labels=PARTICIPANTS, model=str(tmp_path / "model"), compare_random=False)
    told = probe(workspace, folder, labels=PARTICIPANTS, unit_volts=1e-6, compare_random=False)
    plain = probe(workspace, folder, labels=PARTICIPANTS, compare_random=False)
    assert knowing.scores == told.scores != plain.scores
    assert knowing.notes == ()
    assert plain.notes == (
        "the model does not tell its rate nor its unit: it was given 50 Hz in units of 100 uV, unchecked",
    )


@contextmanager
def table(folder: Path, old: str, new: str) -> Iterator[None]:
    """Another participants.tsv for a while."""
    file = folder / "lab" / "participants.tsv"
    kept = file.read_text()
    assert old in kept
    file.write_text(kept.replace(old, new))
    try:
        yield
    finally:
        file.write_text(kept)


def test_participants_that_contradict_themselves(workspace: Workspace, folder: Path) -> None:
    with (
        table(folder, "sub-06\tpatient", "sub-06\tpatient\nsub-01\tpatient"),
        pytest.raises(ConfigError, match=r"differ in 'group': sub-01 \(control, patient\)"),
    ):
        probe(workspace, folder, labels=PARTICIPANTS)
    with table(folder, "participant_id", "subject"), pytest.raises(ConfigError, match="no column 'participant_id'"):
        probe(workspace, folder, labels=PARTICIPANTS)
    with table(folder, "sub-01\tcontrol", "sub-01\tControl"):
        with pytest.raises(ConfigError, match="'Control', 'control'"):
            probe(workspace, folder, labels=PARTICIPANTS)
        merged = probe(workspace, folder, labels=PARTICIPANTS | {"ignore_case": True}, compare_random=False)
        assert merged.counts == {"Control": 18, "patient": 18}


def test_windows_that_reach_into_another_class_are_left_out(workspace: Workspace, folder: Path) -> None:
    """Events every 2 s with sides in turn, 15 in each of 6 recordings: in 3 s the next one begins."""
    told = f"no example of left, right; left out: 84 windows {OTHER_CLASS}, 6 windows not wholly inside"
    with pytest.raises(ConfigError, match=told):
        probe(workspace, folder, labels={"source": "events", "classes": ["left", "right"]}, window_seconds=3)


def examples_of(rows: list[tuple[str, int]], splits: tuple[str, ...] = ("train",)) -> Examples:
    """Examples of (subject, class); subject k is in split k of ``splits``, in turn."""
    subjects = sorted({subject for subject, _ in rows})

    def example(subject: str, label: int) -> Example:
        name = RecordingId("lab", "1", f"sub-{subject}")
        one = Recording(name, f"sub-{subject}.edf", (), Entities(subject=subject))
        return Example(one, splits[subjects.index(subject) % len(splits)], 0, label)

    return Examples(tuple(example(*row) for row in rows), ("a", "b"))


def task_with(**changes: object) -> ProbeConfig:
    return ProbeConfig.model_validate({"labels": {"source": "events"}, "window_seconds": 1} | changes)


@given(n_subjects=st.integers(2, 9), folds=st.integers(2, 6), seed=st.integers(0, 99))
def test_every_example_is_tested_once_by_who_never_saw_its_subject(n_subjects: int, folds: int, seed: int) -> None:
    examples = examples_of([(str(subject), label) for subject in range(n_subjects) for label in (0, 1, 1)])
    split, found = make_folds(examples, task_with(folds=folds, seed=seed))
    assert (split, len(found)) == ("subjects", min(folds, n_subjects))
    assert sorted(np.concatenate([fold.test for fold in found]).tolist()) == list(range(3 * n_subjects))
    for fold in found:
        assert sorted([*fold.train, *fold.test]) == list(range(3 * n_subjects))
        assert not {examples.subjects[i] for i in fold.train} & {examples.subjects[i] for i in fold.test}


@pytest.mark.parametrize(
    ("splits", "tested"),
    [(("train", "test"), {"1", "3"}), (("train", "validation"), {"1", "3"}), (("train", "validation", "test"), {"2"})],
)
def test_whom_the_card_holds_out_is_tested(splits: tuple[str, ...], tested: set[str]) -> None:
    examples = examples_of([(str(subject), label) for subject in range(4) for label in (0, 1)], splits)
    split, (fold,) = make_folds(examples, task_with())
    assert split == "card"
    assert {examples.rows[i].subject for i in fold.test} == tested
    assert {examples.rows[i].split for i in fold.train} == {"train"}


def test_a_class_that_only_tested_subjects_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="b: only tested subjects have it"):
        make_folds(examples_of([("1", 0), ("2", 0), ("3", 1)]), task_with())


def test_what_cannot_be_probed(workspace: Workspace, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no column 'sex'.*columns: participant_id, group"):
        probe(workspace, folder, labels={"source": "participants", "column": "sex"})
    with pytest.raises(ConfigError, match="two classes, found: rest"):
        probe(workspace, folder, labels={"source": "entity", "column": "task"})
    with pytest.raises(ConfigError, match="no window has a label; left out: 36 windows without a label of the task"):
        probe(workspace, folder, labels={"source": "entity", "column": "run"})
    with pytest.raises(ConfigError, match="'colour' is no entity"):
        probe(workspace, folder, labels={"source": "entity", "column": "colour"})
    with pytest.raises(ConfigError, match="no example of up"):
        probe(workspace, folder, labels={"source": "events", "classes": ["left", "up"]}, window_seconds=2)
    with pytest.raises(ConfigError, match="holds no patch of 50 samples"):
        probe(workspace, folder, labels=PARTICIPANTS, window_seconds=0.5)
    with pytest.raises(ConfigError, match="only tested subjects have it"):
        probe(workspace, folder, labels={"source": "entity", "column": "subject"}, folds=6)
    with pytest.raises(ConfigError, match=r"no tokenizer is fitted|no model is trained"):
        probe(workspace, folder, labels=PARTICIPANTS, model="")


def test_a_task_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "sides.yaml"
    file.write_text("labels: {source: events, classes: [left, right]}\nwindow_seconds: 2\n")
    assert load_probe(file).name == "sides"
    file.write_text("labels: {source: events}\nwindow_second: 2\n")
    with pytest.raises(ConfigError, match="window_second: there is no such key"):
        load_probe(file)
    file.write_text("[1")
    with pytest.raises(ConfigError, match="not a YAML file"):
        load_probe(file)
    with pytest.raises(ConfigError, match="no such task file"):
        load_probe(tmp_path / "none.yaml")


def test_the_command_prints_scores_beside_chance(
    workspace: Workspace, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, task = folder / "tiny.yaml", folder / "group.yaml"
    document = pipeline_of(folder / "tokenizer").model_dump(mode="json", exclude_unset=True)
    pipeline.write_text(yaml.safe_dump(document))
    task.write_text(yaml.safe_dump({"labels": PARTICIPANTS, "window_seconds": 5}))
    command = [
        "probe",
        str(pipeline),
        "--task",
        str(task),
        "--data",
        str(folder / "lab"),
        "--home",
        str(workspace.home),
    ]
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--model", str(folder / "model"), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["chance"]) == ("group", 0.5)
    assert shown["scores"]["model"]["balanced_accuracy"] > 0.9
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--model", str(folder / "model")])
    text = capsys.readouterr().out
    assert "balanced accuracy" in text
    assert "chance" in text
    assert "folds over subjects" in text


# Real EEG

REAL_STEPS = [
    {"step": "pick_montage", "montage": "10-20-19"},
    {"step": "resample", "sfreq": 200},
    {"step": "filter", "l_freq": 0.3, "h_freq": 75},
]


@pytest.mark.data
def test_real_recordings_of_two_studies_are_told_apart(data: Path, tmp_path: Path) -> None:
    """Which study a recording is of is the strongest label there is: amplifier, site and reference differ."""
    root = tmp_path / "both"
    root.mkdir()
    (root / "dataset_description.json").write_text('{"Name": "both", "BIDSVersion": "1.9.0"}\n')
    rows = ["participant_id\tstudy"]
    for study in ("eeg-arithmetic", "eeg-motorimagery"):
        for subject in sorted((data / "bids" / study).glob("sub-*")):
            shutil.copytree(subject, root / subject.name)
            rows.append(f"{subject.name}\t{study}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    pipeline = Pipeline.model_validate({"name": "real", "prepare": {"steps": REAL_STEPS}})
    small = {"res_channels": 16, "skip_channels": 16, "out_channels": 16, "num_res_layers": 1}
    torch.manual_seed(0)
    EEGSSM(**small).save_pretrained(tmp_path / "model")

    def probed(**labels: object) -> ProbeResult:
        task = {"labels": labels, "window_seconds": 10, "folds": 3, "model": str(tmp_path / "model")}
        return run_probe(
            workspace,
            pipeline,
            Selection(data=root),
            ProbeConfig.model_validate(task | {"compare_random": False}),
            Silent(),
        )

    with workspace_at(tmp_path / "home") as workspace:
        for stage in (Stage.INGEST, Stage.PREPARE):
            assert run_stage(workspace, pipeline, Selection(data=root), stage).failed == 0
        result = probed(source="participants", column="study")
        assert result.n_subjects == 6
        assert result.scores["model"].balanced_accuracy > 0.8
        # In these files only one subject has imagined movements, and only one has rest: nobody else can be tested.
        with pytest.raises(ConfigError, match="only tested subjects have it"):
            probed(source="events", classes=("T1", "T2"))
        with pytest.raises(ConfigError, match="only tested subjects have it"):
            probed(source="entity", column="task", classes=("rest", "arithmetic"))
