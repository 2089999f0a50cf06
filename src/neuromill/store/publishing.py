"""Write one group out of sight, list every file in its manifest, publish it in one step."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from neuromill.records import Digest
from neuromill.store.errors import CorruptStoreError, StoreError
from neuromill.store.layout import (
    MANIFEST_FILE,
    METADATA_FILE,
    ArraySpec,
    array_document,
    group_document,
    group_name,
    metadata_bytes,
)
from neuromill.store.shards import encode_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from neuromill.store.filesystem import FileSystem, Sink

READ_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True, order=True)
class GroupFile:
    """One line of a manifest."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PublishedGroup:
    """What ``publish`` did.

    ``created`` is False where the same bytes were there already; ``digest`` is that of the manifest.
    """

    recording: str
    created: bool
    n_bytes: int
    digest: str


class GroupWriter:
    """One group in the making. Nothing is visible before ``publish``; leaving the context without it removes all."""

    def __init__(self, fs: FileSystem, recording: str) -> None:
        self._fs, self.recording = fs, recording
        self._name = group_name(recording)
        self._staging = fs.stage(self._name)
        self._files: list[GroupFile] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._staging.discard()

    @contextmanager
    def _file(self, path: str) -> Iterator[_HashingSink]:
        with self._staging.create(path) as sink:
            hashing = _HashingSink(sink)
            yield hashing
        self._files.append(GroupFile(path, hashing.size, hashing.hexdigest()))

    def _metadata(self, path: str, document: Mapping[str, Any]) -> bytes:
        data = metadata_bytes(document)
        with self._file(path) as sink:
            sink.write(data)
        return data

    def add_array(self, spec: ArraySpec, blocks: Iterable[NDArray[Any]]) -> None:
        """Write an array from blocks of rows [row, ...] of any length, in order; every shard is written once.

        Raises
        ------
        StoreError
            If the blocks hold more or fewer rows than ``spec``, rows of another shape, or a dtype that does not cast to
            its within one kind.
        """
        self._metadata(f"{spec.name}/{METADATA_FILE}", array_document(spec))
        rows = _Rows(blocks, spec)
        for shard in range(spec.n_shards):
            with self._file(spec.file(shard)) as sink:
                self._write_shard(sink, spec, rows, shard)
        rows.require_empty()

    @staticmethod
    def _write_shard(sink: Sink, spec: ArraySpec, rows: _Rows, shard: int) -> None:
        if spec.shard_rows is None:
            sink.write(_bytes_of(rows.take(spec.chunk_rows)))
            return
        used = -(-min(spec.shard_rows, spec.shape[0] - shard * spec.shard_rows) // spec.chunk_rows)
        for _ in range(used):
            chunk = _bytes_of(rows.take(spec.chunk_rows))
            sink.write(chunk)
        sink.write(encode_index(used, spec.shard_rows // spec.chunk_rows, len(chunk)))

    def publish(self, attributes: Mapping[str, Any], *, replace: bool = False) -> PublishedGroup:
        """Write group metadata and manifest, then give the group its name.

        Raises
        ------
        StoreError
            If a group with other bytes has that name and ``replace`` is False.
        """
        self._metadata(METADATA_FILE, group_document(attributes))
        files = sorted(self._files)
        manifest = self._metadata(MANIFEST_FILE, manifest_document(files))
        digest = Digest.of(manifest).hex
        n_bytes = len(manifest) + sum(file.size for file in files)
        if self._fs.exists(self._name) and self._is_same(manifest):
            self._staging.discard()
            return PublishedGroup(self.recording, created=False, n_bytes=n_bytes, digest=digest)
        self._staging.publish(self._name, replace=replace)
        return PublishedGroup(self.recording, created=True, n_bytes=n_bytes, digest=digest)

    def _is_same(self, manifest: bytes) -> bool:
        """Whether the very bytes are published: a damaged group with the same manifest has to be replaced."""
        path = f"{self._name}/{MANIFEST_FILE}"
        if not self._fs.exists(path) or self._fs.read_bytes(path) != manifest:
            return False
        try:
            return all(file_sha256(self._fs, f"{self._name}/{f.path}", f.size) == f.sha256 for f in self._files)
        except StoreError:
            return False


class _HashingSink:
    """Counts and hashes what goes through."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._hasher, self.size = sink, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview, /) -> int:
        self._hasher.update(data)
        self.size += len(data)
        return self._sink.write(data)

    def hexdigest(self) -> str:
        return self._hasher.hexdigest()


class _Rows:
    """Cuts blocks of rows into chunks; what lies after the last row of the array is fill."""

    def __init__(self, blocks: Iterable[NDArray[Any]], spec: ArraySpec) -> None:
        self._blocks, self._spec = iter(blocks), spec
        self._dtype = np.dtype(spec.dtype).newbyteorder("<")
        self._block = np.empty((0, *spec.row_shape), self._dtype)
        self._left = spec.shape[0]

    def take(self, n_rows: int) -> NDArray[Any]:
        """Return the next ``n_rows`` rows, padded after the end of the array."""
        out = np.full((n_rows, *self._spec.row_shape), fill_value(self._spec.fill), self._dtype)
        wanted = min(n_rows, self._left)
        done = 0
        while done < wanted:
            if not len(self._block):
                self._block = self._next_block(wanted - done)
            piece = self._block[: wanted - done]
            out[done : done + len(piece)] = piece
            self._block = self._block[len(piece) :]
            done += len(piece)
        self._left -= wanted
        return out

    def _next_block(self, missing: int) -> NDArray[Any]:
        block = next(self._blocks, None)
        if block is None:
            raise StoreError(f"blocks end {missing} rows before the array does", where=self._spec.name)
        if block.shape[1:] != self._spec.row_shape or not np.can_cast(block.dtype, self._dtype, "same_kind"):
            raise StoreError(f"block is {block.dtype}{block.shape}, array is {self._spec}", where=self._spec.name)
        return block

    def require_empty(self) -> None:
        """Raise if the blocks hold more rows than the array."""
        if len(self._block) or any(len(block) for block in self._blocks):
            raise StoreError("blocks hold more rows than the array", where=self._spec.name)


def _bytes_of(rows: NDArray[Any]) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data


def fill_value(fill: float | str) -> float:
    """Fill value of a metadata document as a number."""
    return float(fill) if isinstance(fill, str) else fill


def file_sha256(fs: FileSystem, path: str, size: int) -> str:
    """SHA-256 of the first ``size`` bytes of a file; ``StoreError`` where it is missing or shorter."""
    hasher = hashlib.sha256()
    buffer = np.empty(min(size, READ_BYTES), np.uint8)
    for start in range(0, size, READ_BYTES):
        piece = buffer[: min(READ_BYTES, size - start)]
        fs.read_into(path, start, piece)
        hasher.update(piece.data)
    return hasher.hexdigest()


def manifest_document(files: Iterable[GroupFile]) -> dict[str, Any]:
    """Manifest as a Zarr group without arrays: a plain file beside the arrays would make zarr-python warn."""
    rows = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in files]
    return group_document({"format": "neuromill-manifest", "format_version": 1, "files": rows})


def read_manifest(fs: FileSystem, group: str) -> tuple[GroupFile, ...]:
    """Files of a group as its manifest lists them; ``CorruptStoreError`` where it cannot be read."""
    where = f"{group}/{MANIFEST_FILE}"
    try:
        rows = json.loads(fs.read_bytes(where))["attributes"]["files"]
        return tuple(GroupFile(str(r["path"]), int(r["size"]), str(r["sha256"])) for r in rows)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStoreError(
            "manifest cannot be read", where=where, next_step="run its stage again: a damaged group is replaced"
        ) from error
