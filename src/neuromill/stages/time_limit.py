"""A time limit for one recording, kept by the worker itself: it ends, and leaves a note of where it was."""

from __future__ import annotations

import faulthandler
import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neuromill.records import Digest, FailureCode
from neuromill.stages.outcomes import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neuromill.stages.outcomes import WorkItem

    Work = Callable[[WorkItem], Outcome]

_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)$', re.MULTILINE)
_THREAD = "most recent call first"


@dataclass(frozen=True, slots=True)
class Limited:
    """Work that ends its process when an item takes too long; picklable, for a worker process alone.

    libhdf5 can run in circles on a damaged file, holding Python's lock: no signal handler and no Python thread would
    get a turn. The watchdog of ``faulthandler`` is a thread of C that needs none.

    Attributes
    ----------
    seconds
        For one item; 0 is no limit.
    folder
        Where a worker notes what it is at.
    """

    work: Work
    seconds: float
    folder: str

    def __call__(self, item: WorkItem) -> Outcome:
        """Do the item, or end the process."""
        if not self.seconds:
            return self.work(item)
        note = self._note(item)
        try:
            with note.open("w") as file:
                faulthandler.dump_traceback_later(self.seconds, exit=True, file=file)
                try:
                    return self.work(item)
                finally:
                    faulthandler.cancel_dump_traceback_later()
        finally:
            note.unlink(missing_ok=True)

    def late(self, item: WorkItem) -> Outcome | None:
        """Outcome of an item whose worker ended itself; None where the worker died of anything else."""
        note = self._note(item)
        text = note.read_text(encoding="utf-8", errors="replace") if note.is_file() else ""
        if not text:
            return None
        note.unlink(missing_ok=True)
        return Outcome(
            item,
            FailureCode.INTERRUPTED,
            f"not done within {self.seconds:g} s, so its worker was ended{_place(text)}",
            "a damaged file can hang its reader: fetch it again; where more time is needed set "
            "NEUROMILL_ENGINE__RECORDING_SECONDS higher, then `neuromill retry`",
            seconds=self.seconds,
        )

    def _note(self, item: WorkItem) -> Path:
        return Path(self.folder) / Digest.of(f"{item.stage}:{item.recording.id}".encode()).hex


@contextmanager
def limited(work: Work, seconds: float) -> Iterator[Limited]:
    """Give work a limit per item; the notes of its workers are gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="neuromill-") as folder:
        yield Limited(work, seconds, folder)


def _place(text: str) -> str:
    """Where the main thread was: the last that is listed, its innermost frame first."""
    frame = _FRAME.search(text.rpartition(_THREAD)[2])
    return f"; it was in {Path(frame['file']).name}:{frame['line']} {frame['function']}" if frame else ""
