"""An extract opens exactly as the whole does, whatever tree it is taken from, and holds no more than is needed."""

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neuromill.readers.extract import extract_nwb
from neuromill.readers.nwb_file import open_nwb
from neuromill.readers.spikes import open_spikes, open_tree
from neuromill.readers.trees import Hdf5Array, open_hdf5
from neuromill.readers.zarr_tree import FolderStore, ZarrArray, open_zarr
from neuromill.records import ConfigError, RecordingError, SpikeLayout
from support.nwb import Nodes, assert_same_content, open_nodes, recording_at, write_hdf5, write_zarr
from support.outcomes import TOKENS, Expected, expected_outcomes

ROWS = [row for row in expected_outcomes() if row.modality == "spikes"]
# Two files that are no trees at all: there is nothing to take an extract of.
TREES = [row for row in ROWS if not row.path.endswith(("nwb_truncated.nwb", "nwb_not_hdf5.nwb"))]
RNG = np.random.default_rng(7)
STAMPS = np.arange(0, 20, 0.01)


@pytest.mark.data
@pytest.mark.parametrize("row", TREES, ids=lambda row: row.path.rsplit("/", 1)[-1])
def test_extracts_of_real_and_damaged_files_end_as_the_whole_does(row: Expected, data: Path, tmp_path: Path) -> None:
    layout, to = SpikeLayout(), tmp_path / "part.nwb"
    with (data / row.path).open("rb") as file:
        tree = open_hdf5(file, row.path)
        try:
            extract_nwb(tree, layout, to)
        except RecordingError as error:
            assert error.code == row.outcome  # noqa: PT017 - an extract may fail earlier than the opening of it would
            assert list(tmp_path.iterdir()) == []
            return
        finally:
            tree.close()
    part = recording_at("part.nwb", tmp_path)
    if row.outcome != TOKENS:
        with pytest.raises(RecordingError) as caught:
            open_spikes(part, tmp_path, layout)
        assert caught.value.code == row.outcome
        return
    with open_spikes(recording_at(row.path, data), data, layout) as whole, open_spikes(part, tmp_path, layout) as copy:
        assert_same_content(copy, whole)


def everything() -> Nodes:
    """A file of all that a layout can name, and of large things that none does."""
    trains = [np.sort(RNG.uniform(0, 20, n)) for n in (50, 0, 300, 7, 1000)]
    nodes = Nodes().units(trains, obs_intervals=[[[0, 9], [10, 20]]] * 5, heldout=np.arange(5) == 3,
                          quality=np.array(["good", "mua", "good", "good", "mua"], dtype=object))  # fmt: skip
    nodes.electrodes([3, 0, 1, 1, 2], group_name=list("ABCD"), location=["M1", "", "PMd", "M1"], bank=list("xyzw"))
    nodes.series("Position/hand", RNG.normal(size=(2000, 3)), STAMPS, comments="columns=[a,b,c]", conversion=0.01)
    nodes.series("force", np.arange(200, dtype=np.int16), rate=(1.0, 20.0), unit="N")
    nodes.series("acquisition/mask", STAMPS > 3, STAMPS)
    nodes.trials([0.0, 5.0, np.nan], [4.0, 9.0, 12.0], result=["R", "F", "R"], angle=[1.0, np.nan, 3.0])
    nodes.arrays |= {"session_description": np.array("a day", dtype=object)}
    nodes.arrays |= {
        "general/subject/subject_id": np.array("J", dtype=object),
        "general/subject/age": np.array("P9Y", dtype=object),
    }
    nodes.attrs["general/devices/array"] = {"manufacturer": "Blackrock"}
    nodes.series("acquisition/voltage", np.zeros((5000, 96), dtype=np.int16), rate=(0.0, 30000.0))
    nodes.arrays["units/waveform_mean"] = np.ones((5, 96))
    return nodes


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"covariates": [], "trials": None},
    {
        "units": {
            "keep": [{"column": "heldout", "values": [False]}, {"column": "electrodes.bank", "values": list("xyw")}],
            "sorted_column": "quality", "area_column": "electrodes.bank", "array_column": "electrodes.location",
        },
        "covariates": [{"path": "/processing/behavior/Position", "axes": ["hand_a", "hand_c"], "derivative": "before"}],
        "masks": [{"path": "acquisition/mask"}],
        "trials": {"columns": ["angle"], "success": {"column": "result", "values": ["R"]}},
        "restarts": "blocks",
    },
    {"units": {"path": "processing/behavior/force2", "kind": "counts"}, "masks": [{"path": "acquisition/mask"}]},
]  # fmt: skip


@pytest.mark.parametrize("source", ["hdf5", "zarr"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["defaults", "spikes alone", "all that is named", "counts"])
def test_extracts_from_both_trees_equal_the_whole(layout: dict[str, Any], source: str, tmp_path: Path) -> None:
    nodes, read = everything(), SpikeLayout.model_validate(layout)
    nodes.series("force2", RNG.poisson(1, (2000, 4)), STAMPS)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    at = write_hdf5(nodes, tmp_path / "a" / "file") if source == "hdf5" else write_zarr(nodes, tmp_path / "a" / "file")
    tree = open_tree(at, "whole")
    extract_nwb(tree, read, tmp_path / "b" / "part.nwb")
    part = recording_at("part.nwb", tmp_path / "b")
    with open_nwb(tree, read) as whole, open_spikes(part, tmp_path / "b", read) as copy:
        assert_same_content(copy, whole)
    with open_nodes(nodes, tmp_path, read) as written, open_spikes(part, tmp_path / "b", read) as copy:
        assert_same_content(copy, written)
        assert copy.facts.subject == "J"
        assert copy.facts.device == "Blackrock"
    with h5py.File(tmp_path / "b" / "part.nwb") as file:
        assert "waveform_mean" not in file.get("units", {})
        assert "voltage" not in file.get("acquisition", {})


def test_a_zarr_folder_opens_at_the_door(tmp_path: Path) -> None:
    write_zarr(everything(), tmp_path / "a.nwb.zarr")
    with (
        open_spikes(recording_at("a.nwb.zarr", tmp_path), tmp_path, SpikeLayout()) as zarr,
        open_nodes(everything(), tmp_path) as hdf5,
    ):
        assert zarr.units.arrays == hdf5.units.arrays
        assert len(zarr.units) == 5


def test_only_what_is_needed_is_asked_of_a_store(tmp_path: Path) -> None:
    asked: list[str] = []

    class Store(FolderStore):
        def get(self, key: str, /) -> bytes | None:
            asked.append(key)
            return super().get(key)

    store = Store(write_zarr(everything(), tmp_path / "a.zarr"))
    extract_nwb(open_zarr(store, "z"), SpikeLayout(), tmp_path / "part.nwb")
    assert not [key for key in asked if "voltage/" in key or "waveform" in key]
    assert len(asked) == len(set(asked))  # nothing is asked for twice


def test_only_what_is_needed_is_read_of_a_file(tmp_path: Path) -> None:
    read = 0

    class Counting(io.BytesIO):
        def readinto(self, buffer: Any, /) -> int:
            nonlocal read
            found = super().readinto(buffer)
            read += found
            return found

    nodes = everything()
    nodes.arrays["acquisition/voltage/data"] = RNG.integers(0, 9, (200_000, 96)).astype(np.int16)
    path = write_hdf5(nodes, tmp_path / "a.nwb")
    extract_nwb(open_hdf5(Counting(path.read_bytes()), "a"), SpikeLayout(), tmp_path / "part.nwb")
    assert read < path.stat().st_size / 50


@pytest.mark.parametrize("storage", ["chunked", "contiguous"])
def test_copying_holds_one_block_at_a_time(storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuromill.readers.extract.BLOCK_BYTES", 4096)
    sizes = []
    original = Hdf5Array.read

    def read(self: Hdf5Array, start: int = 0, stop: int | None = None) -> Any:
        found = original(self, start, stop)
        sizes.append((found.nbytes, self.chunk_rows * max(1, found.nbytes // max(1, len(found)) if found.ndim else 1)))
        return found

    nodes = (
        Nodes().units([np.sort(RNG.uniform(0, 20, 30_000))]).series("hand", RNG.normal(size=(9999, 3)), np.arange(9999))
    )
    path = write_hdf5(nodes, tmp_path / "a.nwb", chunks=storage == "chunked" or None)
    tree = open_hdf5(path, "a")
    monkeypatch.setattr(Hdf5Array, "read", read)
    extract_nwb(tree, SpikeLayout(), tmp_path / "part.nwb")
    assert len(sizes) > 20
    assert all(size <= max(4096, chunk) for size, chunk in sizes)
    monkeypatch.undo()
    with open_spikes(recording_at("part.nwb", tmp_path), tmp_path, SpikeLayout()) as copy:
        np.testing.assert_array_equal(copy.covariates[0].values, nodes.arrays["processing/behavior/hand/data"])
        np.testing.assert_array_equal(copy.spike_times(0), nodes.arrays["units/spike_times"])


def test_an_extract_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_zarr(everything(), tmp_path / "a.zarr")
    (folder / "units" / "spike_times" / "0").write_bytes(b"damaged")
    to = tmp_path / "out" / "part.nwb"
    to.parent.mkdir()
    to.write_bytes(b"from before")
    with pytest.raises(RecordingError) as caught:
        extract_nwb(open_zarr(FolderStore(folder), "z"), SpikeLayout(), to)
    assert caught.value.code == "unreadable"
    assert [path.read_bytes() for path in to.parent.iterdir()] == [b"from before"]


def test_columns_that_are_pickled_are_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_zarr(everything(), tmp_path / "a.zarr")
    original = ZarrArray.values.fget

    def pickled(self: ZarrArray) -> str:
        return "other" if self._path.endswith("electrodes/location") else original(self)

    monkeypatch.setattr(ZarrArray, "values", property(pickled))
    tree = open_zarr(FolderStore(folder), "z")
    with open_nwb(tree, SpikeLayout()) as whole:
        assert set(whole.units.areas) == {""}
        assert any("location is stored in a way that is not read" in note for note in whole.facts.notes)
    extract_nwb(tree, SpikeLayout(), tmp_path / "part.nwb")
    with open_spikes(recording_at("part.nwb", tmp_path), tmp_path, SpikeLayout()) as copy:
        assert set(copy.units.areas) == {""}


def test_other_formats_are_fetched_whole(tmp_path: Path) -> None:
    tree = open_hdf5(write_hdf5(everything(), tmp_path / "a.nwb"), "a")
    with pytest.raises(ConfigError):
        extract_nwb(tree, SpikeLayout(format="odoherty"), tmp_path / "part.nwb")
