"""What synthetic electrodes show: 1/f background, alpha that waxes when the eyes close, blinks, muscle, mains.

Everything is in volts. Sources lie on the scalp of a unit sphere and reach electrodes by their angle, which is no head
model, but gives neighbours that look alike and an alpha that is strongest at the back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MICRO = 1e-6
BLOCK_SECONDS = 30.0
"""Eyes are open and closed in turns of this length."""
CONDITIONS = ("eyes-open", "eyes-closed")
EXTRA = ("VEOG", "ECG")
"""What a cap records beside the scalp."""
# 10-20 positions as polar angle from the vertex and azimuth from the nose, degrees to the right. Names are the modern
# ones (T7 for T3): the preparation has to know both.
_PLACES = {
    "Fp1": (90, -18), "Fp2": (90, 18), "F3": (60, -39), "F4": (60, 39), "C3": (45, -90), "C4": (45, 90),
    "P3": (60, -141), "P4": (60, 141), "O1": (90, -162), "O2": (90, 162), "F7": (90, -54), "F8": (90, 54),
    "T7": (90, -90), "T8": (90, 90), "P7": (90, -126), "P8": (90, 126), "Fz": (45, 0), "Cz": (0, 0), "Pz": (45, 180),
}  # fmt: skip
SCALP = tuple(_PLACES)
HEAD_METRES = 0.09
_N_BACKGROUND = 32
_SPREAD = 0.55  # radians: how far a source reaches
_BACKGROUND, _ALPHA, _NOISE, _MAINS = 11.0, 9.0, 1.2, 4.0  # microvolts, standard deviations (mains: amplitude)
_BLINK, _MUSCLE, _POP, _BEAT = 160.0, 28.0, 260.0, 900.0  # microvolts
_SECONDS_PER_BLINK_BOUT, _SECONDS_PER_MUSCLE, _SECONDS_PER_POP = 40.0, 60.0, 90.0


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """What stays the same in all recordings of somebody.

    Attributes
    ----------
    sources
        [source, 3] unit vectors of the background.
    exponent
        Of the power spectrum, 1 / f ** exponent.
    alpha_freq
        Hz.
    """

    sources: NDArray[np.float64]
    exponent: float
    alpha_freq: float


def person(rng: np.random.Generator) -> Person:
    """Draw somebody."""
    sources = rng.normal(size=(_N_BACKGROUND, 3))
    sources[:, 2] = np.abs(sources[:, 2])  # above the ears
    sources /= np.linalg.norm(sources, axis=1, keepdims=True)
    return Person(sources, float(rng.uniform(1.2, 1.6)), float(rng.uniform(9.0, 11.0)))


def places() -> NDArray[np.float64]:
    """Electrodes of ``SCALP`` on the unit sphere: float64 [electrode, 3]; x to the right, y to the nose, z up."""
    polar, azimuth = np.deg2rad(np.array(list(_PLACES.values()), np.float64)).T
    return np.column_stack([np.sin(polar) * np.sin(azimuth), np.sin(polar) * np.cos(azimuth), np.cos(polar)])


def eyes_closed(n_times: int, sfreq: float) -> NDArray[np.bool_]:
    """Bool [time]: whether the eyes are closed at each sample; open first."""
    return np.asarray((np.arange(n_times) / sfreq // BLOCK_SECONDS).astype(int) % 2 == 1)


def record(
    rng: np.random.Generator, somebody: Person, n_times: int, sfreq: float, line_freq: float
) -> NDArray[np.float64]:
    """Record ``SCALP`` and ``EXTRA`` in volts: float64 [channel, time]."""
    scalp = _background(rng, somebody, n_times, sfreq) + _alpha(rng, somebody, n_times, sfreq)
    scalp += _NOISE * rng.standard_normal(scalp.shape)
    blinks = _blinks(rng, n_times, sfreq)
    scalp += np.outer(_reach(_direction(90, 0), 0.45), blinks)
    scalp += _muscle(rng, n_times, sfreq) + _pops(rng, n_times, sfreq)
    eog = 1.6 * blinks + 6.0 * rng.standard_normal(n_times)
    extra = np.stack([eog, _heart(rng, n_times, sfreq)])
    hum = _MAINS * np.sin(2 * np.pi * line_freq * np.arange(n_times) / sfreq + rng.uniform(0, 2 * np.pi))
    mains = np.outer(rng.uniform(0.3, 1.0, len(scalp) + len(extra)), hum)
    return np.asarray((np.concatenate([scalp, extra]) + mains) * MICRO)


def _background(rng: np.random.Generator, somebody: Person, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """1/f courses of the sources, mixed into electrodes."""
    freqs = np.fft.rfftfreq(n_times, 1 / sfreq)
    shape = np.maximum(freqs, 0.5) ** (-somebody.exponent / 2)
    shape[freqs < 0.1] = 0.0  # noqa: PLR2004 - what an amplifier lets through
    count = (_N_BACKGROUND, len(freqs))
    spectrum = (rng.standard_normal(count) + 1j * rng.standard_normal(count)) * shape
    courses = np.fft.irfft(spectrum, n_times)
    courses /= courses.std(axis=1, keepdims=True)
    mixed = _mixing(somebody.sources) @ courses
    return np.asarray(_BACKGROUND * mixed / mixed.std(axis=1, keepdims=True))


def _alpha(rng: np.random.Generator, somebody: Person, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """Bursts at the back, both sides on their own, three times as strong with closed eyes."""
    times = np.arange(n_times) / sfreq
    strength = np.where(eyes_closed(n_times, sfreq), 1.0, 1 / 3)
    total = np.zeros((len(SCALP), n_times))
    for azimuth in (-160.0, 160.0):
        drift = np.cumsum(_slow(rng, n_times, sfreq, 0.5)) / sfreq
        wave = np.sin(2 * np.pi * (somebody.alpha_freq * times + 0.5 * drift) + rng.uniform(0, 2 * np.pi))
        burst = np.exp(0.6 * _slow(rng, n_times, sfreq, 0.8))
        total += np.outer(_reach(_direction(75, azimuth), 0.8), strength * burst / burst.mean() * wave)
    return np.asarray(_ALPHA * np.sqrt(2) * total)


def _blinks(rng: np.random.Generator, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """Bouts of a few blinks, only while the eyes are open: microvolts at the brow."""
    course = np.zeros(n_times)
    closed = eyes_closed(n_times, sfreq)
    shape = np.hanning(round(0.35 * sfreq))
    for start in _onsets(rng, n_times, sfreq, _SECONDS_PER_BLINK_BOUT, 3.0):
        for blink in range(int(rng.integers(1, 4))):
            at = start + round(blink * rng.uniform(0.6, 1.0) * sfreq)
            if at + len(shape) < n_times and not closed[at]:
                course[at : at + len(shape)] += _BLINK * rng.uniform(0.8, 1.2) * shape
    return course


def _muscle(rng: np.random.Generator, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """Fast bursts over a temple."""
    total = np.zeros((len(SCALP), n_times))
    length = round(1.5 * sfreq)
    for start in _onsets(rng, n_times, sfreq, _SECONDS_PER_MUSCLE, 2.0):
        side = (-90, 90)[int(rng.integers(2))]
        burst = np.diff(rng.standard_normal(length + 1)) / np.sqrt(2)  # differences: little below 20 Hz
        size = _MUSCLE * rng.uniform(0.5, 1.5)
        total[:, start : start + length] += np.outer(
            _reach(_direction(90, side), 0.4), size * np.hanning(length) * burst
        )
    return total


def _pops(rng: np.random.Generator, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """An electrode loses contact for a moment: a jump that dies away, in one channel alone."""
    total = np.zeros((len(SCALP), n_times))
    decay = np.exp(-np.arange(round(2.0 * sfreq)) / (0.4 * sfreq))
    for start in _onsets(rng, n_times, sfreq, _SECONDS_PER_POP, 2.5):
        channel, sign = int(rng.integers(len(SCALP))), (-1, 1)[int(rng.integers(2))]
        total[channel, start : start + len(decay)] += sign * _POP * decay
    return total


def _heart(rng: np.random.Generator, n_times: int, sfreq: float) -> NDArray[np.float64]:
    course = 15.0 * rng.standard_normal(n_times)
    beat = np.hanning(round(0.08 * sfreq))
    at = 0
    while at + len(beat) < n_times:
        course[at : at + len(beat)] += _BEAT * beat
        at += round(rng.normal(0.9, 0.04) * sfreq)
    return course


def _onsets(rng: np.random.Generator, n_times: int, sfreq: float, every: float, longest: float) -> list[int]:
    """Starts of artefacts, about one in ``every`` seconds; none that would reach over the end."""
    seconds = n_times / sfreq
    count = max(1, round(seconds / every))
    return sorted(int(at * sfreq) for at in rng.uniform(0, max(seconds - longest, 0), count))


def _slow(rng: np.random.Generator, n_times: int, sfreq: float, below: float) -> NDArray[np.float64]:
    """Gaussian noise below a frequency, standard deviation 1."""
    freqs = np.fft.rfftfreq(n_times, 1 / sfreq)
    spectrum = (rng.standard_normal(len(freqs)) + 1j * rng.standard_normal(len(freqs))) * (freqs <= below)
    course = np.fft.irfft(spectrum, n_times)
    return np.asarray(course / course.std())


def _direction(polar: float, azimuth: float) -> NDArray[np.float64]:
    angle, turn = np.deg2rad([polar, azimuth])
    return np.array([np.sin(angle) * np.sin(turn), np.sin(angle) * np.cos(turn), np.cos(angle)])


def _reach(source: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    """How much of a source each electrode sees: [electrode], 1 right above it."""
    angles = np.arccos(np.clip(places() @ source, -1, 1))
    return np.asarray(np.exp(-0.5 * (angles / spread) ** 2))


def _mixing(sources: NDArray[np.float64]) -> NDArray[np.float64]:
    """[electrode, source], signs alternating as those of dipoles would."""
    signs = np.where(np.arange(len(sources)) % 2, -1.0, 1.0)
    return np.column_stack([sign * _reach(one, _SPREAD) for sign, one in zip(signs, sources, strict=True)])
