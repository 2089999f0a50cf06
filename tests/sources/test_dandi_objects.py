"""Zarr assets: one file in the manifest, many checked objects behind it."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuromill.records import Digest, FailureCode, RecordingError, SourceFile
from neuromill.sources.dandi import DandiSource
from neuromill.sources.objects import ObjectEntry, ObjectStore, checksum_of, key_below
from neuromill.sources.opening import Endpoints, open_source
from support.dandi import FaultyArchive, cut_body, short_body, status, wrong_bytes
from support.faults import Cut, fault_proxy
from support.patience import FAST

DANDISET, VERSION, PATH = "000999", "0.260101.1200", "sub-1/sub-1.nwb.zarr"


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> dict[str, bytes]:
    """A Zarr v2 group as NWB-Zarr files are: attributes, arrays, chunks."""
    import zarr

    folder = tmp_path_factory.mktemp("zarr") / "x.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(folder, mode="w", zarr_format=2)
        units = group.create_group("units")
        units.create_array("spike times", data=np.arange(1000.0), chunks=(300,))
        units.attrs["colnames"] = ["spike_times"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def archive(objects: dict[str, bytes]) -> Iterator[FaultyArchive]:
    with FaultyArchive({DANDISET: {VERSION: {PATH: objects, "a.nwb": b"one file"}}}) as served:
        yield served


@pytest.fixture
def source(archive: FaultyArchive, tmp_path: Path) -> DandiSource:
    opened = open_source("dandi", DANDISET, Endpoints(dandi_url=archive.url, cache_folder=tmp_path, patience=FAST))
    assert isinstance(opened, DandiSource)
    return opened


def zarr_file(source: DandiSource) -> SourceFile:
    return next(file for file in source.manifest().files if file.path == PATH)


def everything(store: ObjectStore) -> dict[str, bytes | None]:
    keys = store.keys()
    return {key: store.get(key) for key in keys}


def failure(call) -> RecordingError:
    with pytest.raises(RecordingError) as error:
        call()
    return error.value


def test_a_zarr_is_one_file_of_the_manifest(archive, source, objects) -> None:
    file = zarr_file(source)
    asset = next(a for a in archive.assets[DANDISET][VERSION] if a.is_zarr)
    assert (file.size, file.digest) == (sum(map(len, objects.values())), None)
    assert file.locator == f"dandi:{asset.asset_id}/zarr/{asset.content_id}/{asset.digest['dandi:dandi-zarr-checksum']}"


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param([], id="no fault"),
        pytest.param([cut_body], id="cut body"),
        pytest.param([status(503), status(429, Retry_After="0")], id="503, then 429"),
        pytest.param([wrong_bytes], id="wrong bytes"),
    ],
)
def test_objects_come_back_whole(archive, source, objects, plan) -> None:
    archive.plan = plan
    with source.open_objects(zarr_file(source)) as store:
        assert store.keys() == tuple(sorted(objects))
        assert store.keys("units/") == tuple(sorted(key for key in objects if key.startswith("units/")))
        assert everything(store) == objects
        assert store.get("units/nothing") is None
        assert json.loads(store.get("units/.zattrs") or b"") == {"colnames": ["spike_times"]}
    assert archive.plan == []


def test_only_the_objects_that_are_asked_for_are_transferred(archive, source, objects) -> None:
    with source.open_objects(zarr_file(source)) as store:
        archive.requests.clear()
        assert store.get("units/spike times/0") == objects["units/spike times/0"]
        assert store.received == len(objects["units/spike times/0"])
    assert len(archive.requests) == 1


def test_objects_through_the_api_where_the_bucket_is_not_named(archive, source, objects, monkeypatch) -> None:
    asset = next(a for a in archive.assets[DANDISET][VERSION] if a.is_zarr)
    whole = type(asset).metadata
    hidden = lambda self, site: whole(self, site) | {"contentUrl": whole(self, site)["contentUrl"][:1]}  # noqa: E731
    monkeypatch.setattr(type(asset), "metadata", hidden)
    with source.open_objects(zarr_file(source)) as store:
        assert everything(store) == objects


def test_a_zarr_of_thousands_of_objects_is_listed_in_pages(archive, source) -> None:
    many = {f"units/data/{number}": b"%d" % number for number in range(2500)}
    with FaultyArchive({DANDISET: {VERSION: {PATH: many}}}) as large:
        far = replace(source, api_url=large.url)
        with far.open_objects(zarr_file(far)) as store:
            assert len(store.keys()) == 2500
            assert store.get("units/data/2499") == b"2499"
        assert sum("/files" in line for line in large.requests) == 3


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ([wrong_bytes, wrong_bytes], FailureCode.DIGEST_MISMATCH),
        ([short_body], FailureCode.CHANGED_UPSTREAM),
        ([status(404)], FailureCode.UNREACHABLE_UPSTREAM),
        ([status(403)], FailureCode.UNREACHABLE_UPSTREAM),
        ([status(500)] * FAST.fruitless_attempts, FailureCode.RETRIES_EXHAUSTED),
        ([cut_body] * FAST.fruitless_attempts, FailureCode.RETRIES_EXHAUSTED),
    ],
)
def test_lasting_faults_have_a_code(archive, source, plan, code: FailureCode) -> None:
    with source.open_objects(zarr_file(source)) as store:
        archive.plan = plan
        error = failure(lambda: store.get("units/spike times/0"))
        assert error.code is code
        assert error.next_step
        assert archive.plan == []
        assert store.get("units/spike times/0")


def test_a_line_that_is_cut_costs_time_only(archive, source, objects) -> None:
    file = zarr_file(source)
    with fault_proxy(("127.0.0.1", archive.port), [None, Cut(300)]) as proxy:
        near = replace(source, api_url=f"http://127.0.0.1:{proxy.port}/api")
        with near.open_objects(file) as store:
            assert everything(store) == objects


def test_a_zarr_that_changed_is_noticed(archive, source, objects) -> None:
    """A draft's Zarr can be written to under its old ids."""
    file = zarr_file(source)
    (zarr, other) = sorted(archive.assets[DANDISET][VERSION], key=lambda asset: not asset.is_zarr)
    archive.add(DANDISET, VERSION, [replace(zarr, body={**objects, "units/.zattrs": b"{}"}), other])
    assert failure(lambda: source.open_objects(file)).code is FailureCode.CHANGED_UPSTREAM
    archive.add(DANDISET, VERSION, [other])
    assert failure(lambda: source.open_objects(file)).code is FailureCode.UNREACHABLE_UPSTREAM


def test_a_zarr_without_a_checksum_is_left_out(archive, source) -> None:
    """Its upload is still being read by the archive."""
    (zarr, other) = sorted(archive.assets[DANDISET][VERSION], key=lambda asset: not asset.is_zarr)
    archive.add(DANDISET, VERSION, [replace(zarr, digest={"dandi:dandi-zarr-checksum": None}), other])
    listing = source.listing()
    assert [file.path for file in listing.manifest.files] == ["a.nwb"]
    assert [(s.path, s.code) for s in listing.skipped] == [(PATH, FailureCode.MISSING_FACT)]


def test_kinds_are_not_mixed_up(source, tmp_path: Path) -> None:
    files = {file.path: file for file in source.manifest().files}
    for call in (
        lambda: source.fetch(files[PATH], tmp_path / "out"),
        lambda: source.read(files[PATH]),
        lambda: source.open_stream(files[PATH]),
        lambda: source.open_objects(files["a.nwb"]),
    ):
        assert failure(call).code is FailureCode.UNSUPPORTED_FORMAT
    assert failure(lambda: source.read(replace(files["a.nwb"], locator="s3:#a"))).code is FailureCode.INTERNAL


def test_the_checksum_is_that_of_the_library(objects, tmp_path: Path) -> None:
    from zarr_checksum import compute_zarr_checksum
    from zarr_checksum.generators import yield_files_local

    for key, content in objects.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(content)
    entries = {key: ObjectEntry(len(content), Digest.of(content, "md5")) for key, content in objects.items()}
    assert checksum_of(entries) == str(compute_zarr_checksum(yield_files_local(str(tmp_path))))
    assert checksum_of({}) == "481a2f77ab786a0f45aafd5db0971caa-0--0"


def test_an_object_of_a_multipart_upload(archive) -> None:
    content = b"hello"
    blob = FaultyArchive({DANDISET: {VERSION: {"x": content}}})
    with blob as served:
        asset = served.assets[DANDISET][VERSION][0]
        entry = ObjectEntry.of_etag(len(content), asset.digest["dandi:dandi-etag"])
        base = served.url.removesuffix("api") + "blobs"
        with ObjectStore(key_below(base), {asset.content_id: entry}, patience=FAST) as store:
            assert store.get(asset.content_id) == content


def test_an_open_store_closes_its_line_when_it_is_forgotten(archive, source) -> None:
    store = source.open_objects(zarr_file(source))
    assert store.get("units/.zgroup")
    client = store._client
    del store
    assert client is not None
    assert client.is_closed
