"""Zarr v2 groups as a ``Tree``: metadata and chunks by key from anything that has ``get``.

Follows the Zarr v2 specification; links and references as hdmf-zarr writes them (``zarr_link``, ``zarr_dtype``).
Pickled chunks are never unpickled.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neuromill.readers.complaints import missing, truncated, unreadable, unsupported
from neuromill.readers.trees import MAX_LINKS, damage_as_codes, plain_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neuromill.readers.trees import Kind, Values

# Codecs that turn bytes into bytes or numbers and nothing else; "pickle" runs code and is not among them.
CODECS = frozenset(
    {
        "blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "fixedscaleoffset", "astype",
        "vlen-utf8", "vlen-bytes", "json2", "crc32", "crc32c", "adler32", "fletcher32",
    }
)  # fmt: skip
MAX_CHUNK_BYTES = 2**31
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class ObjectStore(Protocol):
    """Objects by key. Where there is no consolidated metadata, ``keys()`` is needed as well."""

    def get(self, key: str, /) -> bytes | None:
        """Content of an object, None where there is none."""


class FolderStore:
    """A folder on disk as an ``ObjectStore``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, /) -> bytes | None:
        """Content of a file of the folder."""
        parts = PurePosixPath(key).parts
        path = self._folder.joinpath(*parts)
        if ".." in parts or not path.is_file():
            return None
        return path.read_bytes()

    def keys(self) -> tuple[str, ...]:
        """All files of the folder."""
        found = (path for path in self._folder.rglob("*") if path.is_file())
        return tuple(sorted(path.relative_to(self._folder).as_posix() for path in found))


def open_zarr(store: ObjectStore, where: str) -> ZarrTree:
    """Open the Zarr v2 group at the root of a store.

    Raises
    ------
    RecordingError
        ``unreadable`` (no group there, metadata is not JSON), ``unsupported_format`` (Zarr v3; neither consolidated
        metadata nor a way to list the objects).
    """
    if store.get("zarr.json") is not None:
        raise unsupported("Zarr v3 group", where, "NWB is stored as Zarr v2; write it again with hdmf-zarr")
    consolidated = _json(store, ".zmetadata", where)
    documents = None if consolidated is None else consolidated.get("metadata")
    if consolidated is not None and not isinstance(documents, dict):
        raise unreadable(".zmetadata has no metadata", where)
    root = _json(store, ".zgroup", where) if documents is None else documents.get(".zgroup")
    if not isinstance(root, dict):
        raise unreadable("no Zarr group: neither .zmetadata nor .zgroup", where)
    if documents is None:
        keys = getattr(store, "keys", None)
        if keys is None:
            raise unsupported("no consolidated metadata (.zmetadata)", where, "consolidate the metadata of the store")
        names = (".zgroup", ".zarray", ".zattrs")
        documents = {key: _json(store, key, where) for key in keys() if PurePosixPath(key).name in names}
    return ZarrTree(store, documents, where)


def _json(store: ObjectStore, key: str, where: str) -> Any:
    raw = store.get(key)
    if raw is None:
        return None
    with damage_as_codes(where):
        return json.loads(raw)


class ZarrTree:
    """See ``readers.trees.Tree``."""

    def __init__(self, store: ObjectStore, documents: Mapping[str, Any], where: str) -> None:
        self._store, self._documents, self._where = store, documents, where
        below: dict[str, dict[str, None]] = {}
        for key in documents:
            path = PurePosixPath(key).parent
            while path.name:
                below.setdefault(path.parent.as_posix().removeprefix("."), {})[path.name] = None
                path = path.parent
        self._below = {path: tuple(names) for path, names in below.items()}

    @property
    def where(self) -> str:
        """What to call it in errors."""
        return self._where

    def kind(self, path: str) -> Kind:
        """Whether there is a group or an array at a path."""
        found = self._resolve(path)
        if found is None:
            return ""
        return "array" if self._document(found, ".zarray") else "group"

    def children(self, path: str) -> tuple[str, ...]:
        """Names below a group, links included."""
        found = self._resolve(path)
        if found is None or self._document(found, ".zarray"):
            return ()
        return tuple(dict.fromkeys((*self._below.get(found, ()), *self._links(found))))

    def attributes(self, path: str) -> Mapping[str, Any]:
        """Attributes of a group or an array."""
        found = self._resolve(path)
        if found is None:
            return {}
        attributes = self._document(found, ".zattrs") or {}
        return {name: _plain(value) for name, value in attributes.items() if name != "zarr_link"}

    def array(self, path: str) -> ZarrArray:
        """Return the array at a path."""
        found = self._resolve(path)
        document = None if found is None else self._document(found, ".zarray")
        if found is None or not isinstance(document, dict):
            raise unreadable(f"{path} is not an array", self._where)
        with damage_as_codes(self._where):
            return ZarrArray(self._store, found, document, self._document(found, ".zattrs") or {}, self._where)

    def close(self) -> None:
        """Nothing to let go of."""

    def _document(self, path: str, name: str) -> Any:
        return self._documents.get(f"{path}/{name}" if path else name)

    def _links(self, path: str) -> dict[str, Mapping[str, Any]]:
        links = (self._document(path, ".zattrs") or {}).get("zarr_link", [])
        return {str(link.get("name")): link for link in links if isinstance(link, dict)}

    def _resolve(self, path: str, depth: int = 0) -> str | None:
        if depth > MAX_LINKS:
            raise unreadable(f"links lead round in a circle at {path}", self._where)
        here, parts = "", [part for part in path.split("/") if part]
        for i, part in enumerate(parts):
            link = self._links(here).get(part)
            if link is not None:
                source, target = str(link.get("source", ".")), str(link.get("path", "")).strip("/")
                if source not in (".", "") or self._resolve(target, depth + 1) is None:
                    raise missing(f"{path} links to {target} in {source}, which is not there", self._where)
                return self._resolve("/".join([target, *parts[i + 1 :]]), depth + 1)
            if part not in self._below.get(here, ()):
                return None
            here = f"{here}/{part}" if here else part
        return here


class ZarrArray:
    """See ``readers.trees.TreeArray``."""

    def __init__(
        self, store: ObjectStore, path: str, document: Mapping[str, Any], attributes: Mapping[str, Any], where: str
    ) -> None:
        import numcodecs  # type: ignore[import-untyped]

        self._store, self._path, self._where = store, path, where
        self._shape, self._chunks = tuple(document["shape"]), tuple(document["chunks"])
        stated = document["dtype"]
        self._dtype = np.dtype(stated if isinstance(stated, str) else [tuple(field) for field in stated])
        self._order, self._separator = document.get("order", "C"), document.get("dimension_separator", ".")
        filters, compressor = document.get("filters") or [], document.get("compressor")
        codecs = [*filters, *([compressor] if compressor else [])]
        self._strange = ", ".join(sorted({str(codec.get("id")) for codec in codecs} - CODECS))
        self._codecs = [] if self._strange else [numcodecs.get_codec(dict(codec)) for codec in codecs]
        self._refers = attributes.get("zarr_dtype") == "object"
        self._fill = document.get("fill_value")
        size = math.prod(self._chunks) * max(1, self._dtype.itemsize)
        if len(self._shape) != len(self._chunks) or min(self._chunks, default=1) < 1 or size > MAX_CHUNK_BYTES:
            raise ValueError(f"{path}: chunks {self._chunks} of shape {self._shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self._shape

    @property
    def values(self) -> Values:
        """What its elements are; ``other`` where a codec is not one that is safe and known."""
        if self._strange:
            return "other"
        if self._dtype.kind == "O":
            return "reference" if self._refers else "text"
        return "text" if self._dtype.kind in "SU" else plain_values(self._dtype)

    @property
    def chunk_rows(self) -> int:
        """Rows that are stored together."""
        return int(self._chunks[0]) if self._chunks else 1

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows ``start`` to ``stop``."""
        if self._strange:
            raise unsupported(
                f"{self._path} is stored with {self._strange}", self._where, "write it again with a plain codec"
            )
        first, last, _ = slice(start, stop).indices(self._shape[0]) if self._shape else (0, 0, 1)
        shape = (max(0, last - first), *self._shape[1:]) if self._shape else ()
        found = np.full(shape, self._blank(), dtype=self._dtype)
        ranges = [range(math.ceil(n / c)) for n, c in zip(self._shape, self._chunks, strict=True)]
        if self._shape:
            ranges[0] = range(first // self._chunks[0], math.ceil(last / self._chunks[0])) if last > first else range(0)
        for index in itertools.product(*ranges):
            chunk = self._chunk(index)
            if chunk is not None:
                self._place(found, chunk, index, first)
        return self._texts(found) if self.values in ("text", "reference") else found

    def _blank(self) -> Any:
        if self._dtype.kind == "O":
            return ""
        if self._fill is None or self._dtype.kind in "SUV":
            return np.zeros((), self._dtype)[()]
        return np.asarray(NON_FINITE.get(self._fill, self._fill) if isinstance(self._fill, str) else self._fill)

    def _chunk(self, index: tuple[int, ...]) -> NDArray[Any] | None:
        key = self._separator.join(map(str, index)) if index else "0"
        raw: Any = self._store.get(f"{self._path}/{key}")
        if raw is None:
            return None
        with damage_as_codes(self._where):
            for codec in reversed(self._codecs):
                raw = codec.decode(raw)
            if self._dtype.kind == "O":
                return np.asarray(raw, dtype=object).reshape(self._chunks, order=self._order)
            flat = np.frombuffer(raw, dtype=np.uint8) if not isinstance(raw, np.ndarray) else raw.reshape(-1)
            values = np.ascontiguousarray(flat).view(self._dtype)
        if values.size < math.prod(self._chunks):
            raise truncated(f"chunk {key} of {self._path} has {values.size} values", self._where)
        return values.reshape(self._chunks, order=self._order)

    def _place(self, found: NDArray[Any], chunk: NDArray[Any], index: tuple[int, ...], first: int) -> None:
        into, out_of = [], []
        for axis, (i, width) in enumerate(zip(index, self._chunks, strict=True)):
            begin = first if axis == 0 else 0
            low, high = max(i * width, begin), min((i + 1) * width, begin + found.shape[axis])
            into.append(slice(low - begin, high - begin))
            out_of.append(slice(low - i * width, high - i * width))
        found[tuple(into)] = chunk[tuple(out_of)]

    def _texts(self, found: NDArray[Any]) -> NDArray[Any]:
        texts = [_text(item) for item in found.ravel()]
        return np.array(texts, dtype=object).reshape(found.shape)


def _text(item: Any) -> str:
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    plain = _plain(item)
    return plain if isinstance(plain, str) else str(plain)


def _plain(value: Any) -> Any:
    """Resolve a reference of hdmf-zarr to the path it names; everything else is left as it is."""
    if isinstance(value, dict):
        inner = value.get("value", value)
        if isinstance(inner, dict) and "path" in inner:
            return str(inner["path"]).strip("/")
    return tuple(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value
