"""participants.tsv: fetched when a version is listed, and read without the archive from then on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from neuromill.records import ConfigError, FailureCode, Manifest, RecordingError, SourceFile
from neuromill.sources.opening import Endpoints
from neuromill.sources.openneuro import OpenNeuroSource
from neuromill.stages import participants
from neuromill.stages.choosing import choose
from neuromill.stages.participants import keep_participants, read_participants
from neuromill.stages.probe_labels import recording_labels
from neuromill.stages.refreshing import refresh
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from neuromill.synthetic import sidecars
from neuromill.synthetic.snapshot import SnapshotSpec, write_snapshot
from neuromill.training.probe_config import LabelConfig
from support.stages import tiny_pipeline, workspace_at

TABLE = b"participant_id\tgroup\nsub-01\tcontrol\nsub-02\tpatient\n"
NOWHERE = Endpoints(git_url="file:///nowhere/{dataset}.git", bucket_url="file:///nowhere")
GROUPS = LabelConfig(source="participants", column="group")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Endpoints:
    folder = tmp_path_factory.mktemp("archive")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sidecars, "participants", lambda _: TABLE)
        place = write_snapshot(folder / "snapshot", SnapshotSpec(subjects=2, runs=1, seconds=5.0, sfreq=100.0))
    return Endpoints(git_url=place.git_url, bucket_url=place.bucket_url)


@contextmanager
def listed(home: Path, archive: Endpoints) -> Iterator[Workspace]:
    """A workspace that has listed the data set and has no archive any more."""
    with workspace_at(home, endpoints=archive) as workspace:
        refresh(workspace, workspace.dataset("ds999001"))
    with workspace_at(home, endpoints=NOWHERE) as workspace:
        yield workspace


def kept_file(home: Path) -> Path:
    (found,) = (home / "catalog").glob("*participants.tsv")
    return found


def test_labels_need_no_archive(archive: Endpoints, tmp_path: Path) -> None:
    with listed(tmp_path, archive) as workspace:
        chosen = choose(workspace, tiny_pipeline(datasets=("ds999001",)), Selection())
        found = recording_labels(workspace, chosen, chosen.selected, GROUPS)
    assert {one.entities.subject: found[one.id] for one in chosen.selected} == {"01": "control", "02": "patient"}


def test_an_older_home_asks_once(archive: Endpoints, tmp_path: Path) -> None:
    with listed(tmp_path, archive) as workspace:
        kept_file(tmp_path).unlink()
        with pytest.raises(RecordingError) as caught:
            read_participants(workspace, workspace.dataset("ds999001"))
        assert caught.value.code is FailureCode.UNREACHABLE_UPSTREAM
    with workspace_at(tmp_path, endpoints=archive) as workspace:
        assert read_participants(workspace, workspace.dataset("ds999001")) == TABLE
    with workspace_at(tmp_path, endpoints=NOWHERE) as workspace:
        assert read_participants(workspace, workspace.dataset("ds999001")) == TABLE


def test_a_table_that_cannot_be_had_costs_no_recording(
    archive: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = OpenNeuroSource.read

    def broken(source: OpenNeuroSource, file: object) -> bytes:
        if getattr(file, "path", "") == "participants.tsv":
            raise RecordingError(FailureCode.UNREACHABLE_UPSTREAM, "the line is dead")
        return read(source, file)  # type: ignore[arg-type]

    monkeypatch.setattr(OpenNeuroSource, "read", broken)
    said: list[str] = []
    with workspace_at(tmp_path, endpoints=archive) as workspace:
        workspace.say = said.append
        assert len(refresh(workspace, workspace.dataset("ds999001")).recordings) == 2
    assert any("participants.tsv of ds999001@1.0.0 could not be read anew: the line is dead" in line for line in said)
    assert not list((tmp_path / "catalog").glob("*participants.tsv"))


def test_a_second_listing_on_a_dead_line_leaves_the_kept_table(
    archive: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = OpenNeuroSource.read

    def broken(source: OpenNeuroSource, file: SourceFile) -> bytes:
        if file.path == "participants.tsv":
            assert kept_file(tmp_path).read_bytes() == TABLE  # a probe that reads meanwhile has it
            raise RecordingError(FailureCode.UNREACHABLE_UPSTREAM, "the line is dead")
        return read(source, file)

    with listed(tmp_path, archive):
        monkeypatch.setattr(OpenNeuroSource, "read", broken)
    with workspace_at(tmp_path, endpoints=archive) as workspace:
        refresh(workspace, workspace.dataset("ds999001"))
    assert kept_file(tmp_path).read_bytes() == TABLE


def test_a_listing_without_the_table_drops_the_kept_one(archive: Endpoints, tmp_path: Path) -> None:
    with listed(tmp_path, archive) as workspace:
        dataset = workspace.dataset("ds999001")
        manifest = Manifest(dataset.card.dataset_version, ())
        keep_participants(workspace, dataset, manifest, dataset.origin.open(workspace.settings))
    assert not list((tmp_path / "catalog").glob("*participants.tsv"))


def test_a_very_large_table_is_told_read_and_not_kept(
    archive: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(participants, "MAX_KEPT_BYTES", len(TABLE) - 1)
    said: list[str] = []
    with workspace_at(tmp_path, endpoints=archive) as workspace:
        workspace.say = said.append
        refresh(workspace, workspace.dataset("ds999001"))
        assert read_participants(workspace, workspace.dataset("ds999001")) == TABLE
    sentence = f"participants.tsv of ds999001@1.0.0 is not kept: its {len(TABLE)} bytes are more than {len(TABLE) - 1}"
    assert len([line for line in said if sentence in line]) == 2
    assert not list((tmp_path / "catalog").glob("*participants.tsv"))
    monkeypatch.setattr(participants, "MAX_KEPT_BYTES", len(TABLE))
    with listed(tmp_path, archive):
        assert kept_file(tmp_path).read_bytes() == TABLE


def test_a_data_set_without_the_table(archive: Endpoints, tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    with listed(tmp_path / "home", archive) as workspace:
        (dataset,) = workspace.datasets(tiny_pipeline(), Selection(data=tmp_path / "lab"))
        with pytest.raises(ConfigError, match=r"no participants\.tsv in this dataset"):
            read_participants(workspace, dataset)
        (tmp_path / "lab" / "participants.tsv").write_bytes(TABLE)
        assert read_participants(workspace, dataset) == TABLE
