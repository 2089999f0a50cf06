"""The truth about work: what was asked for, what is done, what failed and why.

Every operation is one transaction, may be repeated, and may run in many processes at once.

A piece of work goes ``waiting -> running -> done | failed``. A changed input, a retry or an interruption brings it
back to ``waiting``. `Ledger.start` hands out the number of the attempt; a worker that gives it back with its result is
ignored where somebody else has taken over meanwhile.
"""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy import and_, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from neuromill.catalog.tables import KEY, event_table, open_engine, run_table, work_table
from neuromill.catalog.work import (
    Counts,
    Happening,
    HistoryEvent,
    RunRow,
    Scope,
    Work,
    WorkKey,
    WorkRow,
    WorkState,
)
from neuromill.records import ConfigError, FailureCode, NeuroMillError, RecordingId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import ColumnElement, Connection, Row

    from neuromill.records import RecordingError

_c = work_table.c
EVERYTHING = Scope()
T = TypeVar("T")
_BATCH = 500
_CLEARED: dict[str, Any] = {
    "code": None, "message": "", "next_step": "", "ended_at": None, "seconds": None, "bytes_out": None, "facts": None,
}  # fmt: skip


def sqlite_url(path: Path) -> str:
    """URL of a ledger in a file."""
    return f"sqlite:///{path}"


class Ledger:
    """The ledger behind a URL: ``sqlite:///PATH`` or ``postgresql://...``.

    Parameters
    ----------
    url
        Where the tables are; they are created where they are missing.
    clock
        Seconds since 1970, UTC.

    Raises
    ------
    ConfigError
        The database cannot be opened, or belongs to a newer program.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        self._engine = open_engine(url)
        self._clock = clock

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Work

    def expect(self, work: Sequence[Work]) -> int:
        """Add what is not yet known as waiting; what has another input than before waits again.

        Returns how many rows were added or sent back.
        """
        unique = {item.key: item for item in work}
        touched = 0
        with self._writing() as connection:
            for batch in _batches(sorted(unique.values(), key=lambda item: item.key)):
                touched += self._expect(connection, batch)
        return touched

    def start(self, key: WorkKey, *, worker: str = "") -> int | None:
        """Claim a piece of work: the number of this attempt, or None where somebody else is at it.

        Done work may be started again (its store was deleted). Raises ConfigError where the key is not expected.
        """
        with self._writing() as connection:
            self._row(connection, key)
            values = _CLEARED | {"state": WorkState.RUNNING, "started_at": self._clock(), "worker": worker}
            claimed = connection.execute(
                update(work_table)
                .where(_is(key), _c.state != WorkState.RUNNING)
                .values(**values, attempts=_c.attempts + 1)
                .returning(_c.attempts)
            ).scalar_one_or_none()
            if claimed is not None:
                self._note(connection, [key], Happening.STARTED, attempt=claimed, worker=worker)
        return claimed

    def finish(
        self,
        key: WorkKey,
        *,
        attempt: int | None = None,
        seconds: float | None = None,
        bytes_out: int | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> bool:
        """Say that running work is done. False where the result is stale (see the module); True the second time.

        ``seconds`` defaults to the time since `start`.
        """
        values = {"bytes_out": bytes_out, "facts": dict(facts or {})}
        return self._end(key, WorkState.DONE, values, attempt=attempt, seconds=seconds)

    def fail(
        self, key: WorkKey, error: RecordingError, *, attempt: int | None = None, seconds: float | None = None
    ) -> bool:
        """Say why work failed; waiting work may fail without having been started. False where the result is stale."""
        values = {"code": error.code.value, "message": error.what, "next_step": error.next_step}
        return self._end(key, WorkState.FAILED, values, attempt=attempt, seconds=seconds)

    def release_running(self, scope: Scope = EVERYTHING) -> int:
        """After a crash: send running work back to waiting. Only for whoever knows that no worker is alive."""
        with self._writing() as connection:
            keys = self._send_back(connection, and_(_in(scope), _c.state == WorkState.RUNNING))
            self._note(connection, keys, Happening.INTERRUPTED, code=FailureCode.INTERRUPTED.value)
        return len(keys)

    def retry(
        self,
        scope: Scope = EVERYTHING,
        *,
        codes: Iterable[FailureCode] | None = None,
        recordings: Iterable[RecordingId] | None = None,
        everything: bool = False,
    ) -> int:
        """Send failed work back to waiting, and return how much.

        With ``codes`` those; else, unless ``everything`` or ``recordings`` is given, the codes where trying again
        may help (`FailureCode.transient`). Both given narrow each other down.
        """
        chosen = None if codes is None else set(codes)
        if chosen is None and recordings is None and not everything:
            chosen = {code for code in FailureCode if code.transient}
        condition = and_(_in(scope), _c.state == WorkState.FAILED)
        if chosen is not None:
            condition = and_(condition, _c.code.in_(sorted(code.value for code in chosen)))
        with self._writing() as connection:
            if recordings is None:
                keys = self._send_back(connection, condition)
            else:
                keys = [
                    key
                    for batch in _batches(sorted(set(recordings), key=str))
                    for key in self._send_back(connection, and_(condition, or_(*map(_is_recording, batch))))
                ]
            self._note(connection, keys, Happening.RETRIED)
        return len(keys)

    # Looking

    def counts(self, scope: Scope = EVERYTHING) -> Counts:
        """Count rows by state and failures by code; found = done + failed + waiting."""
        query = select(_c.state, _c.code, func.count()).where(_in(scope)).group_by(_c.state, _c.code)
        by_state: dict[str, int] = defaultdict(int)
        by_code: dict[FailureCode, int] = {}
        with self._reading() as connection:
            for state, code, count in connection.execute(query):
                by_state[state] += count
                if state == WorkState.FAILED:
                    by_code[FailureCode(code)] = count
        running = by_state[WorkState.RUNNING]
        return Counts(
            found=sum(by_state.values()),
            done=by_state[WorkState.DONE],
            failed=by_state[WorkState.FAILED],
            waiting=by_state[WorkState.WAITING] + running,
            running=running,
            by_code=dict(sorted(by_code.items())),
        )

    def rows(
        self,
        scope: Scope = EVERYTHING,
        *,
        states: Iterable[WorkState] | None = None,
        codes: Iterable[FailureCode] | None = None,
    ) -> tuple[WorkRow, ...]:
        """Return rows in the order of their keys."""
        query = select(work_table).where(_in(scope)).order_by(*(_c[name] for name in KEY))
        if states is not None:
            query = query.where(_c.state.in_([state.value for state in states]))
        if codes is not None:
            query = query.where(_c.code.in_([code.value for code in codes]))
        with self._reading() as connection:
            return tuple(_work_row(row) for row in connection.execute(query))

    def row(self, key: WorkKey) -> WorkRow | None:
        """Return one row, None where the key is not expected."""
        with self._reading() as connection:
            found = connection.execute(select(work_table).where(_is(key))).one_or_none()
        return None if found is None else _work_row(found)

    def history(self, recording: RecordingId) -> tuple[HistoryEvent, ...]:
        """Everything that happened to a recording, all stages and identities, oldest first."""
        e = event_table.c
        query = (
            select(event_table)
            .where(e.dataset == recording.dataset, e.version == recording.version, e.recording == recording.name)
            .order_by(e.number)
        )
        with self._reading() as connection:
            return tuple(_event(row) for row in connection.execute(query))

    # Runs

    def begin_run(self, stage: str, identity: str, *, dataset: str = "") -> int:
        """Note that a run of a stage begins, and return its number."""
        row = {"stage": stage, "identity": identity, "dataset": dataset, "started_at": self._clock()}
        with self._writing() as connection:
            return int(connection.execute(insert(run_table).values(**row).returning(run_table.c.number)).scalar_one())

    def end_run(self, number: int, *, facts: Mapping[str, Any] | None = None) -> None:
        """Note that a run ended, with what it counted."""
        now, c = self._clock(), run_table.c
        change = {"ended_at": now, "seconds": now - c.started_at, "facts": dict(facts or {})}
        with self._writing() as connection:
            connection.execute(update(run_table).where(c.number == number, c.ended_at.is_(None)).values(**change))

    def runs(self, stage: str | None = None) -> tuple[RunRow, ...]:
        """Return runs, oldest first."""
        query = select(run_table).order_by(run_table.c.number)
        if stage is not None:
            query = query.where(run_table.c.stage == stage)
        with self._reading() as connection:
            rows = [dict(row._mapping) for row in connection.execute(query)]  # noqa: SLF001 - SQLAlchemy's public name
        return tuple(RunRow(**row | {"facts": row["facts"] or {}}) for row in rows)

    # Inside

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._explained(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._explained(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the database says (disk full, locked for a minute, server gone) into our error."""
        try:
            yield
        except DBAPIError as error:
            raise NeuroMillError(
                f"the ledger cannot be used: {error.orig}",
                where=self._engine.url.render_as_string(hide_password=True),
                next_step="nothing was changed; run the command again when the database is well",
            ) from error

    def _expect(self, connection: Connection, batch: Sequence[Work]) -> int:
        rows = [
            _key_values(item.key) | {"state": WorkState.WAITING, "input_digest": item.input_digest} for item in batch
        ]
        inserted = {
            WorkKey(*row)
            for row in connection.execute(
                self._insert_new().returning(*(_c[name] for name in KEY)), [_with_defaults(row) for row in rows]
            )
        }
        digests = {item.key: item.input_digest for item in batch}
        self._note(connection, sorted(inserted), Happening.EXPECTED, digests=digests)
        known = self._input_digests(connection, [item.key for item in batch if item.key not in inserted])
        suspects = [item for item in batch if known.get(item.key, item.input_digest) != item.input_digest]
        changed = [item for item in suspects if self._change_input(connection, item)]
        self._note(connection, [item.key for item in changed], Happening.CHANGED, digests=digests)
        return len(inserted) + len(changed)

    def _input_digests(self, connection: Connection, keys: Sequence[WorkKey]) -> dict[WorkKey, str]:
        """Read the input digests of these keys, and of a few more where a batch spans several stages."""
        names = {name: sorted({getattr(key, name) for key in keys}) for name in KEY}
        columns = [_c[name] for name in KEY]
        found = select(*columns, _c.input_digest).where(*(_c[name].in_(names[name]) for name in KEY))
        return {WorkKey(*row[:-1]): row[-1] for row in connection.execute(found)} if keys else {}

    def _insert_new(self) -> Any:
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        return dialect.insert(work_table).on_conflict_do_nothing()

    def _change_input(self, connection: Connection, item: Work) -> bool:
        """Send a row back where its input digest is another one; the result of whoever is at it will be stale."""
        change = update(work_table).where(_is(item.key), _c.input_digest != item.input_digest)
        values = _CLEARED | {"input_digest": item.input_digest, "state": WorkState.WAITING}
        return connection.execute(change.values(**values)).rowcount > 0

    def _end(
        self,
        key: WorkKey,
        state: WorkState,
        values: Mapping[str, Any],
        *,
        attempt: int | None,
        seconds: float | None,
    ) -> bool:
        now = self._clock()
        happening = Happening.FINISHED if state is WorkState.DONE else Happening.FAILED
        with self._writing() as connection:
            row = self._row(connection, key)
            if attempt is not None and attempt != row.attempts:
                return False
            if row.state == state:
                return state is WorkState.DONE or row.code == values["code"]
            from_states = [WorkState.RUNNING, *([WorkState.WAITING] if state is WorkState.FAILED else [])]
            if row.state not in from_states or (attempt is not None and row.state != WorkState.RUNNING):
                return False
            if seconds is None and row.state == WorkState.RUNNING and row.started_at is not None:
                seconds = now - row.started_at
            change = _CLEARED | {"state": state, "ended_at": now, "seconds": seconds} | dict(values)
            connection.execute(update(work_table).where(_is(key)).values(**change))
            told = {name: values[name] for name in ("code", "message", "next_step") if name in values}
            self._note(connection, [key], happening, attempt=row.attempts, worker=row.worker, **told)
        return True

    def _row(self, connection: Connection, key: WorkKey) -> WorkRow:
        """Return the row, locked until the transaction ends (SQLite has locked the whole file already)."""
        found = connection.execute(select(work_table).where(_is(key)).with_for_update()).one_or_none()
        if found is None:
            raise ConfigError("the ledger does not expect this work", where=str(key), next_step="plan first")
        return _work_row(found)

    def _send_back(self, connection: Connection, condition: ColumnElement[bool]) -> list[WorkKey]:
        """Send rows back to waiting, locked in the order of their keys: two of these never deadlock."""
        columns = [_c[name] for name in KEY]
        found = select(*columns).where(condition).order_by(*columns).with_for_update()
        keys = [WorkKey(*row) for row in connection.execute(found)]
        if keys:
            connection.execute(update(work_table).where(condition).values(**_CLEARED, state=WorkState.WAITING))
        return keys

    def _note(
        self,
        connection: Connection,
        keys: Sequence[WorkKey],
        happening: Happening,
        *,
        digests: Mapping[WorkKey, str] | None = None,
        **values: Any,
    ) -> None:
        if not keys:
            return
        fixed = {"at": self._clock(), "happening": happening.value, **values}
        rows = [_key_values(key) | fixed | {"input_digest": (digests or {}).get(key, "")} for key in keys]
        connection.execute(insert(event_table), rows)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def _key_values(key: WorkKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in KEY}


def _with_defaults(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"message": "", "next_step": "", "attempts": 0, "worker": ""}


def _is(key: WorkKey) -> ColumnElement[bool]:
    return and_(*(_c[name] == getattr(key, name) for name in KEY))


def _is_recording(recording: RecordingId) -> ColumnElement[bool]:
    return and_(_c.dataset == recording.dataset, _c.version == recording.version, _c.recording == recording.name)


def _in(scope: Scope) -> ColumnElement[bool]:
    from sqlalchemy import true

    conditions: list[ColumnElement[bool]] = [true()]
    if scope.dataset_version is not None:
        conditions += [
            _c.dataset == scope.dataset_version.dataset,
            _c.version == scope.dataset_version.version,
        ]
    conditions += [
        _c[name] == getattr(scope, name) for name in ("stage", "identity") if getattr(scope, name) is not None
    ]
    return and_(*conditions)


def _work_row(row: Row[Any]) -> WorkRow:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
    key = WorkKey(*(values.pop(name) for name in KEY))
    code, facts = values.pop("code"), values.pop("facts")
    return WorkRow(
        key=key,
        state=WorkState(values.pop("state")),
        code=FailureCode(code) if code else None,
        facts=facts or {},
        **values,
    )


def _event(row: Row[Any]) -> HistoryEvent:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
    key = WorkKey(*(values.pop(name) for name in KEY))
    code = values.pop("code")
    return HistoryEvent(
        key=key, happening=Happening(values.pop("happening")), code=FailureCode(code) if code else None, **values
    )
