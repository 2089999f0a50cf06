"""Work functions for engines, importable by a spawned worker, and a parent to be killed."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from neuromill.records import Digest, Recording, RecordingId, SourceFile
from neuromill.stages.engines import ProcessEngine
from neuromill.stages.outcomes import Outcome, Stage, WorkItem

POISON = "sub-003_meg"


def work_items(n: int) -> list[WorkItem]:
    return [_item(f"sub-{number:03d}_meg") for number in range(n)]


def _item(name: str) -> WorkItem:
    member = SourceFile(f"{name}.fif", 1, Digest.of(name.encode()))
    recording = Recording(RecordingId("ds1", "1", name), member.path, (member,))
    return WorkItem(Stage.PREPARE, "0123456789abcdef", recording, recording.input_digest)


def report_back(item: WorkItem) -> Outcome:
    """Say which process did it and with how many threads."""
    return Outcome(item, bytes_out=os.getpid(), facts={"threads": os.environ.get("OMP_NUM_THREADS", "")})


def die_on_poison(item: WorkItem) -> Outcome:
    """One item kills its worker, as the kernel does when memory runs out."""
    if item.recording.id.name == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(item)


def hang_on_poison(item: WorkItem) -> Outcome:
    """One item hangs inside of C with Python's lock held, as libhdf5 does on some damaged files."""
    if item.recording.id.name == POISON:
        ctypes.PyDLL(None).pause()
    return Outcome(item, bytes_out=os.getpid())


def hang_or_die(item: WorkItem) -> Outcome:
    """Two hang, one kills its worker."""
    if item.recording.id.name in ("sub-001_meg", "sub-002_meg"):
        ctypes.PyDLL(None).pause()
    return die_on_poison(item)


def sleep_long(item: WorkItem, folder: Path) -> Outcome:
    (folder / str(os.getpid())).touch()
    time.sleep(600)
    return Outcome(item)


def main(folder: Path) -> None:
    """Drive two items that never end."""
    from functools import partial

    for _ in ProcessEngine(2).run(partial(sleep_long, folder=folder), work_items(2)):
        pass


if __name__ == "__main__":
    main(Path(sys.argv[1]))
