"""What a reader of spikes gives: units, spike times, behaviour, trials, all on one clock that never goes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from neuromill.records import TrialTable, UnitTable


@dataclass(frozen=True, slots=True)
class SpikeFacts:
    """What a recording of spikes says about itself.

    Attributes
    ----------
    format
        ``nwb``, ``odoherty``, ``flint``.
    device, subject, session_description
        As stated, "" where nothing states it.
    notes
        What a reader of the data should know and no code covers: unsorted units that were sorted, repeated stamps
        that were merged and how many, a conversion that is missing, units that were masked.
    """

    format: str = "nwb"
    device: str = ""
    subject: str = ""
    session_description: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class CovariateSeries:
    """One behaviour series.

    Attributes
    ----------
    names
        One per dimension ("cursor_vel_x").
    unit
        Of the values; "" where unknown.
    stamps
        float64 [time] seconds, strictly increasing.
    values
        float64 [time, dimension], the file's ``conversion`` applied; NaN where the behaviour was not observed.
    derivative
        "" or when it is to be differentiated, ``before`` or ``after`` resampling.
    bin_edge
        "" for samples; ``start`` or ``end`` where each value belongs to a bin that its stamp begins or ends.
    held
        Whether rows are change points of a held value: long steps between them are rests, NaN rows are gaps.
    """

    names: tuple[str, ...]
    unit: str
    stamps: NDArray[np.float64]
    values: NDArray[np.float64]
    derivative: Literal["", "before", "after"] = ""
    bin_edge: Literal["", "start", "end"] = ""
    held: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class MaskSeries:
    """Whether covariates count: bool [time] on its own stamps, float64 [time] seconds; each holds until the next."""

    stamps: NDArray[np.float64]
    values: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Binned:
    """Spikes that the file holds as counts: [time, unit] non-negative integers, one stamp per row.

    ``width_seconds`` is the distance of regular stamps; ``bin_edge`` says which edge of its bin a stamp is.
    """

    stamps: NDArray[np.float64]
    counts: NDArray[np.integer]
    width_seconds: float
    bin_edge: Literal["start", "end"] = "start"


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """When the arrays were listened to: float64 [interval, 2] seconds, sorted, disjoint.

    ``joins`` are times at which two pieces meet that do not follow on from each other (a clock that was reset): a new
    segment begins there although no gap shows.
    """

    intervals: NDArray[np.float64]
    joins: tuple[float, ...] = field(default_factory=tuple)


class SpikeRecording(Protocol):
    """An open recording of spikes; a context manager. Spike times stay in the file until they are asked for."""

    @property
    def units(self) -> UnitTable:
        """The units, in file order; masked ones are named in ``bads``."""

    @property
    def facts(self) -> SpikeFacts:
        """What the recording says about itself."""

    @property
    def observation(self) -> Observation:
        """When the units were observed; the recording is the span from its first to its last interval."""

    @property
    def covariates(self) -> tuple[CovariateSeries, ...]:
        """Behaviour; () where there is none."""

    @property
    def masks(self) -> tuple[MaskSeries, ...]:
        """Declared masks of the covariates."""

    @property
    def trials(self) -> TrialTable:
        """Trials; empty where there are none."""

    @property
    def binned(self) -> Binned | None:
        """Counts or raster where the file holds no spike times."""

    def spike_times(self, unit: int) -> NDArray[np.float64]:
        """Spike times of one unit in seconds, float64 [spike] ascending; a masked unit has none."""

    def close(self) -> None:
        """Let go of the files; reading afterwards is an error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
