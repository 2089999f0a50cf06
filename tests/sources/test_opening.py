"""Settings of the sources, and the bucket behind a file address."""

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from neuromill.records import ConfigError, Digest, FailureCode, RecordingError, SourceFile
from neuromill.sources.attempts import Patience
from neuromill.sources.bucket import Bucket, ObjectAddress
from neuromill.sources.opening import Endpoints, open_source


def test_defaults_are_the_public_archive() -> None:
    source = open_source("openneuro", "ds004078", Endpoints())
    assert source.git_url == "https://github.com/OpenNeuroDatasets/ds004078.git"
    url = source.bucket.address_url(ObjectAddress("a/b+c", "ds004078/sub 01/x#1.fif"))
    assert url == "https://s3.amazonaws.com/openneuro.org/ds004078/sub%2001/x%231.fif?versionId=a%2Fb%2Bc"


@pytest.mark.parametrize("dataset", ["../x", "--upload-pack=x", "", "a/b", "ds1 x"])
def test_dataset_ids_cannot_be_paths_or_options(dataset: str) -> None:
    with pytest.raises(RecordingError) as error:
        open_source("openneuro", dataset, Endpoints())
    assert error.value.code is FailureCode.HOSTILE_NAME


@pytest.mark.parametrize("settings", [{"git_url": "ext::sh"}, {"bucket_url": "s3://x"}, {"git_ulr": "https://x"}])
def test_wrong_settings_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Endpoints(**settings)


def test_unknown_archives_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="openneuro, local"):
        open_source("zenodo", "x", Endpoints())
    with pytest.raises(ConfigError, match="--data"):
        open_source("local", "x", Endpoints())
    assert open_source("local", "x", Endpoints(local_folder=tmp_path, cache_folder=tmp_path))


@pytest.mark.parametrize("archive", ["openneuro", "local"])
def test_sources_travel_to_worker_processes(archive: str, tmp_path: Path) -> None:
    source = open_source(archive, "ds1", Endpoints(local_folder=tmp_path))
    assert pickle.loads(pickle.dumps(source)) == source


@pytest.fixture
def folder_bucket(tmp_path: Path) -> Bucket:
    for version, content in [("v1", b"one"), ("null", b"head")]:
        path = tmp_path / "objects here" / version / "ds1" / "a b.fif"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return Bucket((tmp_path / "objects here").as_uri(), Patience())


@pytest.mark.parametrize(("version", "content"), [("v1", b"one"), ("", b"head")])
def test_a_folder_serves_as_bucket(folder_bucket: Bucket, tmp_path: Path, version: str, content: bytes) -> None:
    file = SourceFile("a b.fif", len(content), Digest.of(content, "md5"), f"s3:{version}#ds1/a b.fif")
    assert folder_bucket.fetch(file, tmp_path / "out" / "x", None) == file.digest
    assert (tmp_path / "out" / "x").read_bytes() == content


@pytest.mark.parametrize(
    ("locator", "size", "digest", "code"),
    [
        ("s3:v9#ds1/a b.fif", 3, b"one", FailureCode.UNREACHABLE_UPSTREAM),
        ("s3:v1#ds1/a b.fif", 4, b"one", FailureCode.CHANGED_UPSTREAM),
        ("s3:v1#ds1/a b.fif", 3, b"two", FailureCode.DIGEST_MISMATCH),
        ("s3:..#ds1/a b.fif", 3, b"one", FailureCode.HOSTILE_NAME),
        ("s3:v1#../v1/ds1/a b.fif", 3, b"one", FailureCode.HOSTILE_NAME),
    ],
)
def test_a_folder_fails_as_a_bucket_does(folder_bucket: Bucket, tmp_path: Path, locator, size, digest, code) -> None:
    file = SourceFile("a b.fif", size, Digest.of(digest, "md5"), locator)
    with pytest.raises(RecordingError) as error:
        folder_bucket.fetch(file, tmp_path / "out" / "x", None)
    assert error.value.code is code
    assert not list((tmp_path / "out").glob("*"))
