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
from support.eeg_roads import BIOCODEC, MU_LAW, TFDUAL, Tokenizers, only, road_of, road_pipeline, save_tokenizers
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


def tokenized(ended: dict[Path, Ended], road: str) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Attributes of the prepared group and of the tokens of what took a road to its end, by folder and path."""
    return {
        f"{root.parent.name}/{root.name}/{path}": (one.prepared[path], one.tokens[path])
        for root, one in ended.items()
        for path, taken in one.roads.items()
        if taken == road and one.outcomes[path] == TOKENS
    }


@pytest.mark.data
def test_nineteen_channels_and_a_window_take_the_tfdual_road(ended: dict[Path, Ended]) -> None:
    """By hand, from the channel names: five recordings of mental arithmetic, three of 64 channels."""
    arithmetic = {f"sub-0{n}/eeg/sub-0{n}_task-arithmetic_eeg.edf" for n in range(4)}
    arithmetic |= {"sub-00/eeg/sub-00_task-rest_eeg.edf"}
    runs = (("001", 1), ("001", 4), ("002", 1))
    imagery = {f"sub-{s}/eeg/sub-{s}_task-motion_run-{r}_eeg.edf" for s, r in runs}
    assert tokenized(ended, TFDUAL).keys() == {
        *(f"bids/eeg-arithmetic/{path}" for path in arithmetic),
        *(f"bids/eeg-motorimagery/{path}" for path in imagery),
    }


@pytest.mark.data
@pytest.mark.parametrize("road", [BIOCODEC, MU_LAW])
def test_the_others_take_roads_that_any_channels_can(ended: dict[Path, Ended], road: str) -> None:
    taken = tokenized(ended, road)
    assert taken
    for before, after in taken.values():
        assert set(before["channel_types"]) <= {"eeg", "seeg", "ecog", "dbs"}
        assert after["channel_names"] == before["channel_names"]
        assert (after["n_segments"] - 1) * after["segment_samples"] < after["n_valid_samples"] == before["n_times"]


@pytest.mark.data
def test_windows_are_marked_and_none_is_missing(ended: dict[Path, Ended]) -> None:
    for path, (before, after) in tokenized(ended, TFDUAL).items():
        n_windows = before["n_times"] // 6000
        assert before["rejected"].shape == (n_windows, 19), path
        assert after["n_frames"] == 30 * n_windows, path
        assert before["facts"]["rejection"]["n_windows"] == n_windows
        assert len(after["channel_names"]) == 19
    rejected = {path: before["rejected"].mean() for path, (before, _) in tokenized(ended, TFDUAL).items()}
    assert min(rejected.values()) == 0
    assert max(rejected.values()) > 0.5  # motor imagery, whose eyes blink


@pytest.mark.data
def test_bad_channels_are_masked_in_their_places(ended: dict[Path, Ended]) -> None:
    """What the header or the values say, and what channels.tsv marks, by hand from the damaged files."""
    edf, bids = data_root() / "malformed" / "edf", data_root() / "malformed" / "bids"
    (whole,) = (about for path, about in ended[edf].tokens.items() if path == "edf_ok.edf")
    for name, n_bad in (
        ("edf_flat_channel", 2), ("edf_clipped_channel", 0),
        ("edf_physical_range_zero", 1), ("edf_digital_range_zero", 1),
    ):  # fmt: skip
        about = ended[edf].tokens[f"{name}.edf"]
        assert about["channel_names"] == whole["channel_names"]
        assert len(about["bads"]) == n_bad, name
    (status,) = ended[bids / "bids_channels_status"].tokens.values()
    assert status["bads"] == {"Fc5.": "marked", "Fc3.": "marked"}


@pytest.mark.data
def test_events_that_cannot_be_used_are_left_out_and_told(ended: dict[Path, Ended]) -> None:
    bids = data_root() / "malformed" / "bids"
    for case, n_events, note in (
        ("bids_ok", 3, ""), ("bids_events_beyond_end", 4, "outside the recording"), ("bids_events_empty", 0, "empty"),
        ("bids_events_onset_na", 3, "without a usable onset"), ("bids_events_commas", 0, "no onset column"),
        ("bids_events_unsorted", 4, ""),
    ):  # fmt: skip
        (about,) = ended[bids / case].prepared.values()
        assert len(about["event_descriptions"]) == n_events, case
        assert any(note in one for one in about["facts"]["signal"]["notes"]) or not note, case
