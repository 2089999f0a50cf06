import json
from pathlib import Path

import numpy as np
import pytest

from neuromill.store.errors import StoreError
from neuromill.store.index import rebuild_index
from neuromill.store.verify import ProblemKind, inspect_group, list_groups, verify_group, verify_store
from support.stores import signal, write_signal

NAME = "sub-01_meg"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_signal(tmp_path, signal(1300, 3), max_shard_bytes=600 * 6)
    write_signal(tmp_path, signal(100, 3), "sub-02_meg")
    rebuild_index(tmp_path)
    return tmp_path


def kinds(store: Path) -> set[tuple[str, ProblemKind]]:
    return {(problem.recording, problem.kind) for problem in verify_store(store)}


def test_a_whole_store_has_no_problems(store: Path) -> None:
    assert list_groups(store) == (NAME, "sub-02_meg")
    assert verify_store(store) == ()


def test_every_flipped_byte_is_found(store: Path) -> None:
    rng = np.random.default_rng(0)
    group = store / f"{NAME}.zarr"
    files = sorted(p for p in group.rglob("*") if p.is_file())
    assert len(files) > 10
    for path in files:
        data = path.read_bytes()
        positions = {0, len(data) - 1, *rng.integers(0, len(data), 12).tolist()}
        for position in positions:
            damaged = bytearray(data)
            damaged[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            assert verify_group(store, NAME), f"{path.name} byte {position}"
        path.write_bytes(data)
    assert verify_group(store, NAME) == ()


def test_flipped_bytes_of_the_manifest_are_found(store: Path) -> None:
    path = store / f"{NAME}.zarr" / "manifest" / "zarr.json"
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert verify_group(store, NAME), position


def test_missing_and_extra_files(store: Path) -> None:
    group = store / f"{NAME}.zarr"
    (group / "signal" / "c" / "1" / "0").unlink()
    (group / "notes.txt").write_text("x")
    assert kinds(store) == {(NAME, ProblemKind.MISSING_FILE), (NAME, ProblemKind.EXTRA_FILE)}


def test_a_longer_file_is_a_wrong_size(store: Path) -> None:
    with (store / f"{NAME}.zarr" / "signal" / "c" / "0" / "0").open("ab") as file:
        file.write(b"x")
    (problem,) = verify_group(store, NAME)
    assert problem.kind is ProblemKind.WRONG_SIZE
    assert problem.file == f"{NAME}.zarr/signal/c/0/0"


def test_a_group_without_manifest_is_unreadable(store: Path) -> None:
    (store / f"{NAME}.zarr" / "manifest" / "zarr.json").unlink()
    assert kinds(store) == {(NAME, ProblemKind.UNREADABLE)}


def test_the_index_is_compared_with_the_groups(store: Path) -> None:
    write_signal(store, signal(100, 3), "sub-03_meg")
    assert kinds(store) == {("sub-03_meg", ProblemKind.NOT_INDEXED)}
    rebuild_index(store)
    write_signal(store, signal(100, 3, seed=9), "sub-03_meg", replace=True)
    assert kinds(store) == {("sub-03_meg", ProblemKind.STALE_INDEX)}
    rebuild_index(store)
    (store / "sub-03_meg.zarr").rename(store / "gone")
    assert kinds(store) == {("sub-03_meg", ProblemKind.STALE_INDEX)}


def test_a_damaged_index_is_found(store: Path) -> None:
    path = store / "index.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-20] + bytes(20))
    assert kinds(store) == {("", ProblemKind.UNREADABLE)}


def test_inspect(store: Path) -> None:
    summary = inspect_group(store, NAME)
    signal_summary = next(a for a in summary.arrays if a.name == "signal")
    assert (signal_summary.shape, signal_summary.dtype, signal_summary.dims) == (
        (1300, 3),
        "float16",
        ("time", "channel"),
    )
    assert (signal_summary.chunk_rows, signal_summary.shard_rows, signal_summary.n_shards) == (600, 600, 3)
    assert signal_summary.n_bytes == 3 * (600 * 6 + 20)
    files = [p for p in (store / f"{NAME}.zarr").rglob("*") if p.is_file()]
    assert summary.n_files == len(files)
    manifest = store / f"{NAME}.zarr" / "manifest" / "zarr.json"
    assert summary.n_bytes == sum(p.stat().st_size for p in files if p != manifest)
    assert summary.attributes == json.loads((store / f"{NAME}.zarr" / "zarr.json").read_text())["attributes"]
    with pytest.raises(StoreError, match="no such file"):
        inspect_group(store, "sub-09_meg")
