"""EEGLAB files in MATLAB 7.3 read as the same recording in version 5 does, sample by sample."""

import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from neuromill.readers.eeglab_hdf5 import open_eeglab_hdf5
from neuromill.readers.opening import open_recording
from neuromill.readers.protocol import SignalRecording
from neuromill.records import FailureCode, RecordingError
from support.eeglab import small_eeg, write_eeglab_5, write_eeglab_73
from support.recordings import recording_from_folder


def opened(folder: Path, name: str = "a.set") -> SignalRecording:
    return open_recording(recording_from_folder(folder, name), folder)


def folder_of(base: Path, name: str) -> Path:
    (base / name).mkdir()
    return base / name


def assert_same(one: SignalRecording, other: SignalRecording) -> None:
    """Everything but notes; samples to the bit."""
    assert one.channels.names == other.channels.names
    assert (one.channels.types, one.channels.units) == (other.channels.types, other.channels.units)
    np.testing.assert_array_equal(one.channels.positions, other.channels.positions)
    assert (one.sfreq, one.n_times) == (other.sfreq, other.n_times)
    assert one.events.descriptions == other.events.descriptions
    np.testing.assert_array_equal(one.events.onsets, other.events.onsets)
    np.testing.assert_array_equal(one.events.durations, other.events.durations)
    assert one.facts.position_frame == other.facts.position_frame
    np.testing.assert_array_equal(one.read(0, one.n_times), other.read(0, other.n_times))


CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "double": {"data": small_eeg()["data"].astype(np.float64)},
    "one event": {"event": small_eeg()["event"][:1]},
    "no events": {"event": []},
    "no names": {"chanlocs": []},
    "no positions": {"chanlocs": [{"labels": f"E{i}", "type": None} for i in range(4)]},
    "one channel": {**small_eeg(1)},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("root", ["EEG", ""])
@pytest.mark.parametrize("beside", [False, True], ids=["inside", "beside"])
def test_equal_to_version_5(tmp_path: Path, change: dict[str, Any], root: str, *, beside: bool) -> None:
    eeg = small_eeg() | change
    old, new = folder_of(tmp_path, "5"), folder_of(tmp_path, "73")
    if beside:
        for folder in (old, new):
            (folder / "a.fdt").write_bytes(eeg["data"].astype("<f4").tobytes(order="F"))
        eeg = eeg | {"data": "a.fdt"}
    write_eeglab_5(old / "a.set", eeg)
    write_eeglab_73(new / "a.set", eeg, root)
    with opened(old) as five, opened(new) as seven:
        assert_same(seven, five)
        rows = [2, 0] if len(five.channels) > 1 else [0]
        np.testing.assert_array_equal(seven.read(100, 377, rows), five.read(100, 377, rows))
        assert seven.facts.notes == five.facts.notes


def test_values_are_those_written(tmp_path: Path) -> None:
    eeg = small_eeg()
    write_eeglab_73(tmp_path / "a.set", eeg)
    with opened(tmp_path) as signal:
        np.testing.assert_allclose(signal.read(0, 2000), eeg["data"] * 1e-6, rtol=1e-6)
        assert signal.channels.names == ("Fp1", "Fp2", "Cz", "Größe")
        assert signal.events.descriptions == ("square", "7", "rt")
        np.testing.assert_allclose(signal.events.onsets, [0.4, 1.998, 6.796])
        assert signal.events.durations[1] == pytest.approx(0.1)


@pytest.mark.data
def test_real_recording_saved_again_in_7_3(data: Path, tmp_path: Path) -> None:
    source = data / "raw" / "eeg-eeglab"
    real = scipy.io.loadmat(source / "eeglab_data.set", squeeze_me=True, struct_as_record=True)["EEG"]
    eeg: dict[str, Any] = {name: real[name].item() for name in ("nbchan", "pnts", "trials", "srate", "xmin", "xmax")}
    for name in ("chanlocs", "event"):
        table = real[name].item()
        eeg[name] = [{field: _value(row[field]) for field in table.dtype.names} for row in table]
    eeg["data"] = np.fromfile(source / "eeglab_data.fdt", "<f4").reshape((eeg["nbchan"], -1), order="F")
    write_eeglab_73(tmp_path / "a.set", eeg, compression="gzip", chunks=(1000, eeg["nbchan"]))
    with opened(source, "eeglab_data.set") as five, opened(tmp_path) as seven:
        assert_same(seven, five)


def _value(value: Any) -> Any:
    return None if isinstance(value, np.ndarray) and not value.size else value


def many_events(n: int) -> dict[str, Any]:
    rows = [
        {"type": ("left", 7, "right")[i % 3], "latency": 1 + 0.5 * i, "duration": None if i % 5 else float(i)}
        for i in range(n)
    ]
    return small_eeg() | {"event": rows}


@pytest.fixture(scope="module")
def with_2000_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_eeglab_73(tmp_path_factory.mktemp("73") / "a.set", many_events(2000)).parent


def test_thousands_of_events_are_those_of_version_5(tmp_path: Path, with_2000_events: Path) -> None:
    write_eeglab_5(tmp_path / "a.set", many_events(2000))
    with opened(tmp_path) as five, opened(with_2000_events) as seven:
        assert_same(seven, five)
        assert len(seven.events.onsets) == 2000
        assert seven.events.descriptions[:4] == ("left", "7", "right", "left")
        np.testing.assert_allclose(seven.events.onsets, 0.002 * np.arange(2000))


class Asked:
    """How often HDF5 was asked for the name of an object, or for an object by its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        name = h5py.Dataset.name.fget
        get = h5py.Group.get

        def counted_name(node: h5py.Dataset) -> Any:
            self.n += 1
            return name(node)

        def counted_get(node: h5py.Group, *args: Any, **options: Any) -> Any:
            self.n += 1
            return get(node, *args, **options)

        monkeypatch.setattr(h5py.Dataset, "name", property(counted_name))
        monkeypatch.setattr(h5py.Group, "get", counted_get)


def test_no_name_is_looked_up_per_event(
    tmp_path: Path, with_2000_events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 searches the file for the name of what a reference leads to: 1000 events took 35 s, 2000 took 130 s."""
    few = write_eeglab_73(tmp_path / "a.set", many_events(3))
    asked = Asked(monkeypatch)
    counts = []
    for path in (few, with_2000_events / "a.set"):
        before = asked.n
        found = open_eeglab_hdf5(path, "here")
        found.close()
        counts.append(asked.n - before)
    assert found.header["event"].shape == (1, 2000)
    assert 0 < counts[0] == counts[1]


def test_the_file_need_not_have_matlabs_header(tmp_path: Path) -> None:
    write_eeglab_73(tmp_path / "a.set", small_eeg(1))
    bare = folder_of(tmp_path, "bare")
    with h5py.File(tmp_path / "a.set") as source, h5py.File(bare / "a.set", "w") as target:
        for name in ("nbchan", "pnts", "srate", "data"):
            source.copy(f"EEG/{name}", target)
    with opened(tmp_path) as one, opened(bare) as other:
        np.testing.assert_array_equal(other.read(0, 2000), one.read(0, 2000))
        assert other.channels.names == ("EEG 000",)


def test_an_fdt_under_another_name_is_found_and_told(tmp_path: Path) -> None:
    eeg = small_eeg()
    (tmp_path / "a.fdt").write_bytes(eeg["data"].tobytes(order="F"))
    write_eeglab_73(tmp_path / "a.set", eeg | {"data": r"C:\lab\before.fdt"})
    with opened(tmp_path) as signal:
        assert any("before.fdt" in note for note in signal.facts.notes)
        np.testing.assert_allclose(signal.read(0, 9), eeg["data"][:, :9] * 1e-6, rtol=1e-6)


def refused(folder: Path, code: FailureCode, words: str) -> None:
    with pytest.raises(RecordingError, match=words) as caught:
        opened(folder)
    assert caught.value.code is code
    assert str(folder) not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"data": "gone.fdt"}, FailureCode.MISSING_MEMBER, "gone.fdt"),
        ({"data": "../../etc/passwd"}, FailureCode.MISSING_MEMBER, "passwd"),
        ({"data": "old.dat"}, FailureCode.UNSUPPORTED_FORMAT, "dat"),
        ({"data": small_eeg()["data"].astype(np.complex64)}, FailureCode.UNREADABLE, "no real numbers"),
        ({"data": np.zeros((3, 2000), np.float32)}, FailureCode.UNREADABLE, "4 channels"),
        ({"pnts": 2001}, FailureCode.TRUNCATED, "2000 samples"),
        ({"pnts": 1999}, FailureCode.UNREADABLE, "1999"),
        ({"pnts": 0}, FailureCode.UNREADABLE, "pnts"),
        ({"srate": None}, FailureCode.UNREADABLE, "srate"),
        ({"srate": 0}, FailureCode.UNREADABLE, "srate is 0"),
        ({"trials": 2, "pnts": 1000, "data": np.zeros((4, 1000, 2))}, FailureCode.NOT_CONTINUOUS, "trials"),
        ({"chanlocs": small_eeg()["chanlocs"][:3]}, FailureCode.UNREADABLE, "3 channel names"),
    ],
    ids=str,
)  # fmt: skip
def test_refused(tmp_path: Path, change: dict[str, Any], code: FailureCode, words: str) -> None:
    write_eeglab_73(tmp_path / "a.set", small_eeg() | change)
    refused(tmp_path, code, words)


def test_no_data_at_all(tmp_path: Path) -> None:
    eeg = small_eeg()
    del eeg["data"]
    write_eeglab_73(tmp_path / "a.set", eeg)
    refused(tmp_path, FailureCode.UNREADABLE, "no EEG.data")


def test_epochs_have_one_code_in_both_versions(tmp_path: Path) -> None:
    write_eeglab_5(tmp_path / "a.set", small_eeg() | {"trials": 2, "pnts": 1000, "data": np.zeros((4, 1000, 2))})
    refused(tmp_path, FailureCode.NOT_CONTINUOUS, "trials")


@pytest.mark.parametrize(("size", "code"), [(0.5, FailureCode.TRUNCATED), (0.99, FailureCode.TRUNCATED)])
def test_cut_off(tmp_path: Path, size: float, code: FailureCode) -> None:
    whole = write_eeglab_73(tmp_path / "a.set", small_eeg()).read_bytes()
    (tmp_path / "a.set").write_bytes(whole[: int(size * len(whole))])
    refused(tmp_path, code, "superblock")


def test_only_the_header_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.set").write_bytes(b"MATLAB 7.3 MAT-file".ljust(600))
    refused(tmp_path, FailureCode.UNREADABLE, "no signature")


def test_fdt_cut_off(tmp_path: Path) -> None:
    eeg = small_eeg()
    (tmp_path / "a.fdt").write_bytes(eeg["data"].tobytes(order="F")[:-4])
    write_eeglab_73(tmp_path / "a.set", eeg | {"data": "a.fdt"})
    refused(tmp_path, FailureCode.TRUNCATED, "promises")


def test_a_block_is_all_that_is_read(tmp_path: Path) -> None:
    """40 MB inside the file; MNE with the samples of version 5 inside holds them twice as large."""
    eeg = small_eeg(10, 1_000_000)
    write_eeglab_73(tmp_path / "a.set", eeg, chunks=(1000, 10))
    recording = recording_from_folder(tmp_path, "a.set")
    with open_recording(recording, tmp_path) as signal:
        pass  # imports
    tracemalloc.start()
    with open_recording(recording, tmp_path) as signal:
        signal.read(500_000, 501_000)
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < eeg["data"].nbytes / 4
