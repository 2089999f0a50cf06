"""Channel tables, runs and errors for the tests of preprocessing."""

import numpy as np
from numpy.typing import NDArray

from neuromill.records import ChannelTable
from neuromill.signals.chain import Chain, plan_chain, run_chain
from neuromill.signals.steps import BaseStep, Filter, Resample

MEG_STEPS: tuple[BaseStep, ...] = (Filter(l_freq=0.1, h_freq=40.0), Resample(sfreq=50.0))


def channel_table(
    n: int, *, types: tuple[str, ...] | None = None, names: tuple[str, ...] | None = None, bads: tuple[str, ...] = ()
) -> ChannelTable:
    """Magnetometers without positions, or what is said."""
    nowhere = np.full((n, 3), np.nan)
    names = names or tuple(f"MEG{i:04d}" for i in range(n))
    return ChannelTable(names, types or ("mag",) * n, ("",) * n, ("T",) * n, nowhere, nowhere, bads or ("",) * n)


def run_array(chain: Chain, x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Run a chain over an array of its picked channels."""
    return np.concatenate(list(run_chain(chain, lambda start, stop: x[:, start:stop])), axis=1)


def process(
    steps: tuple[BaseStep, ...], x: NDArray[np.float64], sfreq: float, line_freq: float | None = 60.0
) -> tuple[Chain, NDArray[np.float32]]:
    """Plan for an array and run over it."""
    chain = plan_chain(steps, channel_table(len(x)), sfreq, x.shape[1], line_freq)
    return chain, run_array(chain, x)


def band_error(y: NDArray[np.float32], oracle: NDArray[np.float64], sfreq: float, trim_seconds: float) -> float:
    """Largest over channels of |y - oracle| / |oracle| in 0.1-22 Hz, ``trim_seconds`` left out on each side."""
    inside = slice(round(trim_seconds * sfreq), y.shape[1] - round(trim_seconds * sfreq))
    window = np.hanning(len(range(*inside.indices(y.shape[1]))))
    freqs = np.fft.rfftfreq(len(window), 1 / sfreq)
    band = (freqs >= 0.1) & (freqs <= 22.0)
    difference = np.fft.rfft((y - oracle)[:, inside] * window)[:, band]
    expected = np.fft.rfft(oracle[:, inside] * window)[:, band]
    return float((np.linalg.norm(difference, axis=1) / np.linalg.norm(expected, axis=1)).max())


def synthetic_meg(n_channels: int, seconds: float, sfreq: float, seed: int = 0) -> NDArray[np.float64]:
    """1/f background, 50 Hz line noise and offsets a thousand times the signal, in tesla."""
    rng = np.random.default_rng(seed)
    n = round(seconds * sfreq)
    spectrum = np.fft.rfft(rng.standard_normal((n_channels, n)))
    spectrum[:, 1:] /= np.sqrt(np.arange(1, spectrum.shape[1]))
    background = np.fft.irfft(spectrum, n)
    background /= background.std(axis=1, keepdims=True)
    line = 3 * np.sin(2 * np.pi * 50 * np.arange(n) / sfreq)
    return 1e-12 * (background + line + 1e3 * rng.standard_normal((n_channels, 1)))
