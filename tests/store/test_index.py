from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from neuromill.records import ConfigError
from neuromill.store.contents import describe_group
from neuromill.store.errors import CorruptStoreError, StoreError
from neuromill.store.filesystem import open_file_system
from neuromill.store.index import read_index, rebuild_index
from neuromill.store.verify import group_damage, verify_store
from support.stores import signal, write_signal, write_tokens

NAMES = ("sub-01_meg", "sub-02_meg", "sub-10_meg")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for i, name in enumerate(reversed(NAMES)):
        write_signal(tmp_path, signal(2500 + 100 * i, 3, seed=i), name, max_shard_bytes=600 * 6)
    return tmp_path


def test_index_says_what_the_groups_say(store: Path) -> None:
    assert rebuild_index(store).n_recordings == 3
    fs = open_file_system(store)
    index = read_index(store)
    assert [r.name for r in index] == list(NAMES)
    for recording in index:
        described = describe_group(fs, recording.name)
        assert recording == described
        assert len(recording.main.shards) == 5
        assert all(shard.byte_offset == 0 for shard in recording.main.shards)


def test_rebuilding_gives_the_same_bytes(store: Path) -> None:
    rebuild_index(store)
    first = (store / "index.parquet").read_bytes()
    (store / "index.parquet").unlink()
    (store / ".tmp-sub-03_meg.zarr-1").mkdir()
    rebuild_index(store)
    assert (store / "index.parquet").read_bytes() == first
    assert sorted(p.name for p in store.iterdir()) == ["index.parquet", *(f"{name}.zarr" for name in NAMES)]


def test_extra_columns(store: Path) -> None:
    rebuild_index(store, extra={"sub-01_meg": {"split": "train"}, "sub-10_meg": {"split": "val", "note": "x"}})
    assert [dict(r.extra) for r in read_index(store)] == [
        {"note": "", "split": "train"},
        {"note": "", "split": ""},
        {"note": "x", "split": "val"},
    ]
    with pytest.raises(ConfigError, match="sfreq"):
        rebuild_index(store, extra={"sub-01_meg": {"sfreq": "9"}})


def test_columns_can_be_queried(store: Path) -> None:
    rebuild_index(store, extra={name: {"split": "train"} for name in NAMES})
    table = pq.read_table(store / "index.parquet")
    query = "select distinct recording, subject, sfreq, n_channels, split from t where \"array\" = 'signal' order by 1"
    connection = duckdb.connect()
    connection.register("t", table)
    rows = connection.execute(query).fetchall()
    assert rows == [(name, name[4:6], 50.0, 3, "train") for name in NAMES]
    starts = connection.execute(
        "select start, length, row_bytes from t where \"array\" = 'signal' and recording = 'sub-01_meg' order by start"
    ).fetchall()
    assert starts == [(0, 600, 6), (600, 600, 6), (1200, 600, 6), (1800, 600, 6), (2400, 300, 6)]


def test_an_empty_store_has_an_empty_index(tmp_path: Path) -> None:
    assert rebuild_index(tmp_path).n_recordings == 0
    assert read_index(tmp_path) == ()


def test_no_index_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no index.*rebuild"):
        read_index(tmp_path)


def test_other_files_are_not_an_index(tmp_path: Path) -> None:
    (tmp_path / "index.parquet").write_bytes(b"PAR1 something else PAR1")
    with pytest.raises(CorruptStoreError, match="cannot be read"):
        read_index(tmp_path)
    pq.write_table(pq.read_table(_foreign(tmp_path)), tmp_path / "index.parquet")
    with pytest.raises(CorruptStoreError, match="not an index of this version"):
        read_index(tmp_path)


def _foreign(folder: Path) -> Path:
    import pyarrow as pa

    pq.write_table(pa.table({"a": [1]}), folder / "foreign.parquet")
    return folder / "foreign.parquet"


def test_tokens_are_indexed_alike(tmp_path: Path) -> None:
    write_tokens(tmp_path, np.zeros((700, 6, 4), np.uint8))
    rebuild_index(tmp_path)
    (recording,) = read_index(tmp_path)
    assert (recording.kind, recording.n_rows, recording.n_channels) == ("tokens", 700, 4)
    assert recording.main.dims == ("frame", "quantizer", "channel")
    assert recording.attributes["segment_samples"] == 7500


DAMAGES = {
    "metadata cut": lambda group: (group / "zarr.json").write_text("{"),
    "metadata changed": lambda group: (group / "zarr.json").write_text((group / "zarr.json").read_text()[:-1] + " "),
    "array metadata gone": lambda group: (group / "signal" / "zarr.json").unlink(),
    "manifest cut": lambda group: (group / "manifest" / "zarr.json").write_text('{"attributes"'),
    "manifest gone": lambda group: (group / "manifest" / "zarr.json").unlink(),
    "shard cut": lambda group: (group / "signal" / "c" / "0" / "0").write_bytes(b"123"),
    "shard gone": lambda group: (group / "signal" / "c" / "0" / "0").unlink(),
    "shard index changed": lambda group: _flip_last_byte(group / "signal" / "c" / "0" / "0"),
    "small array cut": lambda group: (group / "channel_scale" / "c" / "0").write_bytes(b""),
}


def _flip_last_byte(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_group_is_left_out_told_and_replaced_by_its_writer(store: Path, damage) -> None:
    values = signal(300, 3, seed=7)
    write_signal(store, values, "sub-77_meg")
    before = rebuild_index(store)
    assert (before.n_recordings, dict(before.damaged)) == (4, {})
    assert group_damage(store, "sub-77_meg") is None
    damage(store / "sub-77_meg.zarr")
    assert isinstance(group_damage(store, "sub-77_meg"), StoreError)
    rebuilt = rebuild_index(store)
    assert rebuilt.n_recordings == 3
    assert set(rebuilt.damaged) == {"sub-77_meg"}
    assert "sub-77_meg" not in {recording.name for recording in read_index(store)}
    assert {problem.recording for problem in verify_store(store)} == {"sub-77_meg"}
    assert write_signal(store, values, "sub-77_meg", replace=True).created
    assert rebuild_index(store).damaged == {}
    assert verify_store(store) == ()
