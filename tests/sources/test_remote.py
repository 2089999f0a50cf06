"""Files read in place: only what is asked for, and never a wrong byte."""

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.readers.trees import open_hdf5
from neuromill.records import FailureCode, RecordingError
from neuromill.sources.attempts import Patience
from neuromill.sources.remote import RangeReader, RemoteFile, runs
from neuromill.synthetic.dandi_archive import Response, ServedAsset
from support.dandi import FaultyArchive, cut_body, header, short_body, status, wrong_bytes
from support.faults import Answer, Cut, Refuse, Stall, fault_proxy
from support.patience import BRIEF, FAST

KIB, MIB = 1 << 10, 1 << 20
CONTENT = np.random.default_rng(0).bytes(MIB + 12345)


@dataclass
class Place:
    archive: FaultyArchive
    asset: ServedAsset
    waits: list[float]

    def open(self, *, port: int = 0, etag: str = "", patience: Patience = FAST, **settings: int) -> RemoteFile:
        url = f"http://127.0.0.1:{port or self.archive.port}/api/assets/{self.asset.asset_id}/download/"
        reader = RangeReader(url, self.asset.size, etag=etag, patience=patience, sleep=self.waits.append)
        return RemoteFile(reader, **{"block_bytes": 64 * KIB} | settings)


def another_range(response: Response) -> Response:
    """As many bytes as were asked for, rightly labelled, from one byte further on."""
    length = len(response.body) - 1
    label = {"Content-Range": f"bytes 1-{length}/{len(CONTENT)}"}
    return replace(response, headers={**response.headers, **label}, body=CONTENT[1 : length + 1])


@pytest.fixture
def place() -> Iterator[Place]:
    yield from serve(CONTENT)


def serve(content: bytes) -> Iterator[Place]:
    with FaultyArchive({"000001": {"draft": {"a.nwb": content}}}) as archive:
        yield Place(archive, archive.assets["000001"]["draft"][0], [])


@given(st.sets(st.integers(0, 40)), st.integers(1, 7))
def test_runs_join_neighbours(blocks: set[int], longest: int) -> None:
    found = list(runs(sorted(blocks), longest))
    assert [block for run in found for block in run] == sorted(blocks)
    assert all(1 <= len(run) <= longest for run in found)
    assert all(a.stop < b.start or len(a) == longest for a, b in pairwise(found))


def test_it_reads_as_a_file_does(place: Place) -> None:
    """Any walk of seeks and reads gives what a file on disk gives, also with a cache of one block."""
    rng = np.random.default_rng(1)
    for cache in (64 * KIB, 4 * MIB):
        with place.open(cache_bytes=cache) as remote, io.BytesIO(CONTENT) as local:
            assert (remote.readable(), remote.seekable(), remote.writable()) == (True, True, False)
            for _ in range(25):
                offset, length = int(rng.integers(0, len(CONTENT) + 100)), int(rng.integers(0, 200 * KIB))
                assert remote.seek(offset) == local.seek(offset)
                assert remote.read(length) == local.read(length)
                assert remote.tell() == local.tell()
            assert remote.seek(-10, io.SEEK_END) == len(CONTENT) - 10
            assert remote.read() == CONTENT[-10:]
            assert remote.read(5) == b""
            assert remote.seek(-20, io.SEEK_CUR) == len(CONTENT) - 20
            with pytest.raises(ValueError, match="negative"):
                remote.seek(-1)
            remote.seek(0)
            assert remote.read() == CONTENT
            remote.verify()
    assert place.waits == []


def test_what_was_read_is_kept(place: Place) -> None:
    with place.open() as remote:
        remote.read(100 * KIB)
        asked = remote.requests
        remote.seek(0)
        remote.read(100 * KIB)
        assert (remote.requests, asked) == (1, 1)
        remote.verify()  # over a connection of its own: the counts of the file stay
        assert (remote.requests, remote.received) == (1, 128 * KIB)
    assert sum("/api/" in line for line in place.archive.requests) == 2  # the redirect is followed once per connection


def test_a_reader_that_goes_forward_is_read_ahead_of(place: Place) -> None:
    with place.open() as remote:
        while remote.read(10 * KIB):
            pass
        assert remote.received == len(CONTENT)
        assert remote.requests < 8  # of 17 blocks
    with place.open() as remote:
        for offset in (0, 500 * KIB, 200 * KIB):
            remote.seek(offset)
            remote.read(10)
        assert remote.received == 3 * 64 * KIB


@pytest.fixture(scope="module")
def nwb_like() -> bytes:
    """24 MB of HDF5: a large voltage nobody wants, and spikes in small chunks behind it."""
    rng = np.random.default_rng(2)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        voltage = rng.integers(-500, 500, (200_000, 60), dtype=np.int16)
        file.create_dataset("acquisition/ElectricalSeries/data", data=voltage, chunks=(10_000, 60))
        file["units/spike_times"] = np.sort(rng.uniform(0, 100, 50_000))
        file.create_dataset("processing/behavior/hand", data=rng.normal(size=(20_000, 2)), chunks=(2000, 2))
        file["general/subject/species"] = "Macaca mulatta"
    return buffer.getvalue()


def test_hdf5_over_ranges_transfers_only_what_is_wanted(nwb_like: bytes) -> None:
    for place in serve(nwb_like):
        with (
            place.open(block_bytes=256 * KIB) as remote,
            h5py.File(remote, "r") as far,
            h5py.File(io.BytesIO(nwb_like)) as near,
        ):
            for name in ("units/spike_times", "processing/behavior/hand"):
                np.testing.assert_array_equal(far[name][:], near[name][:])
            assert far["general/subject/species"].asstr()[()] == "Macaca mulatta"
            remote.verify()
            assert len(nwb_like) > 24_000_000
            assert remote.received < 2_500_000  # 720 KB are asked for, in blocks of 256 KiB
            assert remote.requests < 12


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ([status(404)], FailureCode.UNREACHABLE_UPSTREAM),
        ([status(503)] * 3, FailureCode.RETRIES_EXHAUSTED),
        ([header("ETag", '"x"')], FailureCode.CHANGED_UPSTREAM),
    ],
)
@pytest.mark.parametrize("name", ["units/spike_times", "processing/behavior/hand"])
def test_a_failure_inside_hdf5_keeps_its_code(nwb_like: bytes, name: str, plan: list, code: FailureCode) -> None:
    """What the file object raises comes through HDF5 as it is: a server that is down is no damaged file."""
    for place in serve(nwb_like):
        with place.open() as remote, closing(open_hdf5(remote, "a.nwb")) as tree:
            array = tree.array(name)
            place.archive.plan = list(plan)
            with pytest.raises(RecordingError) as error:
                array.read()
            assert error.value.code is code
        place.archive.plan = [status(404)]
        with place.open() as remote, pytest.raises(RecordingError) as error:
            open_hdf5(remote, "a.nwb")
        assert error.value.code is FailureCode.UNREACHABLE_UPSTREAM


@pytest.mark.parametrize(
    "plan",
    [[Refuse()], [Cut(0)], [Cut(300 * KIB)], [Answer(500), Answer(503)], [Answer(429, "7")]],
    ids=str,
)
def test_passing_faults_of_the_line_cost_time_only(place: Place, plan: list) -> None:
    with fault_proxy(("127.0.0.1", place.archive.port), plan) as proxy, place.open(port=proxy.port) as remote:
        assert remote.read() == CONTENT
        remote.verify()
    assert (7.0 in place.waits) == (plan == [Answer(429, "7")])


def test_a_line_that_falls_silent_costs_time_only(place: Place) -> None:
    stall = [Stall(300 * KIB)]
    with fault_proxy(("127.0.0.1", place.archive.port), stall) as proxy:
        with place.open(port=proxy.port, patience=BRIEF) as remote:
            assert remote.read() == CONTENT
            remote.verify()
        assert proxy.connections > 1


@pytest.mark.parametrize(
    "plan",
    [
        [status(500), status(502)],
        [status(429, Retry_After="3")],
        [short_body],
        [cut_body, short_body, cut_body, short_body],
        [header("Content-Range", "bytes 5-9/1060921")],
        [header("Content-Range", "nonsense")],
        [another_range],
        [lambda response: replace(response, body=b"<html>")],
    ],
)
def test_passing_faults_of_the_server_cost_time_only(place: Place, plan: list) -> None:
    place.archive.plan = plan
    with place.open() as remote:
        assert remote.read() == CONTENT
        remote.verify()
    assert not place.archive.plan


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        ([None, header("ETag", '"another"')], FailureCode.CHANGED_UPSTREAM),
        ([None, header("Content-Range", "bytes 524288-589823/99")], FailureCode.CHANGED_UPSTREAM),
        ([None, status(412)], FailureCode.CHANGED_UPSTREAM),
        ([None, status(416)], FailureCode.CHANGED_UPSTREAM),
        ([None, status(404)], FailureCode.UNREACHABLE_UPSTREAM),
        ([None, status(200)], FailureCode.UNREACHABLE_UPSTREAM),
        ([None, status(403), status(403)], FailureCode.UNREACHABLE_UPSTREAM),
        ([None, *[status(500)] * 3], FailureCode.RETRIES_EXHAUSTED),
        ([None, *[header("Content-Range", "")] * 3], FailureCode.RETRIES_EXHAUSTED),
    ],
)
def test_lasting_faults_have_a_code(place: Place, plan: list, code: FailureCode) -> None:
    place.archive.plan = plan
    with place.open() as remote:
        assert remote.read(10) == CONTENT[:10]
        remote.seek(512 * KIB)
        with pytest.raises(RecordingError) as error:
            remote.read(10)
    assert error.value.code is code
    assert error.value.next_step
    assert not place.archive.plan


def test_a_signed_address_that_expired_is_asked_for_again(place: Place) -> None:
    place.archive.plan = [None, status(403)]
    with place.open() as remote:
        remote.read(10)
        remote.seek(512 * KIB)
        assert remote.read(10) == CONTENT[512 * KIB : 512 * KIB + 10]
    assert sum("/api/" in line for line in place.archive.requests) == 2


def test_wrong_bytes_are_caught_by_verify(place: Place) -> None:
    place.archive.plan = [wrong_bytes]
    with place.open() as remote:
        assert remote.read(64 * KIB) != CONTENT[: 64 * KIB]
        with pytest.raises(RecordingError) as error:
            remote.verify()
    assert error.value.code is FailureCode.DIGEST_MISMATCH


def test_wrong_bytes_are_caught_when_a_block_comes_again(place: Place) -> None:
    place.archive.plan = [None, None, wrong_bytes]
    with place.open(cache_bytes=64 * KIB) as remote:
        remote.read(10)
        remote.seek(512 * KIB)
        remote.read(10)
        remote.seek(0)
        with pytest.raises(RecordingError) as error:
            remote.read(10)
    assert error.value.code is FailureCode.DIGEST_MISMATCH


def test_a_file_that_was_replaced_is_noticed(place: Place) -> None:
    """Same size, same address, other bytes: the bucket gives another ETag."""
    with place.open() as remote:
        remote.read(10)
        other = replace(place.asset, body=CONTENT[::-1], digest={"dandi:dandi-etag": "0" * 32 + "-1"})
        place.archive.add("000001", "draft", [other])
        remote.seek(512 * KIB)
        with pytest.raises(RecordingError) as error:
            remote.read(10)
        assert error.value.code is FailureCode.CHANGED_UPSTREAM
        with pytest.raises(RecordingError, match="manifest"):
            remote.verify()
    with (
        place.open(etag=f'"{place.asset.digest["dandi:dandi-etag"]}"') as remote,
        pytest.raises(RecordingError, match="manifest"),
    ):
        remote.read(10)


def test_an_empty_file(place: Place) -> None:
    for empty in serve(b""):
        with empty.open() as remote:
            assert remote.read() == b""
            remote.verify()
        assert empty.archive.requests == []
