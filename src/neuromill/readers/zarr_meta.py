"""What a Zarr v2 document states, checked once: every damaged key is ``unreadable`` and is named.

Also the bounds on a chunk: what it may decode to is known before it is decoded.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import reprlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.readers.complaints import unreadable, unsupported
from neuromill.readers.trees import DAMAGE, damage_as_codes

if TYPE_CHECKING:
    from collections.abc import Mapping

# Codecs that turn bytes into bytes or numbers and nothing else; "pickle" runs code and is not among them.
CODECS = frozenset(
    {
        "blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "fixedscaleoffset", "astype",
        "vlen-utf8", "vlen-bytes", "json2", "crc32", "crc32c", "adler32", "fletcher32",
    }
)  # fmt: skip
VERSION = 2
MAX_CHUNK_BYTES = 2**31
MAX_DIMENSIONS = 32
MAX_ROWS = 2**62  # indices stay int64
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
PLAIN_KINDS = "biuf"
BLOSC_HEADER, LZ4_HEADER = 16, 4
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class ArrayMeta:
    """A ``.zarray``.

    Attributes
    ----------
    dtype, blank
        Type of the elements, and the value of those that no chunk holds.
    codecs
        Filters and compressor in the order in which they were applied; empty where ``strange`` names any.
    strange
        Ids of codecs that are not among ``CODECS``.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    blank: Any
    order: Any
    separator: str
    codecs: tuple[Any, ...]
    strange: str

    @property
    def chunk_size(self) -> int:
        """Elements of a chunk."""
        return math.prod(self.chunks)

    @property
    def decoded_limit(self) -> int:
        """Bytes that a codec may decode to: those of a chunk, unless filters or text come between."""
        exact = len(self.codecs) == 1 and self.dtype.kind != "O"
        return self.chunk_size * self.dtype.itemsize if exact else MAX_CHUNK_BYTES


def array_meta(document: Any, path: str, where: str) -> ArrayMeta:
    """Check a ``.zarray``.

    Raises
    ------
    RecordingError
        ``unreadable``, naming the key; ``unsupported_format`` for another version of Zarr.
    """
    name = f"{path}/.zarray"
    check_version(document, name, where)
    shape, chunks = (_sizes(document, key, name, where) for key in ("shape", "chunks"))
    dtype = _dtype(document, name, where)
    too_big = math.prod(chunks) * max(1, dtype.itemsize) > MAX_CHUNK_BYTES
    if len(shape) != len(chunks) or min(chunks, default=1) < 1 or too_big:
        raise _wrong(document, "chunks", name, where)
    order, separator = document.get("order", "C"), document.get("dimension_separator", ".")
    if order not in ("C", "F"):
        raise _wrong(document, "order", name, where)
    if separator not in (".", "/"):
        raise _wrong(document, "dimension_separator", name, where)
    codecs, strange = _codecs(document, name, where)
    return ArrayMeta(shape, chunks, dtype, _blank(document, dtype, name, where), order, separator, codecs, strange)


def check_version(document: Any, name: str, where: str) -> None:
    """Check a ``.zgroup``, or what it has in common with a ``.zarray``.

    Raises
    ------
    RecordingError
        ``unreadable``, naming the key; ``unsupported_format`` for another version of Zarr.
    """
    if not isinstance(document, dict):
        raise unreadable(f"{name} is {reprlib.repr(document)}, no mapping", where)
    version = document.get("zarr_format")
    if isinstance(version, int) and version > VERSION:
        raise unsupported(f"{name}: Zarr v{version}", where, "NWB is stored as Zarr v2; write it again with hdmf-zarr")
    if version != VERSION:
        raise _wrong(document, "zarr_format", name, where)


def attributes_of(document: Any, path: str, where: str) -> Mapping[str, Any]:
    """Check a ``.zattrs``, which need not be there; links are a list of mappings.

    Raises
    ------
    RecordingError
        ``unreadable``, naming the key.
    """
    name = f"{path}/.zattrs"
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise unreadable(f"{name} is {reprlib.repr(document)}, no mapping", where)
    links = document.get("zarr_link", [])
    if not isinstance(links, list) or not all(isinstance(link, dict) for link in links):
        raise _wrong(document, "zarr_link", name, where)
    return document


def _wrong(document: Mapping[str, Any], key: str, name: str, where: str) -> Exception:
    return unreadable(f"{name}: {key} is {reprlib.repr(document.get(key))}", where)


def _sizes(document: Mapping[str, Any], key: str, name: str, where: str) -> tuple[int, ...]:
    stated = document.get(key)
    if not isinstance(stated, list) or len(stated) > MAX_DIMENSIONS or not all(type(n) is int for n in stated):
        raise _wrong(document, key, name, where)
    if any(not 0 <= n <= MAX_ROWS for n in stated):
        raise _wrong(document, key, name, where)
    return tuple(stated)


def _dtype(document: Mapping[str, Any], name: str, where: str) -> np.dtype[Any]:
    stated = document.get("dtype")
    try:
        if isinstance(stated, str):
            return np.dtype(stated)
        if isinstance(stated, list) and stated:
            return np.dtype([tuple(field) for field in stated])
    except (*DAMAGE, SyntaxError) as error:
        raise _wrong(document, "dtype", name, where) from error
    raise _wrong(document, "dtype", name, where)


def _codecs(document: Mapping[str, Any], name: str, where: str) -> tuple[tuple[Any, ...], str]:
    import numcodecs  # type: ignore[import-untyped]

    filters, compressor = document.get("filters"), document.get("compressor")
    stated = {"filters": [] if filters is None else filters, "compressor": [] if compressor is None else [compressor]}
    made, strange = [], set()
    for key, codecs in stated.items():
        if not isinstance(codecs, list) or not all(isinstance(one, dict) and "id" in one for one in codecs):
            raise _wrong(document, key, name, where)
        for one in codecs:
            if one["id"] not in CODECS:
                strange.add(str(one["id"]))
                continue
            try:
                made.append(numcodecs.get_codec(dict(one)))
            except DAMAGE as error:
                raise _wrong(document, key, name, where) from error
    return (() if strange else tuple(made)), ", ".join(sorted(strange))


def _blank(document: Mapping[str, Any], dtype: np.dtype[Any], name: str, where: str) -> Any:
    stated = document.get("fill_value")
    if dtype.kind == "O":
        return ""
    if stated is None or dtype.kind in "SUV":
        return np.zeros((), dtype)[()]
    value = NON_FINITE.get(stated, stated) if isinstance(stated, str) else stated
    good = isinstance(value, int | float) or dtype.kind not in PLAIN_KINDS
    if dtype.kind in "biu" and isinstance(value, float):
        good = value.is_integer()
        value = int(value) if good else value
    try:
        with np.errstate(all="ignore"):
            made = np.array(value, dtype=dtype) if good else None
    except DAMAGE as error:
        raise _wrong(document, "fill_value", name, where) from error
    if made is None or made.shape:
        raise _wrong(document, "fill_value", name, where)
    return made[()]


def decode(meta: ArrayMeta, raw: bytes, name: str, where: str) -> Any:
    """Undo the codecs of a chunk.

    Raises
    ------
    RecordingError
        ``unreadable`` where it does not decode, or to more than the chunk may have, which is seen before it is done.
    """
    found: Any = raw
    for codec in reversed(meta.codecs):
        with damage_as_codes(where):
            found = _decode_one(codec, found, meta)
        size = found.nbytes if isinstance(found, np.ndarray) else len(found) if isinstance(found, bytes) else 0
        if size > meta.decoded_limit:
            raise unreadable(f"{name} decodes to more than its {meta.decoded_limit} bytes", where)
    return found


def _decode_one(codec: Any, raw: Any, meta: ArrayMeta) -> Any:
    kind, limit = str(codec.codec_id), meta.decoded_limit
    packed = memoryview(raw).cast("B").tobytes() if not isinstance(raw, bytes) else raw
    if kind in ("vlen-utf8", "vlen-bytes"):
        if int.from_bytes(packed[:4], "little") > meta.chunk_size:
            raise ValueError(f"{kind} states more items than a chunk has")
    elif kind in ("blosc", "lz4", "zstd"):
        stated = _stated_bytes(kind, packed)
        if stated > limit:
            raise ValueError(f"{kind} states {stated} bytes, a chunk may have {limit}")
    elif kind in ("gzip", "zlib", "bz2", "lzma"):
        return _inflate(kind, codec, packed, limit + 1)
    return codec.decode(raw)


def _stated_bytes(kind: str, packed: bytes) -> int:
    """Bytes that the header of a compressed chunk states."""
    if kind == "lz4":
        return int.from_bytes(packed[:LZ4_HEADER], "little")
    if kind == "blosc":
        if len(packed) < BLOSC_HEADER:
            raise ValueError("blosc chunk is shorter than its header")
        if int.from_bytes(packed[12:16], "little") > len(packed):  # numcodecs 0.16 reads past the end of these
            raise EOFError("blosc chunk ends early")
        return int.from_bytes(packed[4:8], "little")
    if not packed.startswith(ZSTD_MAGIC) or len(packed) < 6:  # noqa: PLR2004 - the least header (RFC 8878, 3.1.1.1)
        raise ValueError("not a zstd frame")
    flag, single, dictionary = packed[4] >> 6, packed[4] >> 5 & 1, packed[4] & 3
    width = (1 if single else 0, 2, 4, 8)[flag]
    if not width:
        raise ValueError("zstd frame does not state its size")
    at = 5 + (not single) + (0, 1, 2, 4)[dictionary]
    return int.from_bytes(packed[at : at + width], "little") + (256 if width == 2 else 0)  # noqa: PLR2004 - RFC 8878


def _inflate(kind: str, codec: Any, packed: bytes, at_most: int) -> bytes:
    """Decompress no more than so many bytes: the headers of these do not say how many there are."""
    if kind == "zlib":
        whole = zlib.decompressobj()
        found = whole.decompress(packed, at_most)
        if not whole.eof and len(found) < at_most:
            raise EOFError("zlib chunk ends early")
        return found
    file = io.BytesIO(packed)
    if kind == "lzma":
        options = {"format": codec.format, "filters": codec.filters if codec.format == lzma.FORMAT_RAW else None}
        try:
            return lzma.LZMAFile(file, **options).read(at_most)
        except lzma.LZMAError as error:
            raise ValueError(str(error)) from error
    return gzip.GzipFile(fileobj=file).read(at_most) if kind == "gzip" else bz2.BZ2File(file).read(at_most)
