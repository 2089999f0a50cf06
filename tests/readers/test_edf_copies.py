"""A channel that stands twice in an EDF file with the same samples, as T8-P8 in many files of CHB-MIT."""

from pathlib import Path

import mne
import numpy as np
import pytest

from neuromill.readers.opening import open_recording
from neuromill.records import FailureCode, RecordingError
from support.edf import DIMENSION, HIGH, LABEL, rewrite
from support.recordings import recording_from_folder

pytestmark = pytest.mark.data
REAL = "bids/eeg-arithmetic/sub-00/eeg/sub-00_task-arithmetic_eeg.edf"
NAME = "EEG T8-P8"


def doubled(source: Path, to: Path, *signals: int, change: int = 0) -> Path:
    """Copy a file whose ``signals`` have one name and the samples of the first; one sample of the last may differ."""
    rewrite(source, to, LABEL, lambda _: NAME, signals=signals)
    content = bytearray(to.read_bytes())
    n_signals, n_records = int(content[252:256]), int(content[236:244])
    cells = 256 + 216 * n_signals
    samples = [int(content[cells + 8 * i : cells + 8 * (i + 1)]) for i in range(n_signals)]
    first, *others = signals
    for record in range(n_records):
        start = 256 * (n_signals + 1) + 2 * record * sum(samples)
        at = [start + 2 * sum(samples[:i]) for i in signals]
        for place in at[1:]:
            content[place : place + 2 * samples[first]] = content[at[0] : at[0] + 2 * samples[first]]
    content[at[-1]] ^= change
    for cell, width in ((96, 8), (104, 8), (112, 8), (120, 8), (128, 8)):
        own = 256 + cell * n_signals
        for other in others:
            content[own + width * other : own + width * (other + 1)] = content[
                own + width * first : own + width * (first + 1)
            ]
    to.write_bytes(content)
    return to


@pytest.mark.parametrize("signals", [(3, 7), (0, 19), (2, 3, 4)])
def test_equal_channels_are_kept_once_with_a_note(data: Path, tmp_path: Path, signals: tuple[int, ...]) -> None:
    doubled(data / REAL, tmp_path / "a.edf", *signals)
    whole = mne.io.read_raw_edf(data / REAL, verbose="error")
    names = [NAME if i == signals[0] else name for i, name in enumerate(whole.ch_names) if i not in signals[1:]]
    with open_recording(recording_from_folder(tmp_path, "a.edf"), tmp_path) as signal:
        assert list(signal.channels.names) == names
        assert any(NAME in note and "kept once" in note for note in signal.facts.notes)
        kept = [i for i in range(len(whole.ch_names)) if i not in signals[1:]]
        np.testing.assert_array_equal(signal.read(1000, 3000), whole.get_data(picks=kept, start=1000, stop=3000))


def refused(path: Path) -> RecordingError:
    with pytest.raises(RecordingError, match="T8-P8") as caught:
        open_recording(recording_from_folder(path.parent, path.name), path.parent)
    return caught.value


def test_one_other_sample_and_nothing_is_guessed(data: Path, tmp_path: Path) -> None:
    assert refused(doubled(data / REAL, tmp_path / "a.edf", 3, 7, change=1)).code is FailureCode.DUPLICATE_CHANNELS


@pytest.mark.parametrize(("field", "text"), [(DIMENSION, "mV"), (HIGH, "3000")])
def test_equal_samples_of_another_scale_are_other_values(
    data: Path, tmp_path: Path, field: tuple[int, int], text: str
) -> None:
    doubled(data / REAL, tmp_path / "a.edf", 3, 7)
    rewrite(tmp_path / "a.edf", tmp_path / "b.edf", field, lambda _: text, signals=(7,))
    assert refused(tmp_path / "b.edf").code is FailureCode.DUPLICATE_CHANNELS
