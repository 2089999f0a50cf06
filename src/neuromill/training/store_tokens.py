"""Token stores as a source of training data: the one file of this room that knows the store."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from neuromill.models.sensors import place_sensors, sensor_types
from neuromill.records import ConfigError, RecordingError
from neuromill.store.reader import StoreReader
from neuromill.training.same_settings import CODES, require_same
from neuromill.training.tokens import TokenRecording

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.models.sensors import SensorGeometry
    from neuromill.store.contents import IndexedRecording


@dataclass(frozen=True, slots=True, eq=False)
class StoreTokens:
    """Recordings of one or more token stores; a :class:`neuromill.training.tokens.TokenSource`.

    Attributes
    ----------
    recordings
        In the order of the stores and of their indexes.
    left_out
        Why a recording cannot be trained on (no usable channel); the others go on without it.
    """

    recordings: tuple[TokenRecording, ...]
    left_out: tuple[RecordingError, ...]
    _places: tuple[tuple[StoreReader, str], ...]

    @classmethod
    def open(
        cls,
        stores: Sequence[str | Path],
        *,
        pick: Callable[[IndexedRecording], bool] = lambda _: True,
        parity: bool = False,
    ) -> Self:
        """Open stores by their index.

        Parameters
        ----------
        stores
            Folders of token identities.
        pick
            Which recordings to take, by what the index says (``entities``, ``extra["split"]``).
        parity
            Name sensor types as published (BTi gradiometers become magnetometers).

        Raises
        ------
        ConfigError
            A store has no index, or the codes were not all made in the same way.
        """
        found, places, left_out = [], [], []
        with ExitStack() as stack:  # what is read here is not read again; readers open anew what batches need
            readers = [stack.enter_context(StoreReader.open(store)) for store in stores]
            picked = [(reader, one) for reader in readers for one in reader.recordings if pick(one)]
            _check_same([one for _, one in picked])
            for reader, one in picked:
                try:
                    found.append(_describe(reader, one, parity=parity))
                except RecordingError as error:
                    left_out.append(error)
                else:
                    places.append((reader, one.name))
        return cls(tuple(found), tuple(left_out), tuple(places))

    def read_codes(self, recording: int, start: int, stop: int, out: NDArray[np.uint8]) -> None:
        """Read frames ``start`` to ``stop`` straight into ``out``, uint8 [frame, quantizer, channel]."""
        reader, name = self._places[recording]
        reader.read(name, "codes", start, stop, out)


def _describe(reader: StoreReader, one: IndexedRecording, *, parity: bool) -> TokenRecording:
    about = one.attributes
    n_frames, segment_frames = _frames(one)
    return TokenRecording(
        name=str(about["recording_id"]),
        dataset=str(about["dataset"]),
        subject=one.entities.get("subject", ""),
        n_frames=n_frames,
        n_quantizers=int(about["n_quantizers"]),
        geometry=_geometry(reader, one, parity=parity),
        segment_frames=segment_frames,
    )


def _frames(one: IndexedRecording) -> tuple[int, int]:
    """Frames that hold something of the recording, and frames per segment.

    The tokenizer may have padded the last segment to the length of the grid; frames of padding alone do not count.
    """
    about = one.attributes
    hop, segment_samples = int(about["hop_samples"]), int(about["segment_samples"])
    segment_frames = -(-segment_samples // hop)
    whole = int(about["n_segments"]) - 1
    rest = int(about["n_valid_samples"]) - whole * segment_samples
    return min(one.n_rows, whole * segment_frames + -(-rest // hop)), segment_frames


def _geometry(reader: StoreReader, one: IndexedRecording, *, parity: bool) -> SensorGeometry:
    bads = one.attributes["bads"]
    return place_sensors(
        reader.read(one.name, "channel_position"),
        reader.read(one.name, "channel_orientation"),
        sensor_types(one.attributes["channel_coils"], parity=parity),
        np.array([name not in bads for name in one.attributes["channel_names"]]),
        where=str(one.attributes["recording_id"]),
    )


def _check_same(recordings: Sequence[IndexedRecording]) -> None:
    for one in recordings:
        if one.kind != "tokens" or one.main.dtype != np.uint8:
            raise ConfigError(
                f"the store holds {one.kind} of {one.main.dtype}, the loader reads tokens of uint8",
                where=one.name,
                next_step="point to a store of the stage tokenize",
            )
    require_same(recordings, CODES, "tokenize all recordings with the same tokenizer and settings")
