import multiprocessing
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromill.records import ConfigError
from neuromill.store.contents import describe_group
from neuromill.store.errors import CorruptStoreError, StoreError, UnsupportedLayoutError
from neuromill.store.filesystem import LocalFileSystem, open_file_system
from neuromill.store.index import rebuild_index
from neuromill.store.layout import ArraySpec, metadata_bytes
from neuromill.store.publishing import GroupFile, GroupWriter, manifest_document
from neuromill.store.reader import DirectArray, StoreReader, ZarrArray, open_array
from support.stores import read_in_child, signal, write_signal, write_tokens

NAME = "sub-01_meg"
SPEC = ArraySpec("a", ("time", "channel"), (97, 3), "float32", 10, 40, "NaN")
VALUES = np.arange(97 * 3, dtype=np.float32).reshape(97, 3)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """97 rows, chunks of 10, shards of 40: the last shard is short and its last chunk shorter."""
    with GroupWriter(LocalFileSystem(tmp_path), "g") as writer:
        writer.add_array(SPEC, [VALUES])
        writer.publish({"kind": "signal"})
    return tmp_path


def direct(store: Path) -> DirectArray:
    fs = open_file_system(store)
    return DirectArray(fs, describe_group(fs, "g").arrays["a"])


def through_zarr(store: Path) -> np.ndarray:
    return zarr.open_array(store / "g.zarr" / "a", mode="r")[:]


def rewrite(store: Path, shard: int, data: bytes) -> None:
    """Put other bytes into a shard and into the manifest."""
    group = store / "g.zarr"
    path = group / "a" / "c" / str(shard) / "0"
    path.write_bytes(data)
    remanifest(group)


def remanifest(group: Path) -> None:
    files = sorted(p for p in group.rglob("*") if p.is_file() and p.parent.name != "manifest")
    rows = [GroupFile(p.relative_to(group).as_posix(), p.stat().st_size, "0" * 64) for p in files]
    (group / "manifest" / "zarr.json").write_bytes(metadata_bytes(manifest_document(sorted(rows))))


def shuffled_shard(order: list[int], missing: set[int]) -> bytes:
    """Shard 0 with its chunks in another order, some of them never written."""
    chunks = {i: VALUES[10 * i : 10 * i + 10].tobytes() for i in range(4)}
    body, index = b"", np.full((4, 2), 2**64 - 1, "<u8")
    for i in order:
        if i not in missing:
            index[i] = (len(body), len(chunks[i]))
            body += chunks[i]
    tail = index.tobytes()
    return body + tail + int(google_crc32c.value(tail)).to_bytes(4, "little")


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def windows(stop: int = 97) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, stop), st.integers(0, stop)).map(sorted).map(tuple)


@given(order=st.permutations(range(4)), missing=st.sets(st.integers(0, 3), max_size=3), spans=st.lists(windows()))
@settings(max_examples=60, deadline=None)
def test_equals_zarr_python_on_any_window(
    order: list[int], missing: set[int], spans: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = tmp_path_factory.mktemp("store")
    with GroupWriter(LocalFileSystem(store), "g") as writer:
        writer.add_array(SPEC, [VALUES])
        writer.publish({"kind": "signal"})
    rewrite(store, 0, shuffled_shard(order, missing))
    expected, reader = through_zarr(store), direct(store)
    assert np.isnan(expected).any() == bool(missing)
    for start, stop in [(0, 97), (9, 11), (39, 41), (79, 97), (5, 5), *spans]:
        np.testing.assert_array_equal(reader.read(start, stop), expected[start:stop])


@pytest.mark.parametrize(
    "window", [(0, 10), (0, 97), (10, 20), (35, 45), (0, 0), (97, 97), (96, 97), (40, 80), (90, 97)]
)
def test_window_edges(window: tuple[int, int], store: Path) -> None:
    start, stop = window
    np.testing.assert_array_equal(direct(store).read(start, stop), VALUES[start:stop])


def test_a_shard_that_was_never_written_reads_as_fill(store: Path) -> None:
    (store / "g.zarr" / "a" / "c" / "1" / "0").unlink()
    remanifest(store / "g.zarr")
    np.testing.assert_array_equal(direct(store).read(0, 97), through_zarr(store))
    assert np.isnan(direct(store).read(40, 80)).all()


@pytest.mark.parametrize("window", [(-1, 5), (5, 4), (0, 98), (98, 98)])
def test_rows_outside_the_array_are_refused(window: tuple[int, int], store: Path) -> None:
    with pytest.raises(IndexError, match="of an array of 97"):
        direct(store).read(*window)


def test_reads_into_the_memory_of_the_caller(store: Path) -> None:
    batch = np.full((4, 20, 3), -1, np.float32)
    reader = direct(store)
    for i, start in enumerate((0, 33, 60, 77)):
        assert reader.read(start, start + 20, out=batch[i]).base is not None
        np.testing.assert_array_equal(batch[i], VALUES[start : start + 20])


@pytest.mark.parametrize(
    "out",
    [
        np.empty((20, 3)),
        np.empty((19, 3), np.float32),
        np.empty((3, 20), np.float32).T,
        np.empty((40, 3), np.float32)[::2],
    ],
    ids=["dtype", "rows", "order", "stride"],
)
def test_a_buffer_that_does_not_fit_is_refused(out: np.ndarray, store: Path) -> None:
    with pytest.raises(StoreError, match="buffer is"):
        direct(store).read(0, 20, out=out)


@pytest.mark.parametrize("byte", range(0, 68, 3))
def test_any_damage_to_a_shard_index_raises(byte: int, store: Path) -> None:
    path = store / "g.zarr" / "a" / "c" / "0" / "0"
    reader = direct(store)
    data = bytearray(path.read_bytes())
    data[len(data) - 68 + byte] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptStoreError, match="checksum"):
        reader.read(0, 1)
    np.testing.assert_array_equal(reader.read(40, 97), VALUES[40:])  # other shards do not suffer


def test_an_index_with_a_right_checksum_that_points_outside_raises(store: Path) -> None:
    index = np.array([[0, 120], [120, 120], [2**40, 120], [360, 120]], "<u8").tobytes()
    data = bytes(480) + index + int(google_crc32c.value(index)).to_bytes(4, "little")
    rewrite(store, 0, data)
    with pytest.raises(CorruptStoreError, match="points outside"):
        direct(store)


def test_a_short_file_raises(store: Path) -> None:
    reader = direct(store)
    os.truncate(store / "g.zarr" / "a" / "c" / "0" / "0", 500)
    with pytest.raises(CorruptStoreError, match="500 bytes"):
        reader.read(0, 1)


def test_a_file_that_shrinks_under_the_reader_raises(store: Path) -> None:
    reader = direct(store)
    reader.read(0, 1)
    os.truncate(store / "g.zarr" / "a" / "c" / "0" / "0", 60)
    with pytest.raises(CorruptStoreError, match="bytes early"):
        reader.read(0, 40)


def test_rows_that_moved_since_the_index_was_written_raise(store: Path) -> None:
    reader = direct(store)
    path = store / "g.zarr" / "a" / "c" / "0" / "0"
    data = shuffled_shard([1, 0, 2, 3], set())
    assert len(data) == path.stat().st_size
    path.write_bytes(data)
    with pytest.raises(CorruptStoreError, match="where the index says"):
        reader.read(0, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": [zarr.codecs.ZstdCodec(level=1)], "shards": (40, 3), "chunks": (10, 3)},
        {"compressors": None, "shards": (40, 4), "chunks": (10, 2)},
        {"compressors": None, "chunks": (10, 2)},
        {"compressors": None, "chunks": (10, 3), "serializer": zarr.codecs.BytesCodec(endian="big")},
        {"compressors": None, "chunks": (10, 3), "filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
        {"compressors": None, "chunks": (10, 3), "chunk_key_encoding": {"name": "v2", "separator": "."}},
    ],
    ids=["compressed", "split channels", "split channels, no shards", "big endian", "transposed", "other file names"],
)
def test_other_layouts_are_refused_and_read_by_zarr_python(options: dict[str, object], tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "g.zarr")
    array = group.create_array("a", shape=(97, 3), dtype="float32", fill_value=0, **options)
    array[:] = VALUES
    (tmp_path / "g.zarr" / "manifest").mkdir()
    remanifest(tmp_path / "g.zarr")
    fs = open_file_system(tmp_path)
    described = describe_group(fs, "g").arrays["a"]
    with pytest.raises(UnsupportedLayoutError, match="direct reader"):
        DirectArray(fs, described)
    fallback = open_array(fs, described)
    assert isinstance(fallback, ZarrArray)
    np.testing.assert_array_equal(fallback.read(7, 83), VALUES[7:83])
    out = np.empty((10, 3), np.float32)
    assert fallback.read(35, 45, out=out) is out
    np.testing.assert_array_equal(out, VALUES[35:45])


@pytest.fixture
def token_store(tmp_path: Path) -> tuple[Path, np.ndarray]:
    codes = np.random.default_rng(0).integers(0, 256, (1300, 6, 5)).astype(np.uint8)
    for i in range(3):
        write_tokens(tmp_path, codes + np.uint8(i), f"sub-0{i}_meg", max_shard_bytes=6 * 5 * 400)
    rebuild_index(tmp_path)
    return tmp_path, codes


def test_store_reader(token_store: tuple[Path, np.ndarray]) -> None:
    store, codes = token_store
    with StoreReader.open(store) as reader:
        assert [r.name for r in reader.recordings] == ["sub-00_meg", "sub-01_meg", "sub-02_meg"]
        one = reader.recording("sub-01_meg")
        assert (one.n_rows, one.n_channels, one.sfreq, one.kind) == (1300, 5, 50.0, "tokens")
        assert one.entities["subject"] == "01"
        np.testing.assert_array_equal(reader.read("sub-01_meg", "codes"), codes + 1)
        np.testing.assert_array_equal(reader.read("sub-02_meg", "codes", 390, 900), codes[390:900] + 2)
        assert reader.read("sub-00_meg", "channel_position").shape == (5, 3)
        assert reader.read("sub-00_meg", "segment_n_frames").tolist() == [625, 625, 50]
        with pytest.raises(StoreError, match="no recording"):
            reader.read("sub-09_meg", "codes")
        with pytest.raises(StoreError, match="no array"):
            reader.read("sub-00_meg", "signal")


def test_groups_can_be_read_without_an_index(token_store: tuple[Path, np.ndarray]) -> None:
    store, codes = token_store
    (store / "index.parquet").unlink()
    with pytest.raises(ConfigError, match="no index"):
        StoreReader.open(store)
    with StoreReader.of_groups(store, ["sub-02_meg"]) as reader:
        assert len(reader.recordings) == 1
        np.testing.assert_array_equal(reader.read("sub-02_meg", "codes"), codes + 2)


def test_only_index_and_shard_files_are_opened(
    token_store: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, codes = token_store
    reader = StoreReader.open(store)
    for path in list(store.rglob("zarr.json")):
        path.unlink()
    np.testing.assert_array_equal(reader.read("sub-01_meg", "codes", 5, 1000), codes[5:1000] + 1)


def test_threads_share_a_reader_with_few_descriptors(token_store: tuple[Path, np.ndarray]) -> None:
    store, codes = token_store
    reader = StoreReader.open(store)
    reader._fs = LocalFileSystem(store, max_open_files=1)
    before = open_descriptors()
    start = threading.Barrier(4)

    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        start.wait()
        for _ in range(300):
            i, row = int(rng.integers(3)), int(rng.integers(1200))
            if not (reader.read(f"sub-0{i}_meg", "codes", row, row + 100) == codes[row : row + 100] + i).all():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    assert open_descriptors() <= before + 1
    reader.close()
    assert open_descriptors() == before


def test_descriptors_are_closed_where_reading_fails(store: Path) -> None:
    before = open_descriptors()
    path = store / "g.zarr" / "a" / "c" / "0" / "0"
    fs = open_file_system(store)
    array = describe_group(fs, "g").arrays["a"]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for _ in range(5):
        reader = DirectArray(fs, array)
        with pytest.raises(CorruptStoreError):
            reader.read(0, 1)
    fs.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_child_processes_read(method: str, token_store: tuple[Path, np.ndarray]) -> None:
    store, codes = token_store
    reader = StoreReader.open(store)
    reader.read("sub-01_meg", "codes", 0, 5)
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    # Another thread holds the lock of the descriptors at the moment of the fork.
    with reader._fs._descriptors._lock:
        child = context.Process(target=read_in_child, args=(reader, theirs))
        child.start()
    assert ours.poll(60)
    assert ours.recv() == [int((codes[10:20] + np.uint8(i)).sum()) for i in (1, 2)]
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(reader.read("sub-01_meg", "codes", 0, 5), codes[:5] + 1)


def test_physical_values(tmp_path: Path) -> None:
    values = signal(2000, 3)
    write_signal(tmp_path, values)
    rebuild_index(tmp_path)
    with StoreReader.open(tmp_path) as reader:
        read = reader.read_physical(NAME, 590, 1210)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, values[590:1210], rtol=0, atol=5e-3 * values.std())


def test_object_stores_are_not_there_yet() -> None:
    with pytest.raises(ConfigError, match="no file system for s3://"):
        StoreReader.open("s3://bucket/stores")


def test_a_missing_shard_file_raises(token_store: tuple[Path, np.ndarray]) -> None:
    store, _ = token_store
    reader = StoreReader.open(store)
    shutil.rmtree(store / "sub-01_meg.zarr")
    with pytest.raises(StoreError, match="no such file"):
        reader.read("sub-01_meg", "codes", 0, 5)
