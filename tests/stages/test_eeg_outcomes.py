"""Every EEG and intracranial recording of the test data, whole or damaged, ends as the table says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuromill.stages.outcomes import Stage
from support.eeg_roads import BIOCODEC, MU_LAW, ROADS, TFDUAL, road_of, road_pipeline, save_tokenizers
from support.outcome_folders import Ended, EveryFolder, assert_ended_as_the_table_says, folders_of, rows_of, run_folder
from support.outcomes import TOKENS, Expected
from support.paths import data_root

ROWS = rows_of("eeg", "ieeg")
FOLDERS = folders_of(ROWS)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Ended]:
    folder = tmp_path_factory.mktemp("eeg-outcomes")
    tokenizers = save_tokenizers(folder / "tokenizers")
    # The first reads the folder for all: it takes any recording.
    pipelines = {road: road_pipeline(road, tokenizers) for road in sorted(ROADS)}
    return {data: run_folder(data, folder / f"{data.parent.name}-{data.name}", pipelines, road_of) for data in FOLDERS}


@pytest.mark.data
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_the_recording_ends_as_the_table_says(ended: dict[Path, Ended], row: Expected) -> None:
    assert_ended_as_the_table_says(ended, row)


@pytest.mark.data
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
class TestFolder(EveryFolder):
    rows = ROWS


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
        assert after["n_frames"] == 30 * n_windows, path
        assert before["facts"]["rejection"]["n_windows"] == n_windows
        assert len(after["channel_names"]) == 19
    rejected = rejections(ended)
    for path, (before, _) in tokenized(ended, TFDUAL).items():
        assert rejected[path].shape == (before["n_times"] // 6000, 19), path
    assert min(marks.mean() for marks in rejected.values()) == 0
    assert max(marks.mean() for marks in rejected.values()) > 0.5  # motor imagery, whose eyes blink


def rejections(ended: dict[Path, Ended]) -> dict[str, np.ndarray]:
    """Marks [window, channel] of what took the TFDual road, by folder and path."""
    found = {}
    for root, one in ended.items():
        for path, road in one.roads.items():
            if road == TFDUAL and one.outcomes[path] == TOKENS:
                with one.open(Stage.PREPARE, path) as reader:
                    found[f"{root.parent.name}/{root.name}/{path}"] = reader.read(one.names[path], "rejected")
    return found


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
