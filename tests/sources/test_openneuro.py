"""The OpenNeuro source against a real git repository on disk and a versioned bucket on loopback."""

import pickle
import shutil
from pathlib import Path

import pytest

from neuromill.records import ConfigError, Digest, FailureCode, FileState, Manifest, RecordingError, SourceFile
from neuromill.sources.git import GitMirror
from neuromill.sources.opening import Endpoints, open_source
from neuromill.sources.openneuro import newest
from support.annexed import REMOTE, annex_key, git, rmet_line
from support.githttp import backend, git_over_http

DATASET = "ds000042"
FIF = "sub-01/meg/sub-01_task-rest_meg.fif"


def by_path(manifest: Manifest) -> dict[str, SourceFile]:
    return {file.path: file for file in manifest.files}


@pytest.mark.parametrize("filters", [True, False], ids=["blobless", "server without filters"])
def test_listing_names_every_file_with_size_digest_and_object_version(stand_in, *, filters: bool) -> None:
    stand_in.mirror.plain("dataset_description.json", b'{"Name": "x"}')
    _, version = stand_in.store(FIF, b"raw" * 1000)
    stand_in.store("sub-01/anat/T1.nii.gz", b"image", pointer=True, algorithm="sha256")
    stand_in.mirror.tag("1.0.0")
    manifest = stand_in.open(filters=filters).manifest("1.0.0")
    files = by_path(manifest)
    assert list(files) == sorted(files) == ["dataset_description.json", "sub-01/anat/T1.nii.gz", FIF]
    assert files[FIF].digest == Digest.of(b"raw" * 1000, "md5")
    assert (files[FIF].size, files[FIF].locator) == (3000, f"s3:{version}#{DATASET}/{FIF}")
    assert files["sub-01/anat/T1.nii.gz"].digest == Digest.of(b"image", "sha256")
    assert files["dataset_description.json"].digest == Digest.of(b'{"Name": "x"}', "git-sha1")
    assert len(manifest.revision) == 40
    assert str(manifest.dataset_version) == "ds000042@1.0.0"


def test_small_and_large_files_come_with_their_bytes(stand_in, tmp_path: Path) -> None:
    stand_in.mirror.plain("README", b"hello")
    stand_in.store(FIF, b"raw" * 1000)
    stand_in.mirror.tag("1.0.0")
    source = stand_in.open()
    files = by_path(source.manifest())
    assert source.read(files["README"]) == b"hello"
    assert source.read(files[FIF]) == b"raw" * 1000
    for path, content in [("README", b"hello"), (FIF, b"raw" * 1000)]:
        seen: list[int] = []
        assert source.fetch(files[path], tmp_path / "out" / path, progress=seen.append) == files[path].digest
        assert (tmp_path / "out" / path).read_bytes() == content
        assert sum(seen) == len(content)
    assert not list((tmp_path / "out").rglob("*.part*"))


def test_a_source_in_another_process_finds_small_files_again(stand_in, tmp_path: Path) -> None:
    stand_in.mirror.plain("README", b"hello")
    stand_in.mirror.tag("1.0.0")
    file = stand_in.open().manifest().files[0]
    assert stand_in.open().read(file) == b"hello"  # mirror there, nothing remembered
    shutil.rmtree(tmp_path / "cache")
    assert stand_in.open().read(file) == b"hello"  # no mirror at all


def test_two_snapshots_of_one_dataset_give_each_their_own_bytes(stand_in, tmp_path: Path) -> None:
    stand_in.mirror.plain("README", b"first")
    stand_in.store(FIF, b"first recording")
    stand_in.mirror.tag("1.0.0")
    stand_in.mirror.plain("README", b"second")
    stand_in.store(FIF, b"second recording")  # the bucket's head is this one now
    stand_in.mirror.tag("1.10.0")
    source = stand_in.open()
    for version, word in [("1.0.0", b"first"), ("1.10.0", b"second"), ("1.0.0", b"first")]:
        files = by_path(source.manifest(version))
        assert source.read(files["README"]) == word
        source.fetch(files[FIF], tmp_path / version)
        assert (tmp_path / version).read_bytes() == word + b" recording"
    assert source.manifest().dataset_version.version == "1.10.0"


def test_what_no_remote_can_hand_out_is_lost(stand_in, tmp_path: Path) -> None:
    never = annex_key(b"never exported", "a.fif")
    stand_in.mirror.annexed("never.fif", never)
    taken_back = annex_key(b"taken back", "a.fif")
    stand_in.mirror.annexed("taken_back.fif", taken_back)
    stand_in.mirror.stored(
        taken_back, rmet_line("d/taken_back.fif", "v1"), rmet_line("d/taken_back.fif", "v1", "1583000009s", "-")
    )
    missing = annex_key(b"missing", "a.fif")
    stand_in.mirror.annexed("missing.fif", missing)
    stand_in.mirror.stored(missing, rmet_line("d/missing.fif", "v1"))
    stand_in.mirror.located(missing, f"1583000002s 0 {REMOTE}\n", f"1583000001s 1 {REMOTE}\n")
    stand_in.store("kept.fif", b"kept")
    stand_in.mirror.tag("1.0.0")
    source = stand_in.open()
    files = by_path(source.manifest())
    assert {path for path, file in files.items() if file.state is FileState.LOST} == {
        "never.fif",
        "taken_back.fif",
        "missing.fif",
    }
    assert files["kept.fif"].state is FileState.AVAILABLE
    with pytest.raises(RecordingError) as error:
        source.fetch(files["never.fif"], tmp_path / "out")
    assert error.value.code is FailureCode.UNREACHABLE_UPSTREAM


def test_an_object_that_left_the_bucket_after_all(stand_in, tmp_path: Path) -> None:
    _, version = stand_in.store(FIF, b"deleted behind git-annex's back")
    stand_in.mirror.tag("1.0.0")
    stand_in.bucket.delete_version(f"{DATASET}/{FIF}", version)
    source = stand_in.open()
    with pytest.raises(RecordingError) as error:
        source.fetch(source.manifest().files[0], tmp_path / "out")
    assert error.value.code is FailureCode.UNREACHABLE_UPSTREAM


def test_an_exported_file_without_a_recorded_version_is_guarded_by_its_digest(stand_in, tmp_path: Path) -> None:
    for path, stored in [("right.fif", b"right"), ("wrong.fif", b"other")]:
        key = annex_key(path.encode()[:5], path)
        stand_in.mirror.annexed(path, key)
        stand_in.mirror.located(key, f"1583000001s 1 {REMOTE}\n")
        stand_in.bucket.put(f"{DATASET}/{path}", stored)
    stand_in.mirror.tag("1.0.0")
    source = stand_in.open()
    files = by_path(source.manifest())
    assert files["right.fif"].locator == f"s3:#{DATASET}/right.fif"
    source.fetch(files["right.fif"], tmp_path / "out")
    with pytest.raises(RecordingError) as error:
        source.fetch(files["wrong.fif"], tmp_path / "out2")
    assert error.value.code is FailureCode.DIGEST_MISMATCH


def test_blanks_and_signs_in_names_survive_the_journey(stand_in, tmp_path: Path) -> None:
    names = ["Code/MEG MDD IDs and Quex.xlsx", "sub-1/100%+a&b=c?.fif", "sub-1/naïve 日本.fif", "a#b.fif"]
    for name in names:
        stand_in.store(name, name.encode())
    stand_in.mirror.tag("1.0.0")
    source = stand_in.open()
    files = by_path(source.manifest())
    assert sorted(files) == sorted(names)
    for number, name in enumerate(names):
        source.fetch(files[name], tmp_path / str(number))
        assert (tmp_path / str(number)).read_bytes() == name.encode()


def test_hostile_and_odd_entries_are_left_out_with_a_reason(stand_in) -> None:
    stand_in.mirror.plain("good.json", b"{}")
    stand_in.mirror.plain("new\nline.json", b"{}")
    stand_in.mirror.plain("back\\slash.json", b"{}")
    stand_in.mirror.plain("not-utf8-\udcff.json", b"{}")
    stand_in.mirror.link("alias.json", "good.json")
    stand_in.mirror.link("outside", "../../etc/passwd")
    stand_in.mirror.link("folder", "sub-01")
    stand_in.mirror.annexed("unknown_size.fif", "URL--http&c%%x%y")
    stand_in.mirror.tree["module"] = ("160000", b"1" * 40)
    stand_in.mirror.tag("1.0.0")
    listing = stand_in.open().listing()
    assert [file.path for file in listing.manifest.files] == ["alias.json", "good.json"]
    assert len({file.digest for file in listing.manifest.files}) == 1
    assert {item.path: item.code for item in listing.skipped} == {
        r"'new\nline.json'": FailureCode.HOSTILE_NAME,
        r"back\slash.json": FailureCode.HOSTILE_NAME,
        r"not-utf8-\xff.json": FailureCode.HOSTILE_NAME,
        "outside": FailureCode.UNSUPPORTED_FORMAT,
        "folder": FailureCode.UNSUPPORTED_FORMAT,
        "module": FailureCode.UNSUPPORTED_FORMAT,
        "unknown_size.fif": FailureCode.MISSING_FACT,
    }


def test_a_dataset_without_annexed_files_needs_no_annex_branch(stand_in) -> None:
    stand_in.mirror.plain("README", b"small")
    stand_in.mirror.tag("1.0.0")
    assert [file.path for file in stand_in.open().manifest().files] == ["README"]


def test_the_mirror_holds_no_blob_of_other_versions(stand_in) -> None:
    stand_in.mirror.plain("README", b"first")
    stand_in.store(FIF, b"first recording")
    stand_in.mirror.tag("1.0.0")
    stand_in.mirror.plain("README", b"second")
    stand_in.store(FIF, b"second recording")
    stand_in.mirror.tag("1.0.1")
    source = stand_in.open()
    source.manifest("1.0.1")
    objects = git("--git-dir", str(source.mirror.folder), "cat-file", "--batch-check", "--batch-all-objects").decode()
    contents = [
        git("--git-dir", str(source.mirror.folder), "cat-file", "blob", line.split()[0])
        for line in objects.splitlines()
        if " blob " in line
    ]
    assert b"second" in contents
    assert b"first" not in contents
    assert sum(b"V +" in content for content in contents) == 1  # logs of this version's keys only


def test_locks_of_a_killed_git_do_not_stay(stand_in) -> None:
    stand_in.mirror.plain("README", b"first")
    stand_in.mirror.tag("1.0.0")
    source = stand_in.open()
    source.manifest()
    for lock in ("shallow.lock", "config.lock", "refs/tags/1.0.1.lock"):
        (source.mirror.folder / lock).touch()
    before = source.mirror.folder.stat().st_ino
    stand_in.mirror.plain("README", b"second")
    stand_in.mirror.tag("1.0.1")
    assert stand_in.open().manifest().dataset_version.version == "1.0.1"
    assert source.mirror.folder.stat().st_ino == before  # gone on with, not cloned again


def test_a_worker_gets_the_settings_and_not_the_files(stand_in) -> None:
    stand_in.mirror.plain("README", b"x" * 10_000)
    stand_in.mirror.tag("1.0.0")
    source = stand_in.open()
    file = source.manifest().files[0]
    packed = pickle.dumps(source)
    assert len(packed) < 5000
    assert pickle.loads(packed).read(file) == b"x" * 10_000


def test_an_unknown_version_names_the_known_ones(stand_in) -> None:
    stand_in.mirror.plain("README", b"x")
    stand_in.mirror.tag("1.0.0")
    with pytest.raises(ConfigError, match=r"1\.0\.0"):
        stand_in.open().manifest("2.0.0")


@pytest.mark.parametrize("version", ["--upload-pack=touch pwned", "../x", "", "a b", "HEAD:x", "-1"])
def test_versions_cannot_be_options(stand_in, version: str) -> None:
    stand_in.mirror.plain("README", b"x")
    stand_in.mirror.tag("1.0.0")
    with pytest.raises(RecordingError) as error:
        stand_in.open().manifest(version)
    assert error.value.code is FailureCode.HOSTILE_NAME


def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    endpoints = Endpoints(git_url=(tmp_path / "none").as_uri() + "/{dataset}.git", cache_folder=tmp_path / "cache")
    with pytest.raises(RecordingError) as error:
        open_source("openneuro", DATASET, endpoints).manifest()
    assert error.value.code is FailureCode.UNREACHABLE_UPSTREAM
    assert "\n" not in str(error.value)


def test_protocols_that_run_programs_are_off(tmp_path: Path) -> None:
    source = GitMirror(tmp_path / "m.git", f"ext::sh -c touch% {tmp_path}/pwned")
    with pytest.raises(RecordingError):
        source.refs()
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["1.0.0", "1.10.0", "1.9.3"], "1.10.0"),
        (["57fecb0ccce88d000ac17538", "1.0.0"], "1.0.0"),
        (["00001", "00002"], "00002"),
        (["1.0.0", "2.0.0-rc1"], "1.0.0"),
        (["1.0", "1.0.1"], "1.0.1"),
        ([], None),
    ],
)
def test_newest_is_by_version_sort(tags: list[str], expected: str | None) -> None:
    assert newest(tags) == expected
    assert newest(reversed(tags)) == expected


@pytest.mark.data
@pytest.mark.parametrize("dataset", ["ds004078", "ds005356", "ds000117"])
def test_real_listings_come_back_whole(stand_in, data: Path, dataset: str) -> None:
    """The real tree of a dataset, laid out as a mirror of links and pointers, gives back the listing's own facts."""
    rows = [line.split("\t") for line in (data / "openneuro" / dataset / "listing.tsv").read_text().splitlines()[1:]]
    assert len(rows) > 200
    expected = {}
    for number, (path, where, size, algorithm, checksum) in enumerate(rows):
        if where != "annex":
            continue
        key = f"{algorithm.upper()}E-s{size}--{checksum}{Path(path).suffix}"
        stand_in.mirror.annexed(path, key, pointer=number % 3 == 0)
        stand_in.mirror.stored(key, rmet_line(f"{dataset}/{path}", f"v{number}"))
        expected[path] = (int(size), Digest(algorithm, checksum), f"#{dataset}/{path}")
    stand_in.mirror.tag("1.0.0")
    listing = stand_in.open().listing()
    assert listing.skipped == ()
    found = {f.path: (f.size, f.digest, f.locator[f.locator.index("#") :]) for f in listing.manifest.files}
    assert found == expected
    assert {file.state for file in listing.manifest.files} == {FileState.AVAILABLE}


@pytest.mark.skipif(not backend().exists(), reason="git was built without http-backend")
@pytest.mark.parametrize("filters", [True, False], ids=["blobless", "server without filters"])
def test_the_mirror_over_http(stand_in, tmp_path: Path, *, filters: bool) -> None:
    stand_in.mirror.plain("README", b"hello")
    stand_in.mirror.plain("participants.tsv", b"x" * 50_000)  # larger than what a listing remembers
    stand_in.store(FIF, b"raw" * 1000)
    stand_in.mirror.tag("1.0.0")
    stand_in.mirror.write(tmp_path / "upstream", filters=filters)
    with git_over_http(tmp_path / "upstream") as address:
        endpoints = Endpoints(
            git_url=address + "/{dataset}.git", bucket_url=stand_in.bucket.url, cache_folder=tmp_path / "cache"
        )
        source = open_source("openneuro", DATASET, endpoints)
        files = by_path(source.manifest())
        assert {path: source.read(file) for path, file in files.items()} == {
            "README": b"hello",
            "participants.tsv": b"x" * 50_000,
            FIF: b"raw" * 1000,
        }
        with pytest.raises(RecordingError) as error:
            open_source("openneuro", "ds000043", endpoints).manifest()
    assert error.value.code is FailureCode.UNREACHABLE_UPSTREAM
    assert "id" in error.value.next_step
    with pytest.raises(RecordingError) as error:
        source.manifest()  # the server is gone
    assert error.value.code is FailureCode.UNREACHABLE_UPSTREAM
