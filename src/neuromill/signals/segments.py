"""Segments: what runs in one pass over the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from neuromill.signals.blas import product
from neuromill.signals.blocks import SlidingBuffer, extended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from neuromill.signals.blocks import Read
    from neuromill.signals.fir import Fir
    from neuromill.signals.resampling import Grid

MIN_FFT = 4096
GROUP_BYTES = 8 * 2**20  # of one FFT over a group of channels; larger ones fall out of the cache and are slower


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """A resampling onto ``grid`` (None: the input's own) followed by a filter at its rate (None: none).

    Blocks are cut on a grid anchored at output sample 0 that only the plan decides, so the way a recording is read
    has no influence on the numbers.

    Attributes
    ----------
    n_in, n_out
        Samples of input and output.
    n_fft
        Samples in one block of the overlap-save filter.
    hop
        Output samples made from it.
    """

    n_in: int
    n_out: int
    grid: Grid | None
    fir: Fir | None
    n_fft: int
    hop: int

    @classmethod
    def of(cls, n_in: int, n_out: int, grid: Grid | None, fir: Fir | None) -> Self:
        """Segment with the block size that suits its filter."""
        from scipy.fft import next_fast_len

        overlap = 2 * fir.reach if fir else 0
        block = max(MIN_FFT, 1 << (overlap * 3 // 2).bit_length())
        n_fft = min(block, next_fast_len(n_out + overlap, real=True))
        return cls(n_in, n_out, grid, fir, n_fft, n_fft - overlap)

    @property
    def reach(self) -> int:
        """Grid samples the filter looks at on each side."""
        return self.fir.reach if self.fir else 0

    def peak_bytes(self, n_channels: int) -> int:
        """Estimate of the bytes held while running: buffers, matrix, transforms."""
        held = n_channels * (3 * self.n_fft + 2 * self.hop)
        if self.grid:
            start, stop = self.grid.span(0, self.grid.block)
            held += (stop - start) * (3 * n_channels + 4 * self.grid.block)
        return 8 * held + 4 * min(GROUP_BYTES, 8 * n_channels * self.n_fft)

    def run(self, read: Read, read_length: int) -> Iterator[NDArray[np.float64]]:
        """Blocks [channel, time] float64 of the output, in order; ``hop`` samples each but the last."""
        first, last = -self.reach, self.n_out + self.reach
        if self.grid is None:
            samples = SlidingBuffer(extended(read, self.n_in, first, last, read_length), first)
        else:
            begin = first // self.grid.block
            samples = SlidingBuffer(self._on_grid(self.grid, read, read_length, last), begin * self.grid.block)
        for start in range(0, self.n_out, self.hop):
            stop = min(start + self.hop, self.n_out)
            block = samples.take(start - self.reach, stop + self.reach)
            yield self._filtered(block)

    def _on_grid(self, grid: Grid, read: Read, read_length: int, last: int) -> Iterator[NDArray[np.float64]]:
        """Pieces of the input on the output grid, one matrix product each."""
        blocks = range(-self.reach // grid.block, -(-last // grid.block))
        start, _ = grid.span(blocks.start * grid.block, grid.block)
        _, stop = grid.span((blocks.stop - 1) * grid.block, grid.block)
        samples = SlidingBuffer(extended(read, self.n_in, start, stop, read_length), start)
        matrix = None
        for block in blocks:
            if matrix is None or not grid.repeats:
                matrix = grid.matrix(block * grid.block, grid.block)
            yield product(samples.take(*grid.span(block * grid.block, grid.block)), matrix)

    def _filtered(self, block: NDArray[np.float64]) -> NDArray[np.float64]:
        """Filter one block; its ``reach`` samples on each side are used up (overlap-save)."""
        if self.fir is None:
            return block
        from scipy.fft import irfft, rfft

        overlap = 2 * self.reach
        response = rfft(self.fir.taps, self.n_fft)
        made = np.empty((block.shape[0], block.shape[1] - overlap))
        group = max(1, GROUP_BYTES // (8 * self.n_fft))
        for row in range(0, len(block), group):
            spectrum = rfft(block[row : row + group], self.n_fft, axis=-1) * response
            made[row : row + group] = irfft(spectrum, self.n_fft, axis=-1)[:, overlap : block.shape[1]]
        return made
