"""A file object that fails inside libhdf5: its failure is told, and the process lives to its end."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

# Runs in a process of its own: what is tested is how that process ends. It counts the reads that a walk through a whole
# file takes, then lets each of them in turn be the one at which the line dies. The file object keeps its error, as
# ``RemoteFile`` does, and with it the frames in which it was raised.
WALK = """
import io, sys
from contextlib import closing
from pathlib import Path
from neuromill.readers.trees import open_hdf5
from neuromill.records import FailureCode, RecordingError

class Line(io.RawIOBase):
    def __init__(self, last):
        self.source, self.reads, self.last = io.BytesIO(Path(sys.argv[1]).read_bytes()), 0, last

    readable = seekable = lambda self: True

    def seek(self, offset, whence=0, /):
        return self.source.seek(offset, whence)

    def readinto(self, buffer, /):
        self.reads += 1
        if self.reads > self.last:
            self.failure = RecordingError(FailureCode.RETRIES_EXHAUSTED, "the line is dead", where="a", next_step="go")
            raise self.failure
        return self.source.readinto(buffer)

def walk(line):
    with closing(open_hdf5(line, "a")) as tree:
        for path in ("units/spike_times", "units/id", "text"):
            tree.attributes(path), tree.children("units"), tree.array(path).read()

whole = Line(sys.maxsize)
walk(whole)
kept = []
for last in range(whole.reads):
    try:
        walk(Line(last))
    except RecordingError as error:
        kept.append(error)
print(whole.reads, len(kept), *{error.code.value for error in kept})
"""


def test_the_process_ends_well_wherever_the_line_dies(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        times = file.create_dataset("units/spike_times", data=np.arange(40_000.0), chunks=(4000,), compression="gzip")
        times.attrs["unit"] = "seconds"
        file["units/id"] = np.arange(200)
        file["text"] = ["a", "b"]
    ended = subprocess.run([sys.executable, "-c", WALK, path], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    reads, failed, *codes = ended.stdout.split()
    assert int(reads) > 10
    assert failed == reads
    assert codes == ["retries_exhausted"]
