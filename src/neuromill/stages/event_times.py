"""Events of a recording on the clock of what was prepared from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.records import Events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuromill.signals.chain import Chain


@dataclass(frozen=True, slots=True, eq=False)
class MovedEvents:
    """Events, and, where ends were cut, how many were lost by it: {"events": {"n_outside": 3, "n_cut": 1}}."""

    events: Events
    facts: Mapping[str, Any] = field(default_factory=dict)


def move_events(events: Events, chain: Chain) -> MovedEvents:
    """Put events on the clock of the chain's output; without a ``crop`` step they stay as they are.

    Onsets are moved by what was cut at the start. An event that lies in what was cut is left out. One that reaches
    from there into the output (a seizure, a stage of sleep) begins at 0 with what is left of its duration, one that
    runs over the end stays as it is, as everywhere.
    """
    if not _cuts(chain):
        return MovedEvents(events)
    onsets = events.onsets - chain.start_seconds
    ends = onsets + events.durations
    stays = (onsets < chain.n_times / chain.sfreq) & ((onsets >= 0) | (ends > 0))
    reaches = stays & (onsets < 0)
    starts = np.maximum(onsets, 0.0)
    durations = np.where(reaches, ends, events.durations)
    kept = np.flatnonzero(stays)
    moved = Events(starts[kept], durations[kept], tuple(events.descriptions[i] for i in kept))
    counts = {"n_outside": len(events) - len(kept), "n_cut": int(np.count_nonzero(reaches))}
    return MovedEvents(moved, {"events": counts})


def _cuts(chain: Chain) -> bool:
    return bool(getattr(chain.facts, "start_seconds", 0.0) or getattr(chain.facts, "cut_seconds", 0.0))
