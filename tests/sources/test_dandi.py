"""Listing and fetching dandisets, through the real client and a stand-in of the archive."""

import itertools
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from dandischema.digests.dandietag import DandiETag
from pydantic import ValidationError

from neuromill.records import ConfigError, Digest, FailureCode, RecordingError, SourceFile
from neuromill.sources.cache import RawCache
from neuromill.sources.dandi import DandiSource
from neuromill.sources.opening import Endpoints, open_source
from neuromill.synthetic.dandi_archive import ServedAsset
from support.dandi import FaultyArchive, cut_body, real_assets, short_body, status, wrong_bytes
from support.faults import Answer, Cut, Refuse, fault_proxy
from support.patience import FAST

DANDISET = "000999"
OLD, NEW = "0.250101.0900", "0.260101.1200"
NWB = "sub-1/sub-1_ses-1_ecephys.nwb"
CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def archive() -> Iterator[FaultyArchive]:
    content = {
        OLD: {NWB: b"old"},
        NEW: {NWB: CONTENT, "dandiset.txt": b"hello"},
        "draft": {NWB: CONTENT, "sub-1/new.nwb": b"new"},
    }
    with FaultyArchive({DANDISET: content, "000998": {"draft": {}}, "000997": {"draft": {}}}, {"000997"}) as served:
        yield served


@pytest.fixture
def open_at(archive: FaultyArchive, tmp_path: Path) -> Callable[..., DandiSource]:
    def opened(dandiset: str = DANDISET, port: int = 0) -> DandiSource:
        url = f"http://127.0.0.1:{port or archive.port}/api"
        source = open_source("dandi", dandiset, Endpoints(dandi_url=url, cache_folder=tmp_path / "c", patience=FAST))
        assert isinstance(source, DandiSource)
        return source

    return opened


def by_path(source: DandiSource, version: str | None = None) -> dict[str, SourceFile]:
    return {file.path: file for file in source.manifest(version).files}


def pages(archive: FaultyArchive) -> list[str]:
    return [line for line in archive.requests if "/assets/?" in line]


def failure(call: Callable[[], object]) -> RecordingError:
    with pytest.raises(RecordingError) as error:
        call()
    return error.value


def test_the_newest_published_version_is_listed(archive, open_at) -> None:
    manifest = open_at().manifest()
    assert str(manifest.dataset_version) == f"{DANDISET}@{NEW}"
    assert [(f.path, f.size, f.digest) for f in manifest.files] == [
        ("dandiset.txt", 5, Digest.of(b"hello")),
        (NWB, len(CONTENT), Digest.of(CONTENT)),
    ]
    asset = next(a for a in archive.assets[DANDISET][NEW] if a.path == NWB)
    etag = Digest.of(CONTENT, "dandi-etag").hex
    assert manifest.files[1].locator == f"dandi:{asset.asset_id}/blob/{asset.content_id}/{etag}"


@pytest.mark.parametrize(("version", "sizes"), [(OLD, [3]), (NEW, [5, len(CONTENT)]), ("draft", [3, len(CONTENT)])])
def test_a_version_is_listed_by_name(open_at, version: str, sizes: list[int]) -> None:
    manifest = open_at().manifest(version)
    assert manifest.dataset_version.version == version
    assert sorted(file.size for file in manifest.files) == sizes


@pytest.mark.data
@pytest.mark.parametrize("dandiset", ["000127", "000128", "000129", "000140", "000207", "000954"])
def test_real_listings_come_back_whole(archive, open_at, data: Path, dandiset: str) -> None:
    """Every asset of the real dandisets: path, size, SHA-256, ETag and id, and no file is touched."""
    archive.add(dandiset, "0.260101.0000", real_assets(data / "dandi" / dandiset))
    rows = json.loads((data / "dandi" / dandiset / "metadata" / "assets.json").read_text())
    listing = open_at(dandiset).listing()
    assert listing.skipped == ()
    assert {file.path: (file.size, str(file.digest), file.locator) for file in listing.manifest.files} == {
        row["path"]: (
            row["size"],
            "sha256:" + row["metadata"]["digest"]["dandi:sha2-256"],
            f"dandi:{row['asset_id']}/blob/{row['blob']}/{row['metadata']['digest']['dandi:dandi-etag']}",
        )
        for row in rows
    }
    assert not [line for line in archive.requests if "download" in line or "blobs" in line]


def test_a_large_dandiset_takes_few_requests_once(archive, open_at) -> None:
    template = archive.assets[DANDISET][NEW][0]
    ids = (f"{number:08x}-0000-4000-8000-000000000000" for number in itertools.count())
    assets = [replace(template, asset_id=next(ids), path=f"sub-{n:03d}/a.nwb") for n in range(250)]
    archive.add("000001", NEW, assets)
    source = open_at("000001")
    assert [file.path for file in source.manifest().files] == [asset.path for asset in assets]
    assert len(pages(archive)) == 6  # 3 pages of ids, 3 of metadata; not one request for each asset
    archive.requests.clear()
    assert len(open_at("000001").manifest().files) == 250
    assert len(pages(archive)) == 3
    assert not any("metadata" in line for line in archive.requests)  # an id stands for content: known from before
    archive.add("000001", NEW, [*assets, replace(template, asset_id=next(ids), path="z.nwb")])
    archive.requests.clear()
    assert len(open_at("000001").manifest().files) == 251
    assert len(pages(archive)) == 6


def test_a_listing_that_is_not_whole_is_refused(archive, open_at, monkeypatch) -> None:
    shown = archive._version

    def more(dandiset: str, version: str) -> dict:
        return shown(dandiset, version) | {"asset_count": 7}

    monkeypatch.setattr(archive, "_version", more)
    error = failure(open_at().manifest)
    assert error.code is FailureCode.UNREACHABLE_UPSTREAM
    assert "2 of 7" in error.what


def test_a_pinned_draft_is_noticed_when_it_changes(archive, open_at) -> None:
    source = open_at()
    before = source.manifest("draft")
    pinned = f"draft-{before.revision[:12]}"
    assert source.manifest(pinned).files == before.files
    assert source.manifest(pinned).dataset_version.version == pinned
    archive.add(DANDISET, "draft", [ServedAsset.of(DANDISET, NWB, b"other")])
    error = failure(lambda: source.listing(pinned))
    assert error.code is FailureCode.CHANGED_UPSTREAM
    assert f"draft-{source.manifest('draft').revision[:12]}" in error.next_step


def test_a_sha256_that_comes_later_changes_no_revision(archive, open_at) -> None:
    """The archive computes it after the upload: until then the dandi-etag is the digest, and nothing is remembered."""
    (asset, *rest) = archive.assets[DANDISET]["draft"]
    fresh = replace(asset, digest={"dandi:dandi-etag": asset.digest["dandi:dandi-etag"]})
    archive.add(DANDISET, "draft", [fresh, *rest])
    early = open_at().manifest("draft")
    assert {file.digest and file.digest.algorithm for file in early.files} == {"dandi-etag", "sha256"}
    archive.add(DANDISET, "draft", [asset, *rest])
    late = open_at().manifest("draft")
    assert {file.digest and file.digest.algorithm for file in late.files} == {"sha256"}
    assert late.revision == early.revision


def test_unknown_versions_and_dandisets(archive, open_at) -> None:
    with pytest.raises(ConfigError) as error:
        open_at().manifest("0.990101.0000")
    assert all(version in error.value.next_step for version in (OLD, NEW, "draft"))
    with pytest.raises(ConfigError) as error:
        open_at("000998").manifest()
    assert "draft" in error.value.next_step
    assert open_at("000998").manifest("draft").files == ()
    unknown = failure(open_at("000001").manifest)
    assert unknown.code is FailureCode.UNREACHABLE_UPSTREAM
    assert "id" in unknown.next_step
    for dandiset in ("1234567", "12345", "ds00001", "DANDI000128"):
        with pytest.raises(ConfigError, match="no dandiset"):
            open_at(dandiset)
    assert failure(lambda: open_at().manifest("../draft")).code is FailureCode.HOSTILE_NAME


def test_embargo_is_said(archive, open_at) -> None:
    error = failure(open_at("000997").manifest)
    assert error.code is FailureCode.UNREACHABLE_UPSTREAM
    assert "embargo" in error.next_step
    files = by_path(open_at())
    archive.embargoed = {DANDISET, "000997"}
    assert failure(open_at().manifest).code is FailureCode.UNREACHABLE_UPSTREAM
    error = failure(lambda: open_at().read(files[NWB]))
    assert error.code is FailureCode.UNREACHABLE_UPSTREAM
    assert "embargo" in error.next_step


@pytest.mark.parametrize(
    "path",
    [
        "../up.nwb",
        "/etc/passwd",
        "a//b.nwb",
        "a/../../b",
        "a\nb.nwb",
        "a\x00b",
        "a\\b.nwb",
        "\ud800.nwb",
        "x" * 900,
        "",
    ],
)
def test_hostile_names_are_left_out(archive, open_at, path: str) -> None:
    good = ServedAsset.of(DANDISET, "good.nwb", b"good")
    archive.add(DANDISET, NEW, [good, replace(good, asset_id=good.asset_id[:-1] + "0", path=path)])
    listing = open_at().listing()
    assert [file.path for file in listing.manifest.files] == ["good.nwb"]
    (skipped,) = listing.skipped
    assert skipped.code is FailureCode.HOSTILE_NAME
    assert skipped.path.isprintable()


def test_a_path_twice_is_left_out(archive, open_at) -> None:
    good = ServedAsset.of(DANDISET, NWB, b"good")
    archive.add(DANDISET, NEW, [good, replace(good, asset_id=good.asset_id[:-1] + "0")])
    listing = open_at().listing()
    assert [file.path for file in listing.manifest.files] == [NWB]
    assert [skipped.code for skipped in listing.skipped] == [FailureCode.HOSTILE_NAME]


@pytest.mark.parametrize(
    "digest",
    [{}, {"dandi:sha2-256": "../../../etc/passwd", "dandi:dandi-etag": "x"}, {"dandi:sha2-256": None}],
)
def test_what_is_no_digest_is_none(archive, open_at, digest: Mapping[str, str], tmp_path: Path) -> None:
    """A digest becomes a file name in the raw cache."""
    archive.add(DANDISET, NEW, [replace(ServedAsset.of(DANDISET, NWB, b"good"), digest=digest)])
    (file,) = open_at().manifest().files
    assert file.digest is None
    assert RawCache(tmp_path / "raw").ensure(open_at(), file).read_bytes() == b"good"


def test_another_server_is_noticed(archive, open_at, tmp_path: Path, monkeypatch) -> None:
    answers = {"identifier": DANDISET, "draft_version": 7}
    monkeypatch.setattr(archive, "_dandiset", lambda _: answers)
    error = failure(open_at().manifest)
    assert error.code is FailureCode.UNREACHABLE_UPSTREAM
    assert "dandi_url" in error.next_step


@pytest.mark.parametrize(
    "plan", [[Refuse()], [Cut(0)], [Cut(600)], [Answer(500), Answer(502)], [Answer(429, "5")], [Answer(408)]], ids=str
)
def test_passing_faults_of_the_api_cost_time_only(archive, open_at, plan, caplog) -> None:
    waits: list[float] = []
    with fault_proxy(("127.0.0.1", archive.port), plan) as proxy, caplog.at_level(logging.INFO):
        source = replace(open_at(port=proxy.port), sleep=waits.append)
        assert len(source.manifest().files) == 2
    assert (5.0 in waits) == (plan == [Answer(429, "5")])
    assert len(waits) == len(plan)
    assert [record for record in caplog.records if record.name == "dandi"] == []


def test_an_archive_that_is_down(archive, open_at) -> None:
    with fault_proxy(("127.0.0.1", archive.port), always=Answer(503)) as proxy:
        port = proxy.port
        assert failure(open_at(port=port).manifest).code is FailureCode.RETRIES_EXHAUSTED
        assert proxy.connections == FAST.fruitless_attempts
    assert failure(open_at(port=port).manifest).code is FailureCode.RETRIES_EXHAUSTED  # nobody listens


@pytest.mark.parametrize(
    "plan", [[], [status(500)], [status(429, Retry_After="0")], [cut_body], [cut_body, status(503), cut_body]]
)
def test_fetching_through_passing_faults(archive, open_at, tmp_path: Path, plan) -> None:
    source = open_at()
    file = by_path(source)[NWB]
    archive.plan, seen = plan, []
    assert source.fetch(file, tmp_path / "out", progress=seen.append) == Digest.of(CONTENT)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert (sum(seen), plan) == (len(CONTENT), [])


def test_a_fetch_goes_on_where_it_stopped(archive, open_at, tmp_path: Path) -> None:
    source = open_at()
    file = by_path(source)[NWB]
    archive.plan = [cut_body, *[status(503)] * FAST.fruitless_attempts]
    assert failure(lambda: source.fetch(file, tmp_path / "out")).code is FailureCode.RETRIES_EXHAUSTED
    kept = (tmp_path / "out.part").stat().st_size
    assert kept == len(CONTENT) // 2
    seen: list[int] = []
    sent: list[int] = []
    archive.plan = [lambda response: sent.append(len(response.body)) or response]
    source.fetch(file, tmp_path / "out", progress=seen.append)
    assert sent == [len(CONTENT) - kept]


@pytest.mark.parametrize(
    ("mangle", "code"),
    [
        (wrong_bytes, FailureCode.DIGEST_MISMATCH),
        (short_body, FailureCode.CHANGED_UPSTREAM),
        (status(404), FailureCode.UNREACHABLE_UPSTREAM),
        (status(403), FailureCode.UNREACHABLE_UPSTREAM),
    ],
)
def test_wrong_content_is_never_published(archive, open_at, tmp_path: Path, mangle, code: FailureCode) -> None:
    source = open_at()
    file = by_path(source)[NWB]
    archive.plan = [mangle] * (2 if mangle is wrong_bytes else 1)  # wrong bytes are fetched once more
    cache = RawCache(tmp_path / "raw")
    error = failure(lambda: cache.ensure(source, file))
    assert error.code is code
    assert error.next_step
    assert cache.find(file) is None
    assert cache.ensure(source, file).read_bytes() == CONTENT  # the next try starts afresh


def test_bytes_that_are_wrong_once_cost_time_only(archive, open_at, tmp_path: Path) -> None:
    source = open_at()
    seen: list[int] = []
    archive.plan = [wrong_bytes]
    source.fetch(by_path(source)[NWB], tmp_path / "out", progress=seen.append)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)
    assert [path.name for path in tmp_path.glob("out*")] == ["out"]


def test_a_dandi_etag_is_checked_where_there_is_no_sha256(archive, open_at, tmp_path: Path) -> None:
    asset = ServedAsset.of(DANDISET, NWB, CONTENT)
    archive.add(DANDISET, NEW, [replace(asset, digest={"dandi:dandi-etag": asset.digest["dandi:dandi-etag"]})])
    source = open_at()
    (file,) = source.manifest().files
    archive.plan = [wrong_bytes] * 2
    assert failure(lambda: source.fetch(file, tmp_path / "out")).code is FailureCode.DIGEST_MISMATCH
    assert source.fetch(file, tmp_path / "out") == Digest.of(CONTENT, "dandi-etag")
    assert source.read(file) == CONTENT


@pytest.mark.parametrize("size", [0, 1, 1000, (64 << 20) - 1, 64 << 20, (64 << 20) + 1, 128 << 20])
def test_the_dandi_etag_is_that_of_the_library(size: int, tmp_path: Path) -> None:
    content = b"\x07" * size
    (tmp_path / "file").write_bytes(content)
    assert Digest.of(content, "dandi-etag").hex == DandiETag.from_file(tmp_path / "file").as_str()


@pytest.mark.data
def test_the_dandi_etag_is_that_of_the_archive(data: Path) -> None:
    path = data / "dandi/000140/sub-Jenkins/sub-Jenkins_ses-small_desc-test_ecephys.nwb"
    (asset,) = (a for a in real_assets(data / "dandi/000140") if a.path.endswith(path.name))
    assert Digest.of(path.read_bytes(), "dandi-etag").hex == asset.digest["dandi:dandi-etag"]
    assert Digest.of(path.read_bytes()).hex == asset.digest["dandi:sha2-256"]


def test_a_stream_is_of_the_asset_of_the_manifest(archive, open_at) -> None:
    source = open_at()
    file = by_path(source)[NWB]
    with source.open_stream(file) as remote:
        assert remote.read() == CONTENT
        remote.verify()
    asset = next(a for a in archive.assets[DANDISET][NEW] if a.path == NWB)
    archive.add(DANDISET, NEW, [replace(asset, body=CONTENT[::-1], digest={"dandi:dandi-etag": "0" * 32 + "-1"})])
    archive.add(DANDISET, "draft", [])
    with source.open_stream(file) as remote:
        assert failure(lambda: remote.read(1)).code is FailureCode.CHANGED_UPSTREAM


def test_the_public_archive_is_the_default() -> None:
    source = open_source("dandi", "000128", Endpoints())
    assert isinstance(source, DandiSource)
    assert source.api_url == "https://api.dandiarchive.org/api"
    for url in ("file:///x", "api.dandiarchive.org", "ext::sh"):
        with pytest.raises(ValidationError):
            Endpoints(dandi_url=url)


def test_a_source_travels_to_a_worker(open_at) -> None:
    source = open_at()
    assert pickle.loads(pickle.dumps(source)) == source


def test_the_library_is_imported_when_it_is_used() -> None:
    """It takes 0.4 s."""
    code = (
        "import sys, neuromill.sources.opening; print([m for m in ('dandi', 'httpx', 'requests') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"
