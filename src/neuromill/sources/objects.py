"""The objects of a Zarr asset: many small files under one address, each with a digest in the archive's listing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from neuromill.records import Digest, FailureCode, RecordingError
from neuromill.sources.attempts import Attempts, TryAgainError, check_status, open_client
from neuromill.sources.download import mismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

    from neuromill.sources.attempts import Patience


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """What the archive says about one object: its size in bytes and its digest (MD5, or that of a multipart upload)."""

    size: int
    digest: Digest

    @classmethod
    def of_etag(cls, size: int, etag: str) -> Self:
        """Read an ETag without quotes; ``<hex>-<parts>`` is that of a multipart upload."""
        return cls(size, Digest("dandi-etag" if "-" in etag else "md5", etag))


class ObjectStore:
    """Reads the objects of one Zarr asset by their keys (``units/id/.zarray``); every content is checked.

    Parameters
    ----------
    address
        Gives the URL of a key.
    entries
        Every object there is.
    patience, sleep
        Limits, and what waits.
    """

    def __init__(
        self,
        address: Callable[[str], str],
        entries: Mapping[str, ObjectEntry],
        *,
        patience: Patience,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._address, self._entries = address, entries
        self._patience, self._sleep = patience, sleep
        self._client: httpx.Client | None = None
        self.received = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a later ``get`` opens another."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def keys(self, prefix: str = "") -> tuple[str, ...]:
        """All keys that begin with ``prefix``, sorted; nothing is asked."""
        return tuple(sorted(key for key in self._entries if key.startswith(prefix)))

    def get(self, key: str) -> bytes | None:
        """Content of one object, None where the asset has no such object.

        Raises
        ------
        RecordingError
            ``changed_upstream`` for another size, ``digest_mismatch`` for wrong bytes twice in a row,
            ``unreachable_upstream`` for a refusal, ``retries_exhausted``.
        """
        entry = self._entries.get(key)
        if entry is None:
            return None
        content = self._receive(key, entry)
        if (found := Digest.of(content, entry.digest.algorithm)) != entry.digest:
            content = self._receive(key, entry)
            found = Digest.of(content, entry.digest.algorithm)
        if found != entry.digest:
            raise mismatch(entry.digest, found, self._address(key))
        return content

    def _receive(self, key: str, entry: ObjectEntry) -> bytes:
        import httpx

        url = self._address(key)
        attempts = Attempts(self._patience, url, self._sleep)
        while True:
            try:
                return self._attempt(url, entry)
            except (TryAgainError, httpx.RequestError) as error:
                attempts.failed(error)

    def _attempt(self, url: str, entry: ObjectEntry) -> bytes:
        if self._client is None:
            self._client = open_client(self._patience)
        content = bytearray()
        with self._client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
            check_status(response.status_code, response.headers, url)
            _check_length(response.headers.get("content-length", str(entry.size)), entry, url)
            for chunk in response.iter_raw():
                self.received += len(chunk)
                content += chunk
                if len(content) > entry.size:
                    _check_length("more", entry, url)
        if len(content) < entry.size:
            raise TryAgainError(f"the body ended at byte {len(content)} of {entry.size}")
        return bytes(content)


def _check_length(length: str, entry: ObjectEntry, url: str) -> None:
    if length != str(entry.size):
        raise RecordingError(
            FailureCode.CHANGED_UPSTREAM,
            f"it has {length} bytes, the archive's listing says {entry.size}",
            where=url,
            next_step="refresh the catalog and plan again",
        )


def key_below(base: str) -> Callable[[str], str]:
    """Address of a key below ``base``, quoted once."""
    return lambda key: f"{base.rstrip('/')}/{quote(key)}"


def checksum_of(entries: Mapping[str, ObjectEntry]) -> str:
    """DANDI's checksum of a Zarr asset, from its listing: ``<md5>-<files>--<bytes>``."""
    from pathlib import Path

    from zarr_checksum.tree import ZarrChecksumTree

    tree = ZarrChecksumTree()
    for key, entry in entries.items():
        tree.add_leaf(Path(key), entry.size, entry.digest.hex)
    return str(tree.process())
