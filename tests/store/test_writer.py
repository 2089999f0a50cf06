import hashlib
import json
import os
import signal as signals
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromill.records import Events, FailureCode, RecordingError
from neuromill.store.attributes import FeatureAttributes
from neuromill.store.errors import StoreError
from neuromill.store.reader import StoreReader
from neuromill.store.usage import codebook_usage
from neuromill.store.verify import clean_leftovers, list_groups, verify_store
from neuromill.store.writer import FeatureWriter, SignalWriter, TokenWriter
from support.stores import (
    channel_table,
    signal,
    signal_attributes,
    token_attributes,
    write_signal,
    write_tokens,
)

NAME = "sub-01_meg"


def tree(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def physical(store: Path) -> np.ndarray:
    with StoreReader.of_groups(store) as reader:
        return reader.read_physical(NAME)


def test_float16_error_is_bounded(tmp_path: Path) -> None:
    values = signal(5000, 7)
    write_signal(tmp_path, values)
    offset = values.mean(axis=0, dtype=np.float64)
    scale = values.std(axis=0, dtype=np.float64)
    error = np.abs(physical(tmp_path).astype(np.float64) - values)
    # half a unit in the last place of float16, its smallest step near zero, and float32 rounding of value and offset
    bound = 2.0**-11 * np.abs(values - offset) + 2.0**-25 * scale + 4 * 2.0**-24 * (np.abs(values) + np.abs(offset))
    assert (error <= bound).all()
    assert error.max() > 0


def test_int16_error_is_half_a_step_and_clipping_is_counted(tmp_path: Path) -> None:
    values = signal(5000, 3)
    values[17, 1] += 1000 * values[:, 1].std()
    write_signal(tmp_path, values, encoding="int16")
    group = zarr.open_group(tmp_path / f"{NAME}.zarr", mode="r")
    error = np.abs(physical(tmp_path).astype(np.float64) - values)
    error[17, 1] = 0
    assert (error <= 0.51 * 0.001 * values.std(axis=0, dtype=np.float64)).all()
    assert group.attrs["n_clipped"] == 1
    assert group["signal"][17, 1] == 32767


def test_float32_keeps_every_bit(tmp_path: Path) -> None:
    values = signal(1000, 3)
    write_signal(tmp_path, values, encoding="float32")
    np.testing.assert_array_equal(physical(tmp_path), values)


@pytest.mark.parametrize("encoding", ["float16", "float32", "int16"])
def test_unusable_channels_read_as_nan_and_say_why(encoding: str, tmp_path: Path) -> None:
    values = signal(1000, 5)
    values[:, 1] = 3e-12
    values[500, 2] = np.nan
    values[500, 3] = np.inf
    write_signal(tmp_path, values, encoding=encoding, channels=channel_table(5, bads=("", "", "", "", "marked")))
    attributes = zarr.open_group(tmp_path / f"{NAME}.zarr", mode="r").attrs
    assert attributes["bads"] == {
        "MEG001": "flat",
        "MEG002": "non_finite",
        "MEG003": "non_finite",
        "MEG004": "marked",
    }
    read = physical(tmp_path)
    assert np.isnan(read[:, 1:4]).all()
    assert np.isfinite(read[:, [0, 4]]).all()


def test_a_channel_the_caller_calls_flat_is_masked(tmp_path: Path) -> None:
    write_signal(tmp_path, signal(1000, 2), channels=channel_table(2, bads=("flat", "")))
    assert np.isnan(physical(tmp_path)[:, 0]).all()


def test_marked_as_bad_does_not_hide_that_a_channel_is_not_finite(tmp_path: Path) -> None:
    values = signal(1000, 2)
    values[3, 0] = np.nan
    write_signal(tmp_path, values, channels=channel_table(2, bads=("marked", "")))
    assert np.isnan(physical(tmp_path)[:, 0]).all()


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (np.zeros((0, 2), np.float32), FailureCode.EMPTY),
        (np.zeros((10, 2), np.float32), FailureCode.NO_USABLE_CHANNELS),
        (np.full((10, 2), np.nan, np.float32), FailureCode.NO_USABLE_CHANNELS),
    ],
)
def test_recordings_without_signal_fail_with_their_code(values: np.ndarray, code: FailureCode, tmp_path: Path) -> None:
    with pytest.raises(RecordingError) as caught:
        write_signal(tmp_path, values)
    assert caught.value.code is code
    assert list(tmp_path.iterdir()) == []


def test_duplicate_channel_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError) as caught:
        write_signal(tmp_path, signal(100, 2), channels=channel_table(2, names=("A", "A")))
    assert caught.value.code is FailureCode.DUPLICATE_CHANNELS


@pytest.mark.parametrize("block", [np.zeros((3, 4), np.float32), np.zeros((4, 3)), np.zeros(3, np.float32)])
def test_blocks_of_another_shape_or_dtype_are_refused(block: np.ndarray, tmp_path: Path) -> None:
    with (
        SignalWriter(tmp_path, NAME, n_channels=3, sfreq=50.0) as writer,
        pytest.raises(StoreError, match="block is"),
    ):
        writer.write(block)


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 9000), max_size=8))
def test_bytes_do_not_depend_on_the_blocks(cuts: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("store")
    values = signal(9000, 130)  # more than one block of the spool
    edges = [0, *sorted(cuts), 9000]
    digests = {
        write_signal(folder / str(i), values, blocks=blocks).digest
        for i, blocks in enumerate([[values], [values[a:b] for a, b in pairwise(edges)]])
    }
    assert len(digests) == 1


def test_same_input_same_bytes(tmp_path: Path) -> None:
    """The digest is written here: it changes only with the format version."""
    for name in ("one", "two"):
        write_signal(tmp_path / name, signal(3000, 3), max_shard_bytes=10_000)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    values = (np.arange(3000 * 3) % 251).reshape(3000, 3).astype(np.float32)
    digest = write_signal(tmp_path / "three", values).digest
    assert digest == "3da12f69db6ebcf69475170343b370fb74d90af98cbcdda6a2b4580e15d8a970"


def test_nothing_of_this_machine_is_inside(tmp_path: Path) -> None:
    write_signal(tmp_path, signal(100, 2))
    text = b"".join(p.read_bytes() for p in sorted(tmp_path.rglob("zarr.json"))).decode()
    assert str(tmp_path) not in text
    assert os.uname().nodename not in text
    assert "created" not in text


def test_publishing_twice_is_a_no_op_and_other_bytes_need_replace(tmp_path: Path) -> None:
    first = write_signal(tmp_path, signal(100, 2))
    inode = (tmp_path / f"{NAME}.zarr").stat().st_ino
    again = write_signal(tmp_path, signal(100, 2))
    assert (first.created, again.created, first.digest == again.digest) == (True, False, True)
    assert (tmp_path / f"{NAME}.zarr").stat().st_ino == inode
    with pytest.raises(StoreError, match="other bytes"):
        write_signal(tmp_path, signal(100, 2, seed=1))
    assert tree(tmp_path)[f"{NAME}.zarr/manifest/zarr.json"] == first.digest
    replaced = write_signal(tmp_path, signal(100, 2, seed=1), replace=True)
    assert replaced.created
    assert [p.name for p in tmp_path.iterdir()] == [f"{NAME}.zarr"]
    assert verify_store(tmp_path) == ()


def test_a_writer_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="channels in the table"):
        write_signal(tmp_path, signal(100, 2), channels=channel_table(3))
    assert list(tmp_path.iterdir()) == []


def test_one_process_cannot_write_a_group_twice_at_once(tmp_path: Path) -> None:
    with (
        SignalWriter(tmp_path, NAME, n_channels=2, sfreq=50.0),
        pytest.raises(StoreError, match="already being written"),
    ):
        SignalWriter(tmp_path, NAME, n_channels=2, sfreq=50.0)


def test_cleaning_spares_living_writers(tmp_path: Path) -> None:
    (tmp_path / ".tmp-sub-09.zarr-1").mkdir(parents=True)
    (tmp_path / ".tmp-index.parquet-1").write_bytes(b"x")
    with SignalWriter(tmp_path, NAME, n_channels=2, sfreq=50.0) as writer:
        writer.write(signal(100, 2))
        assert clean_leftovers(tmp_path) == (".tmp-index.parquet-1", ".tmp-sub-09.zarr-1")
        assert writer.publish(signal_attributes(), channel_table(2)).created
    assert clean_leftovers(tmp_path) == ()


def test_events_lie_beside_the_signal(tmp_path: Path) -> None:
    events = Events(np.array([0.1, 0.7]), np.array([0.0, 0.2]), ("word/the", "word/cat"))
    write_signal(tmp_path, signal(100, 2), events=events)
    group = zarr.open_group(tmp_path / f"{NAME}.zarr", mode="r")
    np.testing.assert_array_equal(group["event_onset"][:], events.onsets)
    np.testing.assert_array_equal(group["event_duration"][:], events.durations)
    assert group.attrs["event_descriptions"] == list(events.descriptions)


def test_no_events_are_no_arrays(tmp_path: Path) -> None:
    write_signal(tmp_path, signal(100, 2), events=Events(np.zeros(0), np.zeros(0), ()))
    assert "event_onset" not in zarr.open_group(tmp_path / f"{NAME}.zarr", mode="r")


@pytest.mark.parametrize(("size", "dtype"), [(2, "uint8"), (256, "uint8"), (257, "uint16"), (1024, "uint16")])
def test_codes_take_the_smallest_dtype(size: int, dtype: str, tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, size, (1300, 6, 3))
    write_tokens(tmp_path, codes, codebook_size=size)
    group = zarr.open_group(tmp_path / f"{NAME}.zarr", mode="r")
    assert group["codes"].dtype == dtype
    np.testing.assert_array_equal(group["codes"][:], codes)
    assert group["segment_start_frame"][:].tolist() == [0, 625, 1250]
    assert group["segment_n_frames"][:].tolist() == [625, 625, 50]
    assert group["segment_n_valid_samples"][:].tolist() == [7499, 7499, 599]
    assert group.attrs["n_valid_samples"] == 2 * 7499 + 599
    assert group["scale"].shape == (3, 3)


def test_an_hour_of_tokens_of_19_channels_is_small(tmp_path: Path) -> None:
    """Codes that cannot be compressed, one second each, in segments of 30 s; every file of the group counts."""
    codes = np.random.default_rng(0).integers(0, 4096, (3600, 2, 19))
    usage = np.stack([np.bincount(level.ravel(), minlength=4096) for level in np.moveaxis(codes, 1, 0)])
    with TokenWriter(tmp_path, NAME, n_channels=19, n_quantizers=2, codebook_size=4096) as writer:
        for start in range(0, 3600, 30):
            writer.write_segment(codes[start : start + 30], np.ones(19, np.float32), 30 * 200)
        writer.publish(token_attributes(), channel_table(19), usage=usage)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert codes.size * 2 < sum(path.stat().st_size for path in files) <= 300_000
    with StoreReader.of_groups(tmp_path) as reader:
        stored = reader.read(NAME, "codes")
        np.testing.assert_array_equal(codebook_usage(reader, NAME), usage)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, codes)


@pytest.mark.parametrize(
    ("codes", "scale", "n_valid"),
    [
        (np.full((5, 2, 3), 4), np.ones(3), 60),
        (np.full((5, 2, 3), -1), np.ones(3), 60),
        (np.zeros((0, 2, 3), int), np.ones(3), 60),
        (np.zeros((5, 2, 4), int), np.ones(3), 60),
        (np.zeros((5, 2, 3), int), np.ones(2), 60),
        (np.zeros((5, 2, 3), int), np.ones(3), 0),
    ],
)
def test_segments_that_cannot_be_are_refused(
    codes: np.ndarray, scale: np.ndarray, n_valid: int, tmp_path: Path
) -> None:
    with (
        TokenWriter(tmp_path, NAME, n_channels=3, n_quantizers=2, codebook_size=4) as writer,
        pytest.raises(StoreError),
    ):
        writer.write_segment(codes, scale, n_valid)


def test_a_refused_segment_leaves_no_trace(tmp_path: Path) -> None:
    with TokenWriter(tmp_path, NAME, n_channels=3, n_quantizers=2, codebook_size=4) as writer:
        with pytest.raises(StoreError, match="rows are uint8"):
            writer.write_segment(np.zeros((5, 2, 4), np.int64), np.ones(3, np.float32), 1)
        writer.write_segment(np.ones((5, 2, 3), np.int64), np.ones(3, np.float32), 60)
        writer.publish(token_attributes(), channel_table(3))
    with StoreReader.of_groups(tmp_path) as reader:
        assert reader.read(NAME, "segment_n_frames").tolist() == [5]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_round_trip(dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((130, 3, 8)).astype(np.float32)
    attributes = FeatureAttributes(**token_attributes().model_dump(), model="sha256:22")
    with FeatureWriter(tmp_path, NAME, n_channels=3, n_dims=8, dtype=dtype, max_shard_bytes=5000) as writer:
        writer.write(values[:70])
        writer.write(values[70:])
        writer.publish(attributes, channel_table(3))
    with StoreReader.of_groups(tmp_path) as reader:
        np.testing.assert_array_equal(reader.read(NAME, "features"), values.astype(dtype))
        assert reader.recordings[0].n_rows == 130
        assert len(reader.recordings[0].main.shards) > 1


KILLED = """
import os, signal as signals, sys
from pathlib import Path
from support.stores import signal, write_signal

def run(store, last_step):
    # SIGKILL at the n-th durable step: before and after every sync of a file or a folder.
    real, steps = os.fsync, [0]
    def fsync(descriptor):
        for sync in (lambda: real(descriptor), lambda: None):
            steps[0] += 1
            if steps[0] == last_step:
                os.kill(os.getpid(), signals.SIGKILL)
            sync()
    os.fsync = fsync
    write_signal(store, signal(3000, 3), max_shard_bytes=10_000)
    return steps[0]

folder = Path(sys.argv[1])
n_steps = run(folder / "whole", 0)
for step in [int(argument) for argument in sys.argv[2:]] or range(1, n_steps + 1):
    child = os.fork()
    if child == 0:
        run(folder / str(step), step)
        os._exit(0)
    print(step, os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


def kill_writers(folder: Path, *steps: int) -> dict[str, int]:
    """Write one store whole and, for each step, one whose writer is killed there; returns the signal by folder."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, str(folder), *map(str, steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}


def check_after_kill(store: Path, wanted: dict[str, str]) -> tuple[str, ...]:
    """Nothing or everything is visible, nothing stays after cleaning, a rerun gives the same bytes."""
    groups = list_groups(store)
    assert verify_store(store) == ()
    with StoreReader.of_groups(store) as reader:
        assert [r.name for r in reader.recordings] == list(groups)
    clean_leftovers(store)
    assert [p.name for p in store.iterdir()] == [f"{g}.zarr" for g in groups]
    write_signal(store, signal(3000, 3), max_shard_bytes=10_000)
    assert tree(store) == wanted
    return groups


def test_a_killed_writer_leaves_nothing_a_reader_can_see(tmp_path: Path) -> None:
    assert kill_writers(tmp_path, 1, 9) == {"1": signals.SIGKILL, "9": signals.SIGKILL}
    wanted = tree(tmp_path / "whole")
    assert any(name.startswith(".tmp-") for name in os.listdir(tmp_path / "9"))  # noqa: PTH208
    assert {check_after_kill(tmp_path / step, wanted) for step in ("1", "9")} == {()}


@pytest.mark.slow
def test_killed_at_any_step_nothing_or_everything_is_visible(tmp_path: Path) -> None:
    ends = kill_writers(tmp_path)
    assert len(ends) > 40
    assert set(ends.values()) == {signals.SIGKILL}
    wanted = tree(tmp_path / "whole")
    seen = [check_after_kill(tmp_path / step, wanted) for step in ends]
    assert seen == [()] * (len(ends) - 2) + [(NAME,)] * 2  # the last two surround the sync after the rename


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    block = signal(500, 1000)
    tracemalloc.start()
    with SignalWriter(tmp_path, NAME, n_channels=1000, sfreq=50.0) as writer:
        for _ in range(40):  # 80 MB of float32
            writer.write(block)
        writer.publish(signal_attributes(), channel_table(1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6


def test_attributes_say_what_a_reader_needs(tmp_path: Path) -> None:
    write_signal(tmp_path, signal(100, 2))
    attributes = json.loads((tmp_path / f"{NAME}.zarr" / "zarr.json").read_text())["attributes"]
    expected = {
        "format": "neuromill",
        "format_version": 1,
        "kind": "signal",
        "recording_id": f"ds000001@1.0.0/{NAME}",
        "entities": {"subject": "01"},
        "modality": "meg",
        "sfreq": 50.0,
        "n_times": 100,
        "channel_names": ["MEG000", "MEG001"],
        "channel_types": ["mag", "mag"],
        "channel_units": ["T", "T"],
        "line_freq": 50.0,
    }
    assert {key: attributes[key] for key in expected} == expected
