"""One small view of hierarchical files: groups, arrays, attributes. HDF5 here, Zarr in ``zarr_tree``.

Only what a reader of NWB needs, and only reading. Text is ``str`` whatever the file holds, a reference is the path of
what it refers to, and whatever the library raises on a damaged file is a code.
"""

from __future__ import annotations

import math
import struct
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from neuromill.readers.complaints import missing, too_large, truncated, unreadable, unsupported
from neuromill.records import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from io import RawIOBase
    from typing import BinaryIO

    from numpy.typing import NDArray

Kind = Literal["", "group", "array"]
Values = Literal["number", "bool", "text", "reference", "other"]

# What h5py 3.16 raises on damaged files: ``OSError`` (truncated, filter fails), ``KeyError`` (links), ``RuntimeError``
# (B-trees, heaps), ``ValueError`` and ``TypeError`` (types), ``UnicodeError`` (names), ``MemoryError`` (absurd sizes).
DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError, EOFError)
SIGNATURE = b"\x89HDF\r\n\x1a\n"
SIGNATURE_PLACES = (0, 512, 1024, 2048, 4096, 8192)  # after a user block of that size
MAX_LINKS = 16
CHUNK_CACHE_BYTES = 8 * 2**20
# What one read may take. The largest array that is read at once is the behaviour of a session: a day of six dimensions
# at 1 kHz is 4 GiB. A sparse file of a few kilobytes can declare any size.
MAX_READ_BYTES = 8 * 2**30
FLOAT_BYTES = 8  # readers work in float64, whatever a file holds; text is a pointer of as many


class TreeArray(Protocol):
    """One array of a tree."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, () for a scalar."""

    @property
    def values(self) -> Values:
        """What its elements are."""

    @property
    def chunk_rows(self) -> int:
        """Rows that are stored together; 1 where they are not stored in chunks."""

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` (numpy rules), [row, ...] as the file has them; a scalar is read whole.

        Text and references are objects ``str``.

        Raises
        ------
        RecordingError
            ``too_large`` where the rows take more than ``MAX_READ_BYTES``; ``unreadable``, ``truncated`` or
            ``unsupported_format`` where they are damaged or packed in a way that is not known.
        """


class Tree(Protocol):
    """A file or store as a tree of groups and arrays; paths are relative to its root, without a slash before them."""

    @property
    def where(self) -> str:
        """What to call it in errors."""

    def kind(self, path: str) -> Kind:
        """Whether there is a group or an array at a path; "" where there is nothing.

        Raises ``missing_member`` where a link on the way leads to a file or an object that is not there.
        """

    def children(self, path: str) -> tuple[str, ...]:
        """Names below a group, in no order that the content depends on."""

    def attributes(self, path: str) -> Mapping[str, Any]:
        """Attributes of a group or an array; "" is the root."""

    def array(self, path: str) -> TreeArray:
        """Return the array at a path; raises ``unreadable`` where there is none."""

    def close(self) -> None:
        """Let go of the file."""


@contextmanager
def damage_as_codes(where: str) -> Iterator[None]:
    """Turn what HDF5 and codecs raise into ``unreadable``, or ``unsupported_format`` where a filter is not known."""
    try:
        yield
    except DAMAGE as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        if "filter" in words and ("not registered" in words or "plugin" in words):
            raise unsupported(words, where, "write it again with a standard compression") from error
        raise unreadable(words, where) from error


def check_room(path: str, shape: tuple[int, ...], itemsize: int, where: str) -> None:
    """Compare what a read of a declared shape takes with ``MAX_READ_BYTES``; raises ``too_large``."""
    size = math.prod(shape) * max(itemsize, FLOAT_BYTES)
    if size > MAX_READ_BYTES:
        room = MAX_READ_BYTES / 2**30
        raise too_large(f"{path} declares {shape}: {size / 2**30:.1f} GiB to read, the limit is {room:g} GiB", where)


def open_hdf5(source: Path | BinaryIO | RawIOBase, where: str) -> Hdf5Tree:
    """Open an HDF5 file, or a seekable binary file object that holds one.

    Raises
    ------
    RecordingError
        ``unreadable`` (not HDF5, or damaged), ``truncated`` (shorter than its superblock says), and what reading from
        the file object raises.

    Notes
    -----
    Close a tree over a file object: libhdf5 calls the object of a file that is open at the end of the process, when
    the interpreter is gone, and the process dies of a segmentation fault (h5py 3.16).
    """
    import h5py

    if isinstance(source, Path):
        with source.open("rb") as file:
            check_superblock(file, where)
    else:
        check_superblock(source, where)
    with damage_as_codes(where):
        try:
            file = h5py.File(source, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
        except (*DAMAGE, RecordingError) as error:
            # Frames of h5py hold the file object for HDF5, as an open file does: whoever keeps the error keeps it.
            clear_frames(error.__traceback__)
            raise
    return Hdf5Tree(file, where, has_folder=isinstance(source, Path))


def check_superblock(file: BinaryIO | RawIOBase, where: str) -> None:
    """Compare the size of a file with the end that its HDF5 superblock states.

    Raises
    ------
    RecordingError
        ``unreadable`` (no HDF5, or a superblock of an unknown version), ``truncated`` (shorter than it states).
    """
    size = file.seek(0, 2)
    for place in SIGNATURE_PLACES:
        file.seek(place)
        block = file.read(128) or b""
        if block.startswith(SIGNATURE):
            stated = stated_end(block)
            if stated is None:
                raise unreadable("HDF5 superblock of an unknown version, or cut off", where)
            if size < stated:
                raise truncated(f"file has {size} bytes, its superblock states {stated}", where)
            file.seek(0)
            return
    raise unreadable("not an HDF5 file: no signature", where)


def stated_end(block: bytes) -> int | None:
    """End-of-file address of a superblock (HDF5 file format specification, II.A); None where it cannot be read."""
    version = block[8] if len(block) > 8 else -1  # noqa: PLR2004 - byte 8 is the version
    at = {0: (13, 24, 2), 1: (13, 28, 2), 2: (9, 12, 2), 3: (9, 12, 2)}.get(version)
    if at is None:
        return None
    size_byte, addresses, index = at
    width = block[size_byte] if len(block) > size_byte else 0
    code = {2: "<H", 4: "<I", 8: "<Q"}.get(width)
    start = addresses + index * width
    if code is None or len(block) < start + width:
        return None
    return int(struct.unpack(code, block[start : start + width])[0])


class Hdf5Tree:
    """See ``Tree``. Links to other files are followed only into the folder of the file, never out of it."""

    def __init__(self, file: Any, where: str, *, has_folder: bool) -> None:
        self._file, self._where, self._has_folder = file, where, has_folder

    @property
    def where(self) -> str:
        """What to call it in errors."""
        return self._where

    def kind(self, path: str) -> Kind:
        """Whether there is a group or an array at a path."""
        import h5py

        node = self._find(path)
        if isinstance(node, h5py.Group):
            return "group"
        return "array" if isinstance(node, h5py.Dataset) else ""

    def children(self, path: str) -> tuple[str, ...]:
        """Names below a group."""
        if self.kind(path) != "group":
            return ()
        with damage_as_codes(self._where):
            return tuple(name for name in self._find(path) if is_text(name))

    def attributes(self, path: str) -> Mapping[str, Any]:
        """Attributes of a group or an array."""
        node = self._find(path)
        if node is None:
            return {}
        with damage_as_codes(self._where):
            return {name: plain_value(node.attrs[name], node) for name in node.attrs if is_text(name)}

    def array(self, path: str) -> Hdf5Array:
        """Return the array at a path; raises ``unreadable`` where there is none."""
        if self.kind(path) != "array":
            raise unreadable(f"{path} is not an array", self._where)
        return hdf5_array(self._find(path), path, self._where)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _find(self, path: str, depth: int = 0) -> Any:
        import h5py

        if depth > MAX_LINKS:
            raise unreadable(f"links lead round in a circle at {path}", self._where)
        with damage_as_codes(self._where):
            node = self._file["/"]
            for i, part in enumerate(parts := [part for part in path.split("/") if part]):
                link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
                if link is None:
                    return None
                if isinstance(link, h5py.SoftLink):
                    return self._follow(link.path, parts, i, depth)
                if isinstance(link, h5py.ExternalLink):
                    self._check_external(link.filename, Path(node.file.filename).parent, path)
                node = node[part]
        return node

    def _follow(self, target: str, parts: list[str], at: int, depth: int) -> Any:
        before = "" if target.startswith("/") else "/".join(parts[:at])
        there = self._find(f"{before}/{target}", depth + 1)
        if there is None:
            raise missing(f"{'/'.join(parts[: at + 1])} links to {target}, which is not there", self._where)
        return self._find("/".join([before, target, *parts[at + 1 :]]), depth + 1)

    def _check_external(self, filename: str, folder: Path, path: str) -> None:
        name = PurePosixPath(filename)
        outside = name.is_absolute() or ".." in name.parts or "\\" in filename
        if outside or not self._has_folder or not (folder / name).is_file():
            raise missing(f"{path} is in another file, {filename}, which is not beside this one", self._where)


class Hdf5Array:
    """See ``TreeArray``."""

    def __init__(self, dataset: Any, name: str, where: str) -> None:
        self._dataset, self._name, self._where = dataset, name, where
        self._is_null = dataset.shape is None  # an HDF5 null space
        self._shape: tuple[int, ...] = (0,) if self._is_null else tuple(dataset.shape)
        self._values = hdf5_values(dataset.dtype)
        self._chunk_rows = int(dataset.chunks[0]) if dataset.chunks else 1
        self._itemsize = int(dataset.dtype.itemsize)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape; an HDF5 null space has no rows."""
        return self._shape

    @property
    def values(self) -> Values:
        """What its elements are."""
        return self._values

    @property
    def chunk_rows(self) -> int:
        """Rows that are stored together."""
        return self._chunk_rows

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows ``start`` to ``stop``, with the shape and the errors of ``TreeArray.read``; none of a null space."""
        if self._is_null:
            return np.empty(0)
        rows: Any = slice(start, stop) if self.shape else ()
        kind, shape = self.values, self.shape
        if shape:
            first, last, _ = rows.indices(shape[0])
            shape = (max(0, last - first), *shape[1:])
        check_room(self._name, shape, self._itemsize, self._where)
        with damage_as_codes(self._where):
            if kind == "text":
                return np.asarray(self._dataset.asstr(errors="replace")[rows], dtype=object)
            found = self._dataset[rows]
            if kind == "reference":
                file = self._dataset.file
                names = [(file[ref].name or "").strip("/") if ref else "" for ref in np.ravel(found)]
                return np.array(names, dtype=object).reshape(np.shape(found))
        return np.asarray(found)

    def attribute(self, name: str) -> Any:
        """One of its attributes, as ``Tree.attributes`` has it; None where it has none of this name."""
        with damage_as_codes(self._where):
            return plain_value(self._dataset.attrs.get(name), self._dataset)

    def referents(self) -> tuple[Hdf5Array | None, ...]:
        """Arrays that its references lead to, in order; None for a reference to nothing, or to a group.

        They are opened as they are: their paths, which ``read`` gives, are found by looking through the whole file
        for each of them.

        Raises
        ------
        RecordingError
            ``unreadable`` where it holds no references, ``too_large`` where it holds too many.
        """
        import h5py

        if self.values != "reference" or self._is_null:
            raise unreadable(f"{self._name} holds no references", self._where)
        check_room(self._name, self.shape, self._itemsize, self._where)
        with damage_as_codes(self._where):
            file = self._dataset.file
            nodes = [file[one] if one else None for one in np.ravel(self._dataset[()])]
        return tuple(
            hdf5_array(node, f"{self._name}[{i}]", self._where) if isinstance(node, h5py.Dataset) else None
            for i, node in enumerate(nodes)
        )


def hdf5_array(dataset: Any, name: str, where: str) -> Hdf5Array:
    """Return the view of an ``h5py.Dataset``; raises ``unsupported_format`` where its values lie in other files."""
    with damage_as_codes(where):
        if dataset.is_virtual or dataset.external:  # a file of a stranger could name any file of this machine
            raise unsupported(f"the values of {name} lie in other files", where, "repack it into one file")
        return Hdf5Array(dataset, name, where)


def plain_value(value: Any, node: Any) -> Any:
    """Value of an attribute of a node of h5py: text as ``str``, a reference as the path that it leads to."""
    import h5py

    if isinstance(value, h5py.Reference):
        return (node.file[value].name or "").strip("/") if value else ""
    if isinstance(value, str):  # bytes that are no UTF-8 come as surrogates, which nothing can write again
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
        return tuple(plain_value(item, node) for item in value.ravel())
    return value


def hdf5_values(dtype: np.dtype[Any]) -> Values:
    """What elements of an h5py type are."""
    import h5py

    if h5py.check_string_dtype(dtype) is not None:
        return "text"
    return "reference" if h5py.check_ref_dtype(dtype) is h5py.Reference else plain_values(dtype)


def plain_values(dtype: np.dtype[Any]) -> Values:
    """What elements of a numpy type are."""
    if dtype.kind == "b":
        return "bool"
    return "number" if dtype.kind in "iuf" else "other"


def is_text(name: Any) -> bool:
    """Whether a name is UTF-8; h5py gives bytes or surrogates for others."""
    return isinstance(name, str) and name.isprintable()


def scalar(tree: Tree, path: str) -> Any:
    """First element of a small array, text or number; None where there is no array or no element."""
    if tree.kind(path) != "array":
        return None
    array = tree.array(path)
    found = array.read(0, 1) if array.shape else array.read()
    return np.ravel(found)[0].item() if array.values in ("number", "bool") and found.size else _first(found)


def _first(found: NDArray[Any]) -> Any:
    return np.ravel(found)[0] if found.size else None


def join(*parts: str) -> str:
    """Join parts of a path, leaving empty ones out."""
    return "/".join(part.strip("/") for part in parts if part.strip("/"))
