"""The OpenNeuro source against a real git repository on disk and a versioned bucket on loopback."""

from pathlib import Path

import pytest

from neuromill.records import Digest, Manifest, SourceFile

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
    import shutil

    shutil.rmtree(tmp_path / "cache")
    assert stand_in.open().read(file) == b"hello"  # no mirror at all
