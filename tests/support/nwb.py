"""Small NWB files as a table of nodes, written as HDF5 or as a Zarr v2 store: what a test changes is one entry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuromill.readers.nwb_file import NwbSpikes
from neuromill.readers.spikes import open_spikes
from neuromill.records import Recording, RecordingId, SourceFile, SpikeLayout

BEHAVIOUR = "processing/behavior"
TOP = ("acquisition/", "processing/")
UNITS = "units"
TRIALS = "intervals/trials"
ELECTRODES = "general/extracellular_ephys/electrodes"


@dataclass
class Nodes:
    """Arrays and attributes by path; ``attrs[""]`` are those of the root."""

    arrays: dict[str, Any] = field(default_factory=dict)
    attrs: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"": {"nwb_version": "2.8.0", "neurodata_type": "NWBFile"}}
    )

    def units(self, trains: Sequence[Any], *, path: str = UNITS, **columns: Any) -> "Nodes":
        """Add a units table; ``obs_intervals`` are one list of intervals per unit."""
        self.ragged(f"{path}/spike_times", trains)
        self.arrays[f"{path}/id"] = np.arange(len(trains))
        if "obs_intervals" in columns:
            self.ragged(f"{path}/obs_intervals", columns.pop("obs_intervals"))
        self.arrays |= {f"{path}/{name}": value for name, value in columns.items()}
        self.attrs[path] = {"neurodata_type": "Units"}
        return self

    def ragged(self, path: str, rows: Sequence[Any]) -> "Nodes":
        """Add a ragged column."""
        rows = [np.asarray(row, dtype=float) for row in rows]
        self.arrays[path] = np.concatenate(rows) if rows else np.empty(0)
        self.arrays[f"{path}_index"] = np.cumsum([len(row) for row in rows]).astype(np.int64)
        return self

    def series(
        self, path: str, data: Any, stamps: Any = None, *, rate: tuple[float, float] | None = None, **attrs: Any
    ) -> "Nodes":
        """Add a time series below the behaviour, or at a path from the top."""
        path = path if path.startswith(TOP) else f"{BEHAVIOUR}/{path}"
        own = {name: attrs.pop(name) for name in ("comments", "description", "neurodata_type") if name in attrs}
        self.attrs[path] = {"neurodata_type": "TimeSeries"} | own
        self.arrays[f"{path}/data"] = data
        self.attrs[f"{path}/data"] = {"conversion": 1.0, "unit": "m"} | attrs
        if stamps is not None:
            self.arrays[f"{path}/timestamps"] = np.asarray(stamps, dtype=float)
        if rate is not None:
            self.arrays[f"{path}/starting_time"] = np.float64(rate[0])
            self.attrs[f"{path}/starting_time"] = {"rate": rate[1]}
        return self

    def trials(self, starts: Any, stops: Any, **columns: Any) -> "Nodes":
        """Add a trials table."""
        table = {"start_time": starts, "stop_time": stops} | columns
        self.arrays |= {f"{TRIALS}/{name}": _array(value) for name, value in table.items()}
        self.attrs[TRIALS] = {"neurodata_type": "TimeIntervals"}
        return self

    def electrodes(self, of_units: Sequence[int], **columns: Any) -> "Nodes":
        """Add a table of electrodes, one of which belongs to each unit."""
        self.arrays[f"{UNITS}/electrodes"] = np.asarray(of_units, dtype=np.int64)
        self.attrs[f"{UNITS}/electrodes"] = {"table": f"/{ELECTRODES}"}
        n = len(next(iter(columns.values())))
        self.arrays |= {f"{ELECTRODES}/{name}": _array(value) for name, value in columns.items()}
        self.arrays.setdefault(f"{ELECTRODES}/id", np.arange(n))
        return self

    def without(self, *paths: str) -> "Nodes":
        """Leave arrays out."""
        for path in paths:
            del self.arrays[path]
        return self


def _array(value: Any) -> Any:
    found = np.asarray(value)
    return found.astype(object) if found.dtype.kind in "US" else found


def write_hdf5(nodes: Nodes, path: Path, *, chunks: bool | None = None) -> Path:
    """Write nodes as an HDF5 file."""
    with h5py.File(path, "w") as file:
        for name, value in nodes.arrays.items():
            array = _array(value)
            kind = h5py.string_dtype() if array.dtype == object else None
            file.create_dataset(name, data=array, dtype=kind, chunks=chunks if array.size and array.ndim else None)
        for name, attrs in nodes.attrs.items():
            (file.require_group(name) if name and name not in file else file[name or "/"]).attrs.update(attrs)
    return path


def write_zarr(nodes: Nodes, folder: Path, *, consolidate: bool = True) -> Path:
    """Write nodes as a Zarr v2 group with small chunks, text as variable-length UTF-8."""
    import zarr

    root = zarr.open_group(store=str(folder), mode="w", zarr_format=2)
    for name, value in nodes.arrays.items():
        array = np.atleast_1d(_array(value))  # hdmf-zarr writes a scalar as one element
        if array.dtype == object:
            array = array.astype(np.dtypes.StringDType())
        chunks = tuple(max(1, (n + 2) // 3) for n in array.shape)
        made = root.create_array(name, shape=array.shape, dtype=array.dtype, chunks=chunks)
        if array.size:
            made[...] = array
    for name, attrs in nodes.attrs.items():
        plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in attrs.items()}
        (root[name] if name in root else root.require_group(name) if name else root).attrs.update(plain)
    if consolidate:
        zarr.consolidate_metadata(str(folder), zarr_format=2)
    return folder


def recording_at(path: str, root: Path) -> Recording:
    """A recording of one file or folder."""
    full = root / path
    files = sorted(p for p in full.rglob("*") if p.is_file()) if full.is_dir() else [full]
    members = tuple(SourceFile(p.relative_to(root).as_posix(), p.stat().st_size) for p in files)
    return Recording(RecordingId("d", "1", "r"), path, members, format="nwb", datatype="spikes")


def open_nodes(nodes: Nodes, folder: Path, layout: SpikeLayout | Mapping[str, Any] | None = None) -> NwbSpikes:
    """Write nodes as HDF5 and open them through the door."""
    write_hdf5(nodes, folder / "file.nwb")
    layout = layout if isinstance(layout, SpikeLayout) else SpikeLayout.model_validate(layout or {})
    opened = open_spikes(recording_at("file.nwb", folder), folder, layout)
    assert isinstance(opened, NwbSpikes)
    return opened


def assert_same_content(one: Any, other: Any) -> None:
    """Two open recordings say the same, spike by spike."""
    assert one.units == other.units
    assert one.facts == other.facts
    np.testing.assert_array_equal(one.observation.intervals, other.observation.intervals)
    assert one.observation.joins == other.observation.joins
    for unit in range(len(one.units)):
        np.testing.assert_array_equal(one.spike_times(unit), other.spike_times(unit))
    assert [(c.names, c.unit, c.derivative, c.bin_edge) for c in one.covariates] == [
        (c.names, c.unit, c.derivative, c.bin_edge) for c in other.covariates
    ]
    pairs = [*zip(one.covariates, other.covariates, strict=True), *zip(one.masks, other.masks, strict=True)]
    for mine, its in pairs:
        np.testing.assert_array_equal(mine.stamps, its.stamps)
        np.testing.assert_array_equal(mine.values, its.values)
    assert list(one.trials.columns) == list(other.trials.columns)
    for name in ("starts", "stops", "success"):
        np.testing.assert_array_equal(getattr(one.trials, name), getattr(other.trials, name))
    for name, column in one.trials.columns.items():
        np.testing.assert_array_equal(column, other.trials.columns[name])
    assert (one.binned is None) == (other.binned is None)
    if one.binned is not None:
        np.testing.assert_array_equal(one.binned.counts, other.binned.counts)
        np.testing.assert_array_equal(one.binned.stamps, other.binned.stamps)
        assert one.binned.width_seconds == other.binned.width_seconds
