"""What tokenizers of different kinds are compared by: fidelity in a domain they share, and rate.

Each kind reconstructs in a domain of its own: BioCodec gives back a signal normalised block by block, TFDual and the
fixed tokenizers physical units. Scores in those domains cannot be set side by side. Here every reconstruction is
brought to the rate of the prepared signal, both are limited to the band that all tokenizers can carry, half a second
at either end is left out, and each row has the mean 0 and the deviation 1: what remains is the shape of the waveform.
Gains and offsets that a tokenizer throws away inside a window change that shape, and count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuromill.records import ConfigError
from neuromill.tokenizers.metrics import correlation, si_sdr_db

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neuromill.tokenizers.protocol import Tokenizer
    from neuromill.tokenizers.tfdual import Amplitudes
    from neuromill.tokenizers.usage import Usage

    Rows = NDArray[np.floating[Any]]

EDGE_SECONDS = 0.5
"""Left out at either end of a window: there the filters look over its edge."""
LOWEST_HZ = 0.5
"""Below this a window of seconds holds too few periods to be compared."""
NYQUIST_SHARE = 0.88
"""Of the lowest Nyquist frequency: up to there resampling is flat."""
NARROWEST = 0.5
"""Hz; a band of which less is left is not shown."""
SCALE_BITS = 32
"""The scale of a channel and segment is kept as one float32."""
CLASSICAL = (
    ("delta", 0.5, 4.0),
    ("theta", 4.0, 8.0),
    ("alpha", 8.0, 13.0),
    ("beta", 13.0, 30.0),
    ("gamma", 30.0, 100.0),
)


@dataclass(frozen=True, slots=True)
class Band:
    """Frequencies from ``low`` (inclusive) to ``high`` Hz."""

    name: str
    low: float
    high: float


def common_band(sfreqs: Sequence[float], highpass: float | None = None, lowpass: float | None = None) -> Band:
    """Return the band that all these rates, and the preparation, let through.

    Raises
    ------
    ConfigError
        Nothing is left.
    """
    low = max(LOWEST_HZ, highpass or 0.0)
    high = min(NYQUIST_SHARE * min(sfreqs) / 2, lowpass or math.inf)
    if high - low < NARROWEST:
        raise ConfigError(
            f"no band is common: {low:g} to {high:g} Hz",
            where=f"rates {', '.join(f'{sfreq:g}' for sfreq in sorted(set(sfreqs)))} Hz",
            next_step="compare tokenizers of rates that are less far apart",
        )
    return Band("common", low, high)


def bands_within(band: Band) -> tuple[Band, ...]:
    """Delta to gamma, cut to ``band``; those of which nothing is left are left out."""
    cut = (Band(name, max(low, band.low), min(high, band.high)) for name, low, high in CLASSICAL)
    return tuple(one for one in cut if one.high - one.low >= NARROWEST)


def shape_of(rows: Rows, sfreq: float, band: Band) -> NDArray[np.float64]:
    """Rows in the domain of the comparison.

    Parameters
    ----------
    rows
        Floating [row, time], longer than twice ``EDGE_SECONDS``.
    sfreq
        Hz.
    band
        From ``common_band``; frequencies outside are taken out.

    Returns
    -------
    float64 [row, time - 2 * edge], mean 0 and deviation 1; zeros where nothing is left.
    """
    edge = round(EDGE_SECONDS * sfreq)
    exact = np.asarray(rows, np.float64)
    # The transform takes a row for one turn of a circle, on which drifts and mains would be jumps: every frequency.
    line = np.linspace(-1.0, 1.0, exact.shape[1])
    level = exact - exact.mean(axis=1, keepdims=True)
    level -= np.outer(level @ line / (line @ line), line)
    ramp = np.sin(np.linspace(0, np.pi / 2, edge, endpoint=False)) ** 2
    padded = np.pad(level, ((0, 0), (edge, edge)), mode="reflect")
    padded *= np.concatenate([ramp, np.ones(exact.shape[1]), ramp[::-1]])
    spectrum = np.fft.rfft(padded)
    freqs = np.fft.rfftfreq(padded.shape[1], 1 / sfreq)
    limited = np.fft.irfft(spectrum * ((freqs >= band.low) & (freqs < band.high)), padded.shape[1])
    inner = limited[:, 2 * edge : -2 * edge]
    centred = inner - inner.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    # What rounding leaves of a constant row is no signal.
    alive = deviation > 1e-9 * np.abs(exact).max(axis=1, keepdims=True, initial=0.0)
    return np.asarray(np.where(alive, centred / np.where(alive, deviation, 1.0), 0.0), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class RowScores:
    """Scores of rows; ``joined`` puts those of several windows together.

    Attributes
    ----------
    correlation, si_sdr_db
        float64 [row].
    original, reconstructed, difference
        Power in each band, float64 [row, band]: of the original, of the reconstruction scaled to fit it best, of the
        difference of the two.
    """

    correlation: NDArray[np.float64]
    si_sdr_db: NDArray[np.float64]
    original: NDArray[np.float64]
    reconstructed: NDArray[np.float64]
    difference: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence[RowScores]) -> RowScores:
        """Rows of all parts, in order."""
        names = ("correlation", "si_sdr_db", "original", "reconstructed", "difference")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def fidelity(self, bands: Sequence[Band]) -> Fidelity:
        """Means over rows; errors of bands are sums over rows, so that a row without gamma does not rule gamma."""
        original, reconstructed, difference = (
            x.sum(axis=0) for x in (self.original, self.reconstructed, self.difference)
        )
        tiny = np.finfo(np.float64).tiny
        error = difference / np.maximum(original, tiny)
        level = 10 * np.log10(np.maximum(reconstructed, tiny) / np.maximum(original, tiny))
        return Fidelity(
            correlation=float(self.correlation.mean()),
            si_sdr_db=float(self.si_sdr_db.mean()),
            n_rows=len(self.correlation),
            band_error={band.name: float(value) for band, value in zip(bands, error, strict=True)},
            band_level_db={band.name: max(float(value), FLOOR_DB) for band, value in zip(bands, level, strict=True)},
        )


FLOOR_DB = -100.0


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How well waveforms come back, in the domain of the comparison.

    Attributes
    ----------
    correlation, si_sdr_db
        Means over rows; 0 and -100 dB where nothing comes back.
    n_rows
        Channels of windows that counted.
    band_error
        By band, the share of the power that is wrong: 0 is perfect, 1 as good as silence, more is worse than silence.
    band_level_db
        By band, power of the reconstruction over that of the original in dB: below 0 the band is too weak.
    """

    correlation: float
    si_sdr_db: float
    n_rows: int
    band_error: dict[str, float]
    band_level_db: dict[str, float]


def score_rows(target: Rows, output: Rows, sfreq: float, bands: Sequence[Band]) -> RowScores:
    """Score rows that ``shape_of`` gave: float64 [row, time] each.

    The error is that of the output times the factor that fits it best to the target, as in SI-SDR.
    """
    original, given = (np.asarray(rows, dtype=np.float64) for rows in (target, output))
    a, b = torch.from_numpy(original), torch.from_numpy(given)
    r = correlation(b, a).numpy()
    fitted: NDArray[np.float64] = given * np.clip(r, 0.0, None)[:, None]  # both have deviation 1
    difference: NDArray[np.float64] = fitted - original
    freqs = np.fft.rfftfreq(original.shape[1], 1 / sfreq).astype(np.float64)
    return RowScores(
        correlation=np.asarray(r, np.float64),
        si_sdr_db=np.asarray(si_sdr_db(b, a).numpy(), np.float64),
        original=_band_power(original, freqs, bands),
        reconstructed=_band_power(fitted, freqs, bands),
        difference=_band_power(difference, freqs, bands),
    )


def _band_power(rows: NDArray[np.float64], freqs: NDArray[np.float64], bands: Sequence[Band]) -> NDArray[np.float64]:
    """Power of Hann-windowed rows in each band: [row, band]."""
    taper = np.hanning(rows.shape[1] + 1)[:-1]
    power = np.abs(np.fft.rfft(rows * taper)) ** 2
    sums = [power[:, (freqs >= band.low) & (freqs < band.high)].sum(axis=1) for band in bands]
    return np.asarray(np.stack(sums, axis=1) if sums else np.zeros((len(rows), 0)), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class AmplitudeScores:
    """Sums over channels of windows, patches and bins, float64 [band]; those of several windows add up.

    Attributes
    ----------
    n, total, squares
        Number, sum and sum of squares of the true magnitudes.
    errors
        Squared errors, by codebook.
    """

    n: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    errors: dict[str, NDArray[np.float64]]

    @classmethod
    def of(cls, found: Amplitudes, rows: NDArray[np.bool_], bands: Sequence[Band]) -> AmplitudeScores:
        """Score the rows that count, bool [segment, channel]."""
        bins = [(found.freqs >= band.low) & (found.freqs < band.high) for band in bands]
        target = found.target[rows].astype(np.float64)
        errors = {name: np.square(getattr(found, name)[rows] - target) for name in ("frequency", "temporal")}

        def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.array([values[..., one].sum() for one in bins], np.float64)

        return cls(
            summed(np.ones_like(target)),
            summed(target),
            summed(np.square(target)),
            {name: summed(values) for name, values in errors.items()},
        )

    def __add__(self, other: AmplitudeScores) -> AmplitudeScores:
        errors = {name: values + other.errors[name] for name, values in self.errors.items()}
        return AmplitudeScores(self.n + other.n, self.total + other.total, self.squares + other.squares, errors)

    def shares(self, bands: Sequence[Band]) -> dict[str, dict[str, float]]:
        """Squared error over the variance within the band, by codebook and band: 1 is as good as the band's mean."""
        variation = self.squares - self.total**2 / np.maximum(self.n, 1)
        return {
            name: {
                band.name: float(error / whole)
                for band, error, whole in zip(bands, values, variation, strict=True)
                if whole > 0
            }
            for name, values in self.errors.items()
        }


@dataclass(frozen=True, slots=True)
class Rate:
    """Bits per second of one channel.

    Attributes
    ----------
    nominal
        log2 of the codebook size per code.
    entropy
        Of the codes that occurred, each codebook on its own: what an ideal coder without memory needs. From few codes
        it comes out too low, for a code that was not seen counts as one that does not exist.
    scale
        Of the scale that is kept beside the codes, one float32 per segment.
    """

    nominal: float
    entropy: float
    scale: float


def rate_of(tokenizer: Tokenizer, usage: Usage, segment_seconds: float) -> Rate:
    """Rate of a tokenizer that used its codes like this, in segments of this length."""
    frames = tokenizer.sfreq / tokenizer.hop_samples
    return Rate(
        nominal=tokenizer.n_quantizers * math.log2(tokenizer.codebook_size) * frames,
        entropy=float(np.log2(usage.perplexity).sum()) * frames,
        scale=SCALE_BITS / segment_seconds,
    )
