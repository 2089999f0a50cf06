"""Every MEG recording of the test data: opened as its table says, and with the values that MNE gives."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from neuromill.readers.opening import open_recording
from neuromill.records import FailureCode, RecordingError
from support.outcomes import TOKENS, Expected, expected_outcomes
from support.recordings import dataset_root, recording_from_folder

pytestmark = pytest.mark.data

LATER = {TOKENS, FailureCode.TOO_SHORT, FailureCode.NON_FINITE, FailureCode.NO_USABLE_CHANNELS}
ROWS = [row for row in expected_outcomes() if row.modality == "meg"]

# Channels, rate and duration as the README of the test data states them; KIT without MNE's synthetic stim channel.
README = {
    "bids/meg-fif/sub-01/meg/sub-01_task-audiovisual_run-01_meg.fif": (
        {"grad": 202, "mag": 101, "eeg": 60, "stim": 9, "eog": 1}, 300.307, 5.005,
    ),
    "bids/meg-fif/sub-02/meg/sub-02_task-unspecified_run-01_meg.fif": ({"grad": 2, "mag": 1, "stim": 1}, 1000, 80),
    "bids/meg-fif/sub-emptyroom/ses-20141027/meg/sub-emptyroom_ses-20141027_task-noise_meg.fif": (
        {"grad": 204, "mag": 102}, 90, 10,
    ),
    "bids/meg-kit/sub-01/ses-0/meg/sub-01_ses-0_task-0_meg.sqd": ({"mag": 157, "misc": 32, "ref_meg": 3}, 1000, 5),
    "raw/meg-bti/test_pdf_linux": ({"mag": 248, "ref_meg": 23, "misc": 7, "stim": 2}, 1017.25, 0.2998),
}  # fmt: skip


def reference(path: Path) -> np.ndarray:
    import mne

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.name.endswith(".fif"):
            raw = mne.io.read_raw_fif(path, preload=True, verbose="error")
        elif path.suffix == ".sqd":
            raw = mne.io.read_raw_kit(path, stim=None, preload=True, verbose="error")
        else:
            raw = mne.io.read_raw_bti(
                path,
                path.with_name("test_config_linux"),
                path.with_name("test_hs_linux"),
                preload=True,
                verbose="error",
            )
    return raw.get_data()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path.rsplit("/", 1)[-1])
def test_opens_or_fails_as_the_table_says(row: Expected, data: Path) -> None:
    root, main = dataset_root(data, row.path)
    recording = recording_from_folder(root, main)
    if row.outcome in LATER:
        with open_recording(recording, root) as signal:
            assert signal.n_times > 0
        return
    with pytest.raises(RecordingError) as caught:
        open_recording(recording, root)
    assert caught.value.code == row.outcome
    assert caught.value.where
    assert caught.value.next_step
    assert str(root) not in str(caught.value)


@pytest.mark.parametrize("path", README, ids=lambda path: path.rsplit("/", 1)[-1])
def test_channels_rate_and_duration_are_those_of_the_readme(path: str, data: Path) -> None:
    counts, sfreq, seconds = README[path]
    root, main = dataset_root(data, path)
    with open_recording(recording_from_folder(root, main), root) as signal:
        types = signal.channels.types
        assert {kind: types.count(kind) for kind in set(types)} == counts
        assert signal.sfreq == pytest.approx(sfreq, abs=1e-3)
        assert signal.n_times / signal.sfreq == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize("path", README, ids=lambda path: path.rsplit("/", 1)[-1])
def test_random_windows_are_what_mne_reads(path: str, data: Path) -> None:
    root, main = dataset_root(data, path)
    whole = reference(root / main)
    rng = np.random.default_rng(7)
    with open_recording(recording_from_folder(root, main), root) as signal:
        for _ in range(8):
            start, stop = np.sort(rng.integers(0, signal.n_times + 1, 2))
            picks = rng.permutation(len(signal.channels))[:20].tolist()
            block = signal.read(int(start), int(stop), picks)
            assert block.dtype == np.float64
            np.testing.assert_array_equal(block, whole[picks, start:stop])
        np.testing.assert_array_equal(signal.read(0, signal.n_times), whole)


def test_planar_gradiometers_have_their_x_axis_and_magnetometers_their_normal(data: Path) -> None:
    import mne

    root, main = dataset_root(data, next(iter(README)))
    info = mne.io.read_info(root / main, verbose="error")
    with open_recording(recording_from_folder(root, main), root) as signal:
        table = signal.channels
        for i, kind in enumerate(table.types):
            if kind not in ("mag", "grad"):
                assert np.isnan(table.orientations[i]).all()
                continue
            loc = info["chs"][i]["loc"]
            np.testing.assert_array_equal(table.positions[i], loc[:3])
            np.testing.assert_allclose(table.orientations[i], loc[3:6] if kind == "grad" else loc[9:12], atol=1e-4)
        assert {c for c, kind in zip(table.coils, table.types, strict=True) if kind == "grad"} == {"VV_PLANAR_T1"}
        assert {u for u, kind in zip(table.units, table.types, strict=True) if kind == "grad"} == {"T/m"}
        assert table.bads[table.names.index("MEG 2443")] == "marked"
        assert signal.facts.line_freq == 60
        assert signal.facts.position_frame == "device"


def test_electrodes_beside_meg_are_carried_into_the_device_frame(data: Path) -> None:
    import mne

    root, main = dataset_root(data, next(iter(README)))
    info = mne.io.read_info(root / main, verbose="error")
    with open_recording(recording_from_folder(root, main), root) as signal:
        eeg = signal.channels.types.index("eeg")
        back = mne.transforms.apply_trans(info["dev_head_t"], signal.channels.positions[eeg])
    np.testing.assert_allclose(back, info["chs"][eeg]["loc"][:3], atol=1e-9)


def test_positions_of_zero_are_unknown(data: Path) -> None:
    root = data / "malformed" / "fif"
    with open_recording(recording_from_folder(root, "fif_no_positions_meg.fif"), root) as signal:
        assert np.isnan(signal.channels.positions).all()
        assert np.isnan(signal.channels.orientations).all()
        assert signal.facts.position_frame == ""


def test_events_of_a_recording_that_starts_late_count_from_its_first_sample(data: Path) -> None:
    root, main = dataset_root(data, "bids/meg-fif/sub-02/meg/sub-02_task-unspecified_run-01_meg.fif")
    with open_recording(recording_from_folder(root, main), root) as signal:
        assert len(signal.events) == 162
        stim = signal.channels.types.index("stim")
        trigger = signal.read(0, signal.n_times, [stim])[0]
    for onset, text in zip(signal.events.onsets[:20], signal.events.descriptions[:20], strict=True):
        sample = round(onset * signal.sfreq)
        assert trigger[sample] - trigger[sample - 1] == float(text.rsplit("/", 1)[-1])


def test_nan_is_handed_on_for_the_signal_room_to_judge(data: Path) -> None:
    root = data / "malformed" / "fif"
    with open_recording(recording_from_folder(root, "fif_nan_channel_meg.fif"), root) as signal:
        broken = np.isnan(signal.read(0, signal.n_times)).mean(axis=1)
    assert (broken == 1).sum() == 1
    assert ((broken > 0) & (broken < 1)).sum() == 1
