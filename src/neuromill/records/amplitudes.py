"""Amplitudes of channels beside each other: which cannot be in the unit of the rest, and whether that is one fault."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

IMPLAUSIBLE = "implausible"
"""Why a channel is bad whose values cannot be in their unit."""
SINGLE_SHARE = 0.25
"""Broken electrodes are no more than this: of 11 recordings the worst had 3 of 72, inputs with nothing plugged in."""


class Amplitude(NamedTuple):
    """Amplitude of a channel over the windows of a recording: lower quartile, median, upper quartile."""

    quiet: float
    usual: float
    loud: float


def apart(channels: Sequence[Amplitude], bounds: tuple[float, float], ratio: float) -> tuple[int, ...]:
    """Channels that are another order of magnitude than the others, as a wrong unit or a dead electrode makes them.

    A channel is apart where it is more than ``ratio`` times larger or smaller for three quarters of the time: a unit
    is wrong everywhere, a movement passes. The others are those whose median lies within the bounds, all where none
    does; so a majority in a wrong unit is seen as well.

    Parameters
    ----------
    channels
        Amplitudes, in any unit.
    bounds
        What is possible, in that unit.
    ratio
        Above 1.

    Returns
    -------
    tuple of int
        Indices of the channels.
    """
    usual = [one.usual for one in channels]
    if not usual:
        return ()
    middle = median([one for one in usual if bounds[0] <= one <= bounds[1]] or usual)
    return tuple(i for i, one in enumerate(channels) if one.loud < middle / ratio or one.quiet > middle * ratio)


def is_one_fault(n_apart: int, n_channels: int) -> bool:
    """Whether so many of the channels are implausible that it is the recording's unit and not single electrodes.

    More than a quarter and more than one channel, or half of them.
    """
    return 2 * n_apart >= n_channels > 0 or n_apart > max(1, SINGLE_SHARE * n_channels)
