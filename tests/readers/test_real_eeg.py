"""EEG and intracranial recordings that come through the same door, and their damaged copies."""

from pathlib import Path

import numpy as np
import pytest

from neuromill.readers.opening import open_recording
from neuromill.records import FailureCode, RecordingError
from support.outcomes import TOKENS, Expected, expected_outcomes
from support.recordings import dataset_root, recordings_of_folder

pytestmark = pytest.mark.data

LATER = {TOKENS, FailureCode.TOO_SHORT, FailureCode.NO_USABLE_CHANNELS}
# Codes of these cases come from rooms that see the folder, not the recording.
ELSEWHERE = {
    "malformed/bids/bids_no_recording",
    "malformed/bids/bids_checksums_wrong",
}
ROWS = [row for row in expected_outcomes() if row.modality in ("eeg", "ieeg") and row.path not in ELSEWHERE]


def candidates(row: Expected, data: Path) -> tuple[Path, list]:
    """Recordings of a row: the one file, or all in the folder of a case."""
    path = data / row.path
    if path.is_dir():
        return path, list(recordings_of_folder(path))
    root, main = dataset_root(data, row.path)
    return root, [recording for recording in recordings_of_folder(root) if recording.path == main]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path.rsplit("/", 1)[-1])
def test_opens_or_fails_as_the_table_says(row: Expected, data: Path) -> None:
    root, recordings = candidates(row, data)
    assert recordings
    for recording in recordings:
        if row.outcome in LATER:
            with open_recording(recording, root) as signal:
                assert signal.n_times / signal.sfreq >= 1
            continue
        with pytest.raises(RecordingError) as caught:
            open_recording(recording, root)
        assert caught.value.code == row.outcome


def opened_case(data: Path, case: str):
    root = data / "malformed" / "bids" / case
    return open_recording(recordings_of_folder(root)[0], root)


def test_status_of_channels_tsv_marks_channels(data: Path) -> None:
    with opened_case(data, "bids_channels_status") as signal:
        assert dict(zip(signal.channels.names, signal.channels.bads, strict=True)) == {
            "Fc5.": "marked", "Fc3.": "marked", "Fc1.": "", "Fcz.": "", "Fc2.": "", "Fc4.": "", "Fc6.": "", "C5..": "",
        }  # fmt: skip
    with opened_case(data, "bids_all_bad") as signal:
        assert set(signal.channels.bads) == {"marked"}


def test_another_rate_in_the_sidecar_is_noted_and_not_followed(data: Path) -> None:
    with opened_case(data, "bids_sidecar_sampling_rate") as signal:
        assert signal.sfreq == 160
        assert any("512 Hz" in note for note in signal.facts.notes)
        assert signal.facts.line_freq == 50


def test_rows_in_another_order_are_matched_by_name(data: Path) -> None:
    with opened_case(data, "bids_channels_order") as signal, opened_case(data, "bids_ok") as undamaged:
        assert signal.channels.names == undamaged.channels.names
        np.testing.assert_array_equal(signal.read(0, 100), undamaged.read(0, 100))


def test_a_channel_without_scale_is_bad(data: Path) -> None:
    root = data / "malformed" / "edf"
    for name in ("edf_physical_range_zero.edf", "edf_digital_range_zero.edf"):
        (recording,) = [r for r in recordings_of_folder(root) if r.path == name]
        with open_recording(recording, root) as signal:
            assert [
                n for n, bad in zip(signal.channels.names, signal.channels.bads, strict=True) if bad == "no_scale"
            ] == ["Fc3."]


def test_types_of_channels_tsv_are_used_where_the_file_has_none(data: Path) -> None:
    root = data / "bids" / "ieeg-epilepsy"
    (recording,) = recordings_of_folder(root)
    with open_recording(recording, root) as signal:
        types = signal.channels.types
        assert types.count("ecog") == 76
        assert types.count("ecg") == 2
        assert signal.facts.position_frame == ""
