"""EDF under another name: ISRUC calls its nights 1.rec, and MNE's own function refuses that."""

import shutil
from pathlib import Path

import mne
import numpy as np
import pytest

from neuromill.readers.opening import open_recording
from neuromill.records import Recording, RecordingId, SourceFile

EDF = Path("raw", "eeg-edf", "MB0400FU.EDF")


@pytest.mark.data
@pytest.mark.parametrize("name", ["1.rec", "1.REC", "1.edf"])
def test_edf_is_read_whatever_its_ending(data: Path, tmp_path: Path, name: str) -> None:
    path = shutil.copy(data / EDF, tmp_path / name)
    recording = Recording(RecordingId("isruc", "1", "1"), name, (SourceFile(name, path.stat().st_size),), format="edf")
    signal = open_recording(recording, tmp_path)
    theirs = mne.io.read_raw_edf(data / EDF, encoding="latin1", verbose="error")
    assert signal.channels.names == tuple(theirs.ch_names)
    np.testing.assert_array_equal(signal.read(100, 400), theirs.get_data(start=100, stop=400))
