"""Batches of tokens: threads fill a ring of buffers that is allocated once per epoch.

Threads, not processes: reading releases the interpreter lock, and a worker process would copy every batch through
shared memory (measured with stock loaders: 473 windows per second from two processes, 7,092 from two threads).
Codes travel as uint8 and are widened on the device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuromill.models.criss_cross import Sensors
from neuromill.training.buffers import through_buffers
from neuromill.training.masking import draw_mask, mask_rng
from neuromill.training.sampler import Sampling
from neuromill.training.windows import batch_shapes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from neuromill.training.config import MaskingConfig
    from neuromill.training.sampler import BatchPlan
    from neuromill.training.task import Drawing
    from neuromill.training.tokens import TokenSource
    from neuromill.training.windows import Window


@dataclass(frozen=True, slots=True)
class SampleId:
    """Where a row of a batch comes from."""

    recording: str
    dataset: str
    subject: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class TokenBatch:
    """Windows ready for the model.

    Attributes
    ----------
    codes
        uint8 [batch, channel, quantizer, frame], a view of memory that is reused once the next batch is asked for.
    sensors
        Geometry and channel mask; the mask is None where every channel is real.
    masked_frames
        bool [batch, frame]: hidden and to be predicted.
    frame_mask
        bool [batch, frame]: real frames; None where all are.
    ids
        One per row, kept so that an odd loss can be traced to a recording.
    """

    codes: Tensor
    sensors: Sensors
    masked_frames: Tensor
    frame_mask: Tensor | None
    ids: tuple[SampleId, ...]

    def to(self, device: torch.device) -> TokenBatch:
        """Return the batch on ``device``; copies from pinned memory do not wait."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        sensors = Sensors(
            move(self.sensors.positions),
            move(self.sensors.orientations),
            move(self.sensors.types),
            None if self.sensors.mask is None else move(self.sensors.mask),
        )
        return replace(
            self,
            codes=move(self.codes),
            sensors=sensors,
            masked_frames=move(self.masked_frames),
            frame_mask=None if self.frame_mask is None else move(self.frame_mask),
        )


@dataclass(frozen=True, slots=True)
class LoaderConfig:
    """How batches are drawn and made."""

    drawing: Drawing
    window_frames: int
    masking: MaskingConfig
    parity: bool = False


class BatchLoader:
    """Deterministic batches of windows of a token source.

    The bytes of batch k depend on the source, the windows and the configuration alone, not on the number of
    threads or on where the epoch was entered.
    """

    def __init__(
        self, source: TokenSource, windows: Sequence[Window], config: LoaderConfig, *, pin_memory: bool = False
    ) -> None:
        self.source = source
        self.windows = windows
        self.config = config
        self.pin_memory = pin_memory
        shapes = batch_shapes(windows, source.recordings, config.window_frames)
        self.sampling = Sampling.of(shapes, config.drawing)
        levels = source.recordings[0].n_quantizers
        self._slot_bytes = config.drawing.batch_size * levels * max(s.n_channels * s.n_frames for s in shapes)

    def __len__(self) -> int:
        """Batches per epoch and rank."""
        return self.sampling.n_batches()

    def epoch(self, epoch: int, first_batch: int = 0, limit: int | None = None) -> Iterator[TokenBatch]:
        """Batches ``first_batch`` and following of an epoch, at most ``limit``.

        A batch is valid until the next one is asked for; copy what you keep.
        """
        stop = None if limit is None else first_batch + limit
        plans = self.sampling.epoch(epoch)[first_batch:stop]
        yield from through_buffers(
            plans,
            lambda plan, slot: self._fill(plan, epoch, slot),
            self._slot_bytes,
            threads=self.config.drawing.threads,
            pin_memory=self.pin_memory,
        )

    def _fill(self, plan: BatchPlan, epoch: int, slot: Tensor) -> TokenBatch:
        windows = [self.windows[i] for i in plan.windows]
        recordings = [self.source.recordings[w.recording] for w in windows]
        shape = (len(windows), plan.shape.n_frames, recordings[0].n_quantizers, plan.shape.n_channels)
        codes = slot[: int(np.prod(shape))].view(shape)
        for row, window in zip(codes.numpy(), windows, strict=True):
            self._fill_codes(row, window)
        return TokenBatch(
            codes=codes.permute(0, 3, 2, 1),
            sensors=self._sensors(windows, plan.shape.n_channels),
            masked_frames=torch.from_numpy(self._masks(plan, epoch)),
            frame_mask=_real_frames(windows, plan.shape.n_frames),
            ids=tuple(
                SampleId(r.name, r.dataset, r.subject, w.start, w.stop)
                for r, w in zip(recordings, windows, strict=True)
            ),
        )

    def _fill_codes(self, out: NDArray[np.uint8], window: Window) -> None:
        n_channels, n_frames = self.source.recordings[window.recording].n_channels, len(window)
        if n_channels == out.shape[-1]:  # straight from the file into the batch
            self.source.read_codes(window.recording, window.start, window.stop, out[:n_frames])
        else:
            narrow = np.empty((n_frames, out.shape[1], n_channels), dtype=np.uint8)
            self.source.read_codes(window.recording, window.start, window.stop, narrow)
            out[:n_frames, :, :n_channels] = narrow
            out[:n_frames, :, n_channels:] = 0
        out[n_frames:] = 0

    def _masks(self, plan: BatchPlan, epoch: int) -> NDArray[np.bool_]:
        config, drawing = self.config, self.config.drawing
        epoch = epoch if drawing.mask_epoch is None else drawing.mask_epoch
        return np.stack(
            [
                draw_mask(
                    config.masking,
                    len(self.windows[index]),
                    plan.shape.n_frames,
                    mask_rng(drawing.seed, epoch, index),
                    parity=config.parity,
                )
                for index in plan.windows
            ]
        )

    def _sensors(self, windows: Sequence[Window], width: int) -> Sensors:
        rows = [self.source.recordings[w.recording].geometry for w in windows]
        mask = np.stack([_widen(g.mask, width) for g in rows])
        return Sensors(
            torch.from_numpy(np.stack([_widen(g.positions, width) for g in rows])),
            torch.from_numpy(np.stack([_widen(g.orientations, width) for g in rows])),
            torch.from_numpy(np.stack([_widen(g.types, width) for g in rows])),
            None if mask.all() else torch.from_numpy(mask),
        )


def _widen(column: NDArray[Any], width: int) -> NDArray[Any]:
    wide = np.zeros((width, *column.shape[1:]), dtype=column.dtype)
    wide[: len(column)] = column
    return wide


def _real_frames(windows: Sequence[Window], n_frames: int) -> Tensor | None:
    lengths = torch.tensor([len(w) for w in windows])
    if bool((lengths == n_frames).all()):
        return None
    return torch.arange(n_frames) < lengths[:, None]
