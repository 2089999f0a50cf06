"""``index.parquet``: every file of every group of a store, so that a reader opens nothing but it and shard files.

One row per (recording, array, shard), sorted. Group and array attributes stand on the first row they belong to.
Written by one coordinator from the groups themselves; it holds nothing that cannot be read from them again, except
the extra columns the coordinator passes (a split).
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from neuromill.records import ENTITIES, ConfigError, canonical_json
from neuromill.store.contents import IndexedArray, IndexedRecording, IndexedShard, describe_store
from neuromill.store.errors import CorruptStoreError, StoreError
from neuromill.store.filesystem import open_file_system
from neuromill.store.layout import INDEX_FILE, ArraySpec, group_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from neuromill.store.filesystem import FileSystem

# The names of these two entities mean something else here: a group, and the share of the data it belongs to.
COLUMN_ENTITIES = tuple(entity for entity in ENTITIES if entity not in ("recording", "split"))
REBUILD = "rebuild the index from the groups"
INDEX_FORMAT = {"format": "neuromill-index", "format_version": "1"}


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Recordings that an index holds, and by name what is wrong with the groups it leaves out."""

    n_recordings: int
    damaged: Mapping[str, StoreError] = field(default_factory=dict)


def rebuild_index(store: str | Path, *, extra: Mapping[str, Mapping[str, str]] | None = None) -> Rebuilt:
    """Remove what killed writers left, write ``index.parquet`` from the groups that are whole.

    One damaged group does not keep the others from being read: it is left out and told.

    Parameters
    ----------
    store
        Folder of the store identity.
    extra
        Further string columns by recording, e.g. ``{"sub-01_meg": {"split": "train"}}``; absent values are "".

    Raises
    ------
    ConfigError
        If an extra column has the name of one of the index.
    """
    fs = open_file_system(store)
    fs.clean_leftovers()
    recordings, damaged = describe_store(fs)
    fs.replace_bytes(INDEX_FILE, index_bytes(recordings, extra or {}))
    fs.close()
    return Rebuilt(len(recordings), damaged)


def index_bytes(recordings: Iterable[IndexedRecording], extra: Mapping[str, Mapping[str, str]]) -> bytes:
    """Return the Parquet file for these recordings, sorted by name; ``ConfigError`` as ``rebuild_index`` has it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = sorted({column for columns in extra.values() for column in columns})
    schema = _schema()
    if taken := set(names) & set(schema.names):
        raise ConfigError(f"index columns cannot be replaced: {', '.join(sorted(taken))}", next_step="rename them")
    for name in names:
        schema = schema.append(pa.field(name, pa.string()))
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for recording in sorted(recordings, key=lambda r: r.name):
        own = {name: extra.get(recording.name, {}).get(name, "") for name in names}
        for row in _rows(recording):
            for name, value in {**row, **own}.items():
                columns[name].append(value)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def read_index(store: str | Path) -> tuple[IndexedRecording, ...]:
    """Read the index of a store, sorted by recording.

    Raises
    ------
    ConfigError
        If the store has no index.
    CorruptStoreError
        If the file is not an index of this version.
    """
    fs = open_file_system(store)
    if not fs.exists(INDEX_FILE):
        raise ConfigError("store has no index", where=str(store), next_step="rebuild it from the groups")
    table = _read_table(fs)
    extras = [name for name in table.schema.names if name not in _schema().names]
    try:
        grouped = groupby(table.to_pylist(), key=itemgetter("recording"))
        return tuple(_recording(name, list(group), extras) for name, group in grouped)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptStoreError("index rows cannot be read", where=INDEX_FILE, next_step=REBUILD) from error


def _read_table(fs: FileSystem) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(fs.read_bytes(INDEX_FILE)), page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptStoreError("index cannot be read", where=INDEX_FILE, next_step=REBUILD) from error
    found = table.schema.metadata or {}
    if any(found.get(key.encode()) != value.encode() for key, value in INDEX_FORMAT.items()):
        raise CorruptStoreError("not an index of this version", where=INDEX_FILE, next_step=REBUILD)
    return table


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, number, sizes = pa.string(), pa.int64(), pa.list_(pa.int64())
    columns = {
        "recording": text,
        "dataset": text,
        "version": text,
        **dict.fromkeys(COLUMN_ENTITIES, text),
        "modality": text,
        "kind": text,
        "sfreq": pa.float64(),
        "n_channels": number,
        "array": text,
        "dims": pa.list_(text),
        "shape": sizes,
        "dtype": text,
        "chunk_rows": number,
        "shard_rows": number,
        "row_bytes": number,
        "fill": text,
        "layout": text,
        "file": text,
        "start": number,
        "length": number,
        "byte_offset": number,
        "file_bytes": number,
        "sha256": text,
        "array_attributes": text,
        "attributes": text,
    }
    return pa.schema([pa.field(name, kind) for name, kind in columns.items()], metadata=INDEX_FORMAT)


def _rows(recording: IndexedRecording) -> Iterator[dict[str, Any]]:
    """Rows of one recording, one per shard."""
    a = recording.attributes
    head = {
        **{entity: a["entities"].get(entity, "") for entity in COLUMN_ENTITIES},
        "recording": recording.name,
        "dataset": a["dataset"],
        "version": a["version"],
        "modality": a["modality"],
        "kind": a["kind"],
        "sfreq": a["sfreq"],
        "n_channels": recording.n_channels,
    }
    attributes: str | None = canonical_json(a).decode()
    for _, array in sorted(recording.arrays.items()):
        own: str | None = canonical_json(dict(array.spec.attributes)).decode()
        for shard in array.shards:
            yield {
                **head,
                **_array_columns(array),
                **_shard_columns(shard),
                "array_attributes": own,
                "attributes": attributes,
            }
            own = attributes = None


def _array_columns(array: IndexedArray) -> dict[str, Any]:
    spec = array.spec
    return {
        "array": spec.name,
        "dims": list(spec.dims),
        "shape": list(spec.shape),
        "dtype": spec.dtype,
        "chunk_rows": spec.chunk_rows,
        "shard_rows": spec.shard_rows,
        "row_bytes": array.row_bytes,
        "fill": json.dumps(spec.fill),
        "layout": array.layout,
    }


def _shard_columns(shard: IndexedShard) -> dict[str, Any]:
    names = ("file", "start", "length", "byte_offset", "file_bytes", "sha256")
    return {name: getattr(shard, name) for name in names}


def _recording(name: str, rows: list[dict[str, Any]], extras: list[str]) -> IndexedRecording:
    by_array: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_array[row["array"]].append(row)
    arrays = {array: _array(group_name(name), own) for array, own in by_array.items()}
    return IndexedRecording(
        name, json.loads(rows[0]["attributes"]), arrays, {extra: rows[0][extra] for extra in extras}
    )


def _array(group: str, rows: list[dict[str, Any]]) -> IndexedArray:
    row = rows[0]
    spec = ArraySpec(
        name=row["array"],
        dims=tuple(row["dims"]),
        shape=tuple(row["shape"]),
        dtype=row["dtype"],
        chunk_rows=row["chunk_rows"],
        shard_rows=row["shard_rows"],
        fill=json.loads(row["fill"]),
        attributes=json.loads(row["array_attributes"]),
    )
    shards = tuple(
        IndexedShard(r["file"], r["start"], r["length"], r["byte_offset"], r["file_bytes"], r["sha256"]) for r in rows
    )
    return IndexedArray(group, spec, row["layout"], shards)
