"""CTF: complete folders, and trials that join or do not."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from neuromill.readers.ctf_folder import check_clock, check_ctf
from neuromill.readers.opening import open_recording
from neuromill.records import FailureCode, RecordingError
from support.recordings import recording_from_folder

NAME = "sub-01_task-unspecified_run-01_meg"
SAMPLES, CHANNELS, CLOCK = 1201, 356, "SCLK01-177"


@pytest.mark.parametrize("step", [1 / 1200, 1.4 / 1200])
def test_trials_that_join(step: float) -> None:
    check_clock(np.full(3, step), 1200.0, 4, "x")


@pytest.mark.parametrize(
    "steps", [np.array([1 / 1200, 99.0]), np.array([1 / 1200, 3 / 1200]), np.array([0.0, 1 / 1200]), None]
)
def test_trials_that_do_not(steps: np.ndarray | None) -> None:
    with pytest.raises(RecordingError) as caught:
        check_clock(steps, 1200.0, 3, "x")
    assert caught.value.code is FailureCode.NOT_CONTINUOUS


def test_one_trial_needs_no_clock() -> None:
    check_clock(None, 1200.0, 1, "x")


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """A writable copy of the real recording, alone."""
    target = tmp_path / f"{NAME}.ds"
    target.mkdir()
    for path in (data / "bids/meg-ctf/sub-01/meg" / f"{NAME}.ds").iterdir():
        shutil.copyfile(path, target / path.name)
    return target


def edit_trials(folder: Path) -> np.memmap:
    """Samples as [trial, channel, sample] int32, writable in place."""
    return np.memmap(folder / f"{NAME}.meg4", ">i4", "r+", offset=8, shape=(2, CHANNELS, SAMPLES))


@pytest.mark.data
def test_real_trials_are_one_signal_once_their_clock_runs_through(folder: Path) -> None:
    import mne

    root = folder.parent
    with pytest.raises(RecordingError) as caught:
        open_recording(recording_from_folder(root, folder.name), root)
    assert caught.value.code is FailureCode.NOT_CONTINUOUS
    raw = mne.io.read_raw_ctf(folder, verbose="error")
    clock = raw.ch_names.index(CLOCK)
    trials = edit_trials(folder)
    step = round(float(np.median(np.diff(trials[0, clock]))))
    trials[1, clock] = trials[0, clock] + step * SAMPLES
    trials.flush()
    whole = mne.io.read_raw_ctf(folder, preload=True, verbose="error").get_data()
    with open_recording(recording_from_folder(root, folder.name), root) as signal:
        assert signal.n_times == 2 * SAMPLES
        types = signal.channels.types
        assert (types.count("mag"), types.count("ref_meg"), types.count("eeg")) == (273, 28, 8)
        assert signal.facts.compensation_grade == 0
        picks = [0, 200, 100]
        np.testing.assert_array_equal(signal.read(1000, 1500, picks), whole[picks, 1000:1500])


@pytest.mark.data
@pytest.mark.parametrize(
    ("lost", "code"),
    [(4, FailureCode.TRUNCATED), (4 * SAMPLES * CHANNELS, FailureCode.TRUNCATED), (-4, FailureCode.UNREADABLE)],
)
def test_samples_must_be_as_many_as_the_header_says(folder: Path, lost: int, code: FailureCode) -> None:
    path = folder / f"{NAME}.meg4"
    content = path.read_bytes()
    path.write_bytes(content[:-lost] if lost > 0 else content + b"\0" * -lost)
    with pytest.raises(RecordingError) as caught:
        check_ctf(folder, "x")
    assert caught.value.code is code


@pytest.mark.data
def test_no_samples_and_no_header(folder: Path) -> None:
    (folder / f"{NAME}.meg4").write_bytes(b"MEG41CP\0")
    with pytest.raises(RecordingError) as caught:
        check_ctf(folder, "x")
    assert caught.value.code is FailureCode.EMPTY
    (folder / f"{NAME}.res4").unlink()
    with pytest.raises(RecordingError) as caught:
        check_ctf(folder, "x")
    assert caught.value.code is FailureCode.MISSING_MEMBER
