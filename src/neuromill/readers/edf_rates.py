"""Channels of an EDF file that are slower than the others, brought to the common rate one sample at a time.

MNE 1.13 interpolates them by Fourier within whatever block is asked for: samples of a test recording differed by
up to 240 uV between blocks of 77 samples and the whole. Here every output sample is a sum over its own neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from neuromill.readers.edf_file import EdfHeader

HALF_WIDTH = 32  # of the kernel, in samples of the slow channel
KAISER_BETA = 8.0


@dataclass(frozen=True, slots=True)
class SlowRaw:
    """Channels of one lower rate: an ``mne.io.BaseRaw`` of them alone, so at their own rate, and ``rate`` of the rest.

    ``rate`` is how many samples of the recording go on one of these.
    """

    raw: Any
    rate: Fraction

    def read(self, rows: Sequence[int], start: int, stop: int) -> NDArray[np.float64]:
        """Samples ``start`` to ``stop`` of the common clock, float64 [channel, time]; the same in blocks of any size.

        A windowed sinc (Kaiser, 32 samples to each side); beyond its ends the channel keeps its last value.
        """
        from scipy.signal import resample_poly

        up, down = self.rate.numerator, self.rate.denominator
        margin = -(-(HALF_WIDTH + 1) // down) * down
        first = start // up * down - margin
        last = -(-stop // up) * down + margin
        block = self._own(rows, first, last)
        made = resample_poly(block, up, down, axis=1, window=_kernel(up, down))
        skip = start - first * up // down
        return np.asarray(made[:, skip : skip + stop - start])

    def _own(self, rows: Sequence[int], first: int, last: int) -> NDArray[np.float64]:
        """Samples at the channels' own rate; before the first and behind the last one theirs is repeated."""
        start, stop = max(first, 0), min(last, self.raw.n_times)
        block = self.raw.get_data(picks=list(rows), start=start, stop=stop, verbose="error")
        return np.pad(block, ((0, 0), (start - first, last - stop)), mode="edge")


@lru_cache(maxsize=16)
def _kernel(up: int, down: int) -> NDArray[np.float64]:
    """Return the low-pass that ``resample_poly`` takes, at ``up`` times the slow rate; it scales by ``up`` itself."""
    from scipy.signal import firwin

    return np.asarray(firwin(2 * HALF_WIDTH * up + 1, 1 / max(up, down), window=("kaiser", KAISER_BETA)))


@dataclass(frozen=True, slots=True)
class MixedRates:
    """Reads blocks of a recording whose channels have several rates."""

    raw: Any
    slow: tuple[SlowRaw, ...]
    places: Mapping[int, tuple[int, int]]  # channel -> (which of ``slow``, row there)

    def read(self, rows: Sequence[int], start: int, stop: int) -> NDArray[np.float64]:
        """Samples ``start`` to ``stop`` as float64 [channel, time]."""
        block = np.empty((len(rows), stop - start))
        fast = [at for at, row in enumerate(rows) if row not in self.places]
        if fast:
            picks = [rows[at] for at in fast]
            block[fast] = self.raw.get_data(picks=picks, start=start, stop=stop, verbose="error")
        for number, slow in enumerate(self.slow):
            here = [at for at, row in enumerate(rows) if self.places.get(row, (-1, 0))[0] == number]
            if here:
                block[here] = slow.read([self.places[rows[at]][1] for at in here], start, stop)
        return block

    def close(self) -> None:
        """Let go of the files of the slow channels."""
        for slow in self.slow:
            slow.raw.close()


def mixed_rates(raw: Any, header: EdfHeader, reopen: Callable[[list[str]], Any]) -> MixedRates | None:
    """Return the reader of a file whose signals have several rates; None where they have one.

    Parameters
    ----------
    raw
        The whole recording, at the highest rate.
    header
        Its header.
    reopen
        Opens the file again with the channels of these names alone.
    """
    samples = [header.samples[i] for i in header.signals]
    most = max(samples)
    rates = sorted({n for n in samples if n != most and n > 0}, reverse=True)
    if not rates:
        return None
    slow: list[SlowRaw] = []
    places: dict[int, tuple[int, int]] = {}
    for number, rate in enumerate(rates):
        rows = [row for row, n in enumerate(samples) if n == rate]
        slow.append(SlowRaw(reopen([raw.ch_names[row] for row in rows]), Fraction(most, rate)))
        places |= {row: (number, at) for at, row in enumerate(rows)}
    return MixedRates(raw, tuple(slow), places)
