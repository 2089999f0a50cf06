"""The ledger on a real PostgreSQL server, started on loopback for these tests."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuromill.catalog.ledger import Ledger
from neuromill.catalog.work import Counts, Scope
from neuromill.records import FailureCode, RecordingError, RecordingId
from support.ledger_work import check_two_processes_share_the_work, key, work

pytestmark = pytest.mark.slow


def binaries() -> Path | None:
    """Folder of the newest server, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


def unprivileged() -> dict:
    """The server refuses to run as root: the arguments that run a program as somebody else."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("running as root, and there is no user postgres or nobody to run the server as")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of an empty server on loopback."""
    folder = binaries()
    if folder is None:
        pytest.skip("no PostgreSQL server (initdb) is installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra 'postgres')")
    as_user = unprivileged()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = Path(tempfile.mkdtemp(prefix="nm-pg-"))
    data = home / "data"
    try:
        if as_user:
            os.chown(home, as_user["user"], as_user["group"])
        run = {"capture_output": True, "cwd": home, "timeout": 120, **as_user}
        subprocess.run(
            [folder / "initdb", "-D", data, "-A", "trust", "-U", "neuromill", "--no-sync"], check=True, **run
        )
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off"
        control = [folder / "pg_ctl", "-D", data, "-w"]
        subprocess.run(
            [*control, "-l", home / "log", "-o", options, "start"], check=True, **run | {"capture_output": False}
        )
        try:
            yield f"postgresql://neuromill@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, **run)
    finally:
        shutil.rmtree(home)


@pytest.fixture
def ledger(server: str) -> Iterator[Ledger]:
    from sqlalchemy import text

    with Ledger(server) as opened:
        with opened._engine.begin() as connection:
            connection.execute(text("TRUNCATE work, events, runs"))
        yield opened


def test_the_life_of_work(ledger: Ledger) -> None:
    assert ledger.expect(work("rec-1", "rec-2", "rec-3")) == 3
    assert ledger.expect(work("rec-1", "rec-2") + work("rec-3", digest="d2")) == 1
    assert [ledger.start(key(), worker=w) for w in ("a", "b")] == [1, None]
    assert ledger.finish(key(), attempt=1, bytes_out=2**40, facts={"bad": ["MEG 0111"], "hours": 0.5})
    row = ledger.row(key())
    assert row is not None
    assert (row.facts, row.bytes_out, row.worker) == ({"bad": ["MEG 0111"], "hours": 0.5}, 2**40, "a")
    assert ledger.fail(key("rec-2"), RecordingError(FailureCode.INTERNAL, "bug"))
    ledger.start(key("rec-3"))
    assert ledger.counts(Scope(stage="prepare")) == Counts(3, 1, 1, 1, 1, {FailureCode.INTERNAL: 1})
    assert ledger.release_running() == 1
    assert ledger.retry(recordings=[RecordingId("ds1", "1", "rec-2")]) == 1
    told = [e.happening.value for e in ledger.history(RecordingId("ds1", "1", "rec-3"))]
    assert told == ["expected", "changed", "started", "interrupted"]


def test_runs(ledger: Ledger) -> None:
    number = ledger.begin_run("prepare", "id1")
    ledger.end_run(number, facts={"done": 1})
    assert [(run.number, run.facts) for run in ledger.runs("prepare")] == [(number, {"done": 1})]


def test_two_processes_write_at_once(ledger: Ledger, server: str) -> None:
    assert ledger.counts().found == 0
    check_two_processes_share_the_work(server)
