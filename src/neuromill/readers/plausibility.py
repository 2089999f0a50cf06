"""Can these values be what the unit says they are? Bounds of physics, wide enough for every honest recording."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from neuromill.readers.complaints import unit_conflict
from neuromill.records.amplitudes import IMPLAUSIBLE, is_one_fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neuromill.readers.protocol import SignalRecording

SECONDS = 10.0
LOOKS = 4  # places looked at where a channel is flat or implausible in the first
FLAT_SPREAD = 1e-8  # of the largest value: less is rounding of a constant
NAMED = 8  # channels in a message
# Standard deviation of a channel, lowest and highest that can be real. Voltages: below 0.1 uV nothing rises over the
# noise of an electrode amplifier; above 10 mV is more than its input range passes. Fields: below 1 fT in a whole band
# is under the noise of any sensor (some fT per root Hz); above 0.1 uT a SQUID system has lost its lock.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "eeg": (1e-7, 1e-2),
    "seeg": (1e-7, 1e-2),
    "ecog": (1e-7, 1e-2),
    "dbs": (1e-7, 1e-2),
    "mag": (1e-15, 1e-7),
    "grad": (1e-14, 1e-6),
}


def spreads(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation float64 [channel] of a block [channel, time]; NaN where it says nothing of a unit.

    That is where a channel is flat, not finite, or one sample long.
    """
    if block.shape[1] < 2:  # noqa: PLR2004 - one sample has no spread
        return np.full(len(block), np.nan)
    finite = np.all(np.isfinite(block), axis=1, keepdims=True)
    block = np.where(finite, block, 0.0)
    flat = np.ptp(block, axis=1) <= FLAT_SPREAD * np.abs(block).max(axis=1)
    return np.where(flat, np.nan, np.std(block, axis=1))


def check_plausible(signal: SignalRecording, where: str) -> dict[int, str]:
    """Compare some seconds of every channel with what its unit can be.

    The first seconds decide for most channels. Those that are flat or implausible there are looked at in three more
    places: a unit is wrong everywhere, an electrode that is plugged in late is not.

    Parameters
    ----------
    signal
        An open recording; up to four times ten seconds are read.
    where
        Its path, for messages.

    Returns
    -------
    dict
        Index of a channel -> ``implausible``, for the channels that never are what their unit can be: single ones.

    Raises
    ------
    RecordingError
        ``unit_conflict`` where they are more than a quarter of the channels of a type, or half of them.
    """
    low, high = _bounds(signal)
    open_rows = [i for i, bad in enumerate(signal.channels.bads) if not bad and np.isfinite(high[i])]
    seen = np.full(len(signal.channels), np.nan)
    length = min(signal.n_times, math.ceil(SECONDS * signal.sfreq))
    for part in range(LOOKS):
        if not open_rows:
            break
        start = part * (signal.n_times - length) // LOOKS
        found = spreads(signal.read(start, start + length, open_rows))
        rows = np.array(open_rows)
        alive = np.isfinite(found)
        seen[rows[alive]] = found[alive]
        open_rows = [int(i) for i in rows if not low[i] <= seen[i] <= high[i]]
    wrong = [i for i in open_rows if np.isfinite(seen[i])]
    _require_one_unit(signal, wrong, seen, where)
    return dict.fromkeys(wrong, IMPLAUSIBLE)


def _bounds(signal: SignalRecording) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest standard deviation of each channel; infinite where its type has no bounds."""
    pairs = [BOUNDS.get(kind, (-np.inf, np.inf)) for kind in signal.channels.types]
    return np.array([low for low, _ in pairs]), np.array([high for _, high in pairs])


def _require_one_unit(signal: SignalRecording, wrong: list[int], seen: NDArray[np.float64], where: str) -> None:
    channels = signal.channels
    for kind, (low, high) in BOUNDS.items():
        rows = [i for i, other in enumerate(channels.types) if other == kind and np.isfinite(seen[i])]
        bad = [i for i in wrong if channels.types[i] == kind]
        if not bad or not is_one_fault(len(bad), len(rows)):
            continue
        unit = channels.units[bad[0]]
        names = ", ".join(channels.names[i] for i in bad[:NAMED]) + (", ..." if len(bad) > NAMED else "")
        raise unit_conflict(
            f"{len(bad)} of {len(rows)} {kind} channels have a standard deviation of {seen[bad].min():.2g} to "
            f"{seen[bad].max():.2g} {unit}; possible is {low:.0e} to {high:.0e} {unit} ({names})",
            where,
        )
