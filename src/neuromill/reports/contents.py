"""What a page is made of: frozen types and numpy arrays, handed over by whoever collected them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from neuromill.reports.spike_contents import SpikeContents

SECONDS_IN_MINUTE, SECONDS_IN_HOUR = 60, 3600
VERBS: Mapping[str, str] = {"fit": "tokenizer fit"}
"""CLI verbs of stages that are not called like their verb."""


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """One recording that was chosen; ``seconds`` is None where neither a store nor a sidecar says its length.

    ``parts`` are seconds by split where the splits are blocks of time within it; () where all of it is in ``split``.
    """

    name: str
    dataset: str
    split: str
    seconds: float | None
    parts: tuple[tuple[str, float], ...] = ()

    @property
    def by_split(self) -> tuple[tuple[str, float | None], ...]:
        """Splits it is in, with the seconds in each."""
        return self.parts or ((self.split, self.seconds),)


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far a stage is with the chosen recordings; ``identity`` is "" before the stage can be named."""

    stage: str
    identity: str
    done: int
    failed: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one recording did not get through one stage."""

    recording: str
    stage: str
    code: str
    message: str
    next_step: str


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Amplitude spectral density of the good channels of one type in one dataset.

    Attributes
    ----------
    unit
        SI unit of the signal; densities are per square root of hertz.
    freqs
        [frequency], Hz.
    low, middle, high
        [frequency]: 10th, 50th and 90th percentile over the channels of all recordings that were sampled.
    line_freq
        Mains frequency in Hz, None where nobody states it.
    """

    dataset: str
    channel_type: str
    unit: str
    freqs: NDArray[np.float64]
    low: NDArray[np.float64]
    middle: NDArray[np.float64]
    high: NDArray[np.float64]
    n_channels: int
    n_recordings: int
    line_freq: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Sensors:
    """Sensors of one type in one recording.

    Attributes
    ----------
    positions
        [channel, 3], metres; rows that are not finite are left out of the map.
    rms
        [channel] root mean square of the prepared signal in ``unit``; NaN for bad channels.
    bads
        Reason why a channel is bad, "" for a good one.
    """

    recording: str
    channel_type: str
    unit: str
    names: tuple[str, ...]
    positions: NDArray[np.float64]
    rms: NDArray[np.float64]
    bads: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RejectionFacts:
    """Windows of one recording that are not fit for use.

    Attributes
    ----------
    reasons
        uint8 [window, channel], numbers of ``legend``; 0 is kept.
    legend
        Name of each number.
    """

    recording: str
    channels: tuple[str, ...]
    window_seconds: float
    reasons: NDArray[np.uint8]
    legend: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Level:
    """How the windows of the gate use one codebook."""

    perplexity: float
    used_share: float
    dominant_share: float


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """A tokenizer and what was measured when it was fitted; ``levels`` is empty for one that was fitted elsewhere.

    Attributes
    ----------
    codebooks
        Names of the codebooks ("temporal", "frequency"); () where they are the levels of a residual quantizer.
    by_rule
        Nothing was learned: the codes follow from the settings.
    """

    digest: str
    codebook_size: int
    n_quantizers: int
    bits_per_second: float
    held_out: bool = False
    correlation: float | None = None
    si_sdr_db: float | None = None
    mse: float | None = None
    baseline_mse: float | None = None
    levels: tuple[Level, ...] = ()
    codebooks: tuple[str, ...] = ()
    by_rule: bool = False


def codebook_name(facts: TokenizerFacts | None, level: int) -> str:
    """Name of a codebook, else the number of its level."""
    return facts.codebooks[level] if facts is not None and level < len(facts.codebooks) else str(level)


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A window before and after the tokenizer, both float32 [channel, time]; ``amplitudes`` says in which domain."""

    recording: str
    split: str
    sfreq: float
    start_seconds: float
    channels: tuple[str, ...]
    original: NDArray[np.float32]
    reconstruction: NDArray[np.float32]
    amplitudes: str = "normalised as the tokenizer sees them"


@dataclass(frozen=True, slots=True, eq=False)
class CodebookUse:
    """``counts`` int64 [quantizer, code]: how often each code stands in the token stores, good channels only."""

    counts: NDArray[np.int64]
    n_recordings: int

    @property
    def shares(self) -> NDArray[np.float64]:
        """float64 [quantizer, code]; a level sums to one, or to zero where nothing was counted."""
        shares: NDArray[np.float64] = self.counts / self.counts.sum(axis=1, keepdims=True).clip(min=1)
        return shares


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Metrics over steps: ``steps`` and ``loss`` [point], ``per_level`` [point, quantizer] accuracy of masked codes.

    A model that does not predict masked codes has no level: ``per_level`` is [point, 0].
    """

    steps: NDArray[np.int64]
    loss: NDArray[np.float64]
    per_level: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Training:
    """A training run; ``validation`` is None where no recording is held out."""

    identity: str
    finished: bool
    codebook_size: int
    train: Curve
    validation: Curve | None


@dataclass(frozen=True, slots=True)
class Probed:
    """How well a labelled task was read from the features of a model, on subjects that the probe had not seen.

    Attributes
    ----------
    mode
        ``linear`` or ``finetune``.
    model
        Folder or Hub id.
    classes
        Windows of each class.
    split
        ``card`` or ``subjects`` (folds over them).
    scores
        By what was read from ("model", "random weights"), then by measure; None where no test can tell.
    """

    task: str
    mode: str
    model: str
    classes: Mapping[str, int]
    n_subjects: int
    split: str
    n_folds: int
    tested: int
    chance: float
    scores: Mapping[str, Mapping[str, float | None]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportContents:
    """Everything on the page. A part that is not there yet is None or empty, and its section names the command.

    Attributes
    ----------
    pipeline
        Name, as the CLI takes it.
    own_folder
        The recordings come from a folder given on the command line, not from the pipeline's datasets.
    identities
        Names of what was made, by what it is: shown so that a page can be matched with its stores.
    spikes
        Everything on the page of a spike pipeline that is not above; None on that of a pipeline for signals.
    """

    pipeline: str
    title: str
    version: str
    own_folder: bool
    recordings: tuple[RecordingFacts, ...]
    stages: tuple[StageProgress, ...]
    failures: tuple[Failure, ...] = ()
    spectra: tuple[Spectrum, ...] = ()
    sensors: tuple[Sensors, ...] = ()
    tokenizer: TokenizerFacts | None = None
    usage: CodebookUse | None = None
    example: Example | None = None
    rejections: tuple[RejectionFacts, ...] = ()
    training: Training | None = None
    probes: tuple[Probed, ...] = ()
    identities: Mapping[str, str] = field(default_factory=dict)
    spikes: SpikeContents | None = None

    def command(self, stage: str) -> str:
        """Command line that makes a part that is missing."""
        data = " --data FOLDER" if self.own_folder else ""
        return f"neuromill {VERBS.get(stage, stage)} {shlex.quote(self.pipeline)}{data}"
