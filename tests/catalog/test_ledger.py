"""The ledger on SQLite; the same histories run on PostgreSQL in test_ledger_postgres.py."""

import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from neuromill.catalog.ledger import Ledger, sqlite_url
from neuromill.catalog.work import Counts, Happening, Scope, WorkState
from neuromill.records import ConfigError, DatasetVersion, FailureCode, NeuroMillError, RecordingError, RecordingId
from support.ledger_work import check_two_processes_share_the_work, key, work

ERROR = RecordingError(FailureCode.MAXSHIELD, "recorded with MaxShield", next_step="apply SSS")
LOST = RecordingError(FailureCode.UNREACHABLE_UPSTREAM, "no answer")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ticks = itertools.count(1000.0)
    with Ledger(sqlite_url(tmp_path / "ledger.db"), clock=lambda: float(next(ticks))) as opened:
        yield opened


def happenings(ledger: Ledger, name: str = "rec-1") -> list[str]:
    return [event.happening.value for event in ledger.history(RecordingId("ds1", "1", name))]


def test_the_life_of_a_piece_of_work(ledger: Ledger) -> None:
    assert ledger.expect(work("rec-1")) == 1
    attempt = ledger.start(key(), worker="w1")
    assert attempt == 1
    assert ledger.counts() == Counts(found=1, done=0, failed=0, waiting=1, running=1)
    assert ledger.finish(key(), attempt=attempt, bytes_out=7, facts={"bad": ["MEG 0111"]})
    row = ledger.row(key())
    assert row is not None
    assert (row.state, row.bytes_out, row.facts, row.attempts, row.worker) == (
        "done",
        7,
        {"bad": ["MEG 0111"]},
        1,
        "w1",
    )
    assert row.started_at is not None
    assert row.ended_at is not None
    assert row.seconds == row.ended_at - row.started_at > 0
    assert happenings(ledger) == ["expected", "started", "finished"]
    assert pickle.loads(pickle.dumps(row)) == row


def test_a_failure_keeps_its_code_and_the_next_step(ledger: Ledger) -> None:
    ledger.expect(work("rec-1"))
    ledger.start(key())
    assert ledger.fail(key(), ERROR)
    row = ledger.row(key())
    assert row is not None
    assert (row.state, row.code, row.message, row.next_step) == ("failed", "maxshield", ERROR.what, "apply SSS")
    told = ledger.history(key().recording_id)[-1]
    assert (told.happening, told.code, told.message, told.attempt) == (Happening.FAILED, "maxshield", ERROR.what, 1)
    assert ledger.counts().by_code == {FailureCode.MAXSHIELD: 1}


def test_every_operation_may_be_repeated(ledger: Ledger) -> None:
    assert [ledger.expect(work("rec-1", "rec-2")) for _ in range(2)] == [2, 0]
    assert [ledger.start(key(), worker=w) for w in ("a", "b")] == [1, None]
    assert [ledger.finish(key(), attempt=1) for _ in range(2)] == [True, True]
    assert [ledger.fail(key("rec-2"), ERROR) for _ in range(2)] == [True, True]  # found out without starting it
    assert happenings(ledger) == ["expected", "started", "finished"]
    assert happenings(ledger, "rec-2") == ["expected", "failed"]
    assert [ledger.release_running(), ledger.retry(everything=True), ledger.retry(everything=True)] == [0, 1, 0]


def test_a_changed_input_is_done_again_and_a_stale_result_is_ignored(ledger: Ledger) -> None:
    ledger.expect(work("rec-1"))
    ledger.start(key())
    ledger.finish(key(), facts={"n": 1})
    assert ledger.expect(work("rec-1", digest="d2")) == 1
    row = ledger.row(key())
    assert row is not None
    assert (row.state, row.input_digest, row.facts, row.attempts) == ("waiting", "d2", {}, 1)
    attempt = ledger.start(key())
    assert attempt == 2
    ledger.expect(work("rec-1", digest="d3"))  # changes while a worker is at it
    assert not ledger.finish(key(), attempt=attempt)
    assert not ledger.fail(key(), ERROR, attempt=attempt)
    assert ledger.start(key()) == 3
    assert not ledger.finish(key(), attempt=2)
    assert ledger.finish(key(), attempt=3)
    changed = [e.input_digest for e in ledger.history(key().recording_id) if e.happening is Happening.CHANGED]
    assert changed == ["d2", "d3"]


def test_done_work_may_be_started_again_but_does_not_fail(ledger: Ledger) -> None:
    ledger.expect(work("rec-1"))
    assert not ledger.finish(key())  # nobody started it
    ledger.start(key())
    ledger.finish(key())
    assert not ledger.fail(key(), ERROR)
    assert ledger.start(key()) == 2


def test_work_nobody_expects_is_refused(ledger: Ledger) -> None:
    for call in (lambda: ledger.start(key()), lambda: ledger.finish(key()), lambda: ledger.fail(key(), ERROR)):
        with pytest.raises(ConfigError, match="does not expect"):
            call()
    assert ledger.row(key()) is None
    assert ledger.history(key().recording_id) == ()


def test_after_a_crash_running_work_waits_again(ledger: Ledger) -> None:
    ledger.expect(work("rec-1", "rec-2", "rec-3") + work("rec-1", stage="tokenize"))
    ledger.start(key())
    ledger.start(key(stage="tokenize"))
    ledger.start(key("rec-2"))
    ledger.finish(key("rec-2"))
    assert ledger.release_running(Scope(stage="prepare")) == 1
    assert ledger.counts(Scope(stage="prepare")) == Counts(found=3, done=1, failed=0, waiting=2)
    assert ledger.counts(Scope(stage="tokenize")).running == 1
    told = [e for e in ledger.history(key().recording_id) if e.happening is Happening.INTERRUPTED]
    assert [(e.key.stage, e.code) for e in told] == [("prepare", FailureCode.INTERRUPTED)]


def failures(ledger: Ledger) -> None:
    ledger.expect(work("rec-1", "rec-2", "rec-3") + work("rec-1", identity="id2"))
    ledger.fail(key("rec-1"), ERROR)
    ledger.fail(key("rec-2"), LOST)
    ledger.fail(key("rec-1", identity="id2"), LOST)


@pytest.mark.parametrize(
    ("scope", "options", "number"),
    [
        (Scope(), {}, 2),  # those where trying again may help
        (Scope(identity="id1"), {}, 1),
        (Scope(), {"everything": True}, 3),
        (Scope(), {"codes": [FailureCode.MAXSHIELD]}, 1),
        (Scope(), {"codes": []}, 0),
        (Scope(), {"recordings": [RecordingId("ds1", "1", "rec-1")]}, 2),
        (Scope(), {"recordings": [RecordingId("ds1", "1", "rec-1")], "codes": [FailureCode.MAXSHIELD]}, 1),
        (Scope(), {"recordings": []}, 0),
        (Scope(), {"recordings": [RecordingId("ds1", "1", "rec-3")]}, 0),
        (Scope(DatasetVersion("ds1", "2")), {"everything": True}, 0),
    ],
)
def test_retry(ledger: Ledger, scope: Scope, options: dict, number: int) -> None:
    failures(ledger)
    assert ledger.retry(scope, **options) == number
    counts = ledger.counts()
    assert (counts.failed, counts.waiting) == (3 - number, 1 + number)
    retried = [e for e in ledger.history(RecordingId("ds1", "1", "rec-1")) if e.happening is Happening.RETRIED]
    assert len(retried) <= number


def test_rows_by_scope_state_and_code(ledger: Ledger) -> None:
    failures(ledger)
    assert [row.key.recording for row in ledger.rows(Scope(identity="id1"))] == ["rec-1", "rec-2", "rec-3"]
    assert [str(row.key) for row in ledger.rows(codes=[FailureCode.MAXSHIELD])] == ["ds1@1/rec-1 prepare/id1"]
    assert [row.key.recording for row in ledger.rows(states=[WorkState.WAITING])] == ["rec-3"]
    assert ledger.rows(Scope(stage="tokenize")) == ()
    counts = ledger.counts(Scope(DatasetVersion("ds1", "1"), "prepare", "id1"))
    assert (counts.found, counts.failed, counts.waiting) == (3, 2, 1)


def test_runs(ledger: Ledger) -> None:
    first = ledger.begin_run("prepare", "id1", dataset="ds1@1")
    second = ledger.begin_run("tokenize", "id2")
    ledger.end_run(first, facts={"done": 3})
    ledger.end_run(first, facts={"done": 99})  # the first word counts
    runs = ledger.runs()
    assert [(run.number, run.stage, run.facts) for run in runs] == [
        (first, "prepare", {"done": 3}),
        (second, "tokenize", {}),
    ]
    assert runs[0].seconds == runs[0].ended_at - runs[0].started_at
    assert runs[1].ended_at is None
    assert [run.number for run in ledger.runs("tokenize")] == [second]


def test_counts_that_do_not_add_up_are_refused() -> None:
    for wrong in ({"found": 3}, {"running": 2}, {"failed": 1, "found": 3}, {"by_code": {FailureCode.EMPTY: 1}}):
        with pytest.raises(ValueError):
            Counts(**({"found": 2, "done": 1, "failed": 0, "waiting": 1} | wrong))


def test_many_rows_at_once(ledger: Ledger) -> None:
    names = [f"rec-{i:05}" for i in range(1203)]
    assert ledger.expect(work(*names)) == 1203
    assert ledger.expect(work(*names[:600]) + work(*names[600:], digest="d2")) == 603
    assert ledger.retry(recordings=[RecordingId("ds1", "1", name) for name in names]) == 0
    assert ledger.counts().found == 1203


@pytest.mark.parametrize(
    "url", ["", "sqlite://", "sqlite:///:memory:", "mysql://x/y", "postgresql://nobody@127.0.0.1:1/x"]
)
def test_urls_that_are_no_ledger(url: str) -> None:
    with pytest.raises(ConfigError):
        Ledger(url)


def test_an_error_never_shows_the_password() -> None:
    with pytest.raises(ConfigError) as caught:
        Ledger("postgresql://me:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_no_database_and_one_of_a_newer_program(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("hello" * 1000)
    with pytest.raises(ConfigError, match="cannot open"):
        Ledger(sqlite_url(tmp_path / "text.db"))
    with pytest.raises(ConfigError, match="cannot open"):
        Ledger(sqlite_url(tmp_path / "absent" / "ledger.db"))
    url = sqlite_url(tmp_path / "ledger.db")
    Ledger(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE neuromill_schema SET version = 99"))
    engine.dispose()
    with pytest.raises(ConfigError, match="schema 99"):
        Ledger(url)


def test_a_database_that_breaks_later_is_said_in_one_line(ledger: Ledger, tmp_path: Path) -> None:
    ledger.expect(work("rec-1"))
    engine = create_engine(sqlite_url(tmp_path / "ledger.db"))
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE events"))
    engine.dispose()
    with pytest.raises(NeuroMillError, match="no such table") as caught:
        ledger.start(key())
    assert "\n" not in str(caught.value)
    row = ledger.row(key())
    assert row is not None
    assert (row.state, row.attempts) == ("waiting", 0)  # all of the operation, or nothing of it


def test_sqlite_runs_in_wal_mode(ledger: Ledger, tmp_path: Path) -> None:
    ledger.expect(work("rec-1"))
    engine = create_engine(sqlite_url(tmp_path / "ledger.db"))
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
    engine.dispose()


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    check_two_processes_share_the_work(sqlite_url(tmp_path / "ledger.db"))
