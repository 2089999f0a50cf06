"""A folder that is already here."""

import os
import shutil
from pathlib import Path

import pytest

from neuromill.records import ConfigError, Digest, FailureCode, FileState, RecordingError, SourceFile
from neuromill.sources import local
from neuromill.sources.local import Hints, LocalSource
from support.annexed import annex_key

HOUR_NS = 3_600_000_000_000


def write(path: Path, content: bytes) -> Path:
    """Write a file as if some hours ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    old = path.stat().st_mtime_ns - HOUR_NS
    os.utime(path, ns=(old, old))
    return path


@pytest.fixture
def source(tmp_path: Path) -> LocalSource:
    (tmp_path / "data").mkdir()
    return LocalSource("lab", tmp_path / "data", tmp_path / "cache")


def test_every_visible_file_with_size_and_digest(source: LocalSource) -> None:
    visible = ["README", "sub-01/meg/sub-01_meg.ds/x.meg4", "sub-01/meg/a b.fif", "sub-02/é.fif"]
    for name in visible:
        write(source.root / name, name.encode())
    for name in [".git/config", ".bidsignore", "sub-01/._a.fif", "sub-01/.hidden/x", "__MACOSX/sub-01/x", ".DS_Store"]:
        write(source.root / name, b"no")
    listing = source.listing()
    assert listing.skipped == ()
    assert [file.path for file in listing.manifest.files] == sorted(visible)
    for file in listing.manifest.files:
        assert file.digest == Digest.of(file.path.encode())
        assert file.size == len(file.path.encode())
        assert source.read(file) == file.path.encode()
    assert str(listing.manifest.dataset_version) == "lab@local"
    assert listing.manifest == source.manifest()


def test_the_revision_changes_with_the_content_only(source: LocalSource) -> None:
    path = write(source.root / "a", b"one")
    first = source.manifest().revision
    os.utime(path, ns=(1, 1))
    assert source.manifest().revision == first
    write(path, b"two")
    assert source.manifest().revision != first


def test_digests_are_computed_once(source: LocalSource, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(source.root / "a", b"one")
    hashed: list[Path] = []
    original = local.digest_of
    monkeypatch.setattr(local, "digest_of", lambda path: hashed.append(path) or original(path))
    source.manifest()
    LocalSource("lab", source.root, source.folder).manifest()
    assert hashed == [path]
    write(path, b"two!")
    source.manifest()
    assert hashed == [path, path]


def test_a_file_written_just_now_is_not_trusted_yet(source: LocalSource) -> None:
    """Same size, same time stamp, other bytes: possible within one tick of a coarse clock."""
    path = source.root / "a"
    path.write_bytes(b"one")
    stamp = path.stat()
    assert source.manifest().files[0].digest == Digest.of(b"one")
    path.write_bytes(b"two")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert source.manifest().files[0].digest == Digest.of(b"two")


def test_a_file_that_grows_while_it_is_read(source: LocalSource, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(source.root / "a", b"one")
    monkeypatch.setattr(local, "digest_of", lambda path: path.write_bytes(b"more") and Digest.of(b"one"))
    with Hints(source.folder) as hints, pytest.raises(RecordingError) as error:
        hints.digest(path)
    assert error.value.code is FailureCode.CHANGED_UPSTREAM


@pytest.mark.parametrize("pointer", [False, True], ids=["link", "pointer"])
def test_what_git_annex_has_not_fetched_is_lost(source: LocalSource, *, pointer: bool) -> None:
    key = annex_key(b"large", "a.fif")
    (source.root / "sub-01").mkdir()
    path = source.root / "sub-01" / "a.fif"
    if pointer:
        path.write_text(f"/annex/objects/{key}\n")
    else:
        path.symlink_to(f"../.git/annex/objects/Zx/q9/{key}/{key}")
    (file,) = source.manifest().files
    assert file == SourceFile("sub-01/a.fif", 5, Digest.of(b"large", "md5"), "local", FileState.LOST)
    with pytest.raises(RecordingError) as error:
        source.place(file)
    assert error.value.code is FailureCode.UNREACHABLE_UPSTREAM
    assert "annex get" in error.value.next_step


def test_a_fetched_annex_link_is_a_file(source: LocalSource) -> None:
    key = annex_key(b"large", "a.fif")
    write(source.root / f".git/annex/objects/Zx/q9/{key}/{key}", b"large")
    (source.root / "a.fif").symlink_to(f".git/annex/objects/Zx/q9/{key}/{key}")
    (file,) = source.manifest().files
    assert (file.size, file.digest, file.state) == (5, Digest.of(b"large"), FileState.AVAILABLE)


def test_links_that_leave_the_folder_and_odd_things_are_left_out(source: LocalSource, tmp_path: Path) -> None:
    write(tmp_path / "secret", b"x")
    write(source.root / "good", b"x")
    write(source.root / ".git/config", b"x")
    (source.root / "alias").symlink_to("good")
    for name, target in [("out", "../secret"), ("gone", "nowhere"), ("inside-git", ".git/config"), ("folder", "..")]:
        (source.root / name).symlink_to(target)
    write(source.root / "back\\slash", b"x")
    write(source.root / "new\nline", b"x")
    os.mkfifo(source.root / "pipe")
    listing = source.listing()
    assert [file.path for file in listing.manifest.files] == ["alias", "good"]
    codes = {item.path: item.code for item in listing.skipped}
    odd = dict.fromkeys(["out", "gone", "inside-git", "folder", "pipe"], FailureCode.UNSUPPORTED_FORMAT)
    assert codes == odd | dict.fromkeys(["back\\slash", r"'new\nline'"], FailureCode.HOSTILE_NAME)


def test_names_that_are_no_text_are_left_out(source: LocalSource) -> None:
    try:
        (Path(os.fsdecode(os.fsencode(source.root) + b"/\xff.fif"))).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system refuses such names")
    listing = source.listing()
    assert [item.code for item in listing.skipped] == [FailureCode.HOSTILE_NAME]


def test_fetch_copies_and_verifies(source: LocalSource, tmp_path: Path) -> None:
    path = write(source.root / "a", b"one")
    (file,) = source.manifest().files
    seen: list[int] = []
    assert source.fetch(file, tmp_path / "out" / "a", progress=seen.append) == file.digest
    assert (tmp_path / "out" / "a").read_bytes() == b"one"
    assert seen == [3]
    write(path, b"two")
    for use in (source.place, source.read, lambda f: source.fetch(f, tmp_path / "b")):
        with pytest.raises(RecordingError) as error:
            use(file)
        assert error.value.code is FailureCode.CHANGED_UPSTREAM
    path.unlink()
    with pytest.raises(RecordingError) as error:
        source.place(file)
    assert error.value.code is FailureCode.MISSING_MEMBER


def test_no_such_folder(source: LocalSource) -> None:
    shutil.rmtree(source.root)
    with pytest.raises(ConfigError):
        source.manifest()


@pytest.mark.data
def test_the_real_folder(data: Path, tmp_path: Path) -> None:
    listing = LocalSource("real", data / "bids" / "meg-fif", tmp_path).listing()
    assert listing.skipped == ()
    fifs = [file for file in listing.manifest.files if file.path.endswith("_meg.fif")]
    assert len(fifs) == 3
    assert all(file.state is FileState.AVAILABLE for file in listing.manifest.files)
