"""The stand-in answers the dandi library itself, not only what this package asks of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dandi.dandiapi import DandiAPIClient
from dandi.exceptions import HTTP404Error, NotFoundError

from neuromill.records import FailureCode, RecordingError
from neuromill.sources.dandi_client import PatientClient
from neuromill.synthetic.dandi_archive import DandiArchive
from support.patience import FAST

CONTENT = b"nwb" * 10_000


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[DandiArchive]:
    (tmp_path / "b.nwb").write_bytes(CONTENT)
    files = {"sub-1/a.nwb": b"a", "sub-2/b.nwb": tmp_path / "b.nwb", "sub-2/c.nwb.zarr": {"units/.zgroup": b"{}"}}
    with DandiArchive({"000001": {"0.260101.0000": files}, "000002": {"draft": {}}}) as served:
        yield served


def test_the_library_finds_its_way(archive: DandiArchive, tmp_path: Path) -> None:
    with DandiAPIClient(api_url=archive.url) as client:
        assert [d.identifier for d in client.get_dandisets()] == ["000001", "000002"]
        assert [d.identifier for d in client.get_dandisets(search="000002")] == ["000002"]
        dandiset = client.get_dandiset("000001")
        assert [v.identifier for v in dandiset.get_versions()] == ["0.260101.0000", "draft"]
        assert dandiset.version_id == "0.260101.0000"
        assert dandiset.get_raw_metadata()["version"] == "0.260101.0000"
        assert [asset.path for asset in dandiset.get_assets_with_path_prefix("sub-2/")] == [
            "sub-2/b.nwb",
            "sub-2/c.nwb.zarr",
        ]
        assert [asset.path for asset in dandiset.get_assets_by_glob("*/a.nwb")] == ["sub-1/a.nwb"]
        asset = dandiset.get_asset_by_path("sub-2/b.nwb")
        assert asset.get_raw_metadata()["contentSize"] == len(CONTENT)
        assert dandiset.get_asset(asset.identifier) == asset
        asset.download(tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == CONTENT
        assert b"".join(asset.get_download_file_iter()(29_990)) == CONTENT[29_990:]
        (entry,) = dandiset.get_asset_by_path("sub-2/c.nwb.zarr").iterfiles()
        assert b"".join(entry.get_download_file_iter()()) == b"{}"
        with pytest.raises(NotFoundError):
            client.get_asset("00000000-0000-4000-8000-000000000000")
        with pytest.raises(NotFoundError):
            client.get_dandiset("000003", lazy=False)


def test_what_is_not_there(archive: DandiArchive) -> None:
    with PatientClient(archive.url, FAST) as client:
        assert client.get("/info/")["schema_version"]
        for path in (
            "/nothing/",
            "/dandisets/000001/versions/0.1/",
            "/dandisets/000001/other/",
            "/dandisets/000001/versions/draft/other/",
            "/zarr/00000000-0000-4000-8000-000000000000/files/",
        ):
            with pytest.raises(HTTP404Error):
                client.get(path)


def test_an_answer_that_is_no_json_is_asked_for_again(archive: DandiArchive) -> None:
    with PatientClient(archive.url, FAST) as client, pytest.raises(RecordingError) as error:
        client.get(
            f"{archive.url.removesuffix('/api')}/blobs/{archive.assets['000001']['0.260101.0000'][1].content_id}"
        )
    assert error.value.code is FailureCode.RETRIES_EXHAUSTED
    assert len(archive.requests) == FAST.fruitless_attempts
