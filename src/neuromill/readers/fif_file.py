"""Look over a FIF file tag by tag before MNE opens it.

MNE 1.13 opens a FIF file that ends in the middle of its samples and fails when the missing ones are read; it fills
gaps with zeros. A FIF file is a chain of tags (kind, type, size, next: four big-endian int32, then ``size`` bytes),
so completeness, gaps, and MaxShield show in the chain without reading a sample.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from struct import Struct
from typing import IO, TYPE_CHECKING, NamedTuple

from neuromill.readers.complaints import empty, not_continuous, truncated, unreadable, unsupported
from neuromill.records import FailureCode, RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_ID, DIRECTORY, BLOCK_START, NOP, DATA_BUFFER, DATA_SKIP = 100, 102, 104, 108, 300, 301
RAW_DATA, CONTINUOUS_DATA, IAS_RAW_DATA = 102, 112, 119
GZIP_MAGIC = b"\x1f\x8b"
HEADER = Struct(">iiii")
INT = Struct(">i")
END_OF_CHAIN = -1
TAIL = HEADER.pack(NOP, 0, 0, END_OF_CHAIN)  # what MNE writes last; acquisition software ends with the directory


class Tag(NamedTuple):
    """One tag: its kind, its size in bytes, and its value where the tag opens a block."""

    kind: int
    size: int
    block: int = 0


@dataclass(frozen=True, slots=True)
class FifOverview:
    """What the chain of tags says: which raw blocks there are, how many buffers, whether a gap lies between two."""

    blocks: frozenset[int]
    n_buffers: int
    has_gap: bool


def check_fif(path: Path, where: str) -> None:
    """Raise the code of a FIF file that MNE would open although it should not, or open with other words.

    Raises
    ------
    RecordingError
        ``unreadable`` (no FIF, gzip under a plain name, a broken tag), ``truncated``, ``maxshield`` (internal active
        shielding not yet removed), ``unsupported_format`` (no raw data: averages, projectors), ``empty``,
        ``not_continuous`` (samples skipped between two buffers).
    """
    overview = look_over(path, where)
    if overview.blocks & {IAS_RAW_DATA} and not overview.blocks & {RAW_DATA, CONTINUOUS_DATA}:
        raise RecordingError(
            FailureCode.MAXSHIELD,
            "recorded with MaxShield and not yet processed: the shielding signals are still in the samples",
            where=where,
            next_step="run SSS (MaxFilter or mne.preprocessing.maxwell_filter) with the site's calibration first",
        )
    if not overview.blocks & {RAW_DATA, CONTINUOUS_DATA}:
        raise unsupported("FIF file without raw data", where, "averages and epochs are no recordings; leave it out")
    if overview.n_buffers == 0:
        raise empty("FIF file whose raw data block has no samples", where)
    if overview.has_gap:
        raise not_continuous("acquisition was paused: samples are skipped inside the file", where)


def look_over(path: Path, where: str) -> FifOverview:
    """Walk the chain of tags; raises ``truncated`` or ``unreadable``."""
    blocks: set[int] = set()
    buffers, skipped, gap = 0, False, False
    for tag in walk(path, where):
        if tag.kind == BLOCK_START:
            blocks.add(tag.block)
        elif tag.kind == DATA_SKIP:
            skipped = buffers > 0
        elif tag.kind == DATA_BUFFER:
            gap, skipped, buffers = gap or skipped, False, buffers + 1
    return FifOverview(frozenset(blocks), buffers, gap)


def walk(path: Path, where: str) -> Iterator[Tag]:
    """Yield the tags of a FIF file, gzip-compressed where its name ends in ``.gz``.

    Raises
    ------
    RecordingError
        ``truncated`` where the file or its gzip stream ends early, ``unreadable`` where it is damaged or no FIF file.
    """
    if path.suffix != ".gz":
        with path.open("rb") as file:
            yield from _walk(file, path.stat().st_size, where)
        return
    try:
        with gzip.open(path) as file:
            size = file.seek(0, 2)  # decompresses once, so a broken or short stream shows here
            yield from _walk(file, size, where)
    except EOFError as error:
        raise truncated(f"gzip stream ends early: {error}", where) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise unreadable(f"gzip stream is damaged: {error}", where) from error


def _walk(file: IO[bytes] | gzip.GzipFile, size: int, where: str) -> Iterator[Tag]:
    complete = _has_end(file, size)
    position, previous = 0, -1
    while position > previous:
        file.seek(position)
        head = file.read(HEADER.size)
        if len(head) < HEADER.size:
            raise truncated("FIF file ends without its end tag", where)
        kind, _, length, following = HEADER.unpack(head)
        if position == 0 and kind != FILE_ID:
            raise _not_fif(head, where)
        if length < 0 or (complete and position + HEADER.size + length > size):
            raise unreadable(f"a tag at byte {position} claims {length} bytes, more than the file has", where)
        if position + HEADER.size + length > size:
            raise truncated(f"FIF file ends inside the tag at byte {position}", where)
        block = INT.unpack(file.read(INT.size))[0] if kind == BLOCK_START and length == INT.size else 0
        yield Tag(kind, length, block)
        previous = position
        if following == END_OF_CHAIN:
            return
        position = following or position + HEADER.size + length
        if kind == DIRECTORY and position >= size:
            return
    raise unreadable(f"the chain of tags runs backwards at byte {previous}", where)


def _has_end(file: IO[bytes] | gzip.GzipFile, size: int) -> bool:
    """Whether the file ends as a finished one does, so that a tag beyond its end is a broken tag, not a lost rest."""
    if size < len(TAIL):
        return False
    file.seek(size - len(TAIL))
    return file.read(len(TAIL)) == TAIL


def _not_fif(head: bytes, where: str) -> RecordingError:
    if head.startswith(GZIP_MAGIC):
        return unreadable(
            "gzip-compressed FIF without .gz in its name", where, "rename it to .fif.gz, or decompress it"
        )
    return unreadable("file does not start with a FIF file id", where)
