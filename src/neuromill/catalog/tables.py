"""Tables of the ledger, and engines that open them safely: SQLite in WAL mode, PostgreSQL by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from neuromill.records import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

SCHEMA_VERSION = 1
BUSY_MILLISECONDS = 60_000
_CREATION_LOCK = 0x6E6D6C  # any number, the same for everybody: serialises the first use of a PostgreSQL database

KEY = ("dataset", "version", "recording", "stage", "identity")
metadata = MetaData()

schema_table = Table("neuromill_schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

work_table = Table(
    "work", metadata,
    *(Column(name, String(255), primary_key=True) for name in KEY),
    Column("state", String(16), nullable=False),
    Column("input_digest", String(255), nullable=False),
    Column("code", String(32)),
    Column("message", Text, nullable=False, default=""),
    Column("next_step", Text, nullable=False, default=""),
    Column("attempts", Integer, nullable=False, default=0),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("seconds", Float),
    Column("bytes_out", BigInteger),
    Column("facts", JSON(none_as_null=True)),
    Column("worker", String(255), nullable=False, default=""),
    Index("work_by_stage", "stage", "identity", "state"),
)  # fmt: skip

event_table = Table(
    "events", metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    *(Column(name, String(255), nullable=False) for name in KEY),
    Column("at", Float, nullable=False),
    Column("happening", String(16), nullable=False),
    Column("code", String(32)),
    Column("message", Text, nullable=False, default=""),
    Column("next_step", Text, nullable=False, default=""),
    Column("attempt", Integer, nullable=False, default=0),
    Column("input_digest", String(255), nullable=False, default=""),
    Column("worker", String(255), nullable=False, default=""),
    Index("events_by_recording", "dataset", "version", "recording"),
)  # fmt: skip

run_table = Table(
    "runs", metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("stage", String(255), nullable=False),
    Column("identity", String(255), nullable=False),
    Column("dataset", String(255), nullable=False, default=""),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("seconds", Float),
    Column("facts", JSON(none_as_null=True)),
)  # fmt: skip


def open_engine(url: str) -> Engine:
    """Open the database and create the tables where they are missing.

    Raises
    ------
    ConfigError
        A URL of another kind, a database that cannot be opened, tables of a newer program.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            "not a database URL", where="ledger", next_step="sqlite:///PATH or postgresql://..."
        ) from error
    where = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "postgresql":
        engine = create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    elif parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        # One connection per operation: a ledger survives fork and spawn, and leaves no open file behind.
        engine = create_engine(parsed, poolclass=NullPool, connect_args={"timeout": BUSY_MILLISECONDS / 1000})
        _prepare_sqlite(engine)
    else:
        raise ConfigError("the ledger is a SQLite file or PostgreSQL", where=where)
    try:
        _create_tables(engine, where)
    except (SQLAlchemyError, ImportError) as error:
        engine.dispose()
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"cannot open the ledger: {reason}", where=where, next_step="check the URL") from error
    return engine


def _prepare_sqlite(engine: Engine) -> None:
    """WAL, and transactions that take the write lock at once where they will write.

    The driver's own BEGIN is deferred: two writers that both read first then end in "database is locked" without
    waiting for the busy timeout.
    """

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _create_tables(engine: Engine, where: str) -> None:
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CREATION_LOCK})
        metadata.create_all(connection)
        version = connection.scalar(select(schema_table.c.version))
        if version is None:
            connection.execute(insert(schema_table).values(version=SCHEMA_VERSION))
    if version not in (None, SCHEMA_VERSION):
        raise ConfigError(
            f"the ledger has schema {version}, this program knows {SCHEMA_VERSION}", where=where,
            next_step="use the neuromill that wrote it, or another ledger",
        )  # fmt: skip
