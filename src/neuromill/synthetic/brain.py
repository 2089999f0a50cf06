"""What the synthetic head does: background, alpha, responses to events, and the hum of the mains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.synthetic.helmet import PLANAR, dipole_field, helmet

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPHERE_CENTRE = np.array([0.0, 0.0, 0.04])  # head frame, metres
EVENT_NAMES = ("tone", "face")
_N_BACKGROUND = 48
_BACKGROUND_MOMENT = 12e-9  # ampere metres
_ALPHA_MOMENT = 18e-9
_RESPONSE_MOMENT = 65e-9
# White sensor noise per root hertz: magnetometers in T, planar gradiometers in T/m.
_NOISE = {False: 3e-15, True: 3e-13}
_LINE_FIELD = 1.5e-12  # tesla, far away, so nearly the same everywhere
_LINE_GRADIENT = 4e-12  # tesla per metre
# Places in the sphere (relative to its centre, metres), and when each answers which event (seconds, sign).
_OCCIPITAL = ((-0.022, -0.058, 0.012), (0.022, -0.058, 0.012))
_RESPONSES = (
    ((-0.052, 0.004, 0.016), "tone", 0.100),
    ((0.052, 0.004, 0.016), "tone", 0.105),
    ((0.034, -0.046, -0.004), "face", 0.170),
    ((-0.018, 0.044, 0.040), "tone", 0.300),
    ((0.012, -0.012, 0.066), "face", 0.380),
)


@dataclass(frozen=True, slots=True, eq=False)
class HeadPosition:
    """``rotation`` [3, 3] and ``translation`` [3] (metres) take a device point to the head frame."""

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    def in_sphere(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Device points float64 [..., 3], metres, relative to the sphere's centre in the head frame."""
        return np.asarray(points @ self.rotation.T + self.translation - SPHERE_CENTRE)


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """Event samples [event] and which of ``EVENT_NAMES`` each is."""

    samples: NDArray[np.int64]
    kinds: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Activity:
    """Time courses of dipoles: places and moments [dipole, 3] in the sphere, ampere metres; courses [dipole, time]."""

    places: NDArray[np.float64]
    moments: NDArray[np.float64]
    courses: NDArray[np.float64]


def head_position(rng: np.random.Generator) -> HeadPosition:
    """Draw how a head sits in the helmet: a few degrees and some millimetres off the usual."""
    x, y, z = np.deg2rad(rng.normal(0.0, 4.0, 3))
    turn_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    turn_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    turn_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    offset = np.clip(rng.normal(0.0, 0.003, 3), -0.006, 0.006)
    return HeadPosition(turn_z @ turn_y @ turn_x, SPHERE_CENTRE + np.array([0.0, 0.004, 0.008]) + offset)


def draw_trials(rng: np.random.Generator, n_times: int, sfreq: float) -> Trials:
    """Events every 1.1 to 1.7 s, from 1 s after the start to 1 s before the end."""
    steps = rng.uniform(1.1, 1.7, int(n_times / sfreq) + 1).cumsum()
    samples = np.round(steps[steps < n_times / sfreq - 1.0] * sfreq).astype(np.int64)
    return Trials(samples, rng.integers(0, len(EVENT_NAMES), len(samples)))


def person(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw a person's background dipoles: places in metres and tangential unit moments, float64 [dipole, 3] each."""
    directions = rng.normal(size=(_N_BACKGROUND, 3))
    directions[:, 2] = np.abs(directions[:, 2])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * rng.uniform(0.045, 0.072, (_N_BACKGROUND, 1)), _tangential(directions, rng)


def activity(
    rng: np.random.Generator,
    background: tuple[NDArray[np.float64], NDArray[np.float64]],
    trials: Trials,
    n_times: int,
    sfreq: float,
) -> Activity:
    """Time courses of one run of ``n_times`` samples at ``sfreq`` Hz.

    ``background`` are the places and moments of :func:`person`, float64 [dipole, 3] each.
    """
    occipital = np.array(_OCCIPITAL)
    responding = np.array([place for place, _, _ in _RESPONSES])
    places = np.vstack([background[0], occipital, responding])
    moments = np.vstack([background[1], _across(occipital), _across(responding)])
    courses = np.vstack(
        [
            _BACKGROUND_MOMENT * pink(rng, _N_BACKGROUND, n_times, sfreq),
            _ALPHA_MOMENT * _alpha(rng, len(occipital), n_times, sfreq),
            _RESPONSE_MOMENT * _responses(rng, trials, n_times, sfreq),
        ]
    )
    return Activity(places, moments, courses)


def pink(rng: np.random.Generator, n: int, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """1/f noise float64 [n, n_times] with standard deviation one: power falls with frequency above 0.5 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal((n, n_times)), axis=1)
    freqs = np.fft.rfftfreq(n_times, 1 / sfreq)
    spectrum *= 1 / np.sqrt(np.maximum(freqs, 0.5))
    spectrum[:, 0] = 0.0
    noise = np.fft.irfft(spectrum, n_times, axis=1)
    return np.asarray(noise / noise.std(axis=1, keepdims=True))


def _alpha(rng: np.random.Generator, n: int, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """Make a 10 Hz rhythm [n, n_times] that comes and goes within seconds and wanders by some tenths of a hertz."""
    drift = pink(rng, 1, n_times, sfreq)[0]
    phase = 2 * np.pi * np.cumsum(10.0 + 0.3 * _smooth(drift, sfreq)) / sfreq
    waxing = np.exp(0.8 * _smooth(pink(rng, 1, n_times, sfreq)[0], sfreq))
    lags = rng.uniform(0.0, 0.6, n)
    return np.asarray(waxing * np.sin(phase - lags[:, None]))


def _smooth(course: NDArray[np.float64], sfreq: float) -> NDArray[np.float64]:
    width = max(1, int(sfreq))
    padded = np.concatenate([np.full(width, course[0]), course])
    sums = np.cumsum(padded)
    smooth = (sums[width:] - sums[:-width]) / width
    return np.asarray(smooth / max(smooth.std(), 1e-12))


def _responses(rng: np.random.Generator, trials: Trials, n_times: int, sfreq: float) -> NDArray[np.float64]:
    """Response of each source [source, n_times]: a damped wave after its event, larger or smaller by trial."""
    times = np.arange(int(0.7 * sfreq)) / sfreq
    courses = np.zeros((len(_RESPONSES), n_times + len(times)))
    for row, (_, name, latency) in enumerate(_RESPONSES):
        wave = np.exp(-0.5 * ((times - latency) / 0.03) ** 2) - 0.4 * np.exp(
            -0.5 * ((times - latency - 0.1) / 0.05) ** 2
        )
        for sample in trials.samples[trials.kinds == EVENT_NAMES.index(name)]:
            courses[row, sample : sample + len(times)] += rng.uniform(0.7, 1.3) * wave
    return courses[:, :n_times]


def record(
    rng: np.random.Generator, position: HeadPosition, source: Activity, sfreq: float, line_freq: float
) -> NDArray[np.float64]:
    """Return what the helmet measures, float64 [channel, time]: tesla and tesla per metre."""
    n_times = source.courses.shape[1]
    signal = lead_field(position, source.places, source.moments) @ source.courses
    signal += _hum(rng, n_times, sfreq, line_freq)
    level = np.where(helmet().coils == PLANAR, _NOISE[True], _NOISE[False]) * np.sqrt(sfreq / 2)
    for channel, scale in enumerate(level):  # one by one: a second array of this size is not needed
        signal[channel] += scale * rng.standard_normal(n_times)
    return np.asarray(signal)


def lead_field(
    position: HeadPosition, places: NDArray[np.float64], moments: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what each coil shows for each dipole's unit course: float64 [channel, dipole], tesla or tesla per metre.

    ``places`` are metres in the sphere, float64 [dipole, 3] as ``moments``.
    """
    coils = helmet()
    points = position.in_sphere(coils.points)
    fields = [dipole_field(points, place, moment) for place, moment in zip(places, moments, strict=True)]
    return np.column_stack([coils.measure(field @ position.rotation) for field in fields])


def _hum(rng: np.random.Generator, n_times: int, sfreq: float, line_freq: float) -> NDArray[np.float64]:
    """Mains and their first harmonic: a far field, the same everywhere, and a weak gradient."""
    coils = helmet()
    times = np.arange(n_times) / sfreq
    pattern = np.einsum("cx,x->c", coils.axes[:, 2], rng.normal(size=3)) * _LINE_FIELD
    pattern[coils.coils == PLANAR] = rng.normal(size=int((coils.coils == PLANAR).sum())) * _LINE_GRADIENT
    hum = np.zeros(n_times)
    for harmonic, size in ((1, 1.0), (2, 0.3)):
        if harmonic * line_freq < sfreq / 2:
            hum += size * np.sin(2 * np.pi * harmonic * line_freq * times + rng.uniform(0, 2 * np.pi))
    return np.outer(pattern, hum)


def _tangential(directions: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    moments = np.cross(directions, rng.normal(size=directions.shape))
    return np.asarray(moments / np.linalg.norm(moments, axis=1, keepdims=True))


def _across(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moments at right angles to the radius and to the left-right axis."""
    moments = np.cross(places, np.array([1.0, 0.0, 0.0]))
    return np.asarray(moments / np.linalg.norm(moments, axis=1, keepdims=True))
