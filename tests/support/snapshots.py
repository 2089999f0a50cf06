"""Manifests out of the test data: the bundled listings of real archives, and folders on disk."""

from collections.abc import Callable, Iterable
from pathlib import Path

from neuromill.records import (
    DatasetVersion,
    Digest,
    FailureCode,
    FileState,
    Manifest,
    RecordingError,
    SourceFile,
)


def listing_manifest(folder: Path, version: str = "1.0.0") -> Manifest:
    """Manifest of a real dataset from its bundled ``listing.tsv``."""
    rows = [line.split("\t") for line in (folder / "listing.tsv").read_text().splitlines()[1:]]
    files = (SourceFile(path, int(size), Digest(kind, sum_)) for path, _, size, kind, sum_ in rows)
    return Manifest(DatasetVersion(folder.name, version), tuple(sorted(files, key=lambda f: f.path)))


def folder_manifest(folder: Path) -> Manifest:
    """Manifest of a folder on disk, without digests; a link of git-annex is a file, wherever it leads."""
    files = (p for p in folder.rglob("*") if p.is_file() or p.is_symlink())
    listed = (SourceFile(p.relative_to(folder).as_posix(), p.lstat().st_size) for p in files)
    return Manifest(DatasetVersion("local", "1"), tuple(sorted(listed, key=lambda f: f.path)))


def made_manifest(paths: Iterable[str], lost: Iterable[str] = ()) -> Manifest:
    """Manifest of files that exist nowhere, of 7 bytes each."""
    gone = set(lost)
    files = (
        SourceFile(p, 7, Digest.of(p.encode()), state=FileState.LOST if p in gone else FileState.AVAILABLE)
        for p in sorted({*paths, *gone})
    )
    return Manifest(DatasetVersion("ds000001", "1.0.0"), tuple(files))


def reader_of(folder: Path, count: dict[str, int] | None = None) -> Callable[[SourceFile], bytes]:
    """Read sidecars from a folder; one that is not there is unreachable. Counts calls per path."""

    def read(file: SourceFile) -> bytes:
        if count is not None:
            count[file.path] = count.get(file.path, 0) + 1
        try:
            return (folder / file.path).read_bytes()
        except OSError as error:
            raise RecordingError(FailureCode.UNREACHABLE_UPSTREAM, "not bundled", where=file.path) from error

    return read
