"""Downloads through every fault, and what must never be published."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from neuromill.records import Digest, FailureCode, RecordingError
from neuromill.sources.attempts import Patience, retry_after
from neuromill.sources.bucket import Bucket, ObjectAddress
from neuromill.sources.download import Download, Wanted
from support.faults import Answer, Cut, Refuse, Stall, fault_proxy
from support.patience import BRIEF, FAST
from support.s3 import PublicBucket

MIB = 1 << 20
CONTENT = bytes(range(256)) * (8 * MIB // 256)


@pytest.fixture(scope="module")
def stored(bucket: PublicBucket) -> ObjectAddress:
    return ObjectAddress(bucket.put("ds1/sub 01/long+name&.fif", CONTENT), "ds1/sub 01/long+name&.fif")


def wanted(bucket: PublicBucket, address: ObjectAddress, port: int | None = None, **changes) -> Wanted:
    url = Bucket(bucket.url_through(port or bucket.port), FAST).address_url(address)
    facts = {"size": len(CONTENT), "digest": Digest.of(CONTENT, "md5")} | changes
    return Wanted(url, **facts)


def fetch(what: Wanted, to: Path, patience: Patience = FAST) -> tuple[list[float], int]:
    """Download; returns the waits and the bytes reported."""
    waits: list[float] = []
    seen: list[int] = []
    digest = Download(what, to, patience=patience, sleep=waits.append, progress=seen.append).run()
    assert to.read_bytes() == CONTENT
    assert digest.hex == Digest.of(CONTENT, digest.algorithm).hex
    assert sorted(p.name for p in to.parent.iterdir()) == [to.name]
    return waits, sum(seen)


@pytest.mark.parametrize(
    "plan",
    [
        [],
        [Refuse()],
        [Cut(0)],
        [Cut(3 * MIB)],
        [Answer(503), Answer(503)],
        [Answer(429)],
        [Answer(500), Answer(408)],
        [Answer(502), Cut(2 * MIB), Refuse(), Cut(MIB), Answer(504)],
    ],
    ids=str,
)
def test_passing_faults_cost_time_only(bucket, stored, tmp_path: Path, plan) -> None:
    with fault_proxy((bucket.host, bucket.port), plan) as proxy:
        _, seen = fetch(wanted(bucket, stored, proxy.port), tmp_path / "out")
        assert proxy.connections == len(plan) + 1
    assert seen == len(CONTENT)


def test_every_connection_cut_after_one_megabyte(bucket, stored, tmp_path: Path) -> None:
    """More cuts than fruitless attempts are allowed: progress is retried without limit."""
    with fault_proxy((bucket.host, bucket.port), always=Cut(MIB)) as proxy:
        _, seen = fetch(wanted(bucket, stored, proxy.port), tmp_path / "out")
        assert proxy.connections > 2 * FAST.fruitless_attempts
    assert seen == len(CONTENT)


def test_a_line_that_falls_silent_costs_time_only(bucket, stored, tmp_path: Path) -> None:
    with fault_proxy((bucket.host, bucket.port), [Stall(3 * MIB)]) as proxy:
        _, seen = fetch(wanted(bucket, stored, proxy.port), tmp_path / "out", BRIEF)
        assert proxy.connections > 1
    assert seen == len(CONTENT)


@pytest.mark.parametrize(
    ("always", "patience"), [(Refuse(), FAST), (Cut(0), FAST), (Stall(0), BRIEF), (Answer(503), FAST)], ids=str
)
def test_no_progress_ends(bucket, stored, tmp_path: Path, always, patience) -> None:
    with (
        fault_proxy((bucket.host, bucket.port), [Cut(MIB)], always) as proxy,
        pytest.raises(RecordingError) as error,
    ):
        fetch(wanted(bucket, stored, proxy.port), tmp_path / "out", patience)
    assert error.value.code is FailureCode.RETRIES_EXHAUSTED
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.part").stat().st_size > 0  # the next call goes on from here


def test_a_part_is_taken_up(bucket, stored, tmp_path: Path) -> None:
    with fault_proxy((bucket.host, bucket.port), [Cut(5 * MIB)], Refuse()) as proxy:
        what = wanted(bucket, stored, proxy.port)
        with pytest.raises(RecordingError):
            fetch(what, tmp_path / "out")
        kept = (tmp_path / "out.part").stat().st_size
        assert kept > 4 * MIB
        proxy.always = Cut(len(CONTENT) - kept + 4096)  # what is missing and the headers, not the whole
        _, seen = fetch(what, tmp_path / "out")
    assert seen == len(CONTENT)


def test_a_part_of_something_else_is_thrown_away(bucket, stored, tmp_path: Path) -> None:
    (tmp_path / "out.part").write_bytes(b"x" * MIB)
    (tmp_path / "out.part.json").write_text('{"url": "http://other", "size": 8388608, "etag": "e"}')
    fetch(wanted(bucket, stored), tmp_path / "out")


@pytest.mark.parametrize("note", ["", "{", "[]", '{"url": 1}'])
def test_a_torn_note_is_thrown_away_with_its_part(bucket, stored, tmp_path: Path, note: str) -> None:
    (tmp_path / "out.part").write_bytes(b"x" * MIB)
    (tmp_path / "out.part.json").write_text(note)
    fetch(wanted(bucket, stored), tmp_path / "out")


def test_a_part_whose_pages_were_lost_is_fetched_again(bucket, stored, tmp_path: Path) -> None:
    what = wanted(bucket, stored)
    with fault_proxy((bucket.host, bucket.port), [Cut(5 * MIB)], Refuse()) as proxy:
        what = wanted(bucket, stored, proxy.port)
        with pytest.raises(RecordingError):
            fetch(what, tmp_path / "out")
        part = tmp_path / "out.part"
        part.write_bytes(bytes(part.stat().st_size))
        proxy.always = None
        fetch(what, tmp_path / "out")


@pytest.mark.parametrize("asked", ["7", "90000"])
def test_retry_after_is_honoured_within_reason(bucket, stored, tmp_path: Path, asked: str) -> None:
    with fault_proxy((bucket.host, bucket.port), [Answer(503, asked)]) as proxy:
        waits, _ = fetch(wanted(bucket, stored, proxy.port), tmp_path / "out")
    assert waits == [min(float(asked), FAST.longest_retry_after_seconds)]


def test_retry_after_may_be_a_date() -> None:
    soon = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert soon is not None
    assert 50 < soon <= 60
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("soon") is None
    assert retry_after("") is None


def test_waits_grow_and_stop_growing() -> None:
    patience = Patience(first_delay_seconds=1.0, longest_delay_seconds=5.0)
    assert [patience.delay(n) for n in range(5)] == [1.0, 1.0, 2.0, 4.0, 5.0]


def test_wrong_bytes_are_never_published(bucket, stored, tmp_path: Path) -> None:
    with pytest.raises(RecordingError) as error:
        fetch(wanted(bucket, stored, digest=Digest.of(b"other", "md5")), tmp_path / "out")
    assert error.value.code is FailureCode.DIGEST_MISMATCH
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1])
def test_another_size_is_a_change(bucket, stored, tmp_path: Path, size: int) -> None:
    with pytest.raises(RecordingError) as error:
        fetch(wanted(bucket, stored, size=size), tmp_path / "out")
    assert error.value.code is FailureCode.CHANGED_UPSTREAM
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["", "00000000-0000-0000-0000-000000000000"])
def test_an_object_that_is_gone(bucket, tmp_path: Path, version: str) -> None:
    with pytest.raises(RecordingError) as error:
        fetch(wanted(bucket, ObjectAddress(version, "ds1/none")), tmp_path / "out")
    assert error.value.code is FailureCode.UNREACHABLE_UPSTREAM


def test_an_object_replaced_in_mid_download_is_noticed(bucket, tmp_path: Path) -> None:
    """Without an object version only If-Match can tell."""
    bucket.put("ds1/head", CONTENT)
    with fault_proxy((bucket.host, bucket.port), [Cut(MIB)]) as proxy:
        what = wanted(bucket, ObjectAddress("", "ds1/head"), proxy.port)
        download = Download(
            what, tmp_path / "out", patience=FAST, sleep=lambda _: void(bucket.put("ds1/head", CONTENT[::-1]))
        )
        with pytest.raises(RecordingError) as error:
            download.run()
    assert error.value.code is FailureCode.CHANGED_UPSTREAM
    assert list(tmp_path.iterdir()) == []


def void(_: object) -> None:
    return None


def test_a_file_without_digest_and_an_empty_file(bucket, stored, tmp_path: Path) -> None:
    fetch(wanted(bucket, stored, digest=None), tmp_path / "a" / "out")
    empty = ObjectAddress(bucket.put("ds1/empty", b""), "ds1/empty")
    what = wanted(bucket, empty, size=0, digest=Digest.of(b"", "md5"))
    Download(what, tmp_path / "b" / "out", patience=FAST).run()
    assert (tmp_path / "b" / "out").read_bytes() == b""


class _NoRanges(BaseHTTPRequestHandler):
    """A server that ignores Range and cuts every body at the same byte."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:MIB])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def no_ranges() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _NoRanges) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/x"
        server.shutdown()
        thread.join()


def test_starting_over_again_and_again_is_no_progress(no_ranges: str, tmp_path: Path) -> None:
    with pytest.raises(RecordingError) as error:
        Download(Wanted(no_ranges, len(CONTENT), None), tmp_path / "out", patience=FAST).run()
    assert error.value.code is FailureCode.RETRIES_EXHAUSTED


KILLED = """
import sys
from pathlib import Path
from neuromill.sources.attempts import Patience
from neuromill.sources.download import Download, Wanted
Download(Wanted(sys.argv[1], int(sys.argv[2]), None), Path(sys.argv[3]), patience=Patience()).run()
"""


def test_a_killed_download_resumes(bucket, stored, tmp_path: Path) -> None:
    with fault_proxy((bucket.host, bucket.port), [Stall(3 * MIB)]) as proxy:
        what = wanted(bucket, stored, proxy.port)
        command = [sys.executable, "-c", KILLED, what.url, str(what.size), str(tmp_path / "out")]
        process = subprocess.Popen(command)
        part = tmp_path / "out.part"
        for _ in range(600):
            if part.exists() and part.stat().st_size > MIB:
                break
            threading.Event().wait(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept = part.stat().st_size
        assert kept > MIB
        assert not (tmp_path / "out").exists()
        proxy.always = Cut(len(CONTENT) - kept + 4096)
        fetch(what, tmp_path / "out")
        assert proxy.connections == 2
