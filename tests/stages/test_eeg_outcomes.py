"""Every EEG and intracranial recording of the test data, whole or damaged, ends as the table says."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from neuromill.catalog.work import Counts, WorkState
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.running import plan_stage, run_stage
from neuromill.stages.selection import Selection
from neuromill.store.reader import StoreReader
from neuromill.store.verify import verify_store
from support.eeg_roads import BIOCODEC, ROADS, Tokenizers, only, road_of, road_pipeline, save_tokenizers
from support.outcomes import TOKENS, Expected, expected_outcomes
from support.paths import data_root
from support.recordings import dataset_root
from support.stages import counts, leftovers, workspace_at

STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)
ROWS = tuple(row for row in expected_outcomes() if row.modality in ("eeg", "ieeg"))


def place_of(row: Expected) -> tuple[Path, str]:
    """Folder that is the dataset of a row, and the path in it; "" where the whole folder is one case."""
    path = data_root() / row.path
    return (path, "") if path.is_dir() else dataset_root(data_root(), row.path)


FOLDERS = sorted({place_of(row)[0] for row in ROWS})


@dataclass(frozen=True)
class Ended:
    """What became of one folder."""

    roads: dict[str, str]  # by path of the recording within the folder
    results: dict[str, dict[Stage, StageResult]]  # by road
    counts: dict[str, dict[Stage, Counts]]
    outcomes: dict[str, str]  # by path
    next_steps: dict[str, str]  # of those that failed
    prepared: dict[str, dict[str, Any]]  # attributes by path
    tokens: dict[str, dict[str, Any]]
    problems: tuple[object, ...]
    leftovers: tuple[str, ...]
    again: tuple[str, ...]


@pytest.fixture(scope="session")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Ended]:
    folder = tmp_path_factory.mktemp("eeg-outcomes")
    tokenizers = save_tokenizers(folder / "tokenizers")
    return {data: _run(data, folder / f"{data.parent.name}-{data.name}", tokenizers) for data in FOLDERS}


def _run(data: Path, home: Path, tokenizers: Tokenizers) -> Ended:
    with workspace_at(home) as workspace:
        everything = Selection(data=data)
        plan = plan_stage(workspace, road_pipeline(BIOCODEC, tokenizers), everything, Stage.INGEST)
        recordings = {item.recording.id.name: item.recording for item in plan.todo}
        roads = {name: road_of(recording, data) for name, recording in recordings.items()}
        results: dict[str, dict[Stage, StageResult]] = {}
        counted: dict[str, dict[Stage, Counts]] = {}
        prepared: dict[str, dict[str, Any]] = {}
        tokens: dict[str, dict[str, Any]] = {}
        problems: list[object] = []
        again: list[str] = []
        version = next(iter(recordings.values())).id.dataset_version
        for road in sorted(set(roads.values())):
            pipeline = road_pipeline(road, tokenizers)
            selection = Selection(data=data, where=only(name for name, taken in roads.items() if taken == road))
            results[road] = {stage: run_stage(workspace, pipeline, selection, stage) for stage in STAGES}
            counted[road] = {stage: counts(workspace, result, version) for stage, result in results[road].items()}
            again += [run_stage(workspace, pipeline, selection, stage).note for stage in STAGES]
            for stage, found in ((Stage.PREPARE, prepared), (Stage.TOKENIZE, tokens)):
                store = workspace.store(version, stage, results[road][stage].identity)
                if store.is_dir():
                    problems += verify_store(store)
                    found |= {recordings[name].path: about for name, about in _attributes(store).items()}
        rows = workspace.ledger.rows()
        failed = {row.key.recording_id.name: row for row in rows if row.state is WorkState.FAILED}
        done = {r.key.recording_id.name for r in rows if r.state is WorkState.DONE and r.key.stage == "tokenize"}
        paths = {name: recording.path for name, recording in recordings.items()}
        return Ended(
            roads={paths[name]: road for name, road in roads.items()},
            results=results,
            counts=counted,
            outcomes={
                path: str(failed[name].code) if name in failed else TOKENS if name in done else "nothing"
                for name, path in paths.items()
            },
            next_steps={paths[name]: row.next_step for name, row in failed.items()},
            prepared=prepared,
            tokens=tokens,
            problems=tuple(problems),
            leftovers=tuple(leftovers(home)),
            again=tuple(again),
        )


def _attributes(store: Path) -> dict[str, dict[str, Any]]:
    with StoreReader.open(store) as reader:
        arrays = {one.name: one.arrays for one in reader.recordings}
        read = {
            name: {"rejected": reader.read(name, "rejected")} if "rejected" in found else {}
            for name, found in arrays.items()
        }
        return {one.name: dict(one.attributes) | read[one.name] for one in reader.recordings}


def outcomes_of(ended: dict[Path, Ended], row: Expected) -> set[str]:
    """What became of the recording of a row; of all in its folder where the folder is the case."""
    root, path = place_of(row)
    found = ended[root].outcomes
    return set(found.values()) if not path else {found.get(path, "not found")}


@pytest.mark.data
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_the_recording_ends_as_the_table_says(ended: dict[Path, Ended], row: Expected) -> None:
    assert outcomes_of(ended, row) == {row.outcome}, row.reason
    if row.outcome != TOKENS:
        assert all(ended[place_of(row)[0]].next_steps.values())


@pytest.mark.data
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
class TestFolder:
    def test_nothing_else_is_found(self, ended: dict[Path, Ended], folder: Path) -> None:
        rows = [path for root, path in map(place_of, ROWS) if root == folder]
        if rows != [""]:
            assert set(ended[folder].outcomes) == set(rows)

    def test_found_is_done_plus_failed_plus_waiting_at_each_stage(self, ended: dict[Path, Ended], folder: Path) -> None:
        one = ended[folder]
        for road, results in one.results.items():
            found = Counter(one.roads.values())[road]
            for stage in STAGES:
                result, ledger = results[stage], one.counts[road][stage]
                assert result.found == found == result.done + result.failed
                if stage is not Stage.INGEST:  # whose identity all roads share
                    assert (result.found, result.done, result.failed) == (ledger.found, ledger.done, ledger.failed)
                assert (ledger.waiting, ledger.running) == (0, 0)
                found -= result.failed

    def test_stores_are_whole_and_nothing_is_left_behind(self, ended: dict[Path, Ended], folder: Path) -> None:
        assert ended[folder].problems == ()
        assert ended[folder].leftovers == ()

    def test_a_second_run_has_nothing_to_do(self, ended: dict[Path, Ended], folder: Path) -> None:
        assert set(ended[folder].again) == {"nothing to do"}


@pytest.mark.data
def test_each_road_is_taken(ended: dict[Path, Ended]) -> None:
    taken = {road: [] for road in ROADS}
    for root, one in ended.items():
        for path, road in one.roads.items():
            if one.outcomes[path] == TOKENS:
                taken[road].append(f"{root.name}/{path}")
    for paths in taken.values():
        assert paths
