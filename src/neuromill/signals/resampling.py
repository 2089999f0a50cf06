"""Resampling onto the exact grid n / sfreq, for any pair of rates.

Output sample n is the band-limited interpolation of the input at n * ratio input samples: a Kaiser-windowed sinc
around that instant, evaluated there (no table, no rounding of the instant). A run of outputs is one product of the
input with a banded matrix, which is what makes it fast for many channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PASSBAND = 0.88  # of the lower of the two Nyquist frequencies; 22 Hz at 50 Hz
ATTENUATION_DB = 100.0  # from that Nyquist frequency on; also bounds the ripple of the passband (1e-5)
MAX_PERIOD = 256  # outputs after which a rational grid repeats, up to which its matrix is kept


@dataclass(frozen=True)
class Grid:
    """The output grid of a resampling and its kernel.

    Attributes
    ----------
    ratio
        Input samples per output sample, exact.
    cutoff
        Middle of the transition band, cycles per input sample.
    half_width
        Reach of the kernel on each side, input samples.
    beta
        Shape of the Kaiser window.
    """

    ratio: Fraction
    cutoff: float
    half_width: float
    beta: float

    @classmethod
    def between(cls, sfreq: float, new_sfreq: float) -> Self:
        """Grid from ``sfreq`` to ``new_sfreq`` Hz; the transition band ends at the lower Nyquist frequency."""
        from scipy.signal import kaiserord

        nyquist = min(sfreq, new_sfreq) / 2
        n_taps, beta = kaiserord(ATTENUATION_DB, (1 - PASSBAND) * nyquist / (sfreq / 2))
        ratio = Fraction(sfreq) / Fraction(new_sfreq)
        return cls(ratio, (1 + PASSBAND) / 2 * nyquist / sfreq, n_taps / 2, float(beta))

    def n_outputs(self, n_times: int) -> int:
        """Count the samples of the grid that lie within an input of ``n_times`` samples: n * ratio <= n_times - 1."""
        return math.floor((n_times - 1) / self.ratio) + 1 if n_times else 0

    @cached_property
    def block(self) -> int:
        """Outputs made in one product: half a kernel long, and a whole number of periods where there is a short one."""
        wanted = max(1, math.ceil(self.half_width / self.ratio))
        period = self.ratio.denominator
        return period * math.ceil(wanted / period) if period <= MAX_PERIOD else wanted

    @property
    def repeats(self) -> bool:
        """Whether every block of outputs has the same matrix."""
        return self.ratio.denominator <= MAX_PERIOD

    def span(self, first: int, n: int) -> tuple[int, int]:
        """Input samples [start, stop) that outputs ``first`` to ``first + n`` look at."""
        half = Fraction(self.half_width)
        return math.ceil(first * self.ratio - half), math.floor((first + n - 1) * self.ratio + half) + 1

    def matrix(self, first: int, n: int) -> NDArray[np.float64]:
        """Weights float64 [input, output] that make outputs ``first`` to ``first + n`` of the samples of ``span``."""
        start, stop = self.span(first, n)
        origin = float(first * self.ratio - start)
        instants = origin + np.arange(n) * float(self.ratio)
        rows = np.ceil(instants - self.half_width).astype(int)[:, None] + np.arange(math.floor(2 * self.half_width) + 1)
        weights = self.kernel(rows - instants[:, None])
        # Each output's weights sum to one: else a sensor's offset, a thousand times its signal, would be modulated
        # by the ripple of the kernel at the beat of the two rates.
        weights /= weights.sum(axis=1, keepdims=True)
        matrix = np.zeros((stop - start, n))
        inside = (rows >= 0) & (rows < stop - start)
        matrix[np.where(inside, rows, 0), np.arange(n)[:, None]] += np.where(inside, weights, 0.0)
        return matrix

    def kernel(self, lag: NDArray[np.float64]) -> NDArray[np.float64]:
        """Kaiser-windowed sinc at ``lag`` [...] input samples, float64 [...]; zero beyond ``half_width``."""
        from scipy.special import i0

        inside = np.clip(1 - (lag / self.half_width) ** 2, 0, None)
        window = np.where(np.abs(lag) <= self.half_width, i0(self.beta * np.sqrt(inside)) / i0(self.beta), 0.0)
        values: NDArray[np.float64] = 2 * self.cutoff * np.sinc(2 * self.cutoff * lag) * window
        return values

    def filter_taps(self, taps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Taps at the output rate of a zero-phase filter designed at the input rate.

        The impulse response, band-limited by the same kernel and sampled on the output grid: below the passband edge
        both filters have the same frequency response. ``taps`` and what is returned are float64 [tap], symmetric about
        the middle one.
        """
        reach = (len(taps) - 1) // 2
        n_side = math.floor((reach + Fraction(self.half_width)) / self.ratio)
        side = [self._value_at(taps, reach, k) for k in range(n_side + 1)]
        return float(self.ratio) * np.array(side[:0:-1] + side)

    def _value_at(self, taps: NDArray[np.float64], reach: int, output: int) -> float:
        centre = float(output * self.ratio) + reach
        low = max(0, math.ceil(centre - self.half_width))
        near = taps[low : math.floor(centre + self.half_width) + 1]
        return float(np.sum(self.kernel(np.arange(len(near), dtype=np.float64) + (low - centre)) * near))
