import errno
import fcntl
import os
import resource
import signal
from itertools import islice
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


def test_stores_share_what_a_process_may_open(tmp_path: Path) -> None:
    names = [f"f{number}" for number in range(40)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes([number]))
    one, other = LocalFileSystem(tmp_path), LocalFileSystem(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}
    free = (number for number in range(soft) if number not in in_use)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, 50, None)), hard))  # numbers below, not how many
    try:
        for fs in (one, other, one):
            for number, name in enumerate(names):
                out = np.zeros(1, np.uint8)
                fs.read_into(name, 0, out)
                assert out[0] == number
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(one._descriptors) + len(other._descriptors) <= 50
    with pytest.raises(StoreError, match="no such file"):
        one.read_into("nothing", 0, np.zeros(1, np.uint8))


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


def test_a_writer_that_comes_second_is_told(fs: LocalFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = fs.stage("a")
    with staging.create("x") as sink:
        sink.write(b"1")
    with pytest.raises(StoreError, match="other bytes are published"):
        staging.publish("a", replace=False)
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # the other one came between look and rename
    with pytest.raises(StoreError, match="other bytes are published"):
        staging.publish("a", replace=False)
    staging.discard()
    assert fs.names() == ["a"]


def written(fs: LocalFileSystem, content: bytes) -> LocalStaging:
    staging = fs.stage("a")
    with staging.create("data") as sink:
        sink.write(content)
    return staging


@pytest.mark.parametrize("replaced", [False, True], ids=["before the rename", "after it"])
def test_a_writer_that_is_killed_while_it_replaces_leaves_the_old_or_the_new(
    fs: LocalFileSystem, monkeypatch: pytest.MonkeyPatch, *, replaced: bool
) -> None:
    real = Path.rename

    def killed(path: Path, target: Path) -> None:
        if path.name.startswith(ASIDE_PREFIX) or not path.name.startswith(STAGING_PREFIX):
            real(path, target)
            return
        assert fs.clean_leftovers() == []  # the one who replaces lives
        if replaced:
            real(path, target)
        os.kill(os.getpid(), signal.SIGKILL)

    if (child := os.fork()) == 0:
        monkeypatch.setattr(Path, "rename", killed)
        written(fs, b"new").publish("a", replace=True)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert fs.exists("a") == replaced
    (gone,) = fs.clean_leftovers()
    assert gone.startswith(ASIDE_PREFIX if replaced else f"{STAGING_PREFIX}a-")
    assert fs.names() == ["a"]
    assert fs.read_bytes("a/data") == (b"new" if replaced else bytes(range(100)))


def test_a_replacement_that_fails_leaves_the_old(fs: LocalFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    staging, real = written(fs, b"new"), Path.rename

    def refuse(path: Path, target: Path) -> None:
        if path == staging._folder:
            raise OSError(errno.EIO, "Input/output error")
        real(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output"):
        staging.publish("a", replace=True)
    staging.discard()
    assert fs.names() == ["a"]
    assert fs.read_bytes("a/data") == bytes(range(100))


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
