"""The few file operations a store needs, behind one interface, so that an object store can take their place."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import tempfile
import threading
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from neuromill.records import ConfigError
from neuromill.store.errors import CorruptStoreError, MissingFileError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

STAGING_PREFIX = ".tmp-"
ASIDE_PREFIX = ".old-"
MAX_OPEN_FILES = 256
SHARE_OF_OPEN_FILES = 8  # training on four stores, and whatever else is open, fit into what a process may open
_NAME_IS_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


class Sink(Protocol):
    """Somewhere bytes go, in order."""

    def write(self, data: bytes | memoryview, /) -> int: ...  # noqa: D102


class Staging(Protocol):
    """A folder nobody sees until it is published, whole, under its name."""

    def create(self, path: str) -> AbstractContextManager[Sink]:
        """Write one new file; it is durable when the context ends without an error."""

    def publish(self, name: str, *, replace: bool) -> None:
        """Give everything written its final name in one step; ``StoreError`` if that exists and may not be replaced."""

    def discard(self) -> None:
        """Forget everything written; does nothing after ``publish``."""


class FileSystem(Protocol):
    """Files below one location; paths are relative and POSIX."""

    @property
    def location(self) -> str:
        """Where this is, as the user wrote it."""

    def read_bytes(self, path: str) -> bytes:
        """Whole small file; ``StoreError`` where there is none."""

    def read_into(self, path: str, offset: int, out: NDArray[Any]) -> None:
        """Fill the C-contiguous ``out``, of any shape and dtype, with the bytes from ``offset`` on.

        Raises
        ------
        MissingFileError
            If there is no such file.
        CorruptStoreError
            If it ends before ``out`` is full.
        """

    def size(self, path: str) -> int:
        """Bytes of a file; ``StoreError`` where there is none."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder."""

    def names(self, path: str = "") -> list[str]:
        """Names in a folder, sorted; none where the folder is missing."""

    def files(self, path: str) -> list[str]:
        """Every file below a folder, relative to it, sorted."""

    def replace_bytes(self, path: str, data: bytes) -> None:
        """Write or replace a small file; readers see the old or the new one."""

    def scratch(self) -> AbstractContextManager[IO[bytes]]:
        """Read-write file without a name, gone when closed or when the process dies."""

    def stage(self, name: str) -> Staging:
        """Start a folder that will be published as ``name``."""

    def clean_leftovers(self) -> list[str]:
        """Remove what killed writers left; returns the names. Folders of living writers stay.

        A folder that was to be replaced, and was not, gets its name back.
        """

    def zarr_store(self, path: str) -> Any:
        """Return what ``zarr.open`` takes for the folder ``path``."""

    def close(self) -> None:
        """Let go of every open file; the next read opens again."""


def open_file_system(location: str | Path) -> FileSystem:
    """Return the file system for a location; ``ConfigError`` for a scheme that is not supported."""
    text = str(location)
    if "://" in text:
        raise ConfigError(
            f"no file system for {text.partition('://')[0]}://", where=text, next_step="give a local folder"
        )
    return LocalFileSystem(text)


class LocalFileSystem:
    """A local folder. Reads keep at most ``max_open_files`` descriptors; safe in threads, after fork and spawn."""

    def __init__(self, root: str | Path, *, max_open_files: int = MAX_OPEN_FILES) -> None:
        self._root = os.fspath(root)
        self._descriptors = _Descriptors(max_open_files)

    @property
    def location(self) -> str:
        """The folder."""
        return self._root

    def _path(self, path: str) -> Path:
        return Path(self._root, path)

    def read_bytes(self, path: str) -> bytes:
        """Whole small file; ``StoreError`` where there is none."""
        try:
            return self._path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _missing(self._path(path)) from error

    def read_into(self, path: str, offset: int, out: NDArray[Any]) -> None:
        """Fill ``out`` with ``preadv``, straight into its memory; shapes and errors as ``FileSystem`` has them."""
        descriptor = self._descriptors.get(f"{self._root}/{path}")  # a Path would cost as much as the read itself
        done = os.preadv(descriptor.fd, (out,), offset)  # type: ignore[arg-type]  # numpy 2.4 stubs know no Buffer on 3.11
        while done < out.nbytes:  # at most 2 GiB come per call, and a file may be short
            rest = out.reshape(-1).view("u1")[done:]
            count = os.preadv(descriptor.fd, (rest,), offset + done)  # type: ignore[arg-type]
            if count == 0:
                raise CorruptStoreError(
                    f"file ends at byte {offset + done}, {out.nbytes - done} bytes early",
                    where=str(self._path(path)),
                    next_step="run `neuromill shards verify`",
                )
            done += count

    def size(self, path: str) -> int:
        """Bytes of a file; ``StoreError`` where there is none."""
        try:
            return self._path(path).stat().st_size
        except FileNotFoundError as error:
            raise _missing(self._path(path)) from error

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder."""
        return os.path.lexists(self._path(path))

    def names(self, path: str = "") -> list[str]:
        """Names in a folder, sorted; none where the folder is missing."""
        try:
            return sorted(entry.name for entry in self._path(path).iterdir())
        except FileNotFoundError:
            return []

    def files(self, path: str) -> list[str]:
        """Every file below a folder, relative to it, sorted."""
        root = self._path(path)
        return sorted(entry.relative_to(root).as_posix() for entry in root.rglob("*") if not entry.is_dir())

    def replace_bytes(self, path: str, data: bytes) -> None:
        """Write beside, fsync, ``os.replace``, fsync the folder."""
        target = self._path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{STAGING_PREFIX}{target.name}-{os.getpid()}")
        try:
            with _durable_file(temporary, "wb") as file:
                file.write(data)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _fsync_folder(target.parent)

    def scratch(self) -> AbstractContextManager[IO[bytes]]:
        """Anonymous file on the same disk as the store."""
        Path(self._root).mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self._root, prefix=STAGING_PREFIX)

    def stage(self, name: str) -> LocalStaging:
        """Start a ``.tmp-`` folder beside the final name."""
        return LocalStaging(Path(self._root), name)

    def clean_leftovers(self) -> list[str]:
        """Remove ``.tmp-*`` of writers that no longer live, and their ``.old-*``, or give those their names back."""
        left = [name for name in self.names() if name.startswith((STAGING_PREFIX, ASIDE_PREFIX))]
        removed = [name for name in left if _clean(self._path(name))]
        if left:
            _fsync_folder(Path(self._root))
        return removed

    def zarr_store(self, path: str) -> str:
        """Return the path of the folder."""
        return str(self._path(path))

    def close(self) -> None:
        """Close every descriptor that no read holds."""
        self._descriptors.clear()

    def __reduce__(self) -> tuple[object, ...]:
        """Descriptors do not travel to another process."""
        return (LocalFileSystem, (self._root,))


class LocalStaging:
    """``.tmp-<name>-<pid>`` in the folder of the final name, locked as long as its writer lives."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._folder = root / f"{STAGING_PREFIX}{name}-{os.getpid()}"
        if self._folder.exists() and not _clean(self._folder):
            raise StoreError("already being written", where=str(self._folder), next_step="use one writer")
        self._lock: int | None = _make_locked(self._folder)

    @contextmanager
    def create(self, path: str) -> Iterator[Sink]:
        """Write one new file, fsync it."""
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with _durable_file(target, "xb") as file:
            yield file

    def publish(self, name: str, *, replace: bool) -> None:
        """Fsync the folders, rename, fsync the parent. A replaced folder is moved aside first, removed after.

        Where the rename fails, or the process dies before it, the replaced folder gets its name back.

        Raises
        ------
        StoreError
            If the name is taken and may not be replaced.
        """
        for folder, _, _ in os.walk(self._folder, topdown=False):
            _fsync_folder(Path(folder))
        target = self._root / name
        while not self._take(target):
            if not replace:
                raise _taken(target)
            with _moved_aside(target):
                if self._take(target):
                    break
        self._unlock()

    def _take(self, target: Path) -> bool:
        """Rename to a name that is free: a folder is never renamed onto a file or another that is not empty."""
        try:
            self._folder.rename(target)
        except OSError as error:
            if error.errno not in _NAME_IS_TAKEN:
                raise
            return False
        _fsync_folder(self._root)
        return True

    def discard(self) -> None:
        """Remove the folder, if it was not published."""
        if self._lock is not None:
            shutil.rmtree(self._folder)
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)  # a forked child that has the descriptor would keep it locked
            os.close(self._lock)
            self._lock = None


class _Descriptor:
    """An open file, closed when the last one who holds it lets go: a read in another thread never loses it."""

    __slots__ = ("fd",)

    def __init__(self, path: str) -> None:
        self.fd = -1
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise _missing(path) from error

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class _Descriptors:
    """Least recently used descriptors.

    A forked child may use those it inherits (``preadv`` has no position to share), but not a lock that another thread
    of the parent may hold: it gets its own set as soon as it needs the lock.
    """

    def __init__(self, limit: int) -> None:
        may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # 1024 on most systems
        self._limit = max(1, min(limit, may_open // SHARE_OF_OPEN_FILES))
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Descriptor] = OrderedDict()

    def get(self, path: str) -> _Descriptor:
        """Return an open descriptor; hold the object while using its ``fd``."""
        found = self._open.get(path)
        if found is not None and len(self._open) < self._limit:
            return found  # nothing will be closed soon, so the order of use does not matter; saves 1 us of 2
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            found = self._open.get(path) or _Descriptor(path)
            self._open[path] = found
            self._open.move_to_end(path)
            if len(self._open) > self._limit:
                self._open.popitem(last=False)
            return found

    def clear(self) -> None:
        """Drop all."""
        self._reset()

    def __len__(self) -> int:
        return len(self._open)


@contextmanager
def _durable_file(path: Path, mode: str) -> Iterator[IO[bytes]]:
    with path.open(mode) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_locked(folder: Path) -> int:
    """Make a folder and lock it; once more where a cleaner took it for a leftover in between."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:  # 0 once it is removed
            return descriptor
        os.close(descriptor)


@contextmanager
def _moved_aside(target: Path) -> Iterator[None]:
    """Free a name; what had it is removed in the end, or gets it back where nothing else took it."""
    aside = target.with_name(f"{ASIDE_PREFIX}{target.name}-{os.getpid()}")
    lock = _locked(target)  # as long as this process lives no cleaner takes it for a leftover
    try:
        if aside.exists():  # could not be put back before, and its name was taken since
            _settle(aside)
        target.rename(aside)
        try:
            yield
        finally:
            _settle(aside)
    finally:
        os.close(lock)


def _locked(path: Path) -> int:
    """Lock what has a name, once nobody else does: another writer may replace it until then."""
    while True:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
        os.close(descriptor)


def _settle(aside: Path) -> bool:
    """Remove what was moved aside where its name is taken, else give that back; whether it was removed."""
    target = aside.with_name(aside.name.removeprefix(ASIDE_PREFIX).rpartition("-")[0])
    try:
        if not os.path.lexists(target):
            aside.rename(target)
            return False
    except OSError as error:
        if error.errno not in _NAME_IS_TAKEN:
            raise
    _remove(aside)
    return True


def _clean(path: Path) -> bool:
    """Remove what a killed writer left, or give it its name back; whether it was removed.

    The kernel lets go of the locks of killed processes.
    """
    with _lock_of_the_dead(path) as held:
        if not held or not os.path.lexists(path):  # another cleaner was here in between
            return False
        if path.name.startswith(ASIDE_PREFIX):
            return _settle(path)
        _remove(path)
        return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _lock_of_the_dead(path: Path) -> Iterator[bool]:
    """Whether the lock of a file or folder could be had: whoever held it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _taken(target: Path) -> StoreError:
    return StoreError(
        "other bytes are published under this name", where=str(target), next_step="replace them on purpose"
    )


def _missing(path: str | Path) -> MissingFileError:
    return MissingFileError(
        "no such file in the store", where=str(path), next_step="check the path, or prepare the recording"
    )
