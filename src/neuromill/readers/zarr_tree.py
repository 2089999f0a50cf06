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

from neuromill.readers.complaints import missing, too_large, truncated, unreadable, unsupported
from neuromill.readers.trees import MAX_LINKS, check_room, damage_as_codes, plain_values
from neuromill.readers.zarr_meta import ArrayMeta, array_meta, attributes_of, check_version, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from neuromill.readers.trees import Kind, Values

# Of one read: each costs a look into the store, an absent one too.
MAX_CHUNKS = 2**20


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
    documents = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    if consolidated is not None and not isinstance(documents, dict):
        raise unreadable(".zmetadata has no metadata", where)
    root = _json(store, ".zgroup", where) if documents is None else documents.get(".zgroup")
    if root is None:
        raise unreadable("no Zarr group: neither .zmetadata nor .zgroup", where)
    check_version(root, ".zgroup", where)
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
        if self._is_array(found):
            return "array"
        document = self._document(found, ".zgroup")
        if document is not None:  # a group may be there by what is below it alone
            check_version(document, f"{found}/.zgroup", self._where)
        return "group"

    def children(self, path: str) -> tuple[str, ...]:
        """Names below a group, links included."""
        found = self._resolve(path)
        if found is None or self._is_array(found):
            return ()
        return tuple(dict.fromkeys((*self._below.get(found, ()), *self._links(found))))

    def attributes(self, path: str) -> Mapping[str, Any]:
        """Attributes of a group or an array."""
        found = self._resolve(path)
        if found is None:
            return {}
        return {name: _plain(value) for name, value in self._attributes(found).items() if name != "zarr_link"}

    def array(self, path: str) -> ZarrArray:
        """Return the array at a path; raises ``unreadable`` where there is none, and what ``array_meta`` raises."""
        found = self._resolve(path)
        if found is None or not self._is_array(found):
            raise unreadable(f"{path} is not an array", self._where)
        meta = array_meta(self._document(found, ".zarray"), found, self._where)
        refers = self._attributes(found).get("zarr_dtype") == "object"
        return ZarrArray(self._store, found, meta, self._where, refers=refers)

    def close(self) -> None:
        """Nothing to let go of."""

    def _document(self, path: str, name: str) -> Any:
        return self._documents.get(f"{path}/{name}" if path else name)

    def _is_array(self, path: str) -> bool:
        return (f"{path}/.zarray" if path else ".zarray") in self._documents

    def _attributes(self, path: str) -> Mapping[str, Any]:
        return attributes_of(self._document(path, ".zattrs"), path, self._where)

    def _links(self, path: str) -> dict[str, Mapping[str, Any]]:
        return {str(link.get("name")): link for link in self._attributes(path).get("zarr_link", [])}

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

    def __init__(self, store: ObjectStore, path: str, meta: ArrayMeta, where: str, *, refers: bool) -> None:
        self._store, self._path, self._meta, self._where, self._refers = store, path, meta, where, refers

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self._meta.shape

    @property
    def values(self) -> Values:
        """What its elements are; ``other`` where a codec is not one that is safe and known."""
        if self._meta.strange:
            return "other"
        if self._meta.dtype.kind == "O":
            return "reference" if self._refers else "text"
        return "text" if self._meta.dtype.kind in "SU" else plain_values(self._meta.dtype)

    @property
    def chunk_rows(self) -> int:
        """Rows that are stored together."""
        return self._meta.chunks[0] if self._meta.chunks else 1

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, with the shape and the errors of ``TreeArray.read``."""
        meta = self._meta
        if meta.strange:
            raise unsupported(
                f"{self._path} is stored with {meta.strange}", self._where, "write it again with a plain codec"
            )
        first, last, _ = slice(start, stop).indices(self.shape[0]) if self.shape else (0, 0, 1)
        shape = (max(0, last - first), *self.shape[1:]) if self.shape else ()
        check_room(self._path, shape, meta.dtype.itemsize, self._where)
        indices = self._chunks_of(first, last) if math.prod(shape) else ()
        with damage_as_codes(self._where):
            found = np.full(shape, meta.blank, dtype=meta.dtype)
        for index in indices:
            chunk = self._chunk(index)
            if chunk is not None:
                self._place(found, chunk, index, first)
        return self._texts(found) if self.values in ("text", "reference") else found

    def _chunks_of(self, first: int, last: int) -> Iterable[tuple[int, ...]]:
        """Chunks that hold rows ``first`` to ``last``."""
        ranges = [range(-(-n // width)) for n, width in zip(self.shape, self._meta.chunks, strict=True)]
        if self.shape:
            ranges[0] = range(first // self.chunk_rows, -(-last // self.chunk_rows))
        n_chunks = math.prod(map(len, ranges))
        if n_chunks > MAX_CHUNKS:
            raise too_large(
                f"{self._path} would be read from {n_chunks} chunks, the limit is {MAX_CHUNKS}", self._where
            )
        return itertools.product(*ranges)

    def _chunk(self, index: tuple[int, ...]) -> NDArray[Any] | None:
        key, meta = self._meta.separator.join(map(str, index)) if index else "0", self._meta
        name = f"chunk {key} of {self._path}"
        raw: Any = self._store.get(f"{self._path}/{key}")
        if raw is None:
            return None
        raw = decode(meta, raw, name, self._where)
        with damage_as_codes(self._where):
            if meta.dtype.kind == "O":
                return np.asarray(raw, dtype=object).reshape(meta.chunks, order=meta.order)
            flat = np.frombuffer(raw, dtype=np.uint8) if not isinstance(raw, np.ndarray) else raw.reshape(-1)
            values = np.ascontiguousarray(flat).view(meta.dtype)
        if values.size < meta.chunk_size:
            raise truncated(f"{name} has {values.size} values", self._where)
        if values.size > meta.chunk_size:
            raise unreadable(f"{name} has {values.size} values, not {meta.chunk_size}", self._where)
        return values.reshape(meta.chunks, order=meta.order)

    def _place(self, found: NDArray[Any], chunk: NDArray[Any], index: tuple[int, ...], first: int) -> None:
        into, out_of = [], []
        for axis, (i, width) in enumerate(zip(index, self._meta.chunks, strict=True)):
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
