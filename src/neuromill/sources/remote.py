"""A file in an archive, read in place: only the ranges that are asked for are transferred.

``RangeReader`` gets checked bytes, ``RemoteFile`` is the file object on top of it, for ``h5py.File(remote, "r")``.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections import OrderedDict
from hashlib import blake2b
from typing import TYPE_CHECKING, NoReturn

from neuromill.records import FailureCode, RecordingError
from neuromill.sources.attempts import Attempts, TryAgainError, check_status, open_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import httpx
    from typing_extensions import Buffer

    from neuromill.sources.attempts import Patience

BLOCK_BYTES = 256 << 10
REQUEST_BYTES = 8 << 20  # the longest range of one request
CACHE_BYTES = 64 << 20
_AHEAD_BYTES = 4 << 20  # the most that is read ahead of a reader that goes forward
_PARTIAL = 206
_PRECONDITION_FAILED = 412
_RANGE_NOT_SATISFIABLE = 416
_FORBIDDEN = (401, 403)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class RangeReader:
    """Ranges of one object over one connection; each answer is checked before its bytes count.

    Parameters
    ----------
    url
        Address of the object; where it redirects to is remembered until that address is refused (signed addresses
        expire).
    size
        Bytes of the object.
    etag
        The ETag it must have, with its quotes; "" takes that of the first answer.
    patience, sleep
        Limits, and what waits.

    Attributes
    ----------
    requests, received
        Ranges that were answered, and bytes that arrived.
    """

    def __init__(
        self, url: str, size: int, *, etag: str = "", patience: Patience, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.url, self.size, self.etag = url, size, etag
        self.patience, self.sleep = patience, sleep
        self.requests = self.received = 0
        self._client: httpx.Client | None = None
        self._place = ""

    def read(self, start: int, stop: int) -> bytes:
        """Bytes ``start`` to ``stop`` (exclusive, inside the object).

        Raises
        ------
        RecordingError
            ``changed_upstream`` for another size or ETag, ``unreachable_upstream`` for a refusal or a server without
            ranges, ``retries_exhausted``.
        """
        import httpx

        found = bytearray()
        attempts = Attempts(self.patience, self.url, self.sleep)
        while len(found) < stop - start:
            before = len(found)
            try:
                self._attempt(start + before, stop, found)
            except (TryAgainError, httpx.RequestError) as error:
                attempts.failed(error, progress=len(found) > before)
        return bytes(found)

    def close(self) -> None:
        """Close the connection; a later ``read`` opens another."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def _attempt(self, start: int, stop: int, found: bytearray) -> None:
        if self._client is None:
            self._client = open_client(self.patience)
        # Stored encodings (Content-Encoding: gzip) are part of the object: raw bytes, never decoded.
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        headers |= {"If-Match": self.etag} if self.etag else {}
        end = len(found) + stop - start
        with self._client.stream("GET", self._place or self.url, headers=headers) as response:
            self._check_status(response)
            self._check_range(response, start, stop)
            self._check_etag(response)
            self.requests += 1
            for chunk in response.iter_raw():
                self.received += len(chunk)
                if len(found) + len(chunk) > end:
                    raise TryAgainError("the body is longer than the range")
                found += chunk
            self._place = str(response.url)
        if len(found) < end:
            raise TryAgainError(f"the body ended {end - len(found)} bytes early")

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in _FORBIDDEN and self._place:
            self._place = ""
            raise TryAgainError("the address behind the redirect is refused now")
        if status in (_PRECONDITION_FAILED, _RANGE_NOT_SATISFIABLE):
            self._changed(f"the object is not the one of the manifest (HTTP {status})")
        check_status(status, response.headers, self.url)
        if status != _PARTIAL:
            raise RecordingError(
                FailureCode.UNREACHABLE_UPSTREAM,
                f"the server does not serve parts of a file (HTTP {status})",
                where=self.url,
                next_step="set `fetch: whole` in the card",
            )

    def _check_range(self, response: httpx.Response, start: int, stop: int) -> None:
        text = response.headers.get("content-range", "")
        match = _CONTENT_RANGE.fullmatch(text)
        if match is None:
            raise TryAgainError(f"the server answers with the range {text!r}")
        first, last, total = (int(number) for number in match.groups())
        if total != self.size:
            self._changed(f"it has {total} bytes, the manifest says {self.size}")
        if first != start or not start <= last < stop:
            raise TryAgainError(f"the range {text!r} was sent for bytes {start}-{stop - 1}")
        if response.headers.get("content-length", str(last - first + 1)) != str(last - first + 1):
            raise TryAgainError("the length of the body is not that of its range")

    def _check_etag(self, response: httpx.Response) -> None:
        etag = response.headers.get("etag", "")
        if self.etag and etag != self.etag:
            self._changed(f"its ETag is {etag or 'missing'}, not {self.etag}")
        if not etag.startswith("W/"):
            self.etag = etag

    def _changed(self, what: str) -> NoReturn:
        raise RecordingError(
            FailureCode.CHANGED_UPSTREAM, what, where=self.url, next_step="refresh the catalog and plan again"
        )


def runs(blocks: Iterable[int], longest: int) -> Iterator[range]:
    """Join ascending block numbers to runs of neighbours, of at most ``longest`` blocks each."""
    run = range(0)
    for block in blocks:
        if run and block == run.stop and len(run) < longest:
            run = range(run.start, block + 1)
            continue
        if run:
            yield run
        run = range(block, block + 1)
    if run:
        yield run


class RemoteFile(io.RawIOBase):
    """A read-only binary file over HTTP range requests; ``read`` and ``readinto`` are short at the end only.

    Blocks of ``block_bytes`` are kept up to ``cache_bytes``, the least recently used goes first. Neighbouring missing
    blocks are one request. A reader that goes forward is read ahead of, by never more than it has read in one go.

    Parameters
    ----------
    reader
        Where the bytes come from; it is closed with the file.
    block_bytes, cache_bytes
        Unit of transfer, and most that is held in memory, in bytes.
    """

    def __init__(self, reader: RangeReader, *, block_bytes: int = BLOCK_BYTES, cache_bytes: int = CACHE_BYTES) -> None:
        super().__init__()
        self._reader, self._block_bytes = reader, block_bytes
        self._run_blocks = max(1, REQUEST_BYTES // block_bytes)
        self._kept_blocks = max(cache_bytes // block_bytes, 1)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._digests: dict[int, bytes] = {}
        self._used: set[int] = set()
        self._position = 0
        self._forward = range(0)  # the blocks fetched in one go up to now
        self._failure: RecordingError | None = None

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self._reader.size

    @property
    def requests(self) -> int:
        """Ranges fetched up to now, without those of ``verify``."""
        return self._reader.requests

    @property
    def received(self) -> int:
        """Bytes transferred up to now, without those of ``verify``."""
        return self._reader.received

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position; nothing is transferred."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if origin + offset < 0:
            raise ValueError("negative position in a file")
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        """Fill the buffer, or what of it the file can fill; see ``RangeReader.read`` for the errors."""
        view = memoryview(buffer).cast("B")
        start = self._position
        stop = max(start, min(start + len(view), self.size))
        step = self._run_blocks * self._block_bytes
        try:
            while self._position < stop:
                until = min(stop, (self._position // step + 1) * step)
                self._copy(self._position, until, view[self._position - start :])
                self._position = until
        except RecordingError as error:
            self._failure = error
            raise
        return stop - start

    def verify(self) -> None:
        """Fetch every block that was handed out once more, over a new connection and in other ranges, and compare.

        Other ranges, because what spoils an answer (a proxy, a cache) can spoil the same request in the same way.

        Raises
        ------
        RecordingError
            ``digest_mismatch`` where the same bytes came in two ways; what reading raises, and what it raised before:
            HDF5 takes some failures to read for objects that are not there.
        """
        if self._failure is not None:
            raise self._failure
        reader = self._reader
        again = RangeReader(reader.url, reader.size, etag=reader.etag, patience=reader.patience, sleep=reader.sleep)
        try:
            for run in runs(sorted(self._used), max(1, self._run_blocks - 1)):
                for block, content in self._split(run, again, halves=True):
                    self._check(block, content)
        finally:
            again.close()

    def close(self) -> None:
        """Close the connection and forget the blocks."""
        if not self.closed:
            self._reader.close()
            self._blocks.clear()
        super().close()

    def _copy(self, start: int, stop: int, to: memoryview) -> None:
        """Copy one step of at most ``_run_blocks`` blocks."""
        wanted = range(start // self._block_bytes, -(-stop // self._block_bytes))
        held = {block: self._blocks[block] for block in wanted if block in self._blocks}
        for run in runs((block for block in wanted if block not in held), self._run_blocks):
            held |= self._fetch(run)
        for block in wanted:
            first = block * self._block_bytes
            piece = held[block][max(0, start - first) : stop - first]
            at = max(0, first - start)
            to[at : at + len(piece)] = piece
            self._keep(block, held[block])
        self._used.update(wanted)

    def _fetch(self, run: range) -> dict[int, bytes]:
        """Fetch a run, and as much after it as was read in one go before it."""
        onward = bool(self._forward) and run.start == self._forward.stop
        ahead = min(len(self._forward), _AHEAD_BYTES // self._block_bytes) if onward else 0
        last = -(-self.size // self._block_bytes)
        longer = range(run.start, min(run.stop + ahead, max(last, run.stop), run.start + self._run_blocks))
        self._forward = range(self._forward.start if onward else run.start, longer.stop)
        found = dict(self._split(longer, self._reader))
        for block, content in found.items():
            self._check(block, content)
            self._keep(block, content)
        return found

    def _split(self, run: range, reader: RangeReader, *, halves: bool = False) -> Iterator[tuple[int, bytes]]:
        """Blocks of a run, of one request, or of two that meet within a block."""
        first, last = run.start * self._block_bytes, min(run.stop * self._block_bytes, self.size)
        middle = first + (last - first) // 2 + 1  # never where a range of whole blocks ends
        parts = [(first, middle), (middle, last)] if halves and first < middle < last else [(first, last)]
        content = b"".join(reader.read(start, stop) for start, stop in parts)
        for block in run:
            offset = block * self._block_bytes - first
            yield block, content[offset : offset + self._block_bytes]

    def _check(self, block: int, content: bytes) -> None:
        digest = blake2b(content, digest_size=16).digest()
        if self._digests.setdefault(block, digest) != digest:
            raise RecordingError(
                FailureCode.DIGEST_MISMATCH,
                f"bytes from {block * self._block_bytes} were read twice and differ",
                where=self._reader.url,
                next_step="try again; if it stays so, set `fetch: whole` in the card",
            )

    def _keep(self, block: int, content: bytes) -> None:
        self._blocks[block] = content
        self._blocks.move_to_end(block)
        while len(self._blocks) > self._kept_blocks:
            self._blocks.popitem(last=False)
