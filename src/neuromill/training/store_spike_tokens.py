"""Stores of spike tokens as a source of training data."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from neuromill.records import ConfigError
from neuromill.store.layout import GROUP_SUFFIX
from neuromill.store.reader import StoreReader
from neuromill.store.spike_tokens_reading import read_chunks
from neuromill.training.same_settings import require_same
from neuromill.training.spike_source import SpikeTokenRecording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.records import SpikeTokens
    from neuromill.store.contents import IndexedRecording
    from neuromill.training.spike_source import Span

SAME_EVERYWHERE = ("tokenizer", "bin_seconds")


class SpansOf(Protocol):
    """Which bins of a recording belong to which split."""

    def __call__(self, one: IndexedRecording, n_bins: int) -> Sequence[Span]:
        """Spans of a recording of ``n_bins`` bins, by what the index of the token store says of it."""
        ...


@dataclass(frozen=True, slots=True)
class TokenStore:
    """Folder of a token identity, and that of the prepared counts; None where those are not at hand."""

    tokens: Path
    prepared: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    reader: StoreReader
    name: str
    prepared: Path | None


@dataclass(frozen=True, slots=True, eq=False)
class StoreSpikeTokens:
    """Recordings of stores of spike tokens; a :class:`neuromill.training.spike_source.SpikeTokenSource`.

    Attributes
    ----------
    recordings
        In the order of the stores and of their indexes.
    """

    recordings: tuple[SpikeTokenRecording, ...]
    _places: tuple[_Place, ...]

    @classmethod
    def open(
        cls,
        stores: Sequence[TokenStore],
        spans: SpansOf,
        *,
        pick: Callable[[IndexedRecording], bool] = lambda _: True,
    ) -> Self:
        """Open stores by their index.

        Parameters
        ----------
        stores
            Token identities, with the prepared counts they were made from.
        spans
            Splits of a recording. The number of bins is that of the prepared counts, so that tokens made with other
            settings hold out the same bins; where those are gone, that up to the end of the last chunk.
        pick
            Which recordings to take, by what the index says.

        Raises
        ------
        ConfigError
            A store has no index or holds something else, or the tokens were not all made in the same way.
        """
        with ExitStack() as stack:  # what is read here is not read again; readers open anew what batches need
            readers = [(stack.enter_context(StoreReader.open(store.tokens)), store.prepared) for store in stores]
            picked = [
                (_Place(reader, one.name, prepared), one)
                for reader, prepared in readers
                for one in reader.recordings
                if pick(one)
            ]
            _check_same([one for _, one in picked])
            found = tuple(_describe(place, one, spans) for place, one in picked)
        return cls(found, tuple(place for place, _ in picked))

    def read_chunks(self, recording: int, first: int, stop: int) -> SpikeTokens:
        """Read the chunks ``first`` to ``stop`` of a recording."""
        place = self._places[recording]
        return read_chunks(place.reader, place.name, first, stop)

    def read_segments(self, recording: int) -> NDArray[np.int32] | None:
        """Read the segment of each bin, int32 [time], from the prepared counts; None where they are gone."""
        place = self._places[recording]
        if place.prepared is None or not (place.prepared / f"{place.name}{GROUP_SUFFIX}").is_dir():
            return None
        with StoreReader.of_groups(place.prepared, (place.name,)) as reader:
            return np.asarray(reader.read(place.name, "segment"), np.int32)


def _describe(place: _Place, one: IndexedRecording, spans: SpansOf) -> SpikeTokenRecording:
    about, reader = one.attributes, place.reader
    starts = np.asarray(reader.read(one.name, "chunk_start_bins"), np.int64)
    lengths = np.asarray(reader.read(one.name, "chunk_n_bins"), np.int64)
    n_bins = _prepared_bins(place) or int((starts + lengths).max(initial=0))
    return SpikeTokenRecording(
        name=str(about["recording_id"]),
        dataset=str(about["dataset"]),
        bin_seconds=float(about["bin_seconds"]),
        covariates=tuple(about["covariate_names"]),
        patch_channels=np.asarray(reader.read(one.name, "patch_channels"), np.uint8),
        chunk_start_bins=starts,
        chunk_n_bins=lengths,
        spans=tuple(spans(one, n_bins)),
    )


def _prepared_bins(place: _Place) -> int:
    """Bins of the prepared counts, 0 where those are gone."""
    if place.prepared is None or not (place.prepared / f"{place.name}{GROUP_SUFFIX}").is_dir():
        return 0
    with StoreReader.of_groups(place.prepared, (place.name,)) as reader:
        return reader.recording(place.name).n_rows


def _check_same(recordings: Sequence[IndexedRecording]) -> None:
    for one in recordings:
        if one.kind != "spike_tokens":
            raise ConfigError(
                f"the store holds {one.kind}, NDT3 reads tokens of spikes",
                where=one.name,
                next_step="point to a store of the stage tokenize of a pipeline with tokenizer.kind: ndt3",
            )
    require_same(recordings, SAME_EVERYWHERE, "prepare and tokenize all recordings with the same settings")
