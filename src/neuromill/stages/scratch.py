"""Short-lived folders in the home folder, removed with their block or, after ``kill -9``, by the next run."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from neuromill.sources.locking import exclusive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFIX = "recording-"


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """Give a new folder below ``root``, locked as long as this process lives."""
    with _gate(root):
        folder = root / tempfile.mkdtemp(prefix=PREFIX, dir=root)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


def clean_scratch(root: Path) -> tuple[str, ...]:
    """Remove folders whose holder no longer lives; returns their names.

    They hold hard links, so that raw files nobody keeps would take their space for ever.
    """
    if not root.is_dir():
        return ()
    with _gate(root):
        return tuple(folder.name for folder in sorted(root.glob(f"{PREFIX}*")) if _removed(folder))


@contextmanager
def _gate(root: Path) -> Iterator[None]:
    """Nobody cleans between the making of a folder and its lock."""
    root.mkdir(parents=True, exist_ok=True)
    with exclusive(root / ".lock"):
        yield


def _removed(folder: Path) -> bool:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False  # its block ended a moment ago
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        shutil.rmtree(folder, ignore_errors=True)
        return True
    finally:
        os.close(lock)
