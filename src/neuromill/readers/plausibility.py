"""Can these values be what the unit says they are? Bounds of physics, wide enough for every honest recording."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuromill.readers.complaints import unit_conflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neuromill.records import ChannelTable

SECONDS = 10.0
# Median standard deviation over channels, lowest and highest that can be real. Voltages: below 0.1 uV nothing rises
# over the noise of an electrode amplifier; above 10 mV is more than its input range passes. Fields: below 1 fT in a
# whole band is under the noise of any sensor (some fT per root Hz); above 1 uT a SQUID system has lost its lock.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "eeg": (1e-7, 1e-2),
    "seeg": (1e-7, 1e-2),
    "ecog": (1e-7, 1e-2),
    "dbs": (1e-7, 1e-2),
    "mag": (1e-15, 1e-6),
    "grad": (1e-14, 1e-5),
}


def typical_std(block: NDArray[np.float64]) -> float | None:
    """Median over channels of the standard deviation of a block [channel, time].

    Flat channels and such that are not finite say nothing about units; None where all are like that.
    """
    if block.shape[1] < 2:  # noqa: PLR2004 - one sample has no spread
        return None
    spread = np.std(block[np.isfinite(block).all(axis=1)], axis=1)
    spread = spread[spread > 0]
    return float(np.median(spread)) if spread.size else None


def check_plausible(block: NDArray[np.float64], channels: ChannelTable, where: str) -> None:
    """Check the first seconds of a recording, [channel, time] in SI units, type by type.

    Raises
    ------
    RecordingError
        ``unit_conflict`` where a channel type's typical standard deviation is physically impossible.
    """
    for kind, (low, high) in BOUNDS.items():
        rows = [i for i, other in enumerate(channels.types) if other == kind and not channels.bads[i]]
        std = typical_std(block[rows]) if rows else None
        if std is not None and not low <= std <= high:
            unit = channels.units[rows[0]]
            raise unit_conflict(
                f"{kind} channels have a typical standard deviation of {std:.2g} {unit}; "
                f"possible is {low:.0e} to {high:.0e} {unit}",
                where,
            )
