"""What training knows about tokens of spikes: recordings, their chunks and spans, and a way to read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from neuromill.records import ConfigError, SpikeTokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TRAIN, VALIDATION = "train", "validation"


class Span(NamedTuple):
    """Bins ``start`` to ``stop`` (exclusive) of a recording belong to a split."""

    split: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class SpikeTokenRecording:
    """One recording of a store of spike tokens.

    Attributes
    ----------
    name
        Unique among all recordings of a run.
    covariates
        Names, in the order of their slots.
    patch_channels
        uint8 [patch]: real channels of each patch.
    chunk_start_bins, chunk_n_bins
        int64 [chunk] in the order of time.
    spans
        Which bins belong to which split; bins of no span belong to none.
    """

    name: str
    dataset: str
    bin_seconds: float
    covariates: tuple[str, ...]
    patch_channels: NDArray[np.uint8]
    chunk_start_bins: NDArray[np.int64]
    chunk_n_bins: NDArray[np.int64]
    spans: tuple[Span, ...]

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return len(self.chunk_start_bins)

    @property
    def n_bins(self) -> int:
        """Bins up to the end of the last chunk."""
        return int((self.chunk_start_bins + self.chunk_n_bins).max(initial=0))

    def chunks_of(self, split: str) -> NDArray[np.int64]:
        """Chunks that lie wholly within a span of the split: int64 [chunk], ascending."""
        starts, stops = self.chunk_start_bins, self.chunk_start_bins + self.chunk_n_bins
        inside = np.zeros(self.n_chunks, np.bool_)
        for span in self.spans:
            if span.split == split:
                inside |= (starts >= span.start) & (stops <= span.stop)
        return np.flatnonzero(inside)


class SpikeTokenSource(Protocol):
    """Recordings and their tokens. Reading must be safe from several threads at once."""

    @property
    def recordings(self) -> Sequence[SpikeTokenRecording]:
        """All recordings, in an order that never changes."""
        ...

    def read_chunks(self, recording: int, first: int, stop: int) -> SpikeTokens:
        """Read the chunks ``first`` to ``stop`` of a recording; offsets start at 0."""
        ...

    def read_segments(self, recording: int) -> NDArray[np.int32] | None:
        """Segment of each bin, int32 [time], -1 where not observed; None where the prepared counts are not there."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MemorySpikeTokens:
    """Tokens in memory: for short recordings and for tests."""

    recordings: Sequence[SpikeTokenRecording]
    tokens: Sequence[SpikeTokens]
    segments: Sequence[NDArray[np.int32] | None] = ()

    def read_chunks(self, recording: int, first: int, stop: int) -> SpikeTokens:
        """Views of the chunks ``first`` to ``stop``."""
        return some_chunks(self.tokens[recording], first, stop)

    def read_segments(self, recording: int) -> NDArray[np.int32] | None:
        """Segments int32 [time], where they were given."""
        return self.segments[recording] if self.segments else None


def some_chunks(tokens: SpikeTokens, first: int, stop: int) -> SpikeTokens:
    """Views of the chunks ``first`` to ``stop`` of a recording."""
    begin, end = tokens.chunk_tokens[first], tokens.chunk_tokens[stop]
    spikes, covariates, constraints, returns = (
        slice(head, tail) for head, tail in zip(tokens.chunk_contents[first], tokens.chunk_contents[stop], strict=True)
    )
    return SpikeTokens(
        slots=tokens.slots[begin:end],
        bins=tokens.bins[begin:end],
        kinds=tokens.kinds[begin:end],
        patches=tokens.patches[spikes],
        covariates=tokens.covariates[covariates],
        covariate_valid=tokens.covariate_valid[covariates],
        constraints=tokens.constraints[constraints],
        returns=tokens.returns[returns],
        chunk_tokens=tokens.chunk_tokens[first : stop + 1] - begin,
        chunk_contents=tokens.chunk_contents[first : stop + 1] - tokens.chunk_contents[first],
        chunk_start_bins=tokens.chunk_start_bins[first:stop],
        chunk_n_bins=tokens.chunk_n_bins[first:stop],
    )


def check_recordings(recordings: Sequence[SpikeTokenRecording]) -> None:
    """Refuse an empty list, twice the same name, or bins of different widths."""
    if not recordings:
        raise ConfigError("no recording with spike tokens to train on", next_step="neuromill tokenize, then train")
    if len({one.name for one in recordings}) != len(recordings):
        raise ConfigError("a recording occurs twice in the training data")
    widths = sorted({one.bin_seconds for one in recordings})
    if len(widths) > 1:
        raise ConfigError(
            f"bins are {' and '.join(f'{width:g} s' for width in widths)} wide",
            next_step="prepare all recordings with the same bin_seconds",
        )
