"""Writes one run as a FIF file whose bytes depend on its content only."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.synthetic.helmet import MAGNETOMETER, helmet

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.synthetic.brain import HeadPosition, Trials

STIM = "STI101"
MEASURED = datetime(2020, 1, 1, tzinfo=UTC)
_ID_STRUCT = 31  # FIFF type of file and block ids: version, machine (2 words), seconds, microseconds
_ID_BYTES = 20


def write_run(
    path: Path, signal: NDArray[np.float64], position: HeadPosition, trials: Trials, *, sfreq: float, line_freq: float
) -> None:
    """Write ``signal`` and a stimulus channel as float32 FIF with sensor geometry and head position.

    ``signal`` is float64 [306, time], tesla and tesla per metre.
    """
    import mne

    stim = np.zeros((1, signal.shape[1]))
    width = max(1, int(0.02 * sfreq))
    for sample, kind in zip(trials.samples, trials.kinds, strict=True):
        stim[0, sample : sample + width] = kind + 1
    info = _info(position, sfreq, line_freq)
    raw = mne.io.RawArray(np.vstack([signal, stim]), info, verbose="error")
    raw.set_meas_date(MEASURED)
    raw.save(path, fmt="single", overwrite=True, verbose="error")
    _forget_ids(path)


def _info(position: HeadPosition, sfreq: float, line_freq: float) -> Any:
    import mne

    coils = helmet()
    types = ["mag" if coil == MAGNETOMETER else "grad" for coil in coils.coils]
    info = mne.create_info([*coils.names, STIM], sfreq, [*types, "stim"])
    for channel, coil, place, axes in zip(info["chs"], coils.coils, coils.positions, coils.axes, strict=False):
        channel["coil_type"] = int(coil)
        channel["loc"] = np.concatenate([place, axes.ravel()])
    to_head = np.eye(4)
    to_head[:3, :3], to_head[:3, 3] = position.rotation, position.translation
    info["dev_head_t"] = mne.Transform("meg", "head", to_head)
    info["line_freq"] = line_freq
    return info


def _forget_ids(path: Path) -> None:
    """Overwrite the ids MNE makes of the machine's address and the clock."""
    content = bytearray(path.read_bytes())
    position = 0
    fixed = struct.pack(">iiii", 0, 0, int(MEASURED.timestamp()), 0)
    while position < len(content):
        _, kind, size, _ = struct.unpack_from(">iIii", content, position)
        if kind == _ID_STRUCT and size == _ID_BYTES:
            content[position + 20 : position + 36] = fixed
        position += 16 + size
    path.write_bytes(content)
