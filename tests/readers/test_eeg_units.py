"""A unit that is not what it says: in the header, in channels.tsv, in the numbers."""

import shutil
from pathlib import Path

import mne
import pytest

from neuromill.readers.opening import open_recording
from neuromill.readers.sidecars import ChannelRow
from neuromill.readers.tables import channel_table, factor
from neuromill.records import FailureCode, RecordingError
from support.edf import DIMENSION, rewrite, scaled
from support.recordings import recording_from_folder

REAL = "bids/eeg-arithmetic/sub-00/eeg/sub-00_task-arithmetic_eeg.edf"


def table_of(name: str = "Fp1", *, kind: str = "eeg", unit: str = "uV", row: ChannelRow | None = None):
    info = mne.create_info([name], 100.0, kind)
    return channel_table(info, [row] if row else [], "here", {name: unit})[0]


@pytest.mark.data
@pytest.mark.parametrize("unit", ["V", "nV", "kV", ""])
def test_a_factor_of_a_million_in_the_header_never_passes(data: Path, tmp_path: Path, unit: str) -> None:
    """MNE knows uV, mV and V; anything else it takes for volts."""
    rewrite(data / REAL, tmp_path / "a.edf", DIMENSION, lambda _: unit)
    with pytest.raises(RecordingError) as caught:
        open_recording(recording_from_folder(tmp_path, "a.edf"), tmp_path)
    assert caught.value.code is FailureCode.UNIT_CONFLICT


@pytest.mark.data
@pytest.mark.parametrize("factor", [1e6, 1e-6])
def test_a_factor_of_a_million_in_the_numbers_never_passes(data: Path, tmp_path: Path, factor: float) -> None:
    scaled(data / REAL, tmp_path / "a.edf", factor)
    with pytest.raises(RecordingError) as caught:
        open_recording(recording_from_folder(tmp_path, "a.edf"), tmp_path)
    assert caught.value.code is FailureCode.UNIT_CONFLICT


@pytest.mark.data
def test_silence_at_the_start_hides_no_unit(data: Path, tmp_path: Path) -> None:
    """Twenty flat seconds at the start say nothing of the unit: what comes after them does."""
    content = bytearray(scaled(data / REAL, tmp_path / "a.edf", 1e6).read_bytes())
    n_signals, n_records = int(content[252:256]), int(content[236:244])
    start = 256 * (n_signals + 1)
    record = (len(content) - start) // n_records
    content[start : start + 20 * record] = content[start : start + 2] * (10 * record)
    (tmp_path / "a.edf").write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        open_recording(recording_from_folder(tmp_path, "a.edf"), tmp_path)
    assert caught.value.code is FailureCode.UNIT_CONFLICT


@pytest.mark.data
@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("n_wrong", [1, 5, 6, 9, 10, 19, 20])
def test_a_factor_of_a_million_in_some_channels_is_seen(
    data: Path, tmp_path: Path, factor: float, n_wrong: int
) -> None:
    """Up to a quarter of twenty are bad; with more, the recording is not what it says."""
    scaled(data / REAL, tmp_path / "a.edf", factor, signals=range(n_wrong))
    recording = recording_from_folder(tmp_path, "a.edf")
    if n_wrong > 5:
        with pytest.raises(RecordingError, match=f"{n_wrong} of 20 eeg channels") as caught:
            open_recording(recording, tmp_path)
        assert caught.value.code is FailureCode.UNIT_CONFLICT
        return
    with open_recording(recording, tmp_path) as signal:
        eeg = [bad for bad, kind in zip(signal.channels.bads, signal.channels.types, strict=True) if kind == "eeg"]
    assert eeg == ["implausible"] * n_wrong + [""] * (20 - n_wrong)


@pytest.mark.data
def test_volts_in_the_header_of_some_channels_are_seen(data: Path, tmp_path: Path) -> None:
    rewrite(data / REAL, tmp_path / "a.edf", DIMENSION, lambda _: "V", signals=range(9))
    with pytest.raises(RecordingError, match="9 of 20 eeg channels") as caught:
        open_recording(recording_from_folder(tmp_path, "a.edf"), tmp_path)
    assert caught.value.code is FailureCode.UNIT_CONFLICT


@pytest.mark.parametrize(("file", "sidecar"), [("uV", "mV"), ("uV", "nV"), ("mV", "uV"), ("µV", "mV"), ("V", "uV")])
def test_another_factor_in_channels_tsv_is_a_conflict(file: str, sidecar: str) -> None:
    with pytest.raises(RecordingError) as caught:
        table_of(unit=file, row=ChannelRow("Fp1", "EEG", sidecar))
    assert caught.value.code is FailureCode.UNIT_CONFLICT
    assert "Fp1" in caught.value.what


@pytest.mark.parametrize(
    ("file", "sidecar"),
    [("uV", "uV"), ("uV", "µV"), ("µV", "μV"), ("uV", "V"), ("mV", "mV"), ("uV", ""), ("", "uV"), ("odd", "uV")],
)
def test_the_same_factor_in_other_letters_is_none(file: str, sidecar: str) -> None:
    assert table_of(unit=file, row=ChannelRow("Fp1", "EEG", sidecar)).units == ("V",)


def test_only_signals_are_compared() -> None:
    assert table_of("ECG", unit="mV", row=ChannelRow("ECG", "ECG", "uV")).types == ("ecg",)


def test_factors() -> None:
    assert [factor(unit) for unit in ("uV", "µV", "microV", "mV", "V")] == [1e-6, 1e-6, 1e-6, 1e-3, 1.0]
    assert [factor(unit) for unit in ("", "T", "G", "uT", "xV", "n/a")] == [None] * 6


@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [
        ("EMG", "uV", "emg"), ("EMG Chin", "uV", "emg"), ("ECG ECG", "mV", "ecg"), ("EEG EKG1-REF", "uV", "ecg"),
        ("EKG1", "uV", "ecg"), ("EOG horizontal", "uV", "eog"), ("PHOTIC-REF", "uV", "misc"), ("acc1", "G", "misc"),
        ("SaO2", "%", "misc"), ("Temp rectal", "DegC", "misc"), ("EEG FP1-REF", "uV", "eeg"), ("Fp1", "mV", "eeg"),
        ("T3", "uV", "eeg"), ("A2-A1", "uV", "eeg"), ("Temporal 3", "uV", "eeg"), ("DC1", "mV", "misc"),
        ("EEG Fpz-Cz", "uV", "eeg"), ("C3", "", "eeg"),
    ],
)  # fmt: skip
def test_labels_and_units_say_what_is_no_eeg(name: str, unit: str, expected: str) -> None:
    assert table_of(name, unit=unit).types == (expected,)


def test_a_sidecar_is_asked_first() -> None:
    assert table_of("EMG", row=ChannelRow("EMG", "EEG", "uV")).types == ("eeg",)
    assert table_of("EMG", row=ChannelRow("EMG", "", "uV")).types == ("emg",)


@pytest.mark.data
def test_accelerometers_of_a_real_recording_are_no_eeg(data: Path) -> None:
    root = data / "raw" / "eeg-bdf"
    with open_recording(recording_from_folder(root, "multiple_annotation_chans.bdf"), root) as signal:
        types = dict(zip(signal.channels.names, signal.channels.types, strict=True))
    assert {types[f"acc{n}"] for n in (1, 2, 3)} == {"misc"}
    assert (types["EMG"], types["EOG"], types["ECG"], types["Trigger"]) == ("emg", "eog", "ecg", "stim")
    assert sum(kind == "eeg" for kind in types.values()) == 12


@pytest.mark.data
def test_a_subject_of_its_own_in_the_folder_is_a_missing_fact(data: Path, tmp_path: Path) -> None:
    to = tmp_path / "sub-00" / "eeg" / "sub-01_task-rest_eeg.edf"
    to.parent.mkdir(parents=True)
    shutil.copy(data / REAL, to)
    with pytest.raises(RecordingError) as caught:
        open_recording(recording_from_folder(tmp_path, to.relative_to(tmp_path).as_posix()), tmp_path)
    assert caught.value.code is FailureCode.MISSING_FACT
