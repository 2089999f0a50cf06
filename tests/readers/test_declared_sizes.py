"""Files of a few kilobytes that declare terabytes: of a unit its own slice counts, of all else the whole array."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from neuromill.readers.extract import extract_nwb
from neuromill.readers.spikes import open_spikes
from neuromill.readers.trees import open_hdf5
from neuromill.records import FailureCode, RecordingError, SpikeLayout, UnitsLayout
from support.nwb import Nodes, recording_at, write_hdf5

HUGE = 12 * 10**9
COUNTS = SpikeLayout(units=UnitsLayout(path="processing/behavior/counts", kind="counts"))


def sparse(folder: Path, path: str, shape: tuple[int, ...], kind: str = "f8") -> Path:
    """A small session of which one array is replaced by a sparse one."""
    nodes = Nodes().units([np.arange(1, 9.0), np.arange(1, 5.0)])
    nodes.series("hand", np.zeros((200, 2)), rate=(0.0, 20.0))
    nodes.series("counts", np.ones((200, 2), np.uint8), rate=(0.0, 50.0))
    made = write_hdf5(nodes, folder / "a.nwb", chunks=True)
    with h5py.File(made, "r+") as file:
        attributes = dict(file[path].attrs)
        del file[path]
        file.create_dataset(
            path, shape, kind, chunks=(min(1000, shape[0]), *(min(2, n) for n in shape[1:]))
        ).attrs.update(attributes)
    return made


def code_of(folder: Path, layout: SpikeLayout) -> FailureCode:
    with pytest.raises(RecordingError) as caught:
        open_spikes(recording_at("a.nwb", folder), folder, layout)
    return caught.value.code


def test_of_spike_times_a_units_slice_counts(tmp_path: Path) -> None:
    made = sparse(tmp_path, "units/spike_times", (HUGE,))
    with h5py.File(made, "r+") as file:
        file["units/spike_times"][:12] = [*range(1, 9), *range(1, 5)]
    with open_spikes(recording_at("a.nwb", tmp_path), tmp_path, SpikeLayout()) as spikes:
        assert [spikes.spike_times(unit).size for unit in (0, 1)] == [8, 4]
    with h5py.File(made, "r+") as file:
        file["units/spike_times_index"][1] = HUGE
    assert code_of(tmp_path, SpikeLayout()) is FailureCode.TOO_LARGE


@pytest.mark.parametrize(
    ("path", "shape", "layout"),
    [
        ("units/spike_times_index", (HUGE,), SpikeLayout()),
        ("units/id", (HUGE,), SpikeLayout()),
        ("processing/behavior/hand/data", (HUGE, 2), SpikeLayout()),
        ("processing/behavior/hand/data", (10**9, 2), SpikeLayout()),
        ("processing/behavior/counts/data", (HUGE, 2), COUNTS),
        ("processing/behavior/counts/data", (2, 2**24), COUNTS),
    ],
)
def test_what_is_declared_is_bounded(path: str, shape: tuple[int, ...], layout: SpikeLayout, tmp_path: Path) -> None:
    made = sparse(tmp_path, path, shape)
    if path.startswith("units/"):  # the two agree with each other
        other = {"units/id": "units/spike_times_index"}.get(path, "units/id")
        with h5py.File(made, "r+") as file:
            del file[other]
            file.create_dataset(other, shape, "i8", chunks=(1000,))
    assert code_of(tmp_path, layout) is FailureCode.TOO_LARGE


def test_a_sparse_array_is_not_written_out_into_an_extract(tmp_path: Path) -> None:
    made, to = sparse(tmp_path, "units/spike_times", (HUGE,)), tmp_path / "part.nwb"
    tree = open_hdf5(made, "a.nwb")
    with pytest.raises(RecordingError) as caught:
        extract_nwb(tree, SpikeLayout(), to)
    tree.close()
    assert caught.value.code is FailureCode.TOO_LARGE
    assert [path.name for path in tmp_path.iterdir()] == ["a.nwb"]
