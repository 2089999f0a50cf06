"""Where the sensors of a recording sit, as the networks want to know it. Pure functions, no torch.

Positions are metres in the device frame; head position is never applied (MEG-XL). A channel whose position is unknown
cannot be told apart from others by the network: it is masked, never placed at an invented spot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import FailureCode, RecordingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAGNETOMETER = 1
GRADIOMETER = 0


@dataclass(frozen=True, slots=True, eq=False)
class SensorGeometry:
    """Sensors of one recording, one row per channel.

    Attributes
    ----------
    positions
        float32 [channel, 3], normalised; zeros where unknown.
    orientations
        float32 [channel, 3]; zeros where unknown.
    types
        int32 [channel]: 1 magnetometer, 0 anything else.
    mask
        bool [channel]: False for bad channels and for channels without position.
    """

    positions: NDArray[np.float32]
    orientations: NDArray[np.float32]
    types: NDArray[np.int32]
    mask: NDArray[np.bool_]


def place_sensors(
    positions: NDArray[np.floating],
    orientations: NDArray[np.floating],
    types: NDArray[np.integer],
    good: NDArray[np.bool_],
    *,
    where: str = "",
) -> SensorGeometry:
    """Geometry of the channels of one recording.

    The layout is normalised over every channel whose position is known, good or bad: which channels happen to be
    bad does not move the others. Known position with unknown orientation keeps the channel, orientation zero.

    Parameters
    ----------
    positions
        Floats [channel, 3], metres; NaN where unknown.
    orientations
        Floats [channel, 3], unit vectors; NaN where unknown.
    types
        Integers [channel], of ``sensor_types``.
    good
        bool [channel].
    where
        The recording, for messages.

    Raises
    ------
    RecordingError
        ``no_usable_channels`` where no good channel has a position.
    """
    known = np.isfinite(positions).all(axis=1)
    mask = known & good
    if not mask.any():
        raise RecordingError(
            FailureCode.NO_USABLE_CHANNELS,
            "no good channel has a known position",
            where=where,
            next_step="give the recording its sensor positions, or leave it out of the pipeline",
        )
    facing = np.where(np.isfinite(orientations).all(axis=1, keepdims=True), orientations, 0.0)
    return SensorGeometry(
        positions=normalise_positions(positions, known),
        orientations=facing.astype(np.float32),
        types=types.astype(np.int32),
        mask=mask,
    )


def normalise_positions(positions: NDArray[np.floating], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Centre positions [channel, 3] and scale them to an RMS radius of 1/sqrt(3) over the known rows: float32.

    Other rows become zero (``known`` is bool [channel]). Applying it twice changes nothing. Where all known positions
    coincide they become zero.
    """
    normalised = np.zeros(positions.shape, dtype=np.float64)
    centred = positions[known] - positions[known].mean(axis=0, keepdims=True)
    radius = np.sqrt(3 * np.mean(np.sum(centred**2, axis=1)))
    normalised[known] = centred / radius if radius > np.finfo(np.float32).tiny else 0.0
    return normalised.astype(np.float32)


def sensor_types(coils: Sequence[str], *, parity: bool = False) -> NDArray[np.int32]:
    """Type index int32 [channel] from coil names without FIFF prefix: 1 for magnetometers, 0 for anything else.

    The channel type is of no use here: MNE calls the axial gradiometers of CTF, KIT and BTi "mag". ``parity`` looks
    for the letters MAG anywhere in the name, as published, and so takes BTi's ``MAGNES_GRAD`` for a magnetometer.
    """
    return np.array([_is_magnetometer(coil, parity=parity) for coil in coils], dtype=np.int32)


def _is_magnetometer(coil: str, *, parity: bool) -> bool:
    if parity:
        return "MAG" in coil
    return any(part.startswith("MAG") and part != "MAGNES" for part in coil.split("_"))
