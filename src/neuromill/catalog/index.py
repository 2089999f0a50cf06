"""The recording index: one Parquet file per dataset version, one row per recording."""

from __future__ import annotations

import os
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuromill.records import (
    ENTITIES,
    ConfigError,
    Digest,
    Entities,
    FileState,
    Recording,
    RecordingId,
    SourceFile,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pyarrow as pa

SCHEMA_VERSION = "1.1"  # major.minor: a reader takes every minor version of a major version it knows
SCHEMA_KEY = b"neuromill.recording_index"
_FACTS = ("n_channels", "sfreq", "duration_seconds", "line_freq")
# "recording" and "split" are BIDS entities too; as columns they are the recording's name and the card's split.
ENTITIES_COLUMNS = {name: f"{name}_entity" if name in ("recording", "split") else name for name in ENTITIES}


def index_schema() -> pa.Schema:
    """Columns of the index; entities are strings, "" where absent, numbers are null where nobody says them."""
    import pyarrow as pa

    member = pa.struct([("path", pa.string()), ("size", pa.int64()), ("digest", pa.string()), ("locator", pa.string()), ("state", pa.string())])  # fmt: skip  # noqa: E501
    texts = ("dataset", "version", "recording", "path", *ENTITIES_COLUMNS.values(), "datatype", "suffix", "format")
    columns = [(name, pa.string()) for name in texts]
    columns += [("n_channels", pa.int64()), *((name, pa.float64()) for name in _FACTS[1:])]
    columns += [("size", pa.int64()), ("n_members", pa.int64())]
    columns += [(name, pa.string()) for name in ("layout", "input_digest", "split")]
    return pa.schema([*columns, ("members", pa.list_(member))], metadata={SCHEMA_KEY: SCHEMA_VERSION.encode()})


def index_table(recordings: Iterable[Recording], split_of: Callable[[Recording], str] | None = None) -> pa.Table:
    """Make an Arrow table of recordings, sorted by dataset, version and name; ``split`` is "" without ``split_of``."""
    import pyarrow as pa

    rows = sorted(recordings, key=lambda r: (r.id.dataset, r.id.version, r.id.name))
    return pa.Table.from_pylist([_row(r, split_of(r) if split_of else "") for r in rows], schema=index_schema())


def write_index(
    path: Path, recordings: Iterable[Recording], split_of: Callable[[Recording], str] | None = None
) -> None:
    """Write the index in one step: temporary name, fsync, rename. Same recordings, same bytes.

    Raises
    ------
    ConfigError
        Two recordings with one id.
    """
    import pyarrow.parquet as pq

    recordings = tuple(recordings)
    if len({r.id for r in recordings}) != len(recordings):
        raise ConfigError("two recordings have the same id", where=str(path), next_step="discover the dataset again")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            pq.write_table(index_table(recordings, split_of), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_table(path: Path) -> pa.Table:
    """Read the index as an Arrow table.

    Raises
    ------
    ConfigError
        Not there, not an index, or written by a newer major version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    again = "run 'neuromill catalog refresh'"
    try:
        table = pq.ParquetFile(path).read()
    except FileNotFoundError as error:
        raise ConfigError("there is no recording index", where=str(path), next_step=again) from error
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"cannot read the recording index: {error}", where=str(path), next_step=again) from error
    version = (table.schema.metadata or {}).get(SCHEMA_KEY, b"").decode("ascii", "replace")
    if not version:
        raise ConfigError("this Parquet file is no recording index", where=str(path), next_step=again)
    if version.partition(".")[0] != SCHEMA_VERSION.partition(".")[0]:
        raise ConfigError(
            f"the index has schema {version}, this program knows {SCHEMA_VERSION}", where=str(path),
            next_step="use the newer neuromill, or refresh the index with this one",
        )  # fmt: skip
    return table


def read_index(path: Path) -> tuple[Recording, ...]:
    """Read the recordings of an index, as they were written. Raises as `read_table`."""
    return table_recordings(read_table(path))


def table_recordings(table: pa.Table) -> tuple[Recording, ...]:
    """Make recordings of an Arrow table with the columns of the index."""
    return tuple(_recording(row) for row in table.to_pylist())


def _row(recording: Recording, split: str) -> dict[str, Any]:
    return {
        "dataset": recording.id.dataset,
        "version": recording.id.version,
        "recording": recording.id.name,
        "path": recording.path,
        **{column: getattr(recording.entities, name) for name, column in ENTITIES_COLUMNS.items()},
        **{name: getattr(recording, name) for name in ("datatype", "suffix", "format", *_FACTS, "size")},
        "n_members": len(recording.members),
        "layout": recording.layout,
        "input_digest": recording.input_digest,
        "split": split,
        "members": [_member_row(member) for member in recording.members],
    }


def _member_row(member: SourceFile) -> dict[str, Any]:
    row = {column.name: getattr(member, column.name) for column in fields(SourceFile)}
    return row | {"digest": str(member.digest) if member.digest else None, "state": member.state.value}


def _recording(row: Mapping[str, Any]) -> Recording:
    return Recording(
        id=RecordingId(row["dataset"], row["version"], row["recording"]),
        path=row["path"],
        members=tuple(_member(member) for member in row["members"]),
        entities=Entities(**{name: row[column] for name, column in ENTITIES_COLUMNS.items()}),
        **{name: row[name] for name in ("datatype", "suffix", "format", *_FACTS)},
        layout=row.get("layout") or "",
    )


def _member(row: Mapping[str, Any]) -> SourceFile:
    digest = Digest.parse(row["digest"]) if row["digest"] else None
    return SourceFile(row["path"], row["size"], digest, row["locator"], FileState(row["state"]))
