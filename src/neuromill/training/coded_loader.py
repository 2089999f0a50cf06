"""Batches of signal windows with the codes of their hidden patches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from neuromill.training.buffers import through_buffers
from neuromill.training.coded_signals import exact_shapes
from neuromill.training.loader import SampleId
from neuromill.training.masking import mask_rng
from neuromill.training.sampler import Sampling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neuromill.training.coded_signals import CodedSource
    from neuromill.training.sampler import BatchPlan
    from neuromill.training.task import Drawing
    from neuromill.training.windows import Window


@dataclass(frozen=True, slots=True, eq=False)
class CodedBatch:
    """Windows ready for the model.

    Attributes
    ----------
    stored
        [batch, time, channel] numbers as the store holds them, a view of memory that is reused once the next batch is
        asked for: half the bytes of the signal, and one read each.
    gain, offset
        float32 [batch, channel, patch]: signal = stored * gain + offset.
    unusable
        bool [batch, channel, patch]: not fit for use; None where all are.
    hidden
        bool [batch, channel, patch]: hidden and to be predicted; all of them are fit for use.
    codes
        int32 [batch, channel, patch, quantizer].
    datasets
        int64 [batch]: number of the data set of each window.
    ids
        One per window, kept so that an odd loss can be traced to a recording.
    """

    stored: Tensor
    gain: Tensor
    offset: Tensor
    unusable: Tensor | None
    hidden: Tensor
    codes: Tensor
    datasets: Tensor
    ids: tuple[SampleId, ...]

    def signal(self) -> Tensor:
        """Float32 [batch, channel, time] in the unit of the tokenizer, in new memory.

        Patches that are not fit for use are silence, which is what a hidden patch is, too. Widening and transposing
        costs more than reading, so it is done here, once and on the device.
        """
        n_windows, n_times, n_channels = self.stored.shape
        signal = torch.empty(n_windows, n_channels, n_times, device=self.stored.device)
        patches = signal.copy_(self.stored.transpose(1, 2)).view(*self.hidden.shape, -1)
        patches.mul_(self.gain[..., None]).add_(self.offset[..., None])
        if self.unusable is not None:  # where nothing is rejected, nothing is touched twice
            patches.masked_fill_(self.unusable[..., None], 0)
        return signal

    def to(self, device: torch.device) -> CodedBatch:
        """Return the batch on ``device``; the stored numbers are copied from pinned memory without waiting."""
        return replace(
            self,
            stored=self.stored.to(device, non_blocking=True),
            gain=self.gain.to(device),
            offset=self.offset.to(device),
            unusable=None if self.unusable is None else self.unusable.to(device),
            hidden=self.hidden.to(device),
            codes=self.codes.to(device),
            datasets=self.datasets.to(device),
        )


@dataclass(frozen=True, slots=True)
class CodedLoaderConfig:
    """How batches are drawn and made; ``datasets`` are numbered by their places."""

    drawing: Drawing
    mask_share: float
    datasets: tuple[str, ...]


class CodedLoader:
    """Deterministic batches of windows; a :class:`neuromill.training.task.Loader`.

    The bytes of batch k depend on the source, the windows and the configuration alone, not on the number of threads or
    on where the epoch was entered. Which patches of a window are hidden depends on (seed, epoch, window).
    """

    def __init__(
        self, source: CodedSource, windows: Sequence[Window], config: CodedLoaderConfig, *, pin_memory: bool = False
    ) -> None:
        self.source, self.windows, self.config, self.pin_memory = source, windows, config, pin_memory
        shapes = exact_shapes(windows, source.recordings)
        self.hop = source.recordings[0].hop_samples
        self.sampling = Sampling.of(shapes, config.drawing)
        largest = max(shape.n_channels * shape.n_frames for shape in shapes)
        self._dtype = source.dtype
        self._slot_bytes = self._dtype.itemsize * config.drawing.batch_size * largest * self.hop

    def __len__(self) -> int:
        """Batches per epoch and rank."""
        return self.sampling.n_batches()

    def epoch(self, epoch: int, first_batch: int = 0, limit: int | None = None) -> Iterator[CodedBatch]:
        """Batches ``first_batch`` and following of an epoch, at most ``limit``.

        A batch is valid until the next one is asked for; copy what you keep.
        """
        stop = None if limit is None else first_batch + limit
        yield from through_buffers(
            self.sampling.epoch(epoch)[first_batch:stop],
            lambda plan, slot: self._fill(plan, epoch, slot),
            self._slot_bytes,
            threads=self.config.drawing.threads,
            pin_memory=self.pin_memory,
        )

    def _fill(self, plan: BatchPlan, epoch: int, slot: Tensor) -> CodedBatch:
        windows = [self.windows[index] for index in plan.windows]
        recordings = [self.source.recordings[window.recording] for window in windows]
        grid = (len(windows), plan.shape.n_channels, plan.shape.n_frames)
        shape = (grid[0], grid[2] * self.hop, grid[1])
        stored = slot.numpy()[: self._dtype.itemsize * int(np.prod(shape))].view(self._dtype).reshape(shape)
        gain, offset = np.empty((2, *grid), np.float32)
        usable, hidden = np.empty((2, *grid), np.bool_)
        codes = np.empty((*grid, recordings[0].n_quantizers), np.int32)
        places = [(window.recording, window.start, window.stop) for window in windows]
        for row, place in enumerate(places):  # in one loop with the rest, a window takes 95 us, not 86
            self.source.read_stored(*place, stored[row])
        for row, (index, place) in enumerate(zip(plan.windows, places, strict=True)):
            self.source.read_codes(*place, codes[row])
            gain[row], offset[row] = self.source.scaling(*place)
            usable[row] = self.source.usable(*place)
            hidden[row] = self._draw(epoch, index, grid[1:])
        numbers = [self.config.datasets.index(one.dataset) for one in recordings]
        return CodedBatch(
            stored=torch.from_numpy(stored),
            gain=torch.from_numpy(gain),
            offset=torch.from_numpy(offset),
            unusable=None if usable.all() else torch.from_numpy(~usable),
            hidden=torch.from_numpy(hidden & usable),
            codes=torch.from_numpy(codes),
            datasets=torch.tensor(numbers),
            ids=tuple(
                SampleId(one.name, one.dataset, one.subject, window.start, window.stop)
                for one, window in zip(recordings, windows, strict=True)
            ),
        )

    def _draw(self, epoch: int, index: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        drawing = self.config.drawing
        rng = mask_rng(drawing.seed, epoch if drawing.mask_epoch is None else drawing.mask_epoch, index)
        return rng.random(shape) < self.config.mask_share
