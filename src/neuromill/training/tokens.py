"""What training knows about a token store: recordings with their sensors, and a way to read codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from neuromill.records import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from neuromill.models.sensors import SensorGeometry

MAX_NAMED = 10


@dataclass(frozen=True, slots=True, eq=False)
class TokenRecording:
    """One recording of a token store.

    Attributes
    ----------
    name
        Unique among all recordings of a run.
    dataset, subject
        Who it is; a subject is the same person within one dataset, whatever its version.
    segment_frames
        Grid of the tokenizer: frames per segment, None where the recording was encoded in one piece.
    """

    name: str
    dataset: str
    subject: str
    n_frames: int
    n_quantizers: int
    geometry: SensorGeometry
    segment_frames: int | None = None

    @property
    def n_channels(self) -> int:
        """All channels, bad ones included; the mask of the geometry says which count."""
        return len(self.geometry.mask)


class Owned(Protocol):
    """Whose recording it is."""

    @property
    def dataset(self) -> str:
        """Data set, whatever its version."""
        ...

    @property
    def subject(self) -> str:
        """Label of the subject, "" where it is unknown."""
        ...


class TokenSource(Protocol):
    """Recordings and their codes. Reading must be safe from several threads at once."""

    @property
    def recordings(self) -> Sequence[TokenRecording]:
        """All recordings, in an order that never changes."""
        ...

    def read_codes(self, recording: int, start: int, stop: int, out: NDArray[np.uint8]) -> None:
        """Read frames ``start`` to ``stop`` of a recording into ``out``.

        ``out`` is C-contiguous, uint8 [frame, quantizer, channel].
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MemoryTokens:
    """Codes in memory, uint8 [frame, quantizer, channel] per recording: for short recordings and for tests."""

    recordings: Sequence[TokenRecording]
    codes: Sequence[NDArray[np.uint8]]

    def read_codes(self, recording: int, start: int, stop: int, out: NDArray[np.uint8]) -> None:
        """Copy frames ``start`` to ``stop`` into ``out``, uint8 [frame, quantizer, channel]."""
        out[...] = self.codes[recording][start:stop]


def check_leakage(train: Sequence[Owned], validation: Sequence[Owned]) -> None:
    """Refuse a split in which a subject is on both sides.

    The published configuration leaks: for three of its corpora the validation subjects are trained on. Recordings
    whose subject is unknown count as one subject per dataset.

    Raises
    ------
    ConfigError
        Names the subjects.
    """
    shared = sorted({(r.dataset, r.subject) for r in train} & {(r.dataset, r.subject) for r in validation})
    if shared:
        names = [f"{dataset}/{subject or '(unknown subject)'}" for dataset, subject in shared]
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        raise ConfigError(
            f"{len(names)} subjects are in training and in validation: {', '.join(names[:MAX_NAMED])}{more}",
            next_step="split by subject in the dataset card or in the pipeline file",
        )


def check_tokens(recordings: Sequence[TokenRecording], n_quantizers: int) -> None:
    """Refuse an empty list, twice the same name, or codes with another number of levels than the model has."""
    if not recordings:
        raise ConfigError("no recording with tokens to train on", next_step="neuromill tokenize, then train")
    if len({r.name for r in recordings}) != len(recordings):
        raise ConfigError("a recording occurs twice in the training data")
    other = [r for r in recordings if r.n_quantizers != n_quantizers]
    if other:
        raise ConfigError(
            f"tokens have {other[0].n_quantizers} levels, the model expects {n_quantizers}",
            where=other[0].name,
            next_step="set n_quantizers of the model to that of the tokenizer",
        )
