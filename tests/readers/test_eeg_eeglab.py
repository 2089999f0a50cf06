"""EEGLAB files whose samples are inside the .set file."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from neuromill.readers.opening import open_recording
from support.recordings import recording_from_folder


@pytest.mark.data
def test_samples_inside_the_set_file_are_those_of_the_fdt_file(data: Path, tmp_path: Path) -> None:
    """The real recording, saved again by SciPy with its samples in ``EEG.data`` instead of the name of the .fdt."""
    source = data / "raw" / "eeg-eeglab"
    eeg = scipy.io.loadmat(source / "eeglab_data.set", struct_as_record=True)["EEG"]
    n_channels = int(eeg["nbchan"][0, 0].item())
    samples = np.fromfile(source / "eeglab_data.fdt", "<f4").reshape((n_channels, -1), order="F")
    eeg["data"][0, 0] = samples
    scipy.io.savemat(tmp_path / "embedded.set", {"EEG": eeg}, appendmat=False)
    with (
        open_recording(recording_from_folder(source, "eeglab_data.set"), source) as beside,
        open_recording(recording_from_folder(tmp_path, "embedded.set"), tmp_path) as inside,
    ):
        assert inside.channels.names == beside.channels.names
        assert (inside.sfreq, inside.n_times) == (beside.sfreq, beside.n_times)
        np.testing.assert_array_equal(inside.read(100, 900), beside.read(100, 900))
