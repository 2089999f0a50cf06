"""Numbers behind the pictures: spectra, root mean squares, flat sensor maps, perplexity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

WINDOW_SECONDS = 2.0
"""Of a spectrum: 0.5 Hz apart, and recordings of the shortest public test files still have one."""
SAME_PLACE_METRES = 1e-4
"""Coils closer than this share a place, as the two planar gradiometers of an Elekta chip do."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How a unit is shown: values times ``factor`` are in ``name``."""

    factor: float
    name: str


_SCALES = {"T": Scale(1e15, "fT"), "T/m": Scale(1e13, "fT/cm"), "V": Scale(1e6, "µV")}


def shown_in(unit: str) -> Scale:
    """Scale in which the field shows values of an SI unit (fT, fT/cm, µV)."""
    return _SCALES.get(unit, Scale(1.0, unit or "a.u."))


def frequencies(sfreq: float) -> NDArray[np.float64]:
    """Frequencies of ``amplitude_density`` in Hz, float64 [frequency]: the first is one bin above zero."""
    n = round(WINDOW_SECONDS * sfreq)
    return np.asarray(np.fft.rfftfreq(n, 1 / sfreq)[1:], np.float64)


def amplitude_density(signal: NDArray[np.floating], sfreq: float) -> NDArray[np.float64]:
    """Welch's estimate with Hann windows of 2 s, half overlapping, mean taken out of each.

    Parameters
    ----------
    signal
        [channel, time], finite.
    sfreq
        Hz.

    Returns
    -------
    numpy.ndarray
        float64 [channel, frequency], unit of the signal per square root of hertz; no channel where the signal is
        shorter than a window.
    """
    n = round(WINDOW_SECONDS * sfreq)
    starts = range(0, signal.shape[1] - n + 1, n // 2)
    if not starts:
        return np.zeros((0, len(frequencies(sfreq))))
    power = sum(_window_power(signal[:, start : start + n], sfreq) for start in starts)
    return np.asarray(np.sqrt(power / len(starts)), np.float64)


def _window_power(window: NDArray[np.floating], sfreq: float) -> NDArray[np.float64]:
    """Power density of one window, both halves of the spectrum folded into one; the mean and its bin are left out."""
    n = window.shape[1]
    taper = np.hanning(n + 1)[:-1]  # periodic, as everybody's Welch
    centred = window.astype(np.float64) - window.mean(axis=1, keepdims=True, dtype=np.float64)
    power = np.abs(np.fft.rfft(centred * taper)[:, 1:]) ** 2 * (2 / (sfreq * np.sum(taper**2)))
    if n % 2 == 0:
        power[:, -1] /= 2  # the highest frequency has no other half
    return np.asarray(power, np.float64)


def root_mean_square(signal: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64 [channel] of [channel, time], each around its mean and in its unit; NaN stays NaN."""
    return np.asarray(signal.astype(np.float64).std(axis=1), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where sensors are: ``positions`` [place, 3] m, ``rms`` [place] (NaN where all are bad), ``bad`` [place]."""

    positions: NDArray[np.float64]
    rms: NDArray[np.float64]
    bad: NDArray[np.bool_]


def places(positions: NDArray[np.float64], rms: NDArray[np.float64], bads: Sequence[str]) -> Places:
    """Put coils at one place together, each with its share of the power; leave out coils without a known place.

    Parameters
    ----------
    positions
        float64 [coil, 3], metres; NaN where unknown.
    rms
        float64 [coil]; NaN where there is none.
    bads
        Why a coil is bad, "" for a good one.
    """
    known = np.isfinite(positions).all(axis=1)
    rms, bad = rms[known], np.array([bool(reason) for reason in bads])[known]
    grid = np.round(positions[known] / SAME_PLACE_METRES).astype(np.int64)
    _, first, which = np.unique(grid, axis=0, return_index=True, return_inverse=True)
    good = np.isfinite(rms)
    power = np.bincount(which[good], rms[good] ** 2, minlength=len(first))
    count = np.bincount(which[good], minlength=len(first))
    mean = np.where(count > 0, power / np.maximum(count, 1), np.nan)
    crossed = np.bincount(which, bad, minlength=len(first)) > 0
    return Places(positions[known][first], np.sqrt(mean), crossed)


def flatten(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Look at sensors from above: azimuthal equidistant projection about the centre of their sphere.

    Parameters
    ----------
    positions
        float64 [sensor, 3], metres, finite; x to the right ear, y to the nose, z up.

    Returns
    -------
    numpy.ndarray
        float64 [sensor, 2]; a sensor at the height of the centre is 1 away from the middle.
    """
    direction = positions - _centre(positions)
    distance = np.linalg.norm(direction, axis=1)
    polar = np.arccos(np.clip(direction[:, 2] / np.where(distance > 0, distance, 1.0), -1, 1))
    azimuth = np.arctan2(direction[:, 1], direction[:, 0])
    return np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1) * (polar / (np.pi / 2))[:, None]


def _centre(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre of the sphere closest to the sensors; the origin where they do not span one."""
    system = np.column_stack([2 * positions, np.ones(len(positions))])
    solution, _, rank, _ = np.linalg.lstsq(system, np.sum(positions**2, axis=1))
    full_rank = system.shape[1]
    return np.asarray(solution[:3] if rank == full_rank else np.zeros(3), np.float64)


def perplexity(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [quantizer] of shares [quantizer, code]: two to the entropy in bits, 1 to the size of the codebook."""
    logs = np.log2(np.where(shares > 0, shares, 1.0))
    return np.asarray(2.0 ** -np.sum(shares * logs, axis=1), np.float64)


def correlations(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Pearson correlation float64 [channel] of the rows of two [channel, time]; 0 where one is constant."""
    x, y = (v.astype(np.float64) - v.mean(axis=1, keepdims=True, dtype=np.float64) for v in (a, b))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray(np.where(norms > 0, np.sum(x * y, axis=1) / np.where(norms > 0, norms, 1.0), 0.0), np.float64)
