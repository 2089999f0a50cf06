"""Look over an EDF(+) or BDF(+) file before MNE opens it.

MNE 1.13 loads an EDF file that lacks half of its records with no more than a warning, and numbers channels of the same
name. The header says exactly how long the file must be (Kemp et al. 1992; EDF+, Kemp and Olivan 2003), so a file of
another length is not what its header describes: shorter is cut off, longer is corrupted (line ends, re-encoding).
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from neuromill.readers.complaints import duplicates, empty, not_continuous, truncated, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FIXED_BYTES = SIGNAL_BYTES = 256
UNKNOWN_RECORDS = -1  # while recording; some writers never fill it in, then the length of the file says it
SAMPLE_BYTES = {"edf": 2, "bdf": 3}
MAGIC = {"edf": b"0", "bdf": b"\xffBIOSEMI"}
ANNOTATION_LABELS = frozenset({"EDF Annotations", "BDF Annotations"})
ONSET = re.compile(rb"^([+-]\d+(?:\.\d*)?)\x14\x14")
GAP_TOLERANCE = 0.5  # of a sample
RANGE_CELLS = (96, 104, 112, 120, 128, 216)  # per signal: unit, physical and digital range, samples


@dataclass(frozen=True, slots=True)
class EdfHeader:
    """Header of an EDF or BDF file; one entry per signal in the tuples, annotation signals included.

    ``copies`` are the signals that repeat an earlier one, of the same name, in every sample.
    """

    kind: str
    discontinuous: bool
    n_records: int
    record_seconds: float
    labels: tuple[str, ...]
    dimensions: tuple[str, ...]
    samples: tuple[int, ...]
    scaled: tuple[bool, ...]
    copies: frozenset[int] = frozenset()

    @property
    def data_start(self) -> int:
        """Byte where the records start."""
        return FIXED_BYTES + SIGNAL_BYTES * len(self.labels)

    @property
    def record_bytes(self) -> int:
        """Bytes of one record."""
        return sum(self.samples) * SAMPLE_BYTES[self.kind]

    @property
    def signals(self) -> tuple[int, ...]:
        """Indices of the signals that are neither annotations nor copies."""
        return tuple(i for i in self.recorded if i not in self.copies)

    @property
    def recorded(self) -> tuple[int, ...]:
        """Indices of the signals that are no annotations."""
        return tuple(i for i, label in enumerate(self.labels) if label not in ANNOTATION_LABELS)

    @property
    def unscaled(self) -> tuple[str, ...]:
        """Channels whose physical or digital range is zero: their values mean nothing."""
        return tuple(self.labels[i] for i in self.signals if not self.scaled[i])


def check_edf(path: Path, kind: str, where: str) -> EdfHeader:
    """Return the header of a complete, continuous file.

    Raises
    ------
    RecordingError
        ``truncated``, ``unreadable`` (no number where the header must have one, longer than promised, EDF under the
        name of BDF), ``empty`` (annotations only, no records), ``duplicate_channels`` (one name, other samples),
        ``not_continuous`` (EDF+D whose records do not follow on from each other).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = read_header(file, kind, size, where)
        n_records = _records(header, size, where)
        header = replace(header, copies=_copies(file, header, n_records, where))
        if header.discontinuous:
            _check_continuous(file, header, n_records, where)
    return header


def read_header(file: IO[bytes], kind: str, size: int, where: str) -> EdfHeader:
    """Parse the header; raises ``truncated`` or ``unreadable``."""
    fixed = file.read(FIXED_BYTES)
    if not fixed.startswith(MAGIC[kind]):
        other = next((name for name, magic in MAGIC.items() if fixed.startswith(magic)), "")
        step = f"rename it to .{other}" if other else "check what the file is"
        raise unreadable(f"file named .{kind} is {other.upper() or 'none'}", where, step)
    if len(fixed) < FIXED_BYTES:
        raise truncated(f"file of {size} bytes ends inside its header", where)
    try:
        n_signals, n_records = int(fixed[252:256]), int(fixed[236:244])
        if size < FIXED_BYTES + SIGNAL_BYTES * n_signals:
            raise truncated(f"file of {size} bytes ends inside its header", where)
        table = file.read(SIGNAL_BYTES * n_signals)
        low, high = _numbers(table, n_signals, 104), _numbers(table, n_signals, 112)
        bottom, top = _numbers(table, n_signals, 120), _numbers(table, n_signals, 128)
        return EdfHeader(
            kind=kind,
            discontinuous=fixed[192:197] in (b"EDF+D", b"BDF+D"),
            n_records=n_records,
            record_seconds=float(fixed[244:252]),
            labels=tuple(cell.decode("latin-1").strip() for cell in _cells(table, n_signals, 0, 16)),
            dimensions=tuple(cell.decode("latin-1").strip("\0 ") for cell in _cells(table, n_signals, 96, 8)),
            samples=tuple(int(value) for value in _numbers(table, n_signals, 216)),
            scaled=tuple(a != b and c != d for a, b, c, d in zip(low, high, bottom, top, strict=True)),
        )
    except ValueError as error:
        raise unreadable(f"header has no number where it needs one: {error}", where) from error


def _cells(table: bytes, n_signals: int, offset: int, width: int) -> Iterator[bytes]:
    """Cut one column out of the signal table, which is stored column by column; ``offset`` counts for one signal."""
    start = offset * n_signals
    return (table[start + width * i : start + width * (i + 1)] for i in range(n_signals))


def _numbers(table: bytes, n_signals: int, offset: int) -> tuple[float, ...]:
    return tuple(float(cell.decode("latin-1").strip("\0 ")) for cell in _cells(table, n_signals, offset, 8))


def _records(header: EdfHeader, size: int, where: str) -> int:
    """Return the number of records, which must fill the file exactly."""
    if not header.signals:
        raise empty("annotations and no signal", where)
    if header.n_records == 0 or header.record_bytes == 0:
        raise empty("header promises no records", where)
    found, rest = divmod(size - header.data_start, header.record_bytes)
    if header.n_records == UNKNOWN_RECORDS:
        if rest:
            raise truncated(f"{rest} bytes are left over after {found} records", where)
        return found
    if found < header.n_records:
        raise truncated(f"{found} records are there, the header promises {header.n_records}", where)
    if found > header.n_records or rest:
        extra = size - header.data_start - header.n_records * header.record_bytes
        raise unreadable(f"{extra} bytes more than the header describes: altered after recording", where)
    return found


def _copies(file: IO[bytes], header: EdfHeader, n_records: int, where: str) -> frozenset[int]:
    """Signals that say in every sample what an earlier one of their name says: T8-P8 in many files of CHB-MIT.

    Where one of them says anything else, or the file has several rates, which is which cannot be guessed.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for i in header.recorded:
        groups[header.labels[i]].append(i)
    twice = {label: rows for label, rows in groups.items() if len(rows) > 1}
    rates = {header.samples[i] for i in header.recorded}
    other = sorted(
        repr(label) for label, rows in twice.items() if len(rates) > 1 or not _are_equal(file, header, n_records, rows)
    )
    if other:
        raise duplicates(", ".join(other[:5]), where)
    return frozenset(i for rows in twice.values() for i in rows[1:])


def _are_equal(file: IO[bytes], header: EdfHeader, n_records: int, rows: list[int]) -> bool:
    """Whether signals have the same unit, range and samples."""
    file.seek(FIXED_BYTES)
    table, n_signals = file.read(SIGNAL_BYTES * len(header.labels)), len(header.labels)
    for offset in RANGE_CELLS:
        cells = tuple(_cells(table, n_signals, offset, 8))
        if len({cells[i] for i in rows}) > 1:
            return False
    return all(len(set(record)) == 1 for record in signal_bytes(file, header, n_records, rows))


def annotation_bytes(file: IO[bytes], header: EdfHeader, n_records: int) -> Iterator[tuple[bytes, ...]]:
    """Yield the raw bytes of the annotation signals of each record."""
    rows = [i for i, label in enumerate(header.labels) if label in ANNOTATION_LABELS]
    return signal_bytes(file, header, n_records, rows)


def signal_bytes(
    file: IO[bytes], header: EdfHeader, n_records: int, rows: Sequence[int]
) -> Iterator[tuple[bytes, ...]]:
    """Yield the raw bytes of these signals of each record."""
    width = SAMPLE_BYTES[header.kind]
    spans = [(sum(header.samples[:i]) * width, header.samples[i] * width) for i in rows]
    for record in range(n_records):
        cells = []
        for offset, length in spans:
            file.seek(header.data_start + record * header.record_bytes + offset)
            cells.append(file.read(length))
        yield tuple(cells)


def _check_continuous(file: IO[bytes], header: EdfHeader, n_records: int, where: str) -> None:
    """EDF+D only allows gaps; each record says when it starts, in its first annotation."""
    tolerance = GAP_TOLERANCE * header.record_seconds / max(header.samples[i] for i in header.signals)
    expected: float | None = None
    for record, cells in enumerate(annotation_bytes(file, header, n_records)):
        stamp = ONSET.match(cells[0]) if cells else None
        if stamp is None:
            raise not_continuous(f"EDF+D whose record {record + 1} does not say when it starts", where)
        start = float(stamp[1])
        if expected is not None and abs(start - expected) > tolerance:
            raise not_continuous(
                f"record {record + 1} starts at {start:g} s, the one before ends at {expected:g} s", where
            )
        expected = start + header.record_seconds


def annotation_encoding(path: Path, header: EdfHeader) -> str:
    """``utf8``, as EDF+ asks, or ``latin1`` where the annotations are not UTF-8 (MNE raises a bare Exception there)."""
    n_records = (path.stat().st_size - header.data_start) // header.record_bytes
    with path.open("rb") as file:
        for cells in annotation_bytes(file, header, n_records):
            try:
                b"".join(cells).decode("utf-8")
            except UnicodeDecodeError:
                return "latin1"
    return "utf8"
