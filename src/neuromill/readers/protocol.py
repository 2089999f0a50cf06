"""What every reader gives: a signal recording that is open, lazy, and in SI units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from neuromill.records import ChannelTable, Events

Transform = tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True)
class SignalFacts:
    """What a recording says about itself, from its sidecars and its header.

    Attributes
    ----------
    format
        ``fif, ctf, kit, bti, edf, bdf, brainvision, eeglab``.
    device
        Manufacturer and model as stated, "" where nothing states it.
    line_freq
        Mains frequency in Hz; the sidecar wins over the header. None where neither states it.
    highpass, lowpass
        Edges of the acquisition filters in Hz as the header states them.
    reference
        EEG / iEEG reference as the sidecar states it, "" for MEG.
    sss_applied
        Whether the header says that signal space separation was applied (MaxFilter).
    compensation_grade
        CTF gradient compensation of the stored samples, 0 for none.
    position_frame
        Frame of the channel positions: ``device`` (MEG, and EEG where the head position is known), ``head``
        (EEG alone); of positions out of ``electrodes.tsv`` what ``coordsystem.json`` calls it in lower case (``acpc``,
        ``ctf``; CapTrak is ``head``), ``unknown`` where it does not; "" where no channel has a position.
    dev_head_t
        4 x 4 transform from device to head coordinates, None where the file has none.
    notes
        What a reader of the data should know and no code covers: contradictions between sidecar and file
        (the file won), rows that were left out, warnings of the library that read it.
    """

    format: str = ""
    device: str = ""
    line_freq: float | None = None
    highpass: float | None = None
    lowpass: float | None = None
    reference: str = ""
    sss_applied: bool = False
    compensation_grade: int = 0
    position_frame: str = ""
    dev_head_t: Transform | None = None
    notes: tuple[str, ...] = ()


class SignalRecording(Protocol):
    """An open recording. Nothing of the signal is in memory until ``read`` asks for it; a context manager."""

    @property
    def channels(self) -> ChannelTable:
        """The channels, in file order."""

    @property
    def sfreq(self) -> float:
        """Sampling frequency in Hz, as the file states it."""

    @property
    def n_times(self) -> int:
        """Number of samples per channel."""

    @property
    def events(self) -> Events:
        """Events on the clock of the first sample."""

    @property
    def facts(self) -> SignalFacts:
        """What the recording says about itself."""

    def read(self, start: int, stop: int, picks: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Samples ``start`` to ``stop`` (exclusive) as float64 [channel, time] in SI units, rows as in ``picks``."""

    def close(self) -> None:
        """Let go of the files; reading afterwards is an error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
