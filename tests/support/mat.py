"""Small MATLAB files of the layouts of O'Doherty-Sabes (7.3) and Flint (5), written as MATLAB lays them out.

No real file of either is at hand: these are the layouts as described, malformed cells included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Cell = NDArray[Any] | None


def write_odoherty(
    path: Path,
    cells: Mapping[tuple[int, int], Cell],
    channels: Sequence[str] = ("M1 001", "M1 002", "S1 001"),
    n_units: int = 3,
    n_samples: int = 1000,
    *,
    start: float = 100.0,
    marked_empty: bool = True,
    without: Sequence[str] = (),
    **replaced: NDArray[Any],
) -> Path:
    """``cells`` by (channel, unit); what is not in it is empty, stored as MATLAB stores an empty array."""
    time = np.linspace(0, 1, n_samples)
    arrays = {
        "t": start + np.arange(n_samples)[None] / 250,
        "finger_pos": np.stack([np.full(n_samples, 5.0), -100 * time, -50 * time**2]),  # z, -x, -y in cm
        "cursor_pos": np.stack([1000 * time, 500 * time**2]),
        "target_pos": np.stack([np.repeat([1.0, 2.0], n_samples // 2)] * 2),
    } | replaced
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        for name, values in arrays.items():
            if name not in without:
                file[name] = values
        spikes = file.create_dataset("spikes", (n_units, len(channels)), dtype=h5py.ref_dtype)
        for channel in range(len(channels)):
            for unit in range(n_units):
                node = _cell(refs, f"s{channel}_{unit}", cells.get((channel, unit)), marked_empty=marked_empty)
                spikes[unit, channel] = node.ref
        names = file.create_dataset("chan_names", (1, len(channels)), dtype=h5py.ref_dtype)
        for channel, name in enumerate(channels):
            codes = np.frombuffer(name.encode("utf-16-le"), "<u2")[:, None]
            names[0, channel] = refs.create_dataset(f"n{channel}", data=codes).ref
        for name in {"spikes", "chan_names"} & set(without):
            del file[name]
    return path


def _cell(refs: h5py.Group, name: str, values: Cell, *, marked_empty: bool) -> h5py.Dataset:
    if values is not None:
        return refs.create_dataset(name, data=values[None] if values.ndim == 1 else values)
    node = refs.create_dataset(name, data=np.array([0, 0], dtype=np.uint64))
    if marked_empty:
        node.attrs["MATLAB_empty"] = np.uint8(1)
    return node


@dataclass(frozen=True)
class FlintTrial:
    """One trial: stamps, the spike times of each neuron, velocity with an empty third column."""

    stamps: NDArray[np.float64]
    spikes: Sequence[NDArray[np.float64]]
    velocity: NDArray[np.float64] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        moving = np.stack([np.sin(self.stamps), np.cos(self.stamps), np.zeros_like(self.stamps)], axis=1)
        neurons = structs([{"Spike": times.reshape(-1, 1)} for times in self.spikes])
        velocity = moving if self.velocity is None else self.velocity
        return {"Time": self.stamps[:, None], "HandVel": velocity, "Neuron": neurons, **self.more}


def write_flint(path: Path, *recordings: Sequence[FlintTrial]) -> Path:
    from scipy.io import savemat

    subject = structs([{"Trial": structs([trial.fields() for trial in trials])} for trials in recordings])
    savemat(path, {"Subject": subject})
    return path


def structs(rows: Sequence[Mapping[str, Any]]) -> NDArray[Any]:
    """Struct array [n, 1] of rows with the same fields."""
    names = list(rows[0]) if rows else []
    array = np.empty((len(rows), 1), dtype=[(name, object) for name in names])
    for i, row in enumerate(rows):
        for name in names:
            array[i, 0][name] = row[name]
    return array
