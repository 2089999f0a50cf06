"""Whole files over HTTP(S): resumed, verified, published by a rename.

What arrived is kept in ``<name>.part`` with its object version and ETag in ``<name>.part.json``. As long as a file
grows, retries are not counted; only attempts that bring nothing new are.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Self

from neuromill.records import Digest, FailureCode, RecordingError, new_hasher
from neuromill.sources.attempts import Attempts, TryAgainError, check_status, open_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from neuromill.sources.attempts import Patience

CHUNK_BYTES = 1 << 20
_PARTIAL = 206
_PRECONDITION_FAILED = 412
_RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be downloaded: the address of one object version, and what its bytes must be."""

    url: str
    size: int
    digest: Digest | None


@dataclass(frozen=True, slots=True)
class _Note:
    """What the ``.part.json`` beside a ``.part`` says: which bytes these are the beginning of."""

    url: str
    size: int
    etag: str = ""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps(asdict(self)))
        new.replace(path)


class Download:
    """One file on its way. Use ``Download(...).run()`` once.

    Parameters
    ----------
    wanted
        Address, size and digest.
    to
        Final place; the folder is made.
    patience, sleep
        Limits, and what waits (tests pass their own).
    progress
        Called with the number of further bytes; a part left by an earlier call counts at once.
    """

    def __init__(
        self,
        wanted: Wanted,
        to: Path,
        *,
        patience: Patience,
        sleep: Callable[[float], None] = time.sleep,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.wanted, self.to, self.patience, self.sleep = wanted, to, patience, sleep
        self.progress = progress or (lambda _: None)
        self.part = to.with_name(to.name + ".part")
        self.note_path = to.with_name(to.name + ".part.json")
        self.note = _Note(wanted.url, wanted.size)
        self.highest = 0

    def run(self) -> Digest:
        """Download, verify, publish; raises ``RecordingError`` as ``protocol.Source.fetch`` says."""
        self.to.parent.mkdir(parents=True, exist_ok=True)
        self._take_up()
        self._complete()
        digest = digest_of(self.part, self.wanted.digest)
        if self.wanted.digest and digest != self.wanted.digest:
            # Bytes can be altered on the way, and a power cut can leave a part whose last pages are zeros: both pass.
            self._discard()
            self._complete()
            digest = digest_of(self.part, self.wanted.digest)
        if self.wanted.digest and digest != self.wanted.digest:
            self._discard()
            raise mismatch(self.wanted.digest, digest, self.wanted.url)
        publish(self.part, self.to)
        self.note_path.unlink(missing_ok=True)
        return digest

    def _take_up(self) -> None:
        note = _Note.read(self.note_path)
        same = note is not None and (note.url, note.size) == (self.wanted.url, self.wanted.size)
        if note is None or not same or not (note.etag or self.wanted.digest) or self._offset() > self.wanted.size:
            self._discard()
            return
        self.note = note
        self._report(self._offset())

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note_path.unlink(missing_ok=True)
        self.note = _Note(self.wanted.url, self.wanted.size)

    def _offset(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _report(self, offset: int) -> None:
        if offset > self.highest:
            self.progress(offset - self.highest)
            self.highest = offset

    def _complete(self) -> None:
        import httpx

        attempts = Attempts(
            self.patience, self.wanted.url, self.sleep, next_step="try again later; what arrived is kept"
        )
        with open_client(self.patience) as client:
            while self._offset() < self.wanted.size or not self.part.exists():
                before = self.highest
                try:
                    self._attempt(client)
                except (TryAgainError, httpx.RequestError) as error:
                    # The highest byte ever reached, not this attempt's: a server that ignores Range never gets further.
                    attempts.failed(error, progress=self.highest > before)

    def _attempt(self, client: httpx.Client) -> None:
        offset = self._offset()
        # Stored encodings (Content-Encoding: gzip) are part of the object: raw bytes, never decoded.
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-"} | ({"If-Match": self.note.etag} if self.note.etag else {})
        with client.stream("GET", self.wanted.url, headers=headers) as response:
            self._check_status(response)
            self._check_etag(response)
            start = self._start(response, offset)
            with self.part.open("r+b" if offset else "wb") as out:
                out.truncate(start)
                out.seek(start)
                self._receive(response, out.write, start)

    def _receive(self, response: httpx.Response, write: Callable[[bytes], int], position: int) -> None:
        for chunk in response.iter_raw():
            position += len(chunk)
            if position > self.wanted.size:
                raise self._changed(f"more than the {self.wanted.size} bytes of the manifest arrive")
            write(chunk)
            self._report(position)
        if position < self.wanted.size:
            raise TryAgainError(f"the body ended at byte {position} of {self.wanted.size}")

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in (_PRECONDITION_FAILED, _RANGE_NOT_SATISFIABLE):
            raise self._changed("the object is not the one the download began with")
        check_status(status, response.headers, self.wanted.url)

    def _check_etag(self, response: httpx.Response) -> None:
        etag = response.headers.get("etag", "")
        if self.note.etag and etag and etag != self.note.etag:
            raise self._changed(f"its ETag was {self.note.etag} and is {etag}")
        if not self.note_path.exists():
            self.note = replace(self.note, etag="" if etag.startswith("W/") else etag)
            self.note.write(self.note_path)

    def _start(self, response: httpx.Response, offset: int) -> int:
        """Position of the first byte of this answer; checks that the whole object has the manifest's size."""
        if response.status_code == _PARTIAL:
            span, _, total = response.headers.get("content-range", "").removeprefix("bytes ").partition("/")
            if not span.startswith(f"{offset}-") or total not in (str(self.wanted.size), "*"):
                raise self._changed(f"range {span}/{total} was sent for bytes {offset}- of {self.wanted.size}")
            return offset
        length = response.headers.get("content-length", str(self.wanted.size))
        if length != str(self.wanted.size):
            raise self._changed(f"it has {length} bytes, the manifest says {self.wanted.size}")
        return 0

    def _changed(self, what: str) -> RecordingError:
        self._discard()
        return RecordingError(
            FailureCode.CHANGED_UPSTREAM, what, where=self.wanted.url, next_step="refresh the catalog and plan again"
        )


def digest_of(path: Path, like: Digest | None = None) -> Digest:
    """Digest of a file's content, with the algorithm of ``like`` (SHA-256 without one)."""
    algorithm = like.algorithm if like else "sha256"
    hasher = new_hasher(algorithm, path.stat().st_size)
    with path.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            hasher.update(chunk)
    return Digest(algorithm, hasher.hexdigest())


def mismatch(expected: Digest, found: Digest, where: str) -> RecordingError:
    """Build the error for bytes that are not the ones the manifest names."""
    return RecordingError(
        FailureCode.DIGEST_MISMATCH,
        f"content is {found}, the manifest says {expected}",
        where=where,
        next_step="try again; if it stays so, the archive's copy is damaged",
    )


def publish(part: Path, to: Path) -> None:
    """Sync a finished file, rename it to its final name and sync the folder: whole after a power cut, or not there."""
    with ExitStack() as stack:
        content = os.open(part, os.O_RDONLY)
        stack.callback(os.close, content)
        os.fsync(content)
        part.replace(to)
        folder = os.open(to.parent, os.O_RDONLY)
        stack.callback(os.close, folder)
        os.fsync(folder)
