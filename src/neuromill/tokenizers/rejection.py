"""What preparation rejected, as tokenizers see it: which windows a fit may draw, what counts as missing. No tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Rejection:
    """Windows of channels of one recording that are not to be learned from, nor to be seen beside others.

    Attributes
    ----------
    rejected
        bool [window, channel].
    window_samples
        Window k is samples k * window_samples to (k + 1) * window_samples; the last may be shorter.
    """

    rejected: NDArray[np.bool_]
    window_samples: int

    @cached_property
    def _before(self) -> NDArray[np.int64]:
        """Rejected windows before each, int64 [window + 1, channel]."""
        return np.pad(np.cumsum(self.rejected, axis=0, dtype=np.int64), ((1, 0), (0, 0)))

    def kept(self, starts: NDArray[np.int64], n_samples: int) -> NDArray[np.bool_]:
        """Bool [start, channel]: channels of which no sample from ``start`` to ``start + n_samples`` is rejected."""
        first = starts // self.window_samples
        last = (starts + n_samples - 1) // self.window_samples
        return np.asarray(self._before[last + 1] == self._before[first])

    def samples(self, start: int, n_samples: int) -> NDArray[np.bool_]:
        """Bool [time, channel]: rejected samples."""
        return self.rejected[np.arange(start, start + n_samples) // self.window_samples]

    def hidden(self, signal: NDArray[np.float32], start: int) -> NDArray[np.float32]:
        """Return float32 [time, channel], the samples from ``start`` on, with NaN where they are rejected.

        This is how a joint tokenizer is given a recording, in its fit and ever after: a channel counts as missing in
        the windows that hold a rejected sample, so nothing of it is seen beside the others.
        """
        return np.where(self.samples(start, len(signal)), np.float32(np.nan), signal)

    def stretches(self, channels: Sequence[int], n_times: int, n_samples: int) -> Stretches:
        """Starts of windows of ``n_samples`` within ``n_times`` in which a channel of these is kept."""
        n_starts = n_times - n_samples + 1
        if n_starts <= 0 or not channels:
            return Stretches(np.empty(0, np.int64), np.empty(0, np.int64))
        # Which windows a start touches changes only where its first or its last sample enters another one.
        edges = np.arange(0, n_times, self.window_samples, dtype=np.int64)
        cuts = np.unique(np.concatenate([edges, edges - n_samples + 1]))
        begins = cuts[(cuts >= 0) & (cuts < n_starts)]
        lengths = np.diff(np.append(begins, n_starts))
        any_kept = self.kept(begins, n_samples)[:, list(channels)].any(axis=1)
        return Stretches(begins[any_kept], lengths[any_kept])


@dataclass(frozen=True, eq=False)
class Stretches:
    """Runs of allowed starts: ``begins`` and ``lengths`` int64 [run], ascending."""

    begins: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @property
    def n_starts(self) -> int:
        """Allowed starts."""
        return int(self.lengths.sum())

    def start(self, number: int) -> int:
        """Allowed start of this number, 0 to ``n_starts`` - 1."""
        ends = np.cumsum(self.lengths)
        run = int(np.searchsorted(ends, number, side="right"))
        return int(self.begins[run] + number - (ends[run] - self.lengths[run]))
