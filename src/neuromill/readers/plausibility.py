"""Can these values be what the unit says they are? Bounds of physics, wide enough for every honest recording."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuromill.readers.complaints import unit_conflict

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

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


def check_plausible(
    block: NDArray[np.float64], channels: ChannelTable, where: str, kinds: Collection[str] = BOUNDS.keys()
) -> frozenset[str]:
    """Check some seconds of a recording, [channel, time] in SI units, type by type.

    Parameters
    ----------
    block, channels
        What was read, and of which channels.
    where
        The recording, for messages.
    kinds
        Types to look at.

    Returns
    -------
    frozenset
        Those of the types of which the block says nothing: flat, or not finite. Types without bounds are not among
        them, nor are such whose channels are all bad.

    Raises
    ------
    RecordingError
        ``unit_conflict`` where a channel type's typical standard deviation is physically impossible.
    """
    silent = set()
    for kind in [kind for kind in BOUNDS if kind in kinds]:
        rows = [i for i, other in enumerate(channels.types) if other == kind and not channels.bads[i]]
        std = typical_std(block[rows]) if rows else None
        if std is None:
            silent |= {kind} if rows else set()
            continue
        low, high = BOUNDS[kind]
        if not low <= std <= high:
            unit = channels.units[rows[0]]
            raise unit_conflict(
                f"{kind} channels have a typical standard deviation of {std:.2g} {unit}; "
                f"possible is {low:.0e} to {high:.0e} {unit}",
                where,
            )
    return frozenset(silent)
