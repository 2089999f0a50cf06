"""An OpenNeuro snapshot on disk through all stages: the road of the demo with tiny networks."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from neuromill.catalog.cards import Card
from neuromill.catalog.work import WorkState
from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.sources.opening import Endpoints
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.datasets import Dataset
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.running import run_pipeline, run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.shipped import shipped_folder
from neuromill.stages.training import halves
from neuromill.store.reader import StoreReader
from neuromill.store.verify import verify_store
from neuromill.synthetic.snapshot import SnapshotSpec, write_snapshot
from support.stages import leftovers, tiny_pipeline, workspace_at

SPEC = SnapshotSpec(subjects=2, runs=2, seconds=6.0, sfreq=100.0)
EVERYTHING = Selection()
PIPELINE = tiny_pipeline(datasets=("ds999001",))


@dataclass(frozen=True)
class Snapshot:
    folder: Path
    endpoints: Endpoints


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = tmp_path_factory.mktemp("openneuro")
    place = write_snapshot(folder / "snapshot", SPEC)
    return Snapshot(folder, Endpoints(git_url=place.git_url, bucket_url=place.bucket_url))


@pytest.fixture(scope="module")
def home(snapshot: Snapshot) -> Path:
    return snapshot.folder / "home"


@pytest.fixture(scope="module")
def results(snapshot: Snapshot, home: Path) -> dict[Stage, StageResult]:
    with workspace_at(home, endpoints=snapshot.endpoints) as workspace:
        made = run_pipeline(workspace, PIPELINE, EVERYTHING)
        embedded = run_stage(workspace, PIPELINE, EVERYTHING, Stage.EMBED)
    return {result.stage: result for result in (*made, embedded)}


def test_every_stage_did_its_work(results: dict[Stage, StageResult], home: Path) -> None:
    assert list(results) == list(Stage)
    for stage, result in results.items():
        n = 1 if stage in (Stage.FIT, Stage.TRAIN) else 4
        assert (result.found, result.done, result.failed) == (n, n, 0)
    for stage in (Stage.PREPARE, Stage.TOKENIZE, Stage.EMBED):
        store = home / "stores" / "ds999001@1.0.0" / stage.value / results[stage].identity
        assert verify_store(store) == ()
    assert leftovers(home) == []


def test_features_have_a_vector_for_every_frame_and_channel(results: dict[Stage, StageResult], home: Path) -> None:
    store = home / "stores" / "ds999001@1.0.0" / "embed" / results[Stage.EMBED].identity
    with StoreReader.open(store) as reader:
        for one in reader.recordings:
            assert one.n_channels == 306
            assert one.n_rows == 25  # 300 samples at 50 Hz, 12 of them a frame


def test_the_validation_subject_is_never_learned_from(
    snapshot: Snapshot, results: dict[Stage, StageResult], home: Path
) -> None:
    assert results
    with workspace_at(home, endpoints=snapshot.endpoints) as workspace:
        chosen = choose(workspace, PIPELINE, EVERYTHING)
        split = halves(workspace, chosen, work_context(workspace, PIPELINE, chosen, Stage.TRAIN))
        runs = {row.stage: row for row in workspace.ledger.runs()}
    assert {r.entities.subject for r in split.train} == {"01"}
    assert {r.entities.subject for r in split.validation} == {"02"}
    fitted_on = runs["fit"].facts["recordings"]
    assert len(fitted_on) == 2
    assert all("sub-01" in name for name in fitted_on)
    assert runs["fit"].facts["held_out"] is True


def test_a_second_run_asks_the_archive_nothing(
    snapshot: Snapshot, results: dict[Stage, StageResult], home: Path
) -> None:
    nowhere = Endpoints(git_url="file:///nowhere/{dataset}.git", bucket_url="file:///nowhere")
    with workspace_at(home, endpoints=nowhere) as workspace:
        again = run_pipeline(workspace, PIPELINE, EVERYTHING)
    assert [result.note for result in again] == ["nothing to do"] * 5


def test_an_archive_that_cannot_be_asked_is_a_failure_of_its_own(tmp_path: Path) -> None:
    nowhere = Endpoints(git_url=f"file://{tmp_path}/none/{{dataset}}.git", bucket_url=f"file://{tmp_path}/none")
    with workspace_at(tmp_path / "home", endpoints=nowhere) as workspace:
        with pytest.raises(RecordingError) as caught:
            run_stage(workspace, tiny_pipeline(datasets=("ds004078",)), EVERYTHING, Stage.INGEST)
        assert caught.value.code is FailureCode.UNREACHABLE_UPSTREAM
        with pytest.raises(ConfigError, match="synthetic and in no archive"):
            run_stage(workspace, PIPELINE, EVERYTHING, Stage.INGEST)


def test_an_object_the_bucket_does_not_have_fails_its_recording_only(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    endpoints = snapshot.endpoints.model_copy(update={"bucket_url": (tmp_path / "empty").as_uri()})
    with workspace_at(tmp_path / "home", endpoints=endpoints) as workspace:
        ingest = run_stage(workspace, PIPELINE, Selection(where="run = '01'"), Stage.INGEST)
        assert (ingest.found, ingest.done, ingest.failed) == (2, 0, 2)
        assert all(row.code is not None for row in workspace.ledger.rows(states=[WorkState.FAILED]))
        prepare = run_stage(workspace, PIPELINE, Selection(where="run = '01'"), Stage.PREPARE)
        assert prepare.found == 0


def test_a_card_whose_split_leaks_is_refused_before_the_work(snapshot: Snapshot, tmp_path: Path) -> None:
    """The card holds out a run of every subject and says that subjects are kept apart."""
    card = yaml.safe_load((shipped_folder("catalogs") / "openneuro" / "ds999001.yaml").read_text())
    card["splits"] = {"validation": {"run": ["02"]}, "disjoint": ["subject"]}
    leaking = Dataset(Card.model_validate(card))
    with workspace_at(tmp_path / "home", endpoints=snapshot.endpoints) as workspace:
        workspace.dataset = lambda _: leaking  # type: ignore[method-assign]
        with pytest.raises(ConfigError, match=r"the split of ds999001 leaks: subject '01' is in training") as caught:
            run_pipeline(workspace, PIPELINE, EVERYTHING)
        assert "splits" in caught.value.next_step
        assert workspace.ledger.rows() == ()
        for stage in (Stage.FIT, Stage.TRAIN):
            with pytest.raises(ConfigError, match="leaks"):
                run_stage(workspace, PIPELINE, EVERYTHING, stage)
