"""The raw cache: fetched files by their content, and trees of links for the readers."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING

from neuromill.records import Digest, FailureCode, RecordingError
from neuromill.sources.download import mismatch, publish
from neuromill.sources.locking import exclusive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from neuromill.records import SourceFile
    from neuromill.sources.protocol import Source


@dataclass(frozen=True, slots=True)
class RawCache:
    """Content-addressed files below ``folder``: ``<algorithm>/<first 2 hex>/<hex>``.

    Downloads happen in ``partial`` and end with a rename, so a name that exists is whole; a killed download goes on
    where it stopped. A file of this machine is held as a symbolic link to its own place. What an archive gives no
    digest for is held by our SHA-256, which ``first-seen`` keeps, so that other bytes under the same address are
    noticed later.
    """

    folder: Path

    def ensure(self, source: Source, file: SourceFile, progress: Callable[[int], None] | None = None) -> Path:
        """Return the path of the file's verified bytes, fetching them only if they are not there.

        Safe for concurrent processes: one fetches, the others wait for it. Raises what ``Source.fetch`` raises.
        """
        in_place = source.place(file)
        if in_place is not None and in_place.is_relative_to(self.folder):
            raise RecordingError(FailureCode.INTERNAL, "a source cannot lie in its own cache", where=str(in_place))
        found = self.find(file)
        if found is not None and (in_place is None or found.resolve() == in_place.resolve()):
            return found
        name = _key(file)
        with exclusive(self.folder / "partial" / f"{name}.lock"):
            if in_place is not None:
                return self._point_to(file, in_place)
            return self.find(file) or self._fetch(source, file, self.folder / "partial" / name, progress)

    def find(self, file: SourceFile) -> Path | None:
        """Path of the file's bytes if they are here with the right size, else None."""
        digest = file.digest or self._first_seen(file)
        path = self._path(digest) if digest else None
        return path if path and path.is_file() and path.stat().st_size == file.size else None

    def derive(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return the file that is kept under ``name``, made by ``make(path)`` if it is not there.

        For what is drawn from members that are never here as a whole (the needed parts of a large file). The file
        lies by its content; ``derived/<name>`` says which it is.
        """
        found = self.derived(name)
        if found is not None:
            return found
        with exclusive(self.folder / "partial" / f"{name}.lock"):
            return self.derived(name) or self._derive(name, make)

    def derived(self, name: str) -> Path | None:
        """Return the file that ``derive`` keeps under ``name``, None where there is none."""
        try:
            digest, size = (self.folder / "derived" / name).read_text().split()
        except FileNotFoundError:
            return None
        path = self._path(Digest.parse(digest))
        return path if path.is_file() and path.stat().st_size == int(size) else None

    def forget(self, name: str) -> int:
        """Forget what ``derive`` keeps under ``name``; returns the bytes freed."""
        try:
            digest, size = (self.folder / "derived" / name).read_text().split()
            (self.folder / "derived" / name).unlink()
            self._path(Digest.parse(digest)).unlink()
        except FileNotFoundError:
            return 0
        return int(size)

    def link(self, held: Path, to: Path) -> None:
        """Lay one held file out at ``to``, as ``materialise`` does; ``missing_member`` where it was just dropped."""
        _link(held, to)

    def materialise(self, members: Iterable[SourceFile], folder: Path) -> Path:
        """Lay members out under their original relative paths, so that a reader finds what belongs together.

        Hard links where possible, so no space is taken; symbolic links for files of this machine that were listed
        in place, copies on file systems without links. Existing entries are replaced. Raises ``missing_member``
        for a member that was not brought by ``ensure``.
        """
        for member in members:
            held = self.find(member)
            if held is None:
                raise _not_here(member.path)
            _link(held, folder / member.path)
        return folder

    def drop(self, members: Iterable[SourceFile]) -> int:
        """Forget members; returns the bytes freed. Trees already laid out keep theirs, in-place files are untouched."""
        freed = 0
        for member in members:
            if (held := self.find(member)) is not None:
                freed += 0 if held.is_symlink() else member.size
                held.unlink(missing_ok=True)
            (self.folder / "partial" / f"{_key(member)}.part").unlink(missing_ok=True)
            (self.folder / "partial" / f"{_key(member)}.part.json").unlink(missing_ok=True)
        return freed

    def _path(self, digest: Digest) -> Path:
        return self.folder / digest.algorithm / digest.hex[:2] / digest.hex

    def _derive(self, name: str, make: Callable[[Path], None]) -> Path:
        partial = self.folder / "partial" / name
        partial.unlink(missing_ok=True)
        make(partial)
        with partial.open("rb") as file:
            digest = Digest("sha256", file_digest(file, "sha256").hexdigest())
        size, place = partial.stat().st_size, self._path(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        publish(partial, place)
        note = self.folder / "derived" / name
        note.parent.mkdir(parents=True, exist_ok=True)
        _replace(note, lambda new: new.write_text(f"{digest} {size}"))
        return place

    def _fetch(self, source: Source, file: SourceFile, to: Path, progress: Callable[[int], None] | None) -> Path:
        digest = source.fetch(file, to, progress=progress)
        known = file.digest or self._first_seen(file)
        if known and known != digest:
            to.unlink()
            raise mismatch(known, digest, file.path) if file.digest else _changed(known, digest, file)
        if known is None:
            self._note_first_seen(file, digest)
        place = self._path(digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        publish(to, place)
        return place

    def _point_to(self, file: SourceFile, in_place: Path) -> Path:
        if file.digest is None:
            raise RecordingError(FailureCode.MISSING_FACT, "a file in place needs a digest", where=file.path)
        place = self._path(file.digest)
        place.parent.mkdir(parents=True, exist_ok=True)
        _replace(place, lambda new: new.symlink_to(in_place.absolute()))
        return place

    def _first_seen_path(self, file: SourceFile) -> Path:
        return self.folder / "first-seen" / _key(file)

    def _first_seen(self, file: SourceFile) -> Digest | None:
        try:
            return Digest.parse(self._first_seen_path(file).read_text())
        except FileNotFoundError:
            return None

    def _note_first_seen(self, file: SourceFile, digest: Digest) -> None:
        path = self._first_seen_path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, lambda new: new.write_text(str(digest)))


def _key(file: SourceFile) -> str:
    if file.digest:
        return f"{file.digest.algorithm}-{file.digest.hex}"
    return f"address-{sha256(f'{file.locator}|{file.size}'.encode()).hexdigest()}"


def _link(held: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if held.is_symlink():
        _replace(to, lambda new: new.symlink_to(held.readlink()))
        return
    try:
        _replace(to, lambda new: os.link(held, new))
    except FileNotFoundError:  # a symbolic link instead would lead nowhere
        raise _not_here(to.name) from None
    except OSError:  # another file system, or one without hard links
        _replace(to, lambda new: _symlink_or_copy(held, new))


def _symlink_or_copy(held: Path, new: Path) -> None:
    try:
        new.symlink_to(held.absolute())
    except OSError:
        shutil.copyfile(held, new)


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    """Let ``make`` write under a name nobody else has, then rename it to ``path``."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        new = Path(folder, "new")
        make(new)
        new.replace(path)
        new.unlink(missing_ok=True)  # renaming onto another hard link of the same file leaves both names


def _not_here(where: str) -> RecordingError:
    return RecordingError(
        FailureCode.MISSING_MEMBER,
        "the file is not in the raw cache",
        where=where,
        next_step="ingest the recording again",
    )


def _changed(known: Digest, digest: Digest, file: SourceFile) -> RecordingError:
    return RecordingError(
        FailureCode.CHANGED_UPSTREAM,
        f"content was {known} at first download and is {digest}",
        where=file.path,
        next_step="refresh the catalog and plan again",
    )
