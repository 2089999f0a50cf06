"""What every source offers, whatever archive stands behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neuromill.records import Digest, FailureCode, Manifest, SourceFile
    from neuromill.sources.objects import ObjectStore
    from neuromill.sources.remote import RemoteFile


@dataclass(frozen=True, slots=True)
class Skipped:
    """An entry of a snapshot that cannot be a source file; ``path`` is its Python repr where it is no clean text."""

    path: str
    code: FailureCode
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """A manifest, and what had to be left out of it."""

    manifest: Manifest
    skipped: tuple[Skipped, ...] = ()


class Source(Protocol):
    """One dataset in one archive. Implementations hold settings only, so they can be sent to a worker process."""

    def listing(self, version: str | None = None) -> Listing:
        """List a version (None: the newest), with the entries left out; ``unreachable_upstream`` where it cannot."""
        ...

    def manifest(self, version: str | None = None) -> Manifest:
        """Return ``listing(version).manifest``: every file sorted by path, with size, digest, locator and state."""
        ...

    def read(self, file: SourceFile) -> bytes:
        """Bytes of a small file (a sidecar), verified."""
        ...

    def fetch(self, file: SourceFile, to: Path, *, progress: Callable[[int], None] | None = None) -> Digest:
        """Bring a file to ``to``: verified, synced, then renamed into place.

        Parameters
        ----------
        file
            A file of this source's manifest.
        to
            Where it goes; what a killed call left beside it (``.part``) is taken up again.
        progress
            Called with the number of further bytes that arrived; the calls add up to the size.

        Returns
        -------
        Digest
            The archive's digest, or our own SHA-256 where the archive publishes none.

        Raises
        ------
        RecordingError
            ``unreachable_upstream``, ``changed_upstream``, ``digest_mismatch`` or ``retries_exhausted``.
        """
        ...

    def place(self, file: SourceFile) -> Path | None:
        """Where these very bytes already lie on this machine, else None; checked against the manifest."""
        ...


@runtime_checkable
class RangedSource(Source, Protocol):
    """A source that can hand out parts of a file, so that of a large one only what is needed is read."""

    def open_stream(self, file: SourceFile) -> RemoteFile:
        """Open a file of the archive for reading anywhere in it."""
        ...

    def open_objects(self, file: SourceFile) -> ObjectStore:
        """Open an asset that is many small objects (Zarr)."""
        ...
