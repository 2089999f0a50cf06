"""A reader of MATLAB 5 files that reads struct arrays and numbers, and trusts no length it finds.

``scipy.io.loadmat`` of scipy 1.15 and later ends the process with a segmentation fault on some damaged files (one byte
changed is enough), and it reads all of a file: field potentials make up most of Flint's. Here every length is checked
against the element it lies in, and only what is asked for is decoded. Format: "MAT-File Format", version 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.readers.complaints import truncated, unreadable, unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

HEADER_BYTES, TAG_BYTES = 128, 8
VERSION = 0x0100  # 0x0200 is MATLAB 7.3
MATRIX, COMPRESSED = 14, 15
STRUCT = 2
COMPLEX = 0  # no class of the format: numbers that are flagged as complex
NUMERIC = range(6, 16)  # double, single, int8 .. uint64
DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MAX_BYTES = 8 * 2**30  # of one variable, unpacked
MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Element:
    """One data element: its type and its bytes."""

    kind: int
    data: memoryview


@dataclass(frozen=True, slots=True, eq=False)
class MatArray:
    """One array of a file: its class, shape and name are known, its contents are read when asked for."""

    kind: int
    shape: tuple[int, ...]
    name: str
    rest: memoryview
    order: str
    where: str
    depth: int = 0

    @property
    def is_struct(self) -> bool:
        """Whether it is a struct array."""
        return self.kind == STRUCT

    def numbers(self) -> NDArray[np.float64]:
        """Values as float64 of the array's shape; raises ``unreadable`` for what holds no real numbers."""
        if 0 in self.shape:
            return np.empty(self.shape)
        if self.kind not in NUMERIC:
            raise unreadable(f"{self.name or 'a field'} holds no numbers", self.where)
        first = next(elements(self.rest, self.order, self.where), None)
        dtype = DTYPES.get(first.kind) if first else None
        n_bytes = math.prod(self.shape) * np.dtype(dtype).itemsize if dtype else -1
        if first is None or dtype is None or len(first.data) != n_bytes:
            raise unreadable(f"an array of shape {self.shape} has other values than that", self.where)
        found = np.frombuffer(first.data, dtype=f"{self.order}{dtype}").reshape(self.shape, order="F")
        return found.astype(np.float64)

    def structs(self) -> list[dict[str, MatArray]]:
        """Elements of a struct array, in MATLAB's order; raises ``unreadable`` for anything else."""
        if not self.is_struct:
            raise unreadable(f"{self.name or 'a field'} is no struct array", self.where)
        parts = elements(self.rest, self.order, self.where)
        width, names = next(parts, None), next(parts, None)
        if width is None or names is None or len(width.data) != 4:  # noqa: PLR2004 - one int32
            raise unreadable("a struct array has no field names", self.where)
        (size,) = struct.unpack(f"{self.order}i", width.data)
        if size < 1 or len(names.data) % size:
            raise unreadable("field names of a struct array are damaged", self.where)
        packed = bytes(names.data)
        fields = [packed[i : i + size].split(b"\0")[0].decode("latin-1") for i in range(0, len(packed), size)]
        n = math.prod(self.shape) if fields else 0
        if n * len(fields) * TAG_BYTES > len(self.rest):
            raise truncated(f"a struct array of {n} elements ends early", self.where)
        values = [self._child(next(parts, None)) for _ in range(n * len(fields))]
        return [dict(zip(fields, values[i * len(fields) :], strict=False)) for i in range(n)]

    def _child(self, element: Element | None) -> MatArray:
        if element is None or element.kind != MATRIX:
            raise truncated("a struct array ends before its last field", self.where)
        return matrix(element.data, self.order, self.where, self.depth + 1)


def read_mat5(path: Path, variable: str, where: str) -> MatArray:
    """Find a variable in a MATLAB 5 file.

    Raises
    ------
    RecordingError
        ``unsupported_format`` (MATLAB 7.3 or 4), ``truncated``, ``unreadable`` (damaged, or no such variable).
    """
    data = memoryview(path.read_bytes())
    order = _order(bytes(data[:HEADER_BYTES]), where)
    for element in elements(data[HEADER_BYTES:], order, where):
        found = _variable(element, variable, order, where)
        if found is not None:
            return found
    raise unreadable(f"no variable {variable!r}", where)


def elements(data: memoryview, order: str, where: str) -> Iterator[Element]:
    """Elements one after the other; raises ``truncated`` where one does not fit into ``data``."""
    at = 0
    while at < len(data):
        if at + TAG_BYTES > len(data):
            raise truncated("file ends within the tag of an element", where)
        (word,) = struct.unpack_from(f"{order}I", data, at)
        if word >> 16:  # a small element: its bytes stand in the tag
            kind, size, begin, step = word & 0xFFFF, word >> 16, at + 4, TAG_BYTES
            if size > 4:  # noqa: PLR2004 - what a small element can hold
                raise unreadable("a small element is too large", where)
        else:
            kind, (size,), begin = word, struct.unpack_from(f"{order}I", data, at + 4), at + TAG_BYTES
            step = TAG_BYTES + size + (-size % 8 if kind != COMPRESSED else 0)
        if begin + size > len(data):
            raise truncated(f"an element of {size} bytes does not fit into what is left of the file", where)
        yield Element(kind, data[begin : begin + size])
        at += step


def matrix(data: memoryview, order: str, where: str, depth: int = 0) -> MatArray:
    """Read the head of an array; no bytes at all are an empty array.

    Raises
    ------
    RecordingError
        ``unreadable`` where the head is damaged or the array lies too deep, ``truncated`` where it ends early.
    """
    if depth > MAX_DEPTH:
        raise unreadable("arrays lie too deep within each other", where)
    if not len(data):
        return MatArray(NUMERIC[0], (0, 0), "", data, order, where, depth)
    parts = elements(data, order, where)
    flags, dims, name = (next(parts, None) for _ in range(3))
    if flags is None or dims is None or name is None or len(flags.data) != TAG_BYTES or len(dims.data) % 4:
        raise unreadable("the head of an array is damaged", where)
    (word,) = struct.unpack_from(f"{order}I", flags.data)
    shape = struct.unpack(f"{order}{len(dims.data) // 4}i", dims.data)
    if len(shape) < 2 or min(shape) < 0 or math.prod(shape) > MAX_BYTES:  # noqa: PLR2004 - of MATLAB's arrays
        raise unreadable(f"an array has the shape {shape}", where)
    used = sum(_stride(part) for part in (flags, dims, name))
    kind = COMPLEX if word & 0x0800 else word & 0xFF
    return MatArray(kind, shape, bytes(name.data).decode("latin-1"), data[used:], order, where, depth)


def _stride(element: Element) -> int:
    """Bytes that an element of the head takes with its tag; one of 4 bytes or less stands in its tag."""
    return TAG_BYTES + (0 if 0 < len(element.data) <= 4 else len(element.data) + -len(element.data) % 8)  # noqa: PLR2004


def _order(header: bytes, where: str) -> str:
    """``<`` or ``>``, by the header."""
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    if len(header) < HEADER_BYTES or order is None:
        raise unreadable("not a MATLAB 5 file: no header", where)
    (version,) = struct.unpack(f"{order}H", header[124:126])
    if version != VERSION:
        raise unsupported(f"a MATLAB file of version {version:#06x}", where, "correct `format` in the card")
    return order


def _variable(element: Element, variable: str, order: str, where: str) -> MatArray | None:
    if element.kind == MATRIX:
        found = matrix(element.data, order, where)
        return found if found.name == variable else None
    if element.kind != COMPRESSED:
        return None
    unpacked = memoryview(_unpacked(element.data, where))
    inner = next(elements(unpacked, order, where), None)
    return _variable(inner, variable, order, where) if inner is not None and inner.kind == MATRIX else None


def _unpacked(data: memoryview, where: str) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(data, MAX_BYTES)
    except zlib.error as error:
        raise unreadable(f"a compressed variable is damaged: {error}", where) from error
    if not unpacking.eof:
        raise truncated("a compressed variable ends early, or is larger than any of these files", where)
    return found
