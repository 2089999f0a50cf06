"""Look over a KIT ``.con`` / ``.sqd`` file before MNE opens it.

The file starts with a table of sections (offset, element size, reserved, count: uint32 and three int32, little-endian);
entry 0 is the table itself, entry 9 the samples.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from neuromill.readers.complaints import truncated, unreadable

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = Struct("<Iiii")
RAW_DATA = 9
MAX_ENTRIES = 1024


def check_kit(path: Path, where: str) -> None:
    """Check that every section of a KIT file starts inside it; raises ``truncated`` or ``unreadable``."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(ENTRY.size)
        if len(head) < ENTRY.size:
            raise truncated(f"KIT file of {size} bytes", where)
        offset, _, _, count = ENTRY.unpack(head)
        if offset != 0 or not RAW_DATA < count <= MAX_ENTRIES:
            raise unreadable("file does not start with a KIT table of sections", where)
        table = head + file.read((count - 1) * ENTRY.size)
    if len(table) < count * ENTRY.size:
        raise truncated("KIT file ends inside its table of sections", where)
    entries = ENTRY.iter_unpack(table)
    beyond = [i for i, (start, length, _, used) in enumerate(entries) if used > 0 and length > 0 and start >= size]
    if beyond:
        raise truncated(f"KIT file of {size} bytes lacks section {beyond[0]} of its table", where)


def check_kit_samples(path: Path, n_channels: int, n_samples: int, sample_bytes: int, where: str) -> None:
    """Check that the samples a KIT header promises are in the file; raises ``truncated``."""
    with path.open("rb") as file:
        file.seek(RAW_DATA * ENTRY.size)
        start = int(ENTRY.unpack(file.read(ENTRY.size))[0])
    promised, size = start + n_channels * n_samples * sample_bytes, path.stat().st_size
    if size < promised:
        raise truncated(f"KIT file has {size} bytes, its {n_samples} samples end at byte {promised}", where)
