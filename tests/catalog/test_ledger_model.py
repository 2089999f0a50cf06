"""Random histories of the ledger against a model of a few dictionaries."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from neuromill.catalog.ledger import Ledger, sqlite_url
from neuromill.catalog.work import Scope, Work, WorkState
from neuromill.records import ConfigError, FailureCode, RecordingError
from support.ledger_work import key

NAMES = st.sampled_from(["rec-1", "rec-2", "rec-3"])
STAGES = st.sampled_from(["prepare", "tokenize"])
KEYS = st.builds(key, NAMES, STAGES)
CODES = st.sampled_from([FailureCode.EMPTY, FailureCode.INTERNAL, FailureCode.UNREACHABLE_UPSTREAM])


class LedgerAgainstModel(RuleBasedStateMachine):
    """``model`` maps a key to [state, input digest, code, attempts]."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(sqlite_url(Path(self.folder.name) / "ledger.db"))
        self.model: dict = {}

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    @rule(items=st.dictionaries(KEYS, st.sampled_from(["d1", "d2"]), max_size=4))
    def expect(self, items: dict) -> None:
        changed = 0
        for name, digest in items.items():
            if name not in self.model:
                self.model[name] = ["waiting", digest, None, 0]
            elif self.model[name][1] != digest:
                self.model[name][:3] = ["waiting", digest, None]
            else:
                continue
            changed += 1
        assert self.ledger.expect([Work(k, d) for k, d in items.items()]) == changed

    @rule(name=KEYS)
    def start(self, name: object) -> None:
        if name not in self.model:
            self.refused(lambda: self.ledger.start(name))
            return
        row = self.model[name]
        if row[0] == "running":
            assert self.ledger.start(name) is None
            return
        row[0], row[2], row[3] = "running", None, row[3] + 1
        assert self.ledger.start(name) == row[3]

    @rule(name=KEYS, back=st.integers(0, 1), fenced=st.booleans())
    def finish(self, name: object, back: int, *, fenced: bool) -> None:
        if name not in self.model:
            self.refused(lambda: self.ledger.finish(name))
            return
        row = self.model[name]
        stale = fenced and back > 0
        applied = not stale and row[0] in {"running", "done"}
        if applied:
            row[0], row[2] = "done", None
        assert self.ledger.finish(name, attempt=row[3] - back if fenced else None) is applied

    @rule(name=KEYS, code=CODES, back=st.integers(0, 1), fenced=st.booleans())
    def fail(self, name: object, code: FailureCode, back: int, *, fenced: bool) -> None:
        error = RecordingError(code, "why")
        if name not in self.model:
            self.refused(lambda: self.ledger.fail(name, error))
            return
        row = self.model[name]
        stale = fenced and back > 0
        repeated = row[0] == "failed" and row[2] == code
        applied = not stale and (row[0] == "running" or repeated or (row[0] == "waiting" and not fenced))
        if applied:
            row[0], row[2] = "failed", code
        assert self.ledger.fail(name, error, attempt=row[3] - back if fenced else None) is applied

    @rule(stage=st.none() | STAGES)
    def crash(self, stage: str | None) -> None:
        rows = [row for k, row in self.model.items() if row[0] == "running" and stage in {None, k.stage}]
        for row in rows:
            row[0] = "waiting"
        assert self.ledger.release_running(Scope(stage=stage)) == len(rows)

    @rule(codes=st.none() | st.sets(CODES), everything=st.booleans())
    def retry(self, codes: set | None, *, everything: bool) -> None:
        rows = [
            row
            for row in self.model.values()
            if row[0] == "failed" and (row[2] in codes if codes is not None else everything or row[2].transient)
        ]
        for row in rows:
            row[0], row[2] = "waiting", None
        assert self.ledger.retry(codes=codes, everything=everything) == len(rows)

    @invariant()
    def same_rows(self) -> None:
        if not hasattr(self, "ledger"):
            return
        rows = {row.key: [row.state.value, row.input_digest, row.code, row.attempts] for row in self.ledger.rows()}
        assert rows == self.model

    @invariant()
    def counts_add_up(self) -> None:
        if not hasattr(self, "ledger"):
            return
        counts = self.ledger.counts()
        states = [row[0] for row in self.model.values()]
        assert counts.found == counts.done + counts.failed + counts.waiting == len(states)
        assert (counts.done, counts.running) == (states.count("done"), states.count(WorkState.RUNNING))

    @invariant()
    def history_tells_the_attempts(self) -> None:
        for name, row in getattr(self, "model", {}).items():
            told = [e for e in self.ledger.history(name.recording_id) if e.key == name]
            assert told[0].happening == "expected"
            assert [e.attempt for e in told if e.happening == "started"] == list(range(1, row[3] + 1))

    def refused(self, call: object) -> None:
        try:
            call()
        except ConfigError:
            return
        raise AssertionError("work that nobody expects was accepted")


TestLedgerAgainstModel = LedgerAgainstModel.TestCase
TestLedgerAgainstModel.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
