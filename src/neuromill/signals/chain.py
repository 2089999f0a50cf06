"""A chain of steps, planned for one recording.

Consecutive linear steps are fused into a *segment*: one resampling onto the output grid, then one filter at the
output rate whose response is the product of theirs. That is what ``mne.io.Raw.filter`` then ``resample`` compute in
the band both keep, for a twentieth of the work at 1000 -> 50 Hz. Where a recording is so short that the padding of
one step reaches the next, every step is a segment of its own and gets its own padding, as in MNE.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.signals.bipolar import BipolarMatch, Derivation, bipolar_channels, derivation_of, require_bipolar
from neuromill.signals.finishing import Finish
from neuromill.signals.fir import Fir, combine, design_filter, design_notch, notch_freqs
from neuromill.signals.montage import MontageMatch, on_montage, require_montage
from neuromill.signals.quality import require_good
from neuromill.signals.resampling import PASSBAND, Grid
from neuromill.signals.running import ChainRun, run_chain
from neuromill.signals.segments import Segment
from neuromill.signals.steps import (
    BaseStep,
    Crop,
    ExpectAmplitude,
    Filter,
    NotchFilter,
    Pick,
    PickBipolar,
    PickMontage,
    Reference,
    Reject,
    Resample,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.records import ChannelTable

__all__ = ["Chain", "ChainFacts", "ChainRun", "plan_chain", "run_chain"]

BLOCK_BYTES = 32 * 2**20
SAMPLE_BYTES = np.dtype(np.float64).itemsize


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """What the plan found out, for the ledger and for people.

    Attributes
    ----------
    filter_lengths
        Taps of each filter at the rate it was designed for, in the order of the steps.
    shorter_than_filter
        Whether the recording is shorter than one of them: its padding then holds zeros, as in MNE.
    fused
        Whether all steps run as one segment.
    notch_freqs
        Frequencies stopped, Hz.
    missing_channels
        Names asked for by ``pick`` that the recording does not have.
    passband_end
        Frequency in Hz up to which resampling keeps the signal within 1e-4; None without resampling.
    upsampled
        Whether the output rate is above the input's: nothing is between the two Nyquist frequencies.
    peak_bytes
        Estimate of the memory a run holds, the reader's own not counted.
    """

    filter_lengths: tuple[int, ...]
    shorter_than_filter: bool
    fused: bool
    notch_freqs: tuple[float, ...]
    missing_channels: tuple[str, ...]
    passband_end: float | None
    upsampled: bool
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class EegFacts(ChainFacts):
    """What the plan found out where a montage was picked or ends were cut.

    Attributes
    ----------
    montage
        How channels were matched; None without ``pick_montage`` or ``pick_bipolar``.
    start_seconds
        What was cut at the start.
    cut_seconds
        What was cut at the end.
    """

    montage: MontageMatch | BipolarMatch | None = None
    start_seconds: float = 0.0
    cut_seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """Steps made ready for one recording; made by ``plan_chain``, run by ``run_chain``.

    Attributes
    ----------
    channels
        The output channels, in output order.
    picks
        Their indices in the recording, or those of what they are made of: what the ``read`` given to ``run_chain`` has
        to return, in this order (ascending, unless a montage has an order of its own).
    sfreq, n_times
        Of the output. Output sample n lies at ``start_seconds`` + n / sfreq seconds; the last one lies within the
        recording.
    input_sfreq, input_n_times
        Of the recording.
    segments
        What is run, in order; the last one makes the output.
    read_length
        Samples asked of ``read`` at once, at most.
    facts
        See ``ChainFacts``; ``EegFacts`` where the steps are such.
    finish
        What is done to what the last segment makes.
    derivation
        How the channels are made of what is read, before the segments; None where they are what is read.
    where
        The recording, for messages.
    """

    channels: ChannelTable
    picks: tuple[int, ...]
    sfreq: float
    n_times: int
    input_sfreq: float
    input_n_times: int
    segments: tuple[Segment, ...]
    read_length: int
    facts: ChainFacts
    finish: Finish
    where: str = ""
    derivation: Derivation | None = None

    @property
    def start_seconds(self) -> float:
        """Time of the first output sample on the clock of the recording; 0 unless a crop step cut the start."""
        return self.finish.start / self.sfreq


@dataclass(frozen=True, slots=True)
class _Linear:
    """The linear steps of a chain: filters before the resampling, the resampling, filters after it."""

    before: tuple[Fir, ...]
    grid: Grid | None
    after: tuple[Fir, ...]
    sfreq: float
    notched: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """What is read of a recording, in this order, and the channels that are made of it."""

    picks: tuple[int, ...]
    missing: tuple[str, ...]
    channels: ChannelTable
    match: MontageMatch | BipolarMatch | None = None
    derivation: Derivation | None = None


@dataclass(frozen=True, slots=True)
class _Size:
    """Of the recording, as far as it decides on memory."""

    sfreq: float
    n_times: int
    n_channels: int
    read_length: int


def plan_chain(
    steps: Sequence[BaseStep],
    channels: ChannelTable,
    sfreq: float,
    n_times: int,
    line_freq: float | None = None,
    *,
    block_bytes: int = BLOCK_BYTES,
    where: str = "",
) -> Chain:
    """Plan ``steps`` for a recording of ``n_times`` samples at ``sfreq`` Hz; reads nothing.

    Without any step that picks all data channels (mag, grad, eeg, seeg, ecog, dbs) are kept.
    ``block_bytes`` bounds one read and has no influence on the result.

    Raises
    ------
    ConfigError
        The steps cannot be planned: two resamplings, a filter that cannot be designed, an order that cannot be kept.
    RecordingError
        ``empty``, ``too_short`` (less than one output sample), ``no_usable_channels``, ``duplicate_channels`` (of a
        montage), ``missing_fact``.
    """
    _require_samples(n_times, where)
    placed = _place(steps, channels, where)
    picks, kept = placed.picks, placed.channels
    require_good(kept, where)
    linear = _design(steps, sfreq, line_freq, where)
    n_out = linear.grid.n_outputs(n_times) if linear.grid else n_times
    if n_times < sfreq / linear.sfreq:
        raise RecordingError(
            FailureCode.TOO_SHORT,
            f"{n_times} samples at {sfreq:g} Hz are less than one sample at {linear.sfreq:g} Hz",
            where=where,
        )
    finish = Finish.of(steps, kept, linear.sfreq, n_out, where)
    segments = _segments(linear, n_times, n_out)
    read_length = max(1, block_bytes // (SAMPLE_BYTES * len(picks)))
    size = _Size(sfreq, n_times, max(len(picks), len(kept)), min(read_length, n_times))
    facts = _facts(linear, segments, placed.missing, size)
    return Chain(
        channels=kept,
        picks=picks,
        sfreq=linear.sfreq,
        n_times=finish.n_times,
        input_sfreq=sfreq,
        input_n_times=n_times,
        segments=segments,
        read_length=read_length,
        facts=_with_eeg(facts, placed.match, finish, linear.sfreq, n_out),
        finish=finish,
        where=where,
        derivation=placed.derivation,
    )


def _require_samples(n_times: int, where: str) -> None:
    if n_times <= 0:
        raise RecordingError(FailureCode.EMPTY, "the recording has no samples", where=where)


def _pick(steps: Sequence[BaseStep], channels: ChannelTable) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the indices that all ``pick`` steps keep (the place of a pick among linear steps does not matter)."""
    picking = [step for step in steps if isinstance(step, Pick)] or [Pick(picks=("data",))]
    kept = set(range(len(channels))).intersection(*(step.indices(channels) for step in picking))
    return tuple(sorted(kept)), tuple(name for step in picking for name in step.missing(channels))


def _place(steps: Sequence[BaseStep], channels: ChannelTable, where: str) -> _Placed:
    """Find the channels that all picking steps keep, in file order or in that of a montage."""
    picks, missing = _pick(steps, channels)
    kept = channels.pick(picks)
    match _montage_step(steps):
        case PickMontage() as step:
            match = require_montage(step, kept, where)
            return _Placed(tuple(picks[i] for i in match.indices), missing, on_montage(match, kept), match)
        case PickBipolar() as step:
            pairs = require_bipolar(step, kept, where)
            needed, derivation = derivation_of(pairs)
            return _Placed(tuple(picks[i] for i in needed), missing, bipolar_channels(pairs, kept), pairs, derivation)
        case _:
            return _Placed(picks, missing, kept)


def _montage_step(steps: Sequence[BaseStep]) -> PickMontage | PickBipolar | None:
    found = [step for step in steps if isinstance(step, PickMontage | PickBipolar)]
    if len(found) > 1:
        raise ConfigError("a chain picks one montage", next_step="keep one pick_montage or pick_bipolar step")
    if any(isinstance(step, PickBipolar) for step in found) and any(isinstance(step, Reference) for step in steps):
        raise ConfigError("no reference is left in bipolar channels", next_step="drop the reference step")
    return found[0] if found else None


def _design(steps: Sequence[BaseStep], sfreq: float, line_freq: float | None, where: str) -> _Linear:
    before: list[Fir] = []
    after: list[Fir] = []
    notched: list[float] = []
    grid, now = None, sfreq
    for step in steps:
        filters = after if grid else before
        match step:
            case Pick() | PickMontage() | PickBipolar() | Reference() | Crop() | Reject() | ExpectAmplitude():
                pass  # before the first sample is read, or in ``Finish``
            case Filter():
                filters.append(design_filter(step, now))
            case NotchFilter():
                freqs = notch_freqs(step, now, line_freq, where)
                filters.append(design_notch(step, now, freqs))
                notched += freqs
            case Resample():
                grid, now = _resample(step, grid, now)
            case _:
                raise ConfigError(f"the chain has no place for the step {type(step).__name__}")
    return _Linear(tuple(before), grid, tuple(after), now, tuple(notched))


def _resample(step: Resample, grid: Grid | None, sfreq: float) -> tuple[Grid | None, float]:
    if step.sfreq == sfreq:
        return grid, sfreq
    if grid:
        raise ConfigError("a chain resamples once", next_step="keep the last resample step")
    return Grid.between(sfreq, step.sfreq), step.sfreq


def _segments(linear: _Linear, n_times: int, n_out: int) -> tuple[Segment, ...]:
    """One segment where the padding of no step reaches another's far edge, else one for each step.

    A recording turned about its edge and filtered is the filtered recording turned about its edge, as long as all
    filters together see nothing but the recording and its mirror image.
    """
    if _reach(linear) < n_times:
        return (_fuse(linear, n_times, n_out),)
    steps = [Segment.of(n_times, n_times, None, fir) for fir in linear.before]
    if linear.grid:
        steps.append(Segment.of(n_times, n_out, linear.grid, None))
    steps += [Segment.of(n_out, n_out, None, fir) for fir in linear.after]
    return tuple(steps) or (Segment.of(n_times, n_out, None, None),)


def _reach(linear: _Linear) -> float:
    """Input samples that the linear steps together look at on each side, twice the anti-alias kernel included."""
    reach: float = sum(fir.reach for fir in linear.before)
    if linear.grid:
        reach += 2 * linear.grid.half_width
        reach += float(linear.grid.ratio) * sum(fir.reach for fir in linear.after)
    return reach + (0 if linear.grid else sum(fir.reach for fir in linear.after))


def _fuse(linear: _Linear, n_times: int, n_out: int) -> Segment:
    before = combine(linear.before)
    if linear.grid and linear.before:
        before = Fir(linear.grid.filter_taps(before.taps))
    fir = combine([before, *linear.after])
    return Segment.of(n_times, n_out, linear.grid, fir if len(fir.taps) > 1 else None)


def _facts(linear: _Linear, segments: tuple[Segment, ...], missing: tuple[str, ...], size: _Size) -> ChainFacts:
    seconds = size.n_times / size.sfreq
    lengths = [(len(fir.taps), len(fir.taps) / size.sfreq) for fir in linear.before]
    lengths += [(len(fir.taps), len(fir.taps) / linear.sfreq) for fir in linear.after]
    # A piece as read, cleaned, and the one before it still in the buffer.
    reading = 3 * SAMPLE_BYTES * size.n_channels * size.read_length
    return ChainFacts(
        filter_lengths=tuple(n for n, _ in lengths),
        shorter_than_filter=any(length > seconds for _, length in lengths),
        fused=len(segments) == 1,
        notch_freqs=linear.notched,
        missing_channels=missing,
        passband_end=PASSBAND * min(size.sfreq, linear.sfreq) / 2 if linear.grid else None,
        upsampled=linear.sfreq > size.sfreq,
        peak_bytes=reading + max(segment.peak_bytes(size.n_channels) for segment in segments),
    )


def _with_eeg(
    facts: ChainFacts, match: MontageMatch | BipolarMatch | None, finish: Finish, sfreq: float, n_out: int
) -> ChainFacts:
    """Facts as they are, or with those of a montage and of trimming where the steps have any."""
    if match is None and finish.n_times == n_out:
        return facts
    known = {field.name: getattr(facts, field.name) for field in fields(facts)}
    cut = (n_out - finish.stop) / sfreq
    return EegFacts(**known, montage=match, start_seconds=finish.start / sfreq, cut_seconds=cut)
