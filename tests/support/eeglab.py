"""EEGLAB ``.set`` files of the same content in MATLAB's versions 5 and 7.3.

No real file of version 7.3 is at hand: the layout is MATLAB's as described. A structure array is stored field by field
as references; text is uint16 codes; an empty array is its dimensions under an attribute; matrices are transposed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

EEG = Mapping[str, Any]


def small_eeg(n_channels: int = 4, n_times: int = 2000, sfreq: float = 250.0) -> dict[str, Any]:
    """Noise of 20 uV, positions of a head of 85 mm, three events; ``data`` float32 [channel, time] in microvolts."""
    rng = np.random.default_rng(0)
    places = rng.standard_normal((n_channels, 3))
    places *= 85 / np.linalg.norm(places, axis=1, keepdims=True)
    names = ["Fp1", "Fp2", "Cz", "Größe", *(f"E{i}" for i in range(n_channels))][:n_channels]
    return {
        "setname": "small", "nbchan": n_channels, "pnts": n_times, "trials": 1, "srate": sfreq,
        "xmin": 0, "xmax": (n_times - 1) / sfreq,
        "chanlocs": [
            {"labels": name, "type": "EEG", "X": float(x), "Y": float(y), "Z": float(z)}
            for name, (x, y, z) in zip(names, places, strict=True)
        ],
        "event": [
            {"type": "square", "latency": 101.0, "duration": 0.0},
            {"type": 7, "latency": 500.5, "duration": 25.0},
            {"type": "rt", "latency": 1700.0, "duration": None},
        ],
        "data": (20 * rng.standard_normal((n_channels, n_times))).astype(np.float32),
    }  # fmt: skip


def write_eeglab_5(path: Path, eeg: EEG) -> Path:
    """Write with SciPy; a structure array is a list of dicts, an empty matrix None."""
    scipy.io.savemat(path, {"EEG": {name: _plain(value) for name, value in eeg.items()}}, appendmat=False)
    return path


def _plain(value: Any) -> Any:
    if not isinstance(value, list):
        return np.zeros((0, 0)) if value is None else value
    if not value:
        return np.zeros((0, 0))
    table = np.empty((1, len(value)), dtype=[(name, object) for name in value[0]])
    for i, row in enumerate(value):
        for name, one in row.items():
            table[0, i][name] = _plain(one)
    return table


def write_eeglab_73(path: Path, eeg: EEG, root: str = "EEG", **data_options: Any) -> Path:
    """Write as MATLAB's ``save -v7.3``; with ``root`` "" as ``save -struct`` does."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        group = file.create_group(root) if root else file
        for name, value in eeg.items():
            if isinstance(value, list) and value:
                _write_struct(group.create_group(name), refs, value)
            else:
                _write(group, name, value, **(data_options if name == "data" else {}))
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 ."
    with path.open("r+b") as binary:
        binary.write(header.ljust(116) + bytes(8) + b"\x00\x02IM")
    return path


def _write_struct(group: h5py.Group, refs: h5py.Group, rows: Sequence[Mapping[str, Any]]) -> None:
    group.attrs["MATLAB_class"] = np.bytes_("struct")
    for name in rows[0]:
        if len(rows) == 1:
            _write(group, name, rows[0][name])
            continue
        cells = group.create_dataset(name, (len(rows), 1), dtype=h5py.ref_dtype)
        for i, row in enumerate(rows):
            cells[i, 0] = _write(refs, f"r{len(refs)}", row[name]).ref


def _write(group: h5py.Group, name: str, value: Any, **options: Any) -> h5py.Dataset:
    kind, array = _matlab(value)
    is_empty = array.size == 0
    node = group.create_dataset(name, data=np.zeros(2, np.uint64) if is_empty else array.T, **options)
    node.attrs["MATLAB_class"] = np.bytes_(kind)
    if is_empty:
        node.attrs["MATLAB_empty"] = np.uint8(1)
    return node


def _matlab(value: Any) -> tuple[str, NDArray[Any]]:
    """MATLAB class, and the array in MATLAB's order of axes."""
    if isinstance(value, str):
        return "char", np.frombuffer(value.encode("utf-16-le"), "<u2")[None]
    if isinstance(value, np.ndarray):
        return {"float32": "single", "float64": "double"}.get(str(value.dtype), str(value.dtype)), value
    return "double", np.zeros((0, 0)) if value is None or value == [] else np.array([[value]], np.float64)
