"""Recordings made of folders, as discovery would find them."""

from functools import cache
from pathlib import Path

from neuromill.catalog.discovery import discover
from neuromill.catalog.rules import RecordingRules
from neuromill.records import DatasetVersion, Manifest, Recording, SourceFile

VERSION = DatasetVersion("folder", "1")


@cache
def recordings_of_folder(root: Path) -> tuple[Recording, ...]:
    """All recordings below a folder: by BIDS rules where it has subjects, else every file in a known format."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    files = tuple(SourceFile(path.relative_to(root).as_posix(), path.stat().st_size) for path in paths)
    layout = "bids" if any(root.glob("sub-*")) else "plain"
    found = discover(Manifest(VERSION, files), RecordingRules(layout=layout), lambda f: (root / f.path).read_bytes())
    return found.recordings


def recording_from_folder(root: Path, main_path: str) -> Recording:
    """Return the recording whose main file or folder is ``main_path``."""
    return next(recording for recording in recordings_of_folder(root) if recording.path == main_path)


def dataset_root(data: Path, path: str) -> tuple[Path, str]:
    """Split a path of the test data into the folder that is its dataset and the path within."""
    parts = path.split("/")
    depth = 2 if parts[0] in ("bids", "raw", "malformed", "dandi") else 1
    return data.joinpath(*parts[:depth]), "/".join(parts[depth:])
