"""What the synthetic monkey does: a cursor that goes from target to target, and motor units tuned to its velocity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BEHAVIOUR_SFREQ = 100.0
LEAD_SECONDS = 0.1  # firing comes before the movement it drives
_MEAN_REACH_SECONDS = 0.9
_PAUSE_SECONDS = 0.35
_WORKSPACE_CM = 8.0
_BASE_RATE_HZ = (6.0, 22.0)
_DEPTH_HZ_PER_CM_S = (0.25, 0.9)
_SUCCESS_SHARE = 0.9
_POPULATION_NOISE = 0.15  # of the log rate, shared by all units, slow


@dataclass(frozen=True, slots=True, eq=False)
class Reaches:
    """Cursor of one session on a clock of ``BEHAVIOUR_SFREQ``.

    Attributes
    ----------
    position, velocity
        float64 [time, 2] in cm and cm/s.
    starts, stops
        float64 [trial] seconds; a trial is one reach.
    success
        bool [trial].
    """

    position: NDArray[np.float64]
    velocity: NDArray[np.float64]
    starts: NDArray[np.float64]
    stops: NDArray[np.float64]
    success: NDArray[np.bool_]

    @property
    def stamps(self) -> NDArray[np.float64]:
        """float64 [time] seconds."""
        return np.arange(len(self.position)) / BEHAVIOUR_SFREQ


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """Cosine tuning: rate = base + depth * |v| cos(angle between v and the preferred direction), never negative.

    All arrays are [unit]: base rate in Hz, depth in Hz per cm/s, preferred direction in radians.
    """

    base: NDArray[np.float64]
    depth: NDArray[np.float64]
    preferred: NDArray[np.float64]


def reach(rng: np.random.Generator, seconds: float) -> Reaches:
    """Draw reaches between random targets with the bell-shaped speed of minimum-jerk movements."""
    n_times = round(seconds * BEHAVIOUR_SFREQ)
    position = np.zeros((n_times, 2))
    starts, stops, here, now = [], [], np.zeros(2), 0
    while now < n_times:
        pause = round(_PAUSE_SECONDS * rng.uniform(0.5, 1.5) * BEHAVIOUR_SFREQ)
        moving = round(_MEAN_REACH_SECONDS * rng.uniform(0.7, 1.3) * BEHAVIOUR_SFREQ)
        target = rng.uniform(-_WORKSPACE_CM, _WORKSPACE_CM, 2)
        tau = np.linspace(0.0, 1.0, moving)
        path = here + np.outer(10 * tau**3 - 15 * tau**4 + 6 * tau**5, target - here)
        whole = np.concatenate([np.tile(here, (pause, 1)), path])[: n_times - now]
        position[now : now + len(whole)] = whole
        if len(whole) == pause + moving:
            starts.append((now + pause) / BEHAVIOUR_SFREQ)
            stops.append((now + pause + moving) / BEHAVIOUR_SFREQ)
        here, now = target, now + pause + moving
    velocity = np.asarray(np.gradient(position, axis=0)) * BEHAVIOUR_SFREQ
    success = rng.random(len(starts)) < _SUCCESS_SHARE
    return Reaches(position, velocity, np.array(starts), np.array(stops), success)


def tune(rng: np.random.Generator, n_units: int) -> Tuning:
    """Draw the tuning of a population."""
    return Tuning(
        rng.uniform(*_BASE_RATE_HZ, n_units),
        rng.uniform(*_DEPTH_HZ_PER_CM_S, n_units),
        rng.uniform(0, 2 * np.pi, n_units),
    )


def fire(rng: np.random.Generator, reaches: Reaches, tuning: Tuning) -> tuple[NDArray[np.float64], ...]:
    """Draw the Poisson spike times of every unit: float64 [spike] seconds, ascending."""
    lead = round(LEAD_SECONDS * BEHAVIOUR_SFREQ)
    ahead = np.concatenate([reaches.velocity[lead:], np.zeros((lead, 2))])
    directions = np.stack([np.cos(tuning.preferred), np.sin(tuning.preferred)])
    rates = np.maximum(tuning.base + (ahead @ directions) * tuning.depth, 0.0)
    rates *= np.exp(_POPULATION_NOISE * _slow_noise(rng, len(ahead)))[:, None]
    counts = rng.poisson(rates / BEHAVIOUR_SFREQ)
    trains = []
    for unit in range(counts.shape[1]):
        bins = np.repeat(np.arange(len(counts)), counts[:, unit])
        trains.append(np.sort((bins + rng.random(len(bins))) / BEHAVIOUR_SFREQ))
    return tuple(trains)


def _slow_noise(rng: np.random.Generator, n_times: int) -> NDArray[np.float64]:
    """Unit-variance noise that changes over about a second."""
    knots = rng.standard_normal(n_times // round(BEHAVIOUR_SFREQ) + 2)
    return np.interp(np.arange(n_times) / BEHAVIOUR_SFREQ, np.arange(len(knots)), knots)
