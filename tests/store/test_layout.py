import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import Events, RecordingError
from neuromill.store.layout import ArraySpec, StoreId, array_document, group_name, shard_rows, signal_chunk_samples
from support.stores import channel_table, write_signal, write_tokens

GOLDEN = Path(__file__).parent / "golden"


def test_path_of_a_store() -> None:
    store = StoreId("ds004078@1.2.1", "prepare", "0123456789abcdef")
    assert store.path(Path("/home/x")) == Path("/home/x/stores/ds004078@1.2.1/prepare/0123456789abcdef")
    assert group_name("sub-01_task-RDR_run-1_meg") == "sub-01_task-RDR_run-1_meg.zarr"


@pytest.mark.parametrize("name", ["", "..", "a/b", ".tmp-x", "a\nb", "x" * 300])
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(RecordingError, match="name cannot"):
        group_name(name)
    with pytest.raises(RecordingError):
        StoreId("ds@1", name, "0")


@pytest.mark.parametrize(
    ("sfreq", "hop", "samples"),
    [(50.0, 12, 600), (200.0, 12, 2400), (300.307, 12, 3612), (0.5, 12, 12), (50.0, 7, 602)],
)
def test_inner_chunk_is_twelve_seconds_of_whole_frames(sfreq: float, hop: int, samples: int) -> None:
    assert signal_chunk_samples(sfreq, hop) == samples
    assert samples % hop == 0
    assert samples - hop < 12 * sfreq <= samples


@given(st.integers(1, 10**7), st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2**27))
def test_shards_hold_whole_chunks_and_stay_below_the_bound(n_rows: int, chunk: int, row_bytes: int, limit: int) -> None:
    rows = shard_rows(n_rows, chunk, row_bytes, limit)
    assert rows % chunk == 0
    assert rows == chunk or rows * row_bytes <= limit
    assert rows - chunk < n_rows  # never longer than the recording needs


def empty_store_templates(folder: Path) -> dict[str, dict[str, object]]:
    """Every metadata document of a small signal group and a small token group."""
    events = Events(np.array([0.5]), np.array([0.1]), ("word",))
    channels = channel_table(2, bads=("", "marked"))
    write_signal(folder / "signal", np.arange(26, dtype=np.float32).reshape(13, 2), channels=channels, events=events)
    write_tokens(folder / "tokens", np.zeros((7, 6, 2), np.uint8), segment_frames=5)
    return {
        kind: {
            path.parent.relative_to(folder / kind / "sub-01_meg.zarr").as_posix(): json.loads(path.read_text())
            for path in sorted((folder / kind).rglob("zarr.json"))
        }
        for kind in ("signal", "tokens")
    }


@pytest.mark.parametrize("kind", ["signal", "tokens"])
def test_metadata_is_that_of_the_checked_in_template(kind: str, tmp_path: Path) -> None:
    """A change of the layout must show in review: regenerate with ``python tests/store/test_layout.py``."""
    assert empty_store_templates(tmp_path)[kind] == json.loads((GOLDEN / f"{kind}.json").read_text())


@pytest.mark.parametrize("dtype", ["float16", "float32", "int16", "uint8", "uint16"])
@pytest.mark.parametrize("n_rows", [1, 600, 1000, 1800, 4999])
def test_zarr_python_writes_the_same_bytes(dtype: str, n_rows: int, tmp_path: Path) -> None:
    """Oracle for the shard encoding, tail chunks, absent chunks and index included."""
    values = np.arange(n_rows * 3).reshape(n_rows, 3).astype(dtype)
    spec = ArraySpec("a", ("time", "channel"), (n_rows, 3), dtype, 600, 1800, "NaN" if "float" in dtype else 7)
    theirs = zarr.create_array(
        tmp_path / "theirs",
        shape=spec.shape,
        shards=(1800, 3),
        chunks=(600, 3),
        dtype=dtype,
        fill_value=np.nan if "float" in dtype else 7,
        compressors=None,
        filters=None,
        dimension_names=spec.dims,
        config={"write_empty_chunks": True},
    )
    theirs[:] = values
    write_array(tmp_path / "ours", spec, values)
    shards = sorted(p.relative_to(tmp_path / "theirs") for p in (tmp_path / "theirs" / "c").rglob("*") if p.is_file())
    assert len(shards) == spec.n_shards
    for shard in shards:
        assert (tmp_path / "ours" / "g.zarr" / "a" / shard).read_bytes() == (tmp_path / "theirs" / shard).read_bytes()
    theirs_document = json.loads((tmp_path / "theirs" / "zarr.json").read_text())
    ours = array_document(spec)
    assert {k: ours[k] for k in ours if k != "codecs"} == {k: theirs_document[k] for k in ours if k != "codecs"}


def write_array(store: Path, spec: ArraySpec, values: np.ndarray) -> None:
    from neuromill.store.filesystem import LocalFileSystem
    from neuromill.store.publishing import GroupWriter

    with GroupWriter(LocalFileSystem(store), "g") as writer:
        writer.add_array(spec, [values])
        writer.publish({})


def test_zarr_python_opens_a_group_without_a_warning(tmp_path: Path) -> None:
    write_signal(tmp_path, np.random.default_rng(0).standard_normal((700, 2)).astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "sub-01_meg.zarr", mode="r")
        assert {"signal", "channel_scale", "channel_position"} <= set(group.array_keys())
        assert list(group.group_keys()) == ["manifest"]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for kind, documents in empty_store_templates(Path(folder)).items():
            text = json.dumps(documents, indent=1, sort_keys=True) + "\n"
            (GOLDEN / f"{kind}.json").write_text(text)
