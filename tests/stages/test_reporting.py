"""The report of a workspace: everything on it was read back from what the stages wrote."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from neuromill.records import ConfigError, PartId, Recording, RecordingId
from neuromill.records.rejection import Rejection
from neuromill.reports.contents import ReportContents
from neuromill.reports.measures import perplexity
from neuromill.stages.forecast import forecast
from neuromill.stages.identities import prepare_identity
from neuromill.stages.looking import describe_tokenizer
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.report_examples import rejection_facts
from neuromill.stages.report_groups import Published
from neuromill.stages.reporting import collect, write_report
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from neuromill.store.reader import StoreReader
from neuromill.store.writer import SignalWriter
from support.stages import (
    TINY,
    bids_path,
    run,
    save_tiny_tokenizer,
    tiny_pipeline,
    tree_digests,
    workspace_at,
    write_bids,
)
from support.stores import channel_table, signal, signal_attributes, write_signal
from support.tfdual import SMALL

TFDUAL = {
    "kind": "tfdual", "sfreq": 50.0, "channels": [], "group_channels": 4, "input": {"scaling": "robust"},
    "network": SMALL.model_dump() | {"depth": 1, "codebook_size": 300},
}  # fmt: skip
TFDUAL_FIT = {"kind": "tfdual", "batch_size": 3, "steps": 2, "kmeans_iterations": 2, "log_every": 1, "cpu_threads": 1}


@dataclass(frozen=True)
class Place:
    workspace: Workspace
    pipeline: Pipeline
    selection: Selection


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A folder of three recordings, one of them damaged, after every stage."""
    home = tmp_path_factory.mktemp("made")
    folder = write_bids(home / "data", subjects=("01", "02", "03"), seconds=12.0)
    damaged = bids_path(folder, "03")
    damaged.write_bytes(damaged.read_bytes()[:5000])
    with workspace_at(home / "home") as workspace:
        place = Place(workspace, tiny_pipeline(), Selection(data=folder))
        stages = (Stage.INGEST, Stage.PREPARE, Stage.FIT, Stage.TOKENIZE, Stage.TRAIN)
        run(workspace, place.pipeline, place.selection, *stages)
        yield place


@pytest.fixture(scope="module")
def contents(made: Place) -> ReportContents:
    return collect(made.workspace, made.pipeline, made.selection)


def test_counts_and_failures(contents: ReportContents) -> None:
    assert [(s.stage, s.done, s.failed, s.waiting) for s in contents.stages] == [
        ("ingest", 3, 0, 0),
        ("prepare", 2, 1, 0),
        ("tokenize", 2, 0, 0),
    ]
    (failure,) = contents.failures
    assert "sub-03" in failure.recording
    assert failure.stage == "prepare"
    assert failure.code
    assert failure.message
    assert [r.split for r in contents.recordings] == ["train"] * 3
    assert [r.seconds for r in contents.recordings[:2]] == pytest.approx([12.4, 12.4], abs=0.05)


def test_a_part_of_the_work_is_not_a_part_of_the_report(made: Place) -> None:
    part = made.selection.model_copy(update={"part": PartId(1, 2)})
    assert len(collect(made.workspace, made.pipeline, part).recordings) == 3


def test_signals(contents: ReportContents) -> None:
    (spectrum,) = contents.spectra
    assert (spectrum.channel_type, spectrum.unit, spectrum.n_channels, spectrum.n_recordings) == ("mag", "T", 12, 2)
    inside = (spectrum.freqs > 4) & (spectrum.freqs < 15)
    # White noise of 1e-12 T at 100 Hz has 1e-12 / sqrt(50) T per root hertz in the band that the filter leaves.
    assert spectrum.middle[inside].mean() == pytest.approx(1e-12 / np.sqrt(50), rel=0.1)
    assert np.all((spectrum.low <= spectrum.middle) & (spectrum.middle <= spectrum.high))
    (sensors,) = contents.sensors
    assert sensors.positions.shape == (6, 3)
    assert np.all(np.abs(sensors.rms / (1e-12 * np.sqrt(19 / 50)) - 1) < 0.2)


def test_tokenizer_example_and_codes(made: Place, contents: ReportContents) -> None:
    facts, example, usage = contents.tokenizer, contents.example, contents.usage
    assert facts is not None
    assert example is not None
    assert usage is not None
    assert facts.held_out is False
    assert facts.correlation is not None
    assert len(facts.levels) == facts.n_quantizers
    assert example.original.shape == example.reconstruction.shape == (4, 500)
    assert len(set(example.channels)) == 4
    assert usage.n_recordings == 2
    store = next((made.workspace.home / "stores").glob("*/tokenize/*"))
    with StoreReader.of_groups(store) as reader:
        codes = [np.asarray(reader.read(r.name, "codes")) for r in reader.recordings]
    joined = np.concatenate(codes)  # [frame, quantizer, channel]
    counts = np.stack(
        [np.bincount(level.ravel(), minlength=facts.codebook_size) for level in np.moveaxis(joined, 1, 0)]
    )
    np.testing.assert_array_equal(usage.counts, counts)
    assert (perplexity(usage.shares) >= 1).all()


def test_training(made: Place, contents: ReportContents) -> None:
    run_ = contents.training
    assert run_ is not None
    assert run_.finished
    assert run_.train.steps.tolist() == [1, 2, 3]
    assert run_.train.per_level.shape[1] == made.pipeline.tokenizer.network.n_quantizers
    assert run_.validation is None


def test_page_is_written_once_and_the_same(made: Place, tmp_path: Path) -> None:
    stores = tree_digests(made.workspace.home / "stores")
    first = write_report(made.workspace, made.pipeline, made.selection, tmp_path / "new" / "page.html")
    assert first == tmp_path / "new" / "page.html"
    second = write_report(made.workspace, made.pipeline, made.selection, tmp_path)
    assert second == tmp_path / "report.html"
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["new", "page.html", "report.html"]
    assert tree_digests(made.workspace.home / "stores") == stores
    text = first.read_text(encoding="utf-8")
    assert str(made.workspace.home) not in text
    assert prepare_identity(made.pipeline) in text
    assert "sub-03" in text


def test_before_anything_ran(tmp_path: Path) -> None:
    folder = write_bids(tmp_path / "data", subjects=("01",))
    with workspace_at(tmp_path / "home") as workspace:
        contents = collect(workspace, tiny_pipeline(), Selection(data=folder))
        assert [(s.done, s.failed, s.waiting) for s in contents.stages] == [(0, 0, 1)] * 3
        assert contents.tokenizer is contents.usage is contents.example is contents.training is None
        text = write_report(workspace, tiny_pipeline(), Selection(data=folder), tmp_path / "page.html").read_text()
    for verb in ("prepare", "tokenizer fit", "tokenize", "train"):
        assert f"<code>neuromill {verb} tiny --data FOLDER</code>" in text


def test_published_tokenizer_that_was_never_measured_here(tmp_path: Path) -> None:
    folder = write_bids(tmp_path / "data", subjects=("01",), seconds=5.0)
    source = save_tiny_tokenizer(tmp_path / "published")
    pipeline = tiny_pipeline(pretrained={"source": str(source)})
    with workspace_at(tmp_path / "home") as workspace:
        selection = Selection(data=folder)
        run(workspace, pipeline, selection, Stage.INGEST, Stage.PREPARE)
        contents = collect(workspace, pipeline, selection)
    assert contents.tokenizer is not None
    assert contents.tokenizer.levels == ()
    assert contents.tokenizer.correlation is None
    assert contents.example is not None
    assert contents.example.original.shape[1] == pytest.approx(270, abs=1)  # all there is: 5.4 s
    assert contents.usage is None


def test_nothing_chosen(tmp_path: Path) -> None:
    folder = write_bids(tmp_path / "data", subjects=("01",))
    with workspace_at(tmp_path / "home") as workspace, pytest.raises(ConfigError, match="no recording"):
        collect(workspace, tiny_pipeline(), Selection(data=folder, where="subject = '99'"))


@pytest.mark.parametrize(
    ("tokenizer", "fit", "names"),
    [
        ({"kind": "mu_law", "sfreq": 50.0}, None, ()),
        ({"kind": "quantile", "sfreq": 50.0, "n_codes": 300}, None, ()),
        (TFDUAL, TFDUAL_FIT, ("temporal", "frequency")),
    ],
    ids=["mu_law", "quantile", "tfdual"],
)
def test_other_kinds_of_tokenizer_are_on_the_page(
    tokenizer: dict[str, object], fit: dict[str, object] | None, names: tuple[str, ...], tmp_path: Path
) -> None:
    folder = write_bids(tmp_path / "data", subjects=("01", "02"), seconds=12.0)
    document = {key: value for key, value in TINY.items() if key not in ("fit", "tokenize")}
    document |= {"tokenizer": tokenizer} | ({"fit": fit} if fit else {})
    pipeline, selection = Pipeline.model_validate(document), Selection(data=folder)
    with workspace_at(tmp_path / "home") as workspace:
        run(workspace, pipeline, selection, Stage.INGEST, Stage.PREPARE, Stage.FIT, Stage.TOKENIZE)
        contents = collect(workspace, pipeline, selection)
        text = write_report(workspace, pipeline, selection, tmp_path / "page.html").read_text(encoding="utf-8")
        told = {one.stage: one for one in forecast(workspace, pipeline, selection)}
        identity = told[Stage.FIT].identity
        described = describe_tokenizer(workspace, identity)
    facts, usage, example = contents.tokenizer, contents.usage, contents.example
    assert facts is not None
    assert usage is not None
    assert example is not None
    assert facts.codebooks == names
    assert usage.counts.shape == (facts.n_quantizers, facts.codebook_size)
    assert len(facts.levels) == (0 if fit is None else facts.n_quantizers)  # what is not fitted is not measured
    assert facts.by_rule == (fit is None)
    assert example.original.shape == example.reconstruction.shape
    np.testing.assert_allclose(example.original.std(axis=1), 1, rtol=0.2)
    if fit is None:  # 256 levels give a sample back well; what two steps have learned does not
        scores = [np.corrcoef(*pair)[0, 1] for pair in zip(example.original, example.reconstruction, strict=True)]
        assert min(scores) > 0.99
    assert all(f">{name}</text>" in text for name in names)
    assert (told[Stage.TOKENIZE].done, told[Stage.FIT].done) == (2, 1)
    assert described["kind"] == tokenizer["kind"]
    assert [level.get("codebook") for level in described["levels"]] == list(names)


def test_rejected_windows_come_from_the_store_worst_recording_first(tmp_path: Path) -> None:
    reasons = {"a_meg": np.zeros((3, 2), np.uint8), "b_meg": np.array([[1, 0], [0, 2], [1, 1]], np.uint8)}
    for name, marks in reasons.items():
        with SignalWriter(tmp_path, name, n_channels=2, sfreq=50.0) as writer:
            writer.write(signal(250, 2))
            windows = Rejection(marks, 100, ("kept", "amplitude", "flat"))
            writer.publish(signal_attributes(name), channel_table(2), rejection=windows)
    write_signal(tmp_path, signal(250, 2), "c_meg")
    names = (*reasons, "c_meg")
    with StoreReader.of_groups(tmp_path, names) as reader:
        recordings = [Recording(RecordingId("ds000001", "1.0.0", name), f"{name}.fif", ()) for name in names]
        first, second = rejection_facts([Published(recording, reader) for recording in recordings])
    assert [one.recording.partition("/")[2] for one in (first, second)] == ["b_meg", "a_meg"]
    np.testing.assert_array_equal(first.reasons, reasons["b_meg"])
    assert (first.window_seconds, first.legend) == (2.0, ("kept", "amplitude", "flat"))
    assert first.channels == ("MEG000", "MEG001")
