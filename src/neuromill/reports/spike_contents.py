"""What the page of a spike pipeline is made of: frozen types and numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Stretch:
    """Time from ``start`` to ``stop`` (seconds from the first bin) that belongs to a split."""

    split: str
    start: float
    stop: float


@dataclass(frozen=True, slots=True)
class SpikeRecordingFacts:
    """A prepared recording.

    Attributes
    ----------
    masked
        Number of masked units by reason.
    arrays
        Number of units, masked ones included, by array; "" where the file names none.
    seconds
        From the first bin to the last, observed or not.
    observed_share
        Share of the bins in which something was observed.
    covariates
        Names, in order.
    n_trials, n_successes
        None where the recording has no trials.
    n_spikes, n_outside, n_saturated
        Spikes that were counted, that lie before the first or after the last bin, and that did not fit into a count.
    stretches
        Which time belongs to which split, in order; what lies between them is guard, and belongs to none.
    """

    name: str
    dataset: str
    n_units: int
    masked: Mapping[str, int]
    arrays: Mapping[str, int]
    seconds: float
    observed_share: float
    covariates: tuple[str, ...]
    n_trials: int | None
    n_successes: int | None
    n_spikes: int
    n_outside: int
    n_saturated: int
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """Mean rates in Hz of the good units of one array of a dataset, over all its recordings: float64 [unit], sorted."""

    dataset: str
    array: str
    hertz: NDArray[np.float64]
    n_recordings: int


@dataclass(frozen=True, slots=True, eq=False)
class Activity:
    """Some seconds of a recording.

    Attributes
    ----------
    units, arrays
        Names of the units shown, in order of their arrays, and the array of each.
    counts
        uint8 [unit, time].
    n_units
        Good units that the recording has.
    covariates, covariate_units
        Names, and units of measurement; "" for an unknown one.
    values
        float32 [covariate, time], NaN where not valid.
    """

    recording: str
    split: str
    start_seconds: float
    bin_seconds: float
    units: tuple[str, ...]
    arrays: tuple[str, ...]
    counts: NDArray[np.uint8]
    n_units: int
    covariates: tuple[str, ...]
    covariate_units: tuple[str, ...]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenNumbers:
    """Tokens of all recordings of a dataset; ``left_out`` counts chunks by reason, None where nobody noted it."""

    dataset: str
    n_recordings: int
    n_chunks: int
    seconds: float
    by_kind: Mapping[str, int]
    left_out: Mapping[str, int] | None

    @property
    def n_tokens(self) -> int:
        """Tokens of every kind."""
        return sum(self.by_kind.values())


@dataclass(frozen=True, slots=True, eq=False)
class SpikeCurve:
    """Metrics over steps, all [point]: losses, and R2 (NaN where nothing varies)."""

    steps: NDArray[np.int64]
    spike_loss: NDArray[np.float64]
    covariate_loss: NDArray[np.float64]
    r2: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class R2Scores:
    """R2 of one decoder on the held-out bins; None where nothing varies.

    ``calibrated`` names the recordings in which this decoder, unlike the model, has seen the held-out session.
    """

    name: str
    r2: float | None
    per_covariate: Mapping[str, float | None]
    per_recording: Mapping[str, float | None]
    calibrated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpikeTraining:
    """A training run; ``model`` holds the last validation scores, ``baselines`` what other decoders reach.

    ``test`` and ``test_baselines`` are the same on the bins of the split "test", scored once, when the run ended.
    ``best_step`` is the step whose weights are the model, and whose scores these are, where a run keeps the best.
    """

    identity: str
    finished: bool
    train: SpikeCurve
    validation: SpikeCurve | None
    model: R2Scores | None
    baselines: tuple[R2Scores, ...] = ()
    test: R2Scores | None = None
    test_baselines: tuple[R2Scores, ...] = ()
    best_step: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Behaviour decoded from a stretch, beside the true one; both float32 [covariate, time], NaN where there is none.

    ``chunk_seconds`` is the longest context that a bin is decoded from.
    """

    recording: str
    split: str
    start_seconds: float
    bin_seconds: float
    chunk_seconds: float
    covariates: tuple[str, ...]
    units: tuple[str, ...]
    true: NDArray[np.float32]
    decoded: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Note:
    """What a reader noted of a recording: units that were masked, time stamps that were merged."""

    recording: str
    text: str


@dataclass(frozen=True, slots=True)
class SpikeContents:
    """What the page of a spike pipeline shows beside what every page does; parts that are not made yet are empty."""

    recordings: tuple[SpikeRecordingFacts, ...] = ()
    rates: tuple[Rates, ...] = ()
    activity: Activity | None = None
    tokens: tuple[TokenNumbers, ...] = ()
    training: SpikeTraining | None = None
    decoded: Decoded | None = None
    notes: tuple[Note, ...] = ()
