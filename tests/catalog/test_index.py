from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.catalog.index import SCHEMA_KEY, index_table, read_index, read_table, table_recordings, write_index
from neuromill.records import (
    ENTITIES,
    ConfigError,
    Digest,
    Entities,
    FileState,
    Recording,
    RecordingId,
    SourceFile,
)

names = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
numbers = st.none() | st.floats(min_value=1e-6, max_value=1e9)
members = st.builds(
    SourceFile,
    path=names,
    size=st.integers(0, 2**60),
    digest=st.none() | st.builds(Digest.of, st.binary(max_size=4), st.sampled_from(["md5", "sha256", "git-sha1"])),
    locator=st.text(max_size=10),
    state=st.sampled_from(FileState),
)
recordings = st.builds(
    Recording,
    id=st.builds(RecordingId, st.just("ds1"), st.just("1.0"), names),
    path=names,
    members=st.lists(members, max_size=3).map(tuple),
    entities=st.builds(Entities, **{name: st.text(max_size=5) for name in ENTITIES}),
    datatype=st.sampled_from(["meg", ""]),
    n_channels=st.none() | st.integers(1, 1000),
    sfreq=numbers,
    duration_seconds=numbers,
    line_freq=numbers,
)


def example(name: str = "sub-01_meg") -> Recording:
    member = SourceFile(f"{name}.fif", 10, Digest.of(b"x"), "v1", FileState.LOST)
    return Recording(RecordingId("ds1", "1.0", name), member.path, (member,), Entities(subject="01"), sfreq=1000.0)


@given(st.lists(recordings, unique_by=lambda r: r.id.name, max_size=4))
def test_a_table_gives_back_what_went_in(rows: list[Recording]) -> None:
    assert table_recordings(index_table(rows)) == tuple(sorted(rows, key=lambda r: r.id.name))


def test_columns_are_flat_text_and_numbers(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    write_index(path, [example()], lambda _: "validation")
    row = read_table(path).to_pylist()[0]
    assert (row["dataset"], row["version"], row["recording"], row["subject"]) == ("ds1", "1.0", "sub-01_meg", "01")
    assert (row["split"], row["size"], row["n_members"], row["sfreq"]) == ("validation", 10, 1, 1000.0)
    assert (row["split_entity"], row["recording_entity"], row["run"], row["line_freq"]) == ("", "", "", None)
    assert row["input_digest"] == example().input_digest
    assert row["members"][0]["state"] == "lost"


def test_same_recordings_same_bytes_in_any_order(tmp_path: Path) -> None:
    rows = [example("b"), example("a"), example("c")]
    write_index(tmp_path / "1", rows)
    write_index(tmp_path / "2", rows[::-1])
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert [r.id.name for r in read_index(tmp_path / "1")] == ["a", "b", "c"]


def test_an_empty_index(tmp_path: Path) -> None:
    write_index(tmp_path / "new" / "index.parquet", [])
    assert read_index(tmp_path / "new" / "index.parquet") == ()


def test_a_failed_write_leaves_the_old_index_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    write_index(path, [example()])

    def broken(_: Recording) -> str:
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        write_index(path, [example("other")], broken)
    assert [r.id.name for r in read_index(path)] == ["sub-01_meg"]
    assert [p.name for p in tmp_path.iterdir()] == ["index.parquet"]


def test_ids_are_unique(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="same id"):
        write_index(tmp_path / "index.parquet", [example(), example()])


def rewritten(path: Path, version: bytes | None) -> None:
    metadata = None if version is None else {SCHEMA_KEY: version}
    pq.write_table(index_table([example()]).replace_schema_metadata(metadata), path)


def test_schema_versions(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    rewritten(path, b"1.7")
    assert len(read_index(path)) == 1
    rewritten(path, b"2.0")
    with pytest.raises(ConfigError, match=r"schema 2\.0"):
        read_index(path)
    rewritten(path, None)
    with pytest.raises(ConfigError, match="no recording index"):
        read_index(path)


def test_files_that_are_no_index(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no recording index"):
        read_index(tmp_path / "absent")
    (tmp_path / "text").write_text("PAR1 or not")
    with pytest.raises(ConfigError, match="cannot read"):
        read_index(tmp_path / "text")
    write_index(tmp_path / "cut", [example()])
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-20])
    with pytest.raises(ConfigError, match="cannot read"):
        read_index(tmp_path / "cut")
    with pytest.raises(ConfigError, match="cannot read"):
        read_index(tmp_path)
