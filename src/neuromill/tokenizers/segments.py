"""The segment grid of a recording: which samples are encoded together. Pure planning, no tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuromill.records import FailureCode, RecordingError, TimeSpan, cut

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of the grid.

    ``span`` are its samples, ``frames`` the frames of the recording that its codes fill. The last frame may cover
    fewer than ``hop`` samples.
    """

    index: int
    span: TimeSpan
    frames: TimeSpan

    @property
    def n_valid_samples(self) -> int:
        """Real samples; the frames may stand for up to ``hop - 1`` more."""
        return len(self.span)


@dataclass(frozen=True, slots=True)
class SegmentGrid:
    """Segments of ``segment_samples`` from the first sample on; the tail is a shorter segment, none is dropped."""

    n_times: int
    segment_samples: int
    hop_samples: int

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments in temporal order."""
        return tuple(self._walk())

    @property
    def n_frames(self) -> int:
        """Frames of the whole recording."""
        return -(-self.n_times // self.hop_samples)

    def _walk(self) -> Iterator[Segment]:
        for index, span in enumerate(cut(self.n_times, self.segment_samples)):
            first = span.start // self.hop_samples
            yield Segment(index, span, TimeSpan(first, first + -(-len(span) // self.hop_samples)))


def plan_segments(n_times: int, *, sfreq: float, segment_seconds: float, hop_samples: int) -> SegmentGrid:
    """Lay the grid over ``n_times`` samples at ``sfreq`` Hz.

    The segment length is rounded down to whole frames (150 s at 50 Hz is 7500 samples, 625 frames of 12), so that
    frame f of the recording always starts at sample ``f * hop_samples``.

    Raises
    ------
    RecordingError
        ``empty`` if there is no sample.
    """
    if n_times < 1:
        raise RecordingError(FailureCode.EMPTY, "there is no sample to tokenize", next_step="check the recording")
    frames = max(1, int(round(segment_seconds * sfreq, 6)) // hop_samples)
    return SegmentGrid(n_times, frames * hop_samples, hop_samples)
