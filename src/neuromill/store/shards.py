"""The bytes of a shard: inner chunks back to back, then the index (offset and size of each chunk) and its crc32c."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np

from neuromill.store.errors import CorruptStoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MISSING = 2**64 - 1
ENTRY_BYTES = 16
CHECKSUM_BYTES = 4


@dataclass(frozen=True, slots=True, eq=False)
class ShardMap:
    """Where the chunks of a shard lie.

    Attributes
    ----------
    base
        Byte offset of row 0 where all chunks in use lie in order, back to back; None otherwise.
    offsets
        [chunk in use] int64 byte offsets, -1 for a chunk that was never written.
    """

    base: int | None
    offsets: NDArray[np.int64]


def index_size(n_chunks: int) -> int:
    """Bytes of the index at the end of a shard."""
    return n_chunks * ENTRY_BYTES + CHECKSUM_BYTES


def encode_index(n_written: int, n_chunks: int, chunk_bytes: int) -> bytes:
    """Index of a shard whose first ``n_written`` chunks lie in order and whose others were never written."""
    entries = np.full((n_chunks, 2), MISSING, "<u8")
    entries[:n_written, 0] = np.arange(n_written, dtype="<u8") * np.uint64(chunk_bytes)
    entries[:n_written, 1] = chunk_bytes
    data = entries.tobytes()
    return data + int(google_crc32c.value(data)).to_bytes(CHECKSUM_BYTES, "little")


def parse_index(data: bytes, *, n_used: int, chunk_bytes: int, file_bytes: int, where: str) -> ShardMap:
    """Check and read the index of a shard.

    Parameters
    ----------
    data
        The last ``index_size(n_chunks)`` bytes of the file.
    n_used
        Chunks that hold rows of the array (those after its end do not matter).
    chunk_bytes
        Size of every chunk; raw chunks have no other.
    file_bytes
        Size of the file.
    where
        Named in errors.

    Raises
    ------
    CorruptStoreError
        If the checksum is wrong or an entry points outside the file.
    """
    body, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if int(google_crc32c.value(body)).to_bytes(CHECKSUM_BYTES, "little") != checksum:
        raise _corrupt("checksum of the shard index is wrong", where)
    entries = np.frombuffer(body, "<u8").reshape(-1, 2)[:n_used]
    missing = (entries == MISSING).all(axis=1)
    offsets = np.where(missing, np.uint64(0), entries[:, 0]).astype(np.int64)
    sizes_fit = bool((entries[~missing, 1] == chunk_bytes).all())
    if not sizes_fit or bool((offsets < 0).any() | (offsets[~missing] > file_bytes - len(data) - chunk_bytes).any()):
        raise _corrupt("shard index points outside the chunks of the file", where)
    offsets[missing] = -1
    in_order = not missing.any() and bool((np.diff(offsets) == chunk_bytes).all())
    return ShardMap(int(offsets[0]) if in_order else None, offsets)


def _corrupt(what: str, where: str) -> CorruptStoreError:
    return CorruptStoreError(what, where=where, next_step="run `neuromill shards verify`, then prepare it again")
