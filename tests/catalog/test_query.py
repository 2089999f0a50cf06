from pathlib import Path

import pyarrow as pa
import pytest

from neuromill.catalog.index import index_table
from neuromill.catalog.query import query, where
from neuromill.records import ConfigError, Entities, Recording, RecordingId, SourceFile


def recording(subject: str, run: str, dataset: str = "ds1") -> Recording:
    name = f"sub-{subject}_run-{run}_meg"
    member = SourceFile(f"{name}.fif", 100)
    entities = Entities(subject=subject, run=run, task="rest")
    return Recording(RecordingId(dataset, "1", name), member.path, (member,), entities, n_channels=306, sfreq=1000.0)


@pytest.fixture
def tables() -> list[pa.Table]:
    first = [recording(s, r) for s in ("01", "02") for r in ("1", "2")]
    return [index_table(first), index_table([recording("01", "1", "ds2")])]


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        ("subject = '01' and run = '1'", ["ds1@1/sub-01_run-1_meg", "ds2@1/sub-01_run-1_meg"]),
        ("subject = 'sub-01' and dataset = 'ds2'", ["ds2@1/sub-01_run-1_meg"]),
        ("subject <> 'sub-01' and run='run-2'", ["ds1@1/sub-02_run-2_meg"]),
        ("recording = 'sub-02_run-1_meg'", ["ds1@1/sub-02_run-1_meg"]),  # names keep their prefix
        ("recording like 'sub-02%' and run in ('2', '3')", ["ds1@1/sub-02_run-2_meg"]),
        ("sfreq < 1000", []),
        ("size = (select max(size) from recordings) and dataset = 'ds2'", ["ds2@1/sub-01_run-1_meg"]),
        ("len(members) = 1 and members[1].path like '%sub-02%' and run = '1' -- a comment", ["ds1@1/sub-02_run-1_meg"]),
    ],
)
def test_where(tables: list[pa.Table], clause: str, expected: list[str]) -> None:
    assert [str(found) for found in where(tables, clause)] == expected


def test_query(tables: list[pa.Table]) -> None:
    result = query(tables, "SELECT subject, count(*) AS n, sum(size) AS size FROM recordings GROUP BY 1 ORDER BY 1")
    assert result.columns == ("subject", "n", "size")
    assert result.rows == (("01", 3, 300), ("02", 2, 200))
    assert result.as_dicts()[0] == {"subject": "01", "n": 3, "size": 300}


def test_indexes_of_different_minor_versions_go_together(tables: list[pa.Table]) -> None:
    newer = tables[1].append_column("device", pa.array(["Elekta"]))
    assert len(where([tables[0], newer], "subject = '01'")) == 3
    assert [str(found) for found in where([tables[0], newer], "device = 'Elekta'")] == ["ds2@1/sub-01_run-1_meg"]


def test_no_tables_is_an_empty_table() -> None:
    assert query([], "SELECT count(*) FROM recordings").rows == ((0,),)
    assert where([], "subject = '01'") == ()


HOSTILE = [
    "subject = '01'; DROP TABLE recordings",
    "1 = 1) UNION SELECT '../../etc', '1', 'x' FROM recordings --",
    "1 = 1); COPY recordings TO '{out}'; SELECT (1 = 1",
    "subject IN (SELECT content FROM read_text('{secret}'))",
    "subject IN (SELECT column0 FROM read_csv('{secret}'))",
    "subject IN (SELECT column0 FROM '{secret}')",
    "subject IN (SELECT file FROM glob('{folder}/*'))",
    "subject IN (FROM sniff_csv('{secret}'))",
    "subject IN (SELECT x FROM secret_table)",
    "subject = getenv('HOME')",
    "",
    "  ",
]
STATEMENTS = [
    "COPY recordings TO '{out}'",
    "COPY (SELECT 1) TO '{out}'",
    "ATTACH '{out}' AS other",
    "EXPORT DATABASE '{out}'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "CREATE TABLE x AS SELECT 1",
    "DROP VIEW recordings",
    "SELECT 1; SELECT 2",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_blob('{secret}')",
    "SELECT * FROM read_parquet('{secret}')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM secret_table",
    "SELECT * FROM query('COPY recordings TO ''{out}''')",
    "SELECT nope FROM recordings",
    "",
    "not sql",
]


def refused(run: object, tables: list[pa.Table], text: str, folder: Path) -> ConfigError:
    secret_table = pa.table({"x": ["not for queries"]})
    (folder / "secret.csv").write_text("01\n02\n")
    filled = text.format(secret=folder / "secret.csv", out=folder / "out", folder=folder)
    with pytest.raises(ConfigError) as caught:
        run(tables, filled)
    assert secret_table.num_rows == 1
    assert [path.name for path in folder.iterdir()] == ["secret.csv"]
    return caught.value


@pytest.mark.parametrize("clause", HOSTILE)
def test_a_clause_reaches_nothing_but_the_tables(tables: list[pa.Table], clause: str, tmp_path: Path) -> None:
    refused(where, tables, clause, tmp_path)
    assert len(where(tables, "1 = 1")) == 5


@pytest.mark.parametrize("sql", STATEMENTS)
def test_a_statement_reaches_nothing_but_the_tables(tables: list[pa.Table], sql: str, tmp_path: Path) -> None:
    refused(query, tables, sql, tmp_path)


def test_an_error_shows_the_columns(tables: list[pa.Table], tmp_path: Path) -> None:
    error = refused(where, tables, "nope = 1", tmp_path)
    assert "nope" in error.what
    assert "subject" in error.next_step
    assert "duration_seconds" in error.next_step
    assert "\n" not in str(error)


def test_an_endless_statement_is_stopped(tables: list[pa.Table]) -> None:
    endless = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"
    with pytest.raises(ConfigError, match=r"(?i)interrupt"):
        query(tables, endless, max_seconds=0.2)


@pytest.mark.parametrize(
    "setting", ["python_enable_replacements", "enable_external_access", "autoload_known_extensions"]
)
def test_the_doors_are_shut(tables: list[pa.Table], setting: str) -> None:
    """Python variables of callers are not within reach of our frames today; the setting keeps it so."""
    assert query(tables, f"SELECT CAST(current_setting('{setting}') AS BOOLEAN)").rows == ((False,),)
