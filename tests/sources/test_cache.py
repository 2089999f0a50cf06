"""The raw cache: content-addressed, verified, shared by processes."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mne
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import Digest, FailureCode, Manifest, RecordingError, SourceFile
from neuromill.sources.cache import RawCache
from neuromill.sources.local import LocalSource
from neuromill.sources.locking import exclusive
from neuromill.sources.protocol import Listing


class Shelf:
    """A source in memory that counts what is fetched and can lie."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.fetched: list[str] = []

    def file(self, path: str, algorithm: str | None = "md5") -> SourceFile:
        content = self.contents[path]
        return SourceFile(path, len(content), Digest.of(content, algorithm) if algorithm else None, f"shelf:{path}")

    def listing(self, version: str | None = None) -> Listing:
        raise NotImplementedError

    def manifest(self, version: str | None = None) -> Manifest:
        raise NotImplementedError

    def read(self, file: SourceFile) -> bytes:
        return self.contents[file.path]

    def fetch(self, file: SourceFile, to: Path, *, progress: Callable[[int], None] | None = None) -> Digest:
        self.fetched.append(file.path)
        to.write_bytes(self.contents[file.path])
        return Digest.of(self.contents[file.path], file.digest.algorithm if file.digest else "sha256")

    def place(self, file: SourceFile) -> Path | None:
        return None


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once_and_lies_under_its_digest(tmp_path: Path) -> None:
    shelf, cache = Shelf({"a": b"one", "b": b"one"}), RawCache(tmp_path)
    path = cache.ensure(shelf, shelf.file("a"))
    assert path.read_bytes() == b"one"
    hexdigits = Digest.of(b"one", "md5").hex
    assert files_below(tmp_path) == [f"md5/{hexdigits[:2]}/{hexdigits}"]
    assert cache.ensure(shelf, shelf.file("b")) == path
    assert shelf.fetched == ["a"]


def test_a_file_of_the_wrong_size_is_fetched_again(tmp_path: Path) -> None:
    shelf, cache = Shelf({"a": b"one"}), RawCache(tmp_path)
    cache.ensure(shelf, shelf.file("a")).write_bytes(b"on")
    assert cache.find(shelf.file("a")) is None
    assert cache.ensure(shelf, shelf.file("a")).read_bytes() == b"one"


def test_wrong_bytes_do_not_enter(tmp_path: Path) -> None:
    shelf, cache = Shelf({"a": b"one"}), RawCache(tmp_path)
    file = shelf.file("a")
    shelf.contents["a"] = b"two"
    with pytest.raises(RecordingError) as error:
        cache.ensure(shelf, file)
    assert error.value.code is FailureCode.DIGEST_MISMATCH
    assert files_below(tmp_path) == []


def test_without_a_digest_the_first_download_is_the_measure(tmp_path: Path) -> None:
    shelf, cache = Shelf({"a": b"one"}), RawCache(tmp_path)
    file = shelf.file("a", None)
    assert cache.find(file) is None
    assert cache.ensure(shelf, file).read_bytes() == b"one"
    assert cache.drop([file]) == 3
    assert cache.ensure(shelf, file).read_bytes() == b"one"
    cache.drop([file])
    shelf.contents["a"] = b"two"
    with pytest.raises(RecordingError) as error:
        cache.ensure(shelf, file)
    assert error.value.code is FailureCode.CHANGED_UPSTREAM
    assert cache.find(file) is None


def test_eight_at_once_fetch_once(tmp_path: Path) -> None:
    content = os.urandom(1 << 16)
    shelf, cache = Shelf({"a": content}), RawCache(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: cache.ensure(shelf, shelf.file("a")), range(8)))
    assert len(set(paths)) == 1
    assert shelf.fetched == ["a"]
    assert files_below(tmp_path) == [paths[0].relative_to(tmp_path).as_posix()]  # no lock, no part left


def test_materialised_members_lie_side_by_side_as_hard_links(tmp_path: Path) -> None:
    shelf = Shelf({"sub-01/meg/a_split-01_meg.fif": b"1", "sub-01/meg/a_split-02_meg.fif": b"2", "README": b"3"})
    cache = RawCache(tmp_path / "raw")
    members = [shelf.file(path) for path in shelf.contents]
    held = [cache.ensure(shelf, member) for member in members]
    for _ in range(2):  # idempotent
        tree = cache.materialise(members, tmp_path / "tree")
    assert files_below(tree) == sorted(shelf.contents)
    for member, path in zip(members, held, strict=True):
        assert (tree / member.path).samefile(path)
        assert not (tree / member.path).is_symlink()
    assert cache.drop(members) == 3
    assert (tree / "README").read_bytes() == b"3"


def test_materialise_falls_back_where_links_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    shelf, cache = Shelf({"a": b"one", "b": b"two"}), RawCache(tmp_path / "raw")
    for name in "ab":
        cache.ensure(shelf, shelf.file(name))
    monkeypatch.setattr(os, "link", refuse)
    assert (cache.materialise([shelf.file("a")], tmp_path / "t") / "a").is_symlink()
    monkeypatch.setattr(Path, "symlink_to", refuse)
    copied = cache.materialise([shelf.file("b")], tmp_path / "t") / "b"
    assert not copied.is_symlink()
    assert copied.read_bytes() == b"two"


def test_materialise_says_what_is_missing(tmp_path: Path) -> None:
    shelf = Shelf({"a": b"one"})
    with pytest.raises(RecordingError) as error:
        RawCache(tmp_path).materialise([shelf.file("a")], tmp_path / "tree")
    assert error.value.code is FailureCode.MISSING_MEMBER


def test_local_files_are_linked_in_place(tmp_path: Path) -> None:
    source = LocalSource("lab", tmp_path / "data", tmp_path / "hints")
    (tmp_path / "data").mkdir()
    for name in ("a.fif", "same.fif"):
        (tmp_path / "data" / name).write_bytes(b"one")
    cache = RawCache(tmp_path / "raw")
    files = source.manifest().files
    for file in files:
        cache.ensure(source, file)
    tree = cache.materialise(files, tmp_path / "tree")
    for file in files:
        assert (tree / file.path).is_symlink()
        assert (tree / file.path).resolve().parent == (tmp_path / "data").resolve()
    assert cache.drop(files) == 0
    assert (tmp_path / "data" / "a.fif").read_bytes() == b"one"
    (tmp_path / "data" / "a.fif").write_bytes(b"two")
    with pytest.raises(RecordingError) as error:
        cache.ensure(source, files[0])
    assert error.value.code is FailureCode.CHANGED_UPSTREAM


@pytest.mark.parametrize("in_place", [False, True])
def test_a_split_fif_opens_from_the_tree(tmp_path: Path, *, in_place: bool) -> None:
    info = mne.create_info(20, 100.0, "mag")
    signal = np.random.default_rng(0).standard_normal((20, 60_000))
    raw = mne.io.RawArray(signal, info, verbose="error")
    folder = tmp_path / "data" / "sub-01" / "meg"
    folder.mkdir(parents=True)
    raw.save(folder / "sub-01_meg.fif", split_size="2MB", split_naming="bids", verbose="error")
    source = LocalSource("lab", tmp_path / "data", tmp_path / "hints")
    files = source.manifest().files
    assert len(files) > 1
    shelf = Shelf({file.path: (tmp_path / "data" / file.path).read_bytes() for file in files})
    cache = RawCache(tmp_path / "raw")
    for file in files:
        cache.ensure(source if in_place else shelf, file)
    tree = cache.materialise(files, tmp_path / "tree")
    if not in_place:
        (tmp_path / "data").rename(tmp_path / "elsewhere")
    opened = mne.io.read_raw_fif(tree / files[0].path, verbose="error")
    assert np.allclose(opened.get_data(), signal, rtol=1e-6)


@given(st.binary(max_size=64), st.sampled_from(["md5", "sha1", "sha256", "git-sha1", None]))
def test_whatever_comes_in_comes_out(tmp_path_factory, content: bytes, algorithm: str | None) -> None:
    shelf, cache = Shelf({"x/y": content}), RawCache(tmp_path_factory.mktemp("raw"))
    assert cache.ensure(shelf, shelf.file("x/y", algorithm)).read_bytes() == content


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    inside, most = [], []
    guard = threading.Lock()

    def work(number: int) -> None:
        with exclusive(tmp_path / "lock"):
            with guard:
                inside.append(number)
                most.append(len(inside))
            os.sched_yield()
            with guard:
                inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(64)))
    assert max(most) == 1
    assert not (tmp_path / "lock").exists()
