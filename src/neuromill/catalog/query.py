"""SQL over recording indexes: DuckDB in memory that can reach nothing but the tables it was handed."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuromill.records import ConfigError, RecordingId

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import duckdb
    import pyarrow as pa

TABLE = "recordings"
MAX_SECONDS = 60.0
_LOCKS = (
    "SET python_enable_replacements = false",  # else a statement reads Python variables of its callers
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
# People copy "sub-01" from file names; labels in the index are bare.
_PREFIXES = {"subject": "sub", "session": "ses", "task": "task", "acquisition": "acq", "run": "run"}
_PREFIXED = re.compile(
    r"(\b(?:{})\b\s*(?:=|<>|!=)\s*')(?:{})-".format("|".join(_PREFIXES), "|".join(_PREFIXES.values())), re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Names of the columns and the rows, values as Python objects."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def as_dicts(self) -> list[dict[str, Any]]:
        """Rows as mappings from column to value."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def query(tables: Sequence[pa.Table], sql: str, *, max_seconds: float = MAX_SECONDS) -> QueryResult:
    """Run one SELECT over the table ``recordings``: all index tables, one after the other.

    Raises
    ------
    ConfigError
        Not exactly one SELECT statement, or DuckDB refuses it: with its message and the columns there are.
    """
    import duckdb

    with _connection(tables) as connection, _explained(sql, tables), _time_limit(connection, max_seconds):
        statements = connection.extract_statements(_bare_labels(sql))
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise ConfigError("a query is one SELECT statement", where=sql, next_step=_hint(tables))
        cursor = connection.execute(statements[0])
        return QueryResult(tuple(column[0] for column in cursor.description or ()), tuple(cursor.fetchall()))


def where(tables: Sequence[pa.Table], clause: str, *, max_seconds: float = MAX_SECONDS) -> tuple[RecordingId, ...]:
    """Ids of the recordings for which a SQL condition holds, sorted; ``subject = '01' and run = '1'``.

    The clause is parsed as an expression, so it cannot end the statement and begin another.

    Raises
    ------
    ConfigError
        As `query`.
    """
    if not clause.strip():
        raise ConfigError("the condition is empty", where="--where", next_step=_hint(tables))
    with _connection(tables) as connection, _explained(clause, tables), _time_limit(connection, max_seconds):
        chosen = connection.view(TABLE).filter(_bare_labels(clause))
        rows = chosen.project("dataset, version, recording").fetchall()
    return tuple(RecordingId(*row) for row in sorted(rows))


def _bare_labels(sql: str) -> str:
    return _PREFIXED.sub(r"\1", sql)


@contextmanager
def _connection(tables: Sequence[pa.Table]) -> Iterator[duckdb.DuckDBPyConnection]:
    import duckdb
    import pyarrow as pa

    from neuromill.catalog.index import index_schema

    combined = pa.concat_tables(tables, promote_options="default") if tables else index_schema().empty_table()
    connection = duckdb.connect(":memory:", config={"threads": "1", "memory_limit": "1GB", "temp_directory": ""})
    try:
        connection.register(TABLE, combined)
        for lock in _LOCKS:
            connection.execute(lock)
        yield connection
    finally:
        connection.close()


@contextmanager
def _explained(sql: str, tables: Sequence[pa.Table]) -> Iterator[None]:
    """Turn DuckDB's errors into ours."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        first = str(error).strip().partition("\n")[0]
        raise ConfigError(first, where=sql, next_step=_hint(tables)) from error


@contextmanager
def _time_limit(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _hint(tables: Sequence[pa.Table]) -> str:
    from neuromill.catalog.index import index_schema

    names = tables[0].column_names if tables else index_schema().names
    return f"the table is {TABLE}, its columns are {', '.join(names)}"
