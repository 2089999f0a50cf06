"""What a store holds, as frozen types; ``describe_group`` reads them from one group without an index."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.records import canonical_json
from neuromill.store.errors import CorruptStoreError, StoreError, UnsupportedLayoutError
from neuromill.store.layout import (
    GROUP_SUFFIX,
    MANIFEST_FILE,
    METADATA_FILE,
    ArraySpec,
    array_document,
    group_name,
)
from neuromill.store.publishing import read_manifest
from neuromill.store.shards import ShardMap, index_size, parse_index

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuromill.store.filesystem import FileSystem
    from neuromill.store.publishing import GroupFile

MAKE_AGAIN = "run its stage again: a damaged group is replaced"
MAIN_ARRAYS: Mapping[str, str] = {
    "signal": "signal",
    "tokens": "codes",
    "features": "features",
    "spikes": "counts",
    "spike_tokens": "slots",
}
COLUMN_NAMES = {"spikes": "unit_names", "spike_tokens": "unit_names"}
"""Attribute that names the columns of a recording, where that is not ``channel_names``."""


@dataclass(frozen=True, slots=True)
class IndexedShard:
    """One file of an array: rows ``start`` to ``start + length``.

    ``byte_offset`` is where row ``start`` lies when all rows follow in order, None where they do not; ``file`` is
    relative to the store, "" for a shard that was never written.
    """

    file: str
    start: int
    length: int
    byte_offset: int | None
    file_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class IndexedArray:
    """One array and its files; ``layout`` is ``layout_of`` its metadata."""

    group: str
    spec: ArraySpec
    layout: str
    shards: tuple[IndexedShard, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.spec.shape

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimension names."""
        return self.spec.dims

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored number format."""
        return np.dtype(self.spec.dtype)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * int(np.prod(self.spec.row_shape, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class IndexedRecording:
    """One group. ``extra`` are the columns the coordinator added to the index (a split)."""

    name: str
    attributes: Mapping[str, Any]
    arrays: Mapping[str, IndexedArray]
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """One of ``MAIN_ARRAYS``."""
        return str(self.attributes["kind"])

    @property
    def entities(self) -> Mapping[str, str]:
        """BIDS labels by long name; absent ones are left out."""
        labels: Mapping[str, str] = self.attributes["entities"]
        return labels

    @property
    def sfreq(self) -> float:
        """Sampling frequency of the signal (also behind codes), Hz; bins per second of spikes."""
        return float(self.attributes["sfreq"])

    @property
    def main(self) -> IndexedArray:
        """The array of the recording's rows: ``signal``, ``codes``, ``features``, ``counts``, ``slots``."""
        return self.arrays[MAIN_ARRAYS[self.kind]]

    @property
    def n_rows(self) -> int:
        """Samples, frames, bins or tokens."""
        return self.main.shape[0]

    @property
    def n_channels(self) -> int:
        """Channels, or units."""
        return len(self.attributes[COLUMN_NAMES.get(self.kind, "channel_names")])


def list_recordings(fs: FileSystem) -> list[str]:
    """Names of the published groups of a store, sorted; staging folders do not count."""
    return [n.removesuffix(GROUP_SUFFIX) for n in fs.names() if n.endswith(GROUP_SUFFIX) and not n.startswith(".")]


def describe_group(fs: FileSystem, recording: str) -> IndexedRecording:
    """Read metadata, manifest and shard indexes of one group.

    Raises
    ------
    StoreError
        If there is no such group.
    CorruptStoreError
        If its metadata, manifest or a shard index cannot be read.
    """
    group = group_name(recording)
    attributes = read_metadata(fs, f"{group}/{METADATA_FILE}").get("attributes", {})
    files = {file.path: file for file in read_manifest(fs, group)}
    suffix = f"/{METADATA_FILE}"
    names = [path.removesuffix(suffix) for path in files if path.endswith(suffix) and path != MANIFEST_FILE]
    arrays = {name: _describe_array(fs, group, name, files) for name in sorted(names)}
    return IndexedRecording(recording, attributes, arrays)


def describe_whole(fs: FileSystem, recording: str) -> IndexedRecording:
    """``describe_group`` for a group that every file is there for: sizes and the digests of all metadata are tested.

    Cheap beside ``verify``: of the shards, only sizes and indexes are read.

    Raises
    ------
    MissingFileError
        If a file of the group is missing, or all of it.
    CorruptStoreError
        If a file is not what the manifest says, or cannot be read.
    """
    group = group_name(recording)
    for file in read_manifest(fs, group):
        path = f"{group}/{file.path}"
        size = fs.size(path)
        if size != file.size:
            raise CorruptStoreError(
                f"file has {size} bytes, the manifest says {file.size}", where=path, next_step=MAKE_AGAIN
            )
        if path.endswith(METADATA_FILE) and hashlib.sha256(fs.read_bytes(path)).hexdigest() != file.sha256:
            raise CorruptStoreError("metadata is not what was written", where=path, next_step=MAKE_AGAIN)
    return describe_group(fs, recording)


def describe_store(fs: FileSystem) -> tuple[list[IndexedRecording], dict[str, StoreError]]:
    """Every group of a store that is whole, and by name what is wrong with each other one."""
    whole: list[IndexedRecording] = []
    damaged: dict[str, StoreError] = {}
    for name in list_recordings(fs):
        try:
            whole.append(describe_whole(fs, name))
        except StoreError as error:
            damaged[name] = error
    return whole, damaged


def read_metadata(fs: FileSystem, path: str) -> dict[str, Any]:
    """One ``zarr.json``; ``CorruptStoreError`` where it is no JSON object."""
    try:
        document = json.loads(fs.read_bytes(path))
    except ValueError as error:
        raise CorruptStoreError("metadata is not JSON", where=path, next_step=MAKE_AGAIN) from error
    if not isinstance(document, dict):
        raise CorruptStoreError("metadata is not a JSON object", where=path, next_step=MAKE_AGAIN)
    return document


def _describe_array(fs: FileSystem, group: str, name: str, files: Mapping[str, GroupFile]) -> IndexedArray:
    where = f"{group}/{name}/{METADATA_FILE}"
    document = read_metadata(fs, where)
    try:
        spec, layout = spec_of(name, document), layout_of(document)
    except (KeyError, TypeError, IndexError) as error:
        raise CorruptStoreError("metadata lacks a field", where=where, next_step=MAKE_AGAIN) from error
    array = IndexedArray(group, spec, layout, ())
    shards = tuple(_describe_shard(fs, array, shard, files) for shard in range(spec.n_shards))
    return IndexedArray(group, spec, layout, shards)


def spec_of(name: str, document: Mapping[str, Any]) -> ArraySpec:
    """Specification of an array from its Zarr metadata; KeyError, TypeError, IndexError where that is malformed."""
    grid = tuple(int(n) for n in document["chunk_grid"]["configuration"]["chunk_shape"])
    first = document["codecs"][0]
    sharded = first["name"] == "sharding_indexed"
    inner = tuple(int(n) for n in first["configuration"]["chunk_shape"]) if sharded else grid
    return ArraySpec(
        name=name,
        dims=tuple(document.get("dimension_names") or ()),
        shape=tuple(int(n) for n in document["shape"]),
        dtype=str(document["data_type"]),
        chunk_rows=inner[0],
        shard_rows=grid[0] if sharded else None,
        fill=document["fill_value"],
        attributes=document.get("attributes", {}),
    )


def _describe_shard(fs: FileSystem, array: IndexedArray, shard: int, files: Mapping[str, GroupFile]) -> IndexedShard:
    spec = array.spec
    rows = spec.shard_rows or spec.chunk_rows
    start = shard * rows
    length = min(rows, spec.shape[0] - start)
    file = files.get(spec.file(shard))
    if file is None:
        return IndexedShard("", start, length, None, 0, "")
    entry = IndexedShard(f"{array.group}/{file.path}", start, length, None, file.size, file.sha256)
    base = read_shard_map(fs, array, entry).base if is_direct(array) else None
    return IndexedShard(entry.file, start, length, base, file.size, file.sha256)


def layout_of(document: Mapping[str, Any]) -> str:
    """How the metadata of an array says its bytes lie, as one text to compare."""
    return canonical_json([document[key] for key in ("chunk_grid", "chunk_key_encoding", "codecs")]).decode()


def is_direct(array: IndexedArray) -> bool:
    """Whether raw bytes of rows can be read straight from the files: the layout is the one we write."""
    return array.layout == layout_of(array_document(array.spec))


def require_direct(array: IndexedArray) -> None:
    """Raise ``UnsupportedLayoutError`` where ``is_direct`` is False."""
    if not is_direct(array):
        raise UnsupportedLayoutError(
            "codecs or chunks are not those of the direct reader",
            where=f"{array.group}/{array.spec.name}",
            next_step="read it through zarr-python",
        )


def read_shard_map(fs: FileSystem, array: IndexedArray, shard: IndexedShard) -> ShardMap:
    """Where the chunks of one shard file lie; its index is read and its checksum tested.

    Raises
    ------
    CorruptStoreError
        If the size of the file or the index is wrong.
    """
    spec = array.spec
    size = fs.size(shard.file)
    if size != shard.file_bytes:
        raise CorruptStoreError(
            f"file has {size} bytes, the manifest says {shard.file_bytes}",
            where=shard.file,
            next_step="run `neuromill shards verify`; rebuild the index if the group was replaced",
        )
    chunk_bytes = spec.chunk_rows * array.row_bytes
    if spec.shard_rows is None:
        return ShardMap(0, np.zeros(1, np.int64))
    tail = np.empty(index_size(spec.shard_rows // spec.chunk_rows), np.uint8)
    if size < len(tail):
        raise CorruptStoreError("file is shorter than its index", where=shard.file, next_step=MAKE_AGAIN)
    fs.read_into(shard.file, size - len(tail), tail)
    used = -(-shard.length // spec.chunk_rows)
    return parse_index(tail.tobytes(), n_used=used, chunk_bytes=chunk_bytes, file_bytes=size, where=shard.file)
