"""The files of a 4D/BTi recording, and whether its data file is whole.

The data file ends with its header; its last 8 bytes (big-endian int64, of which some writers use only the lower 31
bits) say where the header starts, which is also where the samples end.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from neuromill.readers.complaints import missing, truncated

if TYPE_CHECKING:
    from pathlib import Path

    from neuromill.records import Recording

POINTER = Struct(">q")
HEADER = Struct(">h5sxh")  # version, file type, data format
DATA_FORMATS = frozenset({1, 2, 3, 4})  # short, long, float, double
POINTER_MASK, ALIGNMENT = 2**31 - 1, 8


@dataclass(frozen=True, slots=True)
class BtiFiles:
    """Data file ("pdf"), configuration, and head shape where there is one."""

    pdf: Path
    config: Path
    head_shape: Path | None


def find_bti_files(recording: Recording, root: Path) -> BtiFiles:
    """Tell the files of a BTi recording apart by name; raises ``missing_member`` without data file or configuration."""
    names = [member.path for member in recording.members]
    main = root / recording.path
    configs = [name for name in names if "config" in _last(name)]
    shapes = [name for name in names if "hs_" in _last(name)]
    if not configs:
        raise missing("BTi recording without its config file", recording.path)
    if main.is_file():
        pdf = main
    else:
        inside = [n for n in names if n.startswith(f"{recording.path}/") and n not in (*configs, *shapes)]
        data = [n for n in inside if _last(n).startswith(("c,", "e,")) or "pdf" in _last(n)]
        if not data:
            raise missing("BTi folder without a data file (c,rf...)", recording.path)
        pdf = root / data[0]
    return BtiFiles(pdf, root / configs[0], root / shapes[0] if shapes else None)


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def header_start(pdf: Path, where: str) -> int:
    """Byte where the header at the end of a BTi data file starts; raises ``truncated`` where it is beyond the end."""
    size = pdf.stat().st_size
    if size < POINTER.size:
        raise truncated(f"BTi data file of {size} bytes", where)
    with pdf.open("rb") as file:
        file.seek(size - POINTER.size)
        start = int(POINTER.unpack(file.read(POINTER.size))[0])
    if not 0 <= start < size:
        start &= POINTER_MASK
    start += -start % ALIGNMENT
    if not 0 < start < size - POINTER.size:
        raise truncated("BTi data file does not end with the place of its header", where)
    return start


def check_bti_header(pdf: Path, where: str) -> None:
    """Check that a header is where the last bytes of the file say; raises ``truncated``."""
    start = header_start(pdf, where)
    with pdf.open("rb") as file:
        file.seek(start)
        content = file.read(HEADER.size)
    if len(content) < HEADER.size or HEADER.unpack(content)[2] not in DATA_FORMATS:
        raise truncated("BTi data file does not end with its header", where)


def check_bti_samples(pdf: Path, bytes_per_slice: int, n_slices: int, where: str) -> None:
    """Check that all samples lie before the header; raises ``truncated``."""
    start, promised = header_start(pdf, where), bytes_per_slice * n_slices
    if start < promised:
        raise truncated(f"BTi data file holds {start} bytes of samples, its header promises {promised}", where)
