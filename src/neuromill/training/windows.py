"""Which pieces of which recordings are trained on. Pure; knows lengths, not data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from neuromill.records import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neuromill.training.config import WindowConfig
    from neuromill.training.tokens import TokenRecording

LENGTH_CLASSES = 4  # windows of similar length share a batch: a rest of 40 s is not padded to 150 s
CHANNEL_STEP = 32  # windows of similar channel count share a batch


class Framed(Protocol):
    """What cutting windows needs to know of a recording."""

    @property
    def name(self) -> str:
        """Name for messages."""
        ...

    @property
    def n_frames(self) -> int:
        """Frames that hold something."""
        ...

    @property
    def segment_frames(self) -> int | None:
        """Frames per segment of the tokenizer; None where there is one segment."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Frames ``start`` to ``stop`` (exclusive) of the recording with this index."""

    recording: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True, order=True)
class BatchShape:
    """Common size of the windows of a batch; smaller ones are padded to it."""

    n_channels: int
    n_frames: int


def plan_windows(recordings: Sequence[Framed], config: WindowConfig) -> tuple[Window, ...]:
    """Cut all recordings into windows, in order. Rests of at least ``min_frames`` are kept.

    Raises
    ------
    ConfigError
        Nothing is long enough, or window and stride do not fit the tokenizer's segments (see ``align_to_segments``).
    """
    windows = tuple(
        Window(index, start, stop)
        for index, recording in enumerate(recordings)
        for start, stop in _cut(recording, config)
    )
    if not windows:
        raise ConfigError(
            f"no recording has {config.min_frames} frames", next_step="lower min_frames or take longer recordings"
        )
    return windows


def batch_shapes(
    windows: Sequence[Window], recordings: Sequence[TokenRecording], window_frames: int
) -> tuple[BatchShape, ...]:
    """Shape of the batch each window may be part of: similar sizes are grouped, padded to the largest among them."""
    length_step = -(-window_frames // LENGTH_CLASSES)
    groups = [
        (-(-recordings[w.recording].n_channels // CHANNEL_STEP), -(-len(w) // length_step), recordings[w.recording])
        for w in windows
    ]
    channels: dict[tuple[int, int], int] = {}
    frames: dict[tuple[int, int], int] = {}
    for window, (wide, long, recording) in zip(windows, groups, strict=True):
        channels[wide, long] = max(channels.get((wide, long), 0), recording.n_channels)
        frames[wide, long] = max(frames.get((wide, long), 0), len(window))
    return tuple(BatchShape(channels[wide, long], frames[wide, long]) for wide, long, _ in groups)


def _cut(recording: Framed, config: WindowConfig) -> Iterator[tuple[int, int]]:
    length, stride = config.window_frames, config.stride_frames or config.window_frames
    segment = recording.segment_frames
    if not config.align_to_segments or segment is None or segment >= recording.n_frames:
        yield from _grid(0, recording.n_frames, length, stride, config.min_frames)
    elif length <= segment:
        for start in range(0, recording.n_frames, segment):
            stop = min(start + segment, recording.n_frames)
            yield from _grid(start, stop, length, stride, config.min_frames)
    elif length % segment or stride % segment:
        raise ConfigError(
            f"windows of {length} frames every {stride} do not fit segments of {segment} frames",
            where=recording.name,
            next_step="take multiples of the segment, windows within one segment, or align_to_segments: false",
        )
    else:
        yield from _grid(0, recording.n_frames, length, stride, config.min_frames)


def _grid(first: int, last: int, length: int, stride: int, least: int) -> Iterator[tuple[int, int]]:
    for start in range(first, last, stride):
        stop = min(start + length, last)
        if stop - start >= least:
            yield start, stop
        if stop == last:
            return
