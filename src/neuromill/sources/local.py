"""A folder that is already here: a downloaded BIDS dataset, a DataLad clone, or a lab's own recordings."""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from neuromill.records import (
    ConfigError,
    DatasetVersion,
    Digest,
    FailureCode,
    FileState,
    Manifest,
    RecordingError,
    SourceFile,
    canonical_json,
    check_relative_path,
)
from neuromill.sources.annex import POINTER_MAX_BYTES, AnnexKey
from neuromill.sources.bucket import copy_file
from neuromill.sources.download import digest_of, mismatch
from neuromill.sources.protocol import Listing, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSION = "local"
LOCATOR = "local"
_SKIPPED_FOLDERS = frozenset({"__MACOSX"})
_ZARR_METADATA = frozenset({".zgroup", ".zarray", ".zattrs", ".zmetadata"})  # Zarr v2
_ANNEX_OBJECTS = Path(".git", "annex", "objects")
# A file written within this time of being hashed could change again without a new time stamp (coarse clocks).
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A folder as a source; ``folder`` keeps the digests between calls."""

    dataset: str
    root: Path
    folder: Path

    def manifest(self, version: str | None = None) -> Manifest:
        """See ``protocol.Source``."""
        return self.listing(version).manifest

    def listing(self, version: str | None = None) -> Listing:
        """See ``protocol.Source``; the version is a name only, ``local`` unless given."""
        if not self.root.is_dir():
            raise ConfigError("there is no such folder", where=str(self.root), next_step="give the folder of a dataset")
        with Hints(self.folder) as hints:
            made = [self._entry(path, hints) for path in _walk(self.root)]
        files = tuple(sorted((f for f in made if isinstance(f, SourceFile)), key=lambda file: file.path))
        skipped = tuple(sorted((s for s in made if isinstance(s, Skipped)), key=lambda item: item.path))
        rows = [[file.path, file.size, str(file.digest), file.state] for file in files]
        named = DatasetVersion(self.dataset, version or VERSION)
        return Listing(Manifest(named, files, revision=Digest.of(canonical_json(rows)).hex), skipped)

    def _entry(self, path: Path, hints: Hints) -> SourceFile | Skipped:
        name = path.relative_to(self.root).as_posix()
        shown = name if name.isprintable() else repr(name)
        try:
            return self._file(path, name, hints)
        except RecordingError as error:
            return Skipped(shown, error.code, error.what)
        except UnicodeEncodeError:
            return Skipped(repr(name), FailureCode.HOSTILE_NAME, "its name is no valid text")
        except OSError as error:
            return Skipped(shown, FailureCode.UNREADABLE, error.strerror or str(error))

    def _file(self, path: Path, name: str, hints: Hints) -> SourceFile | Skipped:
        key = _unfetched_key(path)
        if key is not None:
            return SourceFile(name, key.size or 0, key.digest, LOCATOR, FileState.LOST)
        if path.is_symlink() and not _stays_inside(path, self.root):
            return Skipped(name, FailureCode.UNSUPPORTED_FORMAT, "a link that leaves the folder or leads nowhere")
        if not path.is_file():
            return Skipped(name, FailureCode.UNSUPPORTED_FORMAT, "not a regular file")
        check_relative_path(name)  # before a long file is read
        return SourceFile(name, path.stat().st_size, hints.digest(path), LOCATOR)

    def place(self, file: SourceFile) -> Path | None:
        """See ``protocol.Source``: the file itself, if it is still what the manifest says."""
        path = self.root / file.path
        if file.state is FileState.LOST:
            raise RecordingError(
                FailureCode.UNREACHABLE_UPSTREAM,
                "git-annex has not fetched this file",
                where=str(path),
                next_step="run `git annex get` (or `datalad get`) in the folder",
            )
        if not path.is_file():
            raise RecordingError(FailureCode.MISSING_MEMBER, "the file is gone", where=str(path))
        with Hints(self.folder) as hints:
            found = hints.digest(path)
        if path.stat().st_size != file.size or (file.digest and file.digest != found):
            raise RecordingError(
                FailureCode.CHANGED_UPSTREAM,
                "the file changed since it was listed",
                where=str(path),
                next_step="list the folder again",
            )
        return path

    def read(self, file: SourceFile) -> bytes:
        """See ``protocol.Source``."""
        place = self.place(file)
        content = place.read_bytes() if place else b""
        if file.digest and (found := Digest.of(content, file.digest.algorithm)) != file.digest:
            raise mismatch(file.digest, found, file.path)
        return content

    def fetch(self, file: SourceFile, to: Path, *, progress: Callable[[int], None] | None = None) -> Digest:
        """See ``protocol.Source``; a copy. ``RawCache`` links in place and does not call this."""
        self.place(file)
        return copy_file(self.root / file.path, file, to, progress)


def _walk(root: Path) -> Iterator[Path]:
    """Files below ``root`` without hidden ones (AppleDouble files are hidden, too); no folder link is followed.

    Inside a ``.zarr`` folder the hidden files that Zarr keeps its metadata in are content.
    """
    for folder, folders, names in os.walk(root):
        in_zarr = any(part.lower().endswith(".zarr") for part in Path(folder).relative_to(root).parts)
        shown = _ZARR_METADATA if in_zarr else frozenset()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS)
        linked = [name for name in folders if Path(folder, name).is_symlink()]
        for name in sorted([*names, *linked]):
            if not name.startswith(".") or name in shown:
                yield Path(folder, name)


def _unfetched_key(path: Path) -> AnnexKey | None:
    """Key of a git-annex file whose content is not here: a dangling link, or a pointer file."""
    if path.is_symlink():
        return AnnexKey.from_link(str(path.readlink())) if not path.exists() else None
    if not path.is_file() or path.stat().st_size > POINTER_MAX_BYTES:
        return None
    with path.open("rb") as content:
        return AnnexKey.from_pointer(content.read(POINTER_MAX_BYTES))


def _stays_inside(path: Path, root: Path) -> bool:
    target = path.resolve()
    inside = target.is_relative_to(root.resolve())
    hidden = inside and any(part.startswith(".") for part in target.relative_to(root.resolve()).parts)
    annexed = inside and target.is_relative_to(root.resolve() / _ANNEX_OBJECTS)
    return target.is_file() and inside and (annexed or not hidden)


class Hints:
    """Digests computed before, by path, size, modification time and inode; any change of these means: again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "digests.sqlite"

    def __enter__(self) -> Self:
        self._connection = sqlite3.connect(self._path, timeout=60.0, isolation_level=None)
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS digests "
            "(path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, inode INTEGER, sha256 TEXT) WITHOUT ROWID"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def digest(self, path: Path) -> Digest:
        """SHA-256 of a file's content; ``changed_upstream`` where it changes under our eyes."""
        before = _stamp(path)
        row = self._connection.execute(
            "SELECT sha256 FROM digests WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?",
            (str(path.absolute()), *before),
        ).fetchone()
        if row:
            return Digest("sha256", row[0])
        digest = digest_of(path)
        if _stamp(path) != before:
            raise RecordingError(FailureCode.CHANGED_UPSTREAM, "the file is being written to", where=str(path))
        if time.time_ns() - before[1] > _SETTLED_NS:
            self._connection.execute(
                "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?, ?)",
                (str(path.absolute()), *before, digest.hex),
            )
        return digest


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
