import errno
import fcntl
import os
import resource
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from neuromill.records import ConfigError
from neuromill.store.errors import CorruptStoreError, StoreError
from neuromill.store.filesystem import (
    ASIDE_PREFIX,
    STAGING_PREFIX,
    LocalFileSystem,
    LocalStaging,
    open_file_system,
)

Rename = Callable[[Path, Path], None]


@pytest.fixture
def fs(tmp_path: Path) -> LocalFileSystem:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "data").write_bytes(bytes(range(100)))
    return LocalFileSystem(tmp_path)


def test_listing(fs: LocalFileSystem, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir()
    (tmp_path / "a" / "b" / "c").write_bytes(b"")
    assert fs.names() == ["a"]
    assert fs.files("a") == ["b/c", "data"]
    assert fs.names("nothing") == []
    assert (fs.exists("a/data"), fs.exists("a/nothing"), fs.size("a/data")) == (True, False, 100)


@pytest.mark.parametrize("offset", [0, 1, 90])
def test_reads_a_range(offset: int, fs: LocalFileSystem) -> None:
    out = np.zeros((2, 5), np.uint8)
    fs.read_into("a/data", offset, out)
    np.testing.assert_array_equal(out.ravel(), np.arange(offset, offset + 10))


def test_a_read_that_comes_in_pieces_is_continued(fs: LocalFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, buffers, offset: real(fd, [memoryview(buffers[0]).cast("B")[:7]], offset)
    )
    out = np.zeros((5, 4), np.uint16)
    fs.read_into("a/data", 3, out)
    np.testing.assert_array_equal(out.ravel().view(np.uint8), np.arange(3, 43))


def test_reading_past_the_end_raises(fs: LocalFileSystem) -> None:
    with pytest.raises(CorruptStoreError, match="file ends at byte 100, 5 bytes early"):
        fs.read_into("a/data", 95, np.zeros(10, np.uint8))


@pytest.mark.parametrize("call", ["read_bytes", "size"])
def test_a_missing_file_is_a_store_error(call: str, fs: LocalFileSystem) -> None:
    with pytest.raises(StoreError, match="no such file"):
        getattr(fs, call)("a/nothing")
    with pytest.raises(StoreError, match="no such file"):
        fs.read_into("a/nothing", 0, np.zeros(1, np.uint8))


def test_descriptors_stay_below_the_limit(tmp_path: Path) -> None:
    for i in range(10):
        (tmp_path / str(i)).write_bytes(bytes([i]) * 4)
    fs = LocalFileSystem(tmp_path, max_open_files=3)
    out = np.zeros(4, np.uint8)
    for _ in range(3):
        for i in (0, 1, 2, 3, 0, 4, 5, 6, 7, 8, 9):
            fs.read_into(str(i), 0, out)
            assert out.tolist() == [i] * 4
            assert len(fs._descriptors) <= 3
    fs.close()
    assert len(fs._descriptors) == 0


def test_stores_share_what_a_process_may_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (80, 80))
    for number in range(40):
        (tmp_path / str(number)).write_bytes(b"x")
    for fs in (LocalFileSystem(tmp_path), LocalFileSystem(tmp_path)):
        for number in range(40):
            fs.read_into(str(number), 0, np.zeros(1, np.uint8))
        assert len(fs._descriptors) == 10


def test_the_least_recently_used_descriptor_goes_first(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(b"x")
    fs = LocalFileSystem(tmp_path, max_open_files=2)
    for name in "abac":
        fs.read_into(name, 0, np.zeros(1, np.uint8))
    assert [Path(path).name for path in fs._descriptors._open] == ["a", "c"]


def test_small_files_are_replaced_whole(fs: LocalFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs.replace_bytes("index", b"old")
    fs.replace_bytes("index", b"new")
    assert fs.read_bytes("index") == b"new"

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        fs.replace_bytes("index", b"newer")
    assert fs.read_bytes("index") == b"new"
    assert fs.names() == ["a", "index"]


def test_staging_is_invisible_until_published(fs: LocalFileSystem, tmp_path: Path) -> None:
    staging = fs.stage("g.zarr")
    with staging.create("x/y") as sink:
        sink.write(b"1")
    assert not fs.exists("g.zarr")
    staging.publish("g.zarr", replace=False)
    assert fs.read_bytes("g.zarr/x/y") == b"1"
    staging.discard()
    assert fs.names() == ["a", "g.zarr"]


def test_a_writer_that_comes_second_is_told(fs: LocalFileSystem) -> None:
    staging = fs.stage("a")
    with staging.create("x") as sink:
        sink.write(b"1")
    with pytest.raises(StoreError, match="other bytes are published"):
        staging.publish("a", replace=False)
    staging.discard()
    assert fs.names() == ["a"]


OLD = bytes(range(100))


def written(fs: LocalFileSystem, content: bytes, name: str = "a") -> LocalStaging:
    staging = fs.stage(name)
    with staging.create("data") as sink:
        sink.write(content)
    return staging


def left_by_a_child_that_dies_in(fs: LocalFileSystem, monkeypatch: pytest.MonkeyPatch, rename: Rename) -> None:
    """Replace "a" in a process that is killed where ``rename`` says; the cleaning of others leaves it alone."""
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(Path, "rename", rename)
            written(fs, b"new").publish("a", replace=True)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.parametrize("renamed", [False, True], ids=["before the rename", "after it"])
def test_a_writer_that_is_killed_while_it_replaces_leaves_the_old_or_the_new(
    fs: LocalFileSystem, monkeypatch: pytest.MonkeyPatch, *, renamed: bool
) -> None:
    real = Path.rename

    def dies(path: Path, target: Path) -> None:
        if path.name.startswith(STAGING_PREFIX) and not fs.exists("a"):
            if fs.clean_leftovers() == [] and renamed:  # the one who replaces lives
                real(path, target)
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, target)

    left_by_a_child_that_dies_in(fs, monkeypatch, dies)
    assert fs.exists("a") == renamed
    (gone,) = fs.clean_leftovers()
    assert gone.startswith(f"{ASIDE_PREFIX if renamed else STAGING_PREFIX}a-")
    assert fs.names() == ["a"]
    assert fs.read_bytes("a/data") == (b"new" if renamed else OLD)
    assert fs.clean_leftovers() == []


def failing(monkeypatch: pytest.MonkeyPatch, *prefixes: str) -> None:
    """Let renames of such names fail, once the name that is to be replaced is free."""
    real = Path.rename

    def rename(path: Path, target: Path) -> None:
        if path.name.startswith(prefixes) and not target.exists():
            raise OSError(errno.EIO, "Input/output error")
        real(path, target)

    monkeypatch.setattr(Path, "rename", rename)


def test_a_replacement_that_fails_leaves_the_old(fs: LocalFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = written(fs, b"new")
    failing(monkeypatch, STAGING_PREFIX)
    with pytest.raises(OSError, match="Input/output"):
        staging.publish("a", replace=True)
    staging.discard()
    assert fs.names() == ["a"]
    assert fs.read_bytes("a/data") == OLD


@pytest.mark.parametrize("cleaned", [True, False])
def test_the_only_copy_is_kept_where_it_cannot_be_put_back(
    fs: LocalFileSystem, monkeypatch: pytest.MonkeyPatch, *, cleaned: bool
) -> None:
    staging = written(fs, b"new")
    with monkeypatch.context() as broken:
        failing(broken, STAGING_PREFIX, ASIDE_PREFIX)
        with pytest.raises(OSError, match="Input/output"):
            staging.publish("a", replace=True)
        with pytest.raises(OSError, match="Input/output"):
            fs.clean_leftovers()
        assert not fs.exists("a")
    if cleaned:
        assert fs.clean_leftovers() == []
        assert fs.read_bytes("a/data") == OLD
    staging.publish("a", replace=True)
    written(fs, b"newer").publish("a", replace=True)
    assert fs.names() == ["a"]
    assert fs.read_bytes("a/data") == b"newer"


def test_another_writer_may_take_the_name_while_it_is_free(
    fs: LocalFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging, real = written(fs, b"new"), Path.rename

    def overtaken(path: Path, target: Path) -> None:
        if path == staging._folder and not target.exists():
            monkeypatch.undo()
            target.mkdir()
            (target / "data").write_bytes(b"another")
        real(path, target)

    monkeypatch.setattr(Path, "rename", overtaken)
    staging.publish("a", replace=True)
    assert fs.names() == ["a"]
    assert fs.read_bytes("a/data") == b"new"


def test_a_child_that_is_forked_meanwhile_keeps_no_lock(fs: LocalFileSystem) -> None:
    staging = written(fs, b"new", "b")
    child = os.fork()
    if child == 0:
        signal.pause()
    try:
        staging.publish("b", replace=False)
        written(fs, b"newer", "b").publish("b", replace=True)
        assert fs.read_bytes("b/data") == b"newer"
        assert fs.names() == ["a", "b"]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_a_writer_left_is_never_taken_for_another_recording(fs: LocalFileSystem) -> None:
    """Recordings may be called ``old-a``: what was written of one must not become ``a``."""
    written(fs, b"half", "old-b")._unlock()
    assert fs.clean_leftovers() == [f".tmp-old-b-{os.getpid()}"]
    assert fs.names() == ["a"]


def test_two_cleaners_do_not_disturb_each_other(fs: LocalFileSystem, tmp_path: Path) -> None:
    for turn in range(20):
        for number in range(10):
            (tmp_path / f".tmp-{number}.zarr-1" / "x").mkdir(parents=True)
            (tmp_path / f".old-{number}.zarr-1").mkdir()
        with ThreadPoolExecutor(2) as pool:
            gone = [name for names in pool.map(lambda _: fs.clean_leftovers(), range(2)) for name in names]
        assert sorted(gone) == [f".tmp-{number}.zarr-1" for number in range(10)], turn
        assert fs.names() == [*(f"{number}.zarr" for number in range(10)), "a"]
        for number in range(10):
            (tmp_path / f"{number}.zarr").rmdir()


def test_only_folders_so_far(tmp_path: Path) -> None:
    assert open_file_system(str(tmp_path)).location == str(tmp_path)
    with pytest.raises(ConfigError, match="no file system for s3://"):
        open_file_system("s3://bucket/stores")


def test_a_folder_taken_away_before_it_is_locked_is_made_again(
    fs: LocalFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        if not calls:
            calls.append(fs.clean_leftovers)
            assert fs.clean_leftovers() == [f".tmp-g.zarr-{os.getpid()}"]
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    staging = fs.stage("g.zarr")
    with staging.create("x") as sink:
        sink.write(b"1")
    staging.publish("g.zarr", replace=False)
    assert fs.read_bytes("g.zarr/x") == b"1"
