"""Writes sessions of the synthetic monkey as NWB files: the same fields give the same bytes."""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from neuromill.records import Config, check_name
from neuromill.synthetic.reaching import fire, reach, tune

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neuromill.synthetic.reaching import Reaches

NWB_VERSION = "2.7.0"
_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")


class SessionsSpec(Config):
    """What to write: one dandiset, one session per subject."""

    dandiset: str = Field(default="999002", pattern=r"\d{6}")
    version: str = "0.260101.0000"
    subjects: int = Field(default=3, ge=1, le=26)
    units_per_array: int = Field(default=24, ge=1, le=320)
    seconds: float = Field(default=240.0, ge=10.0)
    seed: int = 0


def session_files(spec: SessionsSpec) -> dict[str, bytes]:
    """Write every session; keys are asset paths as DANDI has them."""
    check_name(spec.version)
    return {session_path(subject): _session(spec, subject) for subject in range(spec.subjects)}


def session_path(subject: int) -> str:
    """Asset path of a subject's session."""
    name = chr(ord("A") + subject)
    return f"sub-{name}/sub-{name}_ses-RT-20260101_behavior+ecephys.nwb"


def _session(spec: SessionsSpec, subject: int) -> bytes:
    rng = np.random.default_rng([spec.seed, subject])
    reaches = reach(rng, spec.seconds)
    trains = fire(rng, reaches, tune(rng, 2 * spec.units_per_array))
    arrays = ["M1"] * spec.units_per_array + ["PMd"] * spec.units_per_array
    return nwb_bytes(f"synthetic-{spec.seed}-{subject}", chr(ord("A") + subject), reaches, trains, arrays)


def nwb_bytes(
    identifier: str, subject: str, reaches: Reaches, trains: Sequence[NDArray[np.float64]], arrays: Sequence[str]
) -> bytes:
    """Write one session: units with electrodes, cursor position and velocity at 100 Hz, trials with their result.

    ``trains`` are the spike times of each unit, float64 [spike] seconds ascending; ``arrays`` names that of each unit.
    """
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=False) as file:
        writer = _NwbWriter(file, identifier)
        writer.head(subject)
        writer.electrodes(arrays)
        writer.units(trains)
        writer.behaviour(reaches)
        writer.trials(reaches)
    return buffer.getvalue()


class _NwbWriter:
    """The few NWB types a session needs, written as plain HDF5.

    pynwb draws a new object id and time stamp at each writing, so that the same session would never be the same file.
    """

    def __init__(self, file: Any, identifier: str) -> None:
        self._file, self._identifier = file, identifier

    def head(self, subject: str) -> None:
        self._type(self._file, "NWBFile", "core")
        self._file.attrs["nwb_version"] = NWB_VERSION
        texts = {
            "identifier": self._identifier,
            "session_description": "random-target reaching of a synthetic monkey",
            "session_start_time": "2026-01-01T00:00:00+00:00",
            "timestamps_reference_time": "2026-01-01T00:00:00+00:00",
        }
        for name, text in texts.items():
            self._text(self._file, name, text)
        self._file["file_create_date"] = np.array(["2026-01-01T00:00:00+00:00"], dtype=_text())
        for name in ("acquisition", "analysis", "processing", "stimulus/presentation", "stimulus/templates", "general"):
            self._file.create_group(name)
        who = self._group("general/subject", "Subject", "core")
        for name, text in {"subject_id": subject, "species": "Macaca mulatta", "sex": "U", "age": "P5Y"}.items():
            self._text(who, name, text)

    def electrodes(self, arrays: Sequence[str]) -> None:
        """One electrode per unit, in a group per array."""
        import h5py

        device = self._group("general/devices/array", "Device", "core")
        device.attrs["description"] = "synthetic arrays"
        for area in dict.fromkeys(arrays):
            group = self._group(f"general/extracellular_ephys/{area}", "ElectrodeGroup", "core")
            group.attrs["description"], group.attrs["location"] = f"array in {area}", area
            group["device"] = h5py.SoftLink(device.name)
        path = "general/extracellular_ephys/electrodes"
        columns: dict[str, Any] = {"location": list(arrays), "group_name": list(arrays)}
        table = self._table(path, "electrodes of the arrays", len(arrays), columns)
        references = [self._file[f"general/extracellular_ephys/{area}"].ref for area in arrays]
        self._column(table, "group", np.array(references, dtype=_reference()), "VectorData")
        table.attrs["colnames"] = ["location", "group", "group_name"]

    def units(self, trains: Sequence[NDArray[np.float64]]) -> None:
        table = self._table("units", "sorted units", len(trains), {}, kind="Units", namespace="core")
        self._ragged(table, "spike_times", np.concatenate(trains), [len(train) for train in trains])
        electrodes = self._ragged(table, "electrodes", np.arange(len(trains)), [1] * len(trains), "DynamicTableRegion")
        electrodes.attrs["table"] = self._file["general/extracellular_ephys/electrodes"].ref
        table.attrs["colnames"] = ["spike_times", "electrodes"]

    def behaviour(self, reaches: Reaches) -> None:
        module = self._group("processing/behavior", "ProcessingModule", "core")
        module.attrs["description"] = "cursor"
        series = {
            "Position/cursor_pos": ("Position", "SpatialSeries", reaches.position, "cm"),
            "Velocity/cursor_vel": ("BehavioralTimeSeries", "TimeSeries", reaches.velocity, "cm/s"),
        }
        for path, (container, kind, values, unit) in series.items():
            self._group(f"processing/behavior/{path.split('/', maxsplit=1)[0]}", container, "core")
            self._series(f"processing/behavior/{path}", kind, values, unit, reaches.stamps)

    def trials(self, reaches: Reaches) -> None:
        columns = {
            "start_time": reaches.starts,
            "stop_time": reaches.stops,
            "result": ["R" if good else "F" for good in reaches.success],
        }
        self._group("intervals", "", "")
        path = "intervals/trials"
        self._table(path, "reaches", len(reaches.starts), columns, kind="TimeIntervals", namespace="core")

    def _series(
        self, path: str, kind: str, values: NDArray[np.float64], unit: str, stamps: NDArray[np.float64]
    ) -> None:
        group = self._group(path, kind, "core")
        group.attrs["description"], group.attrs["comments"] = "x, y", "columns: [x, y]"
        data = group.create_dataset("data", data=values)
        data.attrs["unit"], data.attrs["conversion"], data.attrs["resolution"] = unit, 1.0, -1.0
        clock = group.create_dataset("timestamps", data=stamps)
        clock.attrs["unit"], clock.attrs["interval"] = "seconds", np.int32(1)
        if kind == "SpatialSeries":
            self._text(group, "reference_frame", "centre of the workspace")

    def _table(
        self,
        path: str,
        description: str,
        n_rows: int,
        columns: dict[str, Any],
        *,
        kind: str = "DynamicTable",
        namespace: str = "hdmf-common",
    ) -> Any:
        table = self._group(path, kind, namespace)
        table.attrs["description"], table.attrs["colnames"] = description, list(columns)
        ids = table.create_dataset("id", data=np.arange(n_rows))
        self._type(ids, "ElementIdentifiers", "hdmf-common")
        for name, values in columns.items():
            data = values if isinstance(values, np.ndarray) else np.array(values, dtype=_text())
            self._column(table, name, data, "VectorData")
        return table

    def _ragged(
        self, table: Any, name: str, values: NDArray[Any], lengths: Sequence[int], kind: str = "VectorData"
    ) -> Any:
        column = self._column(table, name, values, kind)
        index = self._column(table, f"{name}_index", np.cumsum(lengths).astype(np.uint64), "VectorIndex")
        index.attrs["target"] = column.ref
        return column

    def _column(self, table: Any, name: str, values: NDArray[Any], kind: str) -> Any:
        column = table.create_dataset(name, data=values)
        self._type(column, kind, "hdmf-common")
        column.attrs["description"] = name.replace("_", " ")
        return column

    def _group(self, path: str, kind: str, namespace: str) -> Any:
        group = self._file.require_group(path)
        if kind:
            self._type(group, kind, namespace)
        return group

    def _type(self, place: Any, kind: str, namespace: str) -> None:
        place.attrs["neurodata_type"], place.attrs["namespace"] = kind, namespace
        place.attrs["object_id"] = str(uuid.uuid5(_NAMESPACE, f"{self._identifier}{place.name}"))

    @staticmethod
    def _text(group: Any, name: str, text: str) -> None:
        group.create_dataset(name, data=text, dtype=_text())


def _text() -> Any:
    import h5py

    return h5py.string_dtype()


def _reference() -> Any:
    import h5py

    return h5py.ref_dtype
