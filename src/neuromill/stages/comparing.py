"""Compare tokenizers: the same held-out windows through each of them, scored in one domain (docs/tokenizers.md)."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ConfigError, RecordingError
from neuromill.stages.channels import channel_table, good_channels
from neuromill.stages.choosing import choose
from neuromill.stages.compared import Compared, Comparison, Shown
from neuromill.stages.contenders import find_contenders
from neuromill.stages.contexts import done_recordings
from neuromill.stages.identities import prepare_identity
from neuromill.stages.outcomes import Stage
from neuromill.stages.rejections import rejection_of
from neuromill.stages.report_groups import SPLITS_BY_HONESTY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from neuromill.records import ChannelTable, Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.contenders import Contender
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace
    from neuromill.store.reader import StoreReader
    from neuromill.tokenizers.comparison import AmplitudeScores, Band, RowScores
    from neuromill.tokenizers.protocol import Tokenizer
    from neuromill.tokenizers.rejection import Rejection
    from neuromill.tokenizers.tfdual import Amplitudes
    from neuromill.tokenizers.usage import Usage

    Signal = NDArray[np.float32]

DEFAULT_WINDOWS, DEFAULT_SECONDS, LEAST_SECONDS = 16, 30.0, 4.0
WINDOWS_PER_BATCH = 8
EXAMPLE_SECONDS = 6.0


def compare_tokenizers(
    workspace: Workspace,
    pipelines: Sequence[Pipeline],
    selection: Selection,
    others: Sequence[str] = (),
    *,
    n_windows: int = DEFAULT_WINDOWS,
    seconds: float | None = None,
) -> Comparison:
    """Encode the same held-out windows with several tokenizers. Reads only.

    Parameters
    ----------
    workspace, selection
        Where things are, and which recordings.
    pipelines
        The first one says which prepared signals are encoded; each brings its tokenizer along, whatever its own
        preparation. Signals are brought to the rate of each tokenizer.
    others
        More tokenizers, see ``find_contenders``.
    n_windows
        Evenly spread over the held-out recordings; fewer where these are short.
    seconds
        Length of a window; by default the longest that one of the tokenizers sees at once, 30 s if none cares.

    Raises
    ------
    ConfigError
        Nothing is prepared, no recording is as long as a window, the tokenizers refuse every recording, a tokenizer
        cannot be found, or the rates share no band.
    """
    if n_windows < 1 or not pipelines:
        raise ConfigError("there is nothing to compare", where="tokenizer compare", next_step="--n-windows 16")
    chosen = choose(workspace, pipelines[0], selection)
    with ExitStack() as stack:
        sources = _sources(workspace, pipelines[0], chosen, stack)
        contenders = find_contenders(workspace, pipelines, selection, others, sources[0].sfreq)
        length = window_seconds([one.tokenizer for one in contenders], seconds)
        sources, split, refused = _held_out(chosen, sources, contenders, length)
        window = round(length * sources[0].sfreq)
        plan = spread_windows([source.n_times for source in sources], window, n_windows)
        judging = _judging(contenders, sources[0], pipelines[0].tokenize.rows_per_forward)
        for batch in _batches(sources, plan, window):
            judging.see(batch)
    return _result(pipelines[0], judging, sources, split, refused, length, plan)


def _judging(contenders: Sequence[Contender], source: _Source, rows_per_forward: int) -> Judging:
    from neuromill.tokenizers.comparison import common_band

    edges = source.reader.recording(source.name).attributes
    rates = [source.sfreq, *(one.tokenizer.sfreq for one in contenders)]
    band = common_band(rates, edges.get("highpass"), edges.get("lowpass"))
    benches = [Bench(one, source.sfreq, rows_per_forward) for one in contenders]
    return Judging(benches, source.sfreq, band)


def window_seconds(tokenizers: Sequence[Tokenizer], wanted: float | None = None) -> float:
    """Length of the windows: as wanted, else the longest that a tokenizer sees at once.

    Raises
    ------
    ConfigError
        Less than 4 s, or less than the windows of a tokenizer.
    """
    own = [one.window_samples / one.sfreq for one in tokenizers if one.window_samples is not None]
    length = wanted if wanted is not None else max(own, default=DEFAULT_SECONDS)
    least = max([LEAST_SECONDS, *own]) if wanted is not None else LEAST_SECONDS
    if length < least:
        raise ConfigError(f"windows of {length:g} s are too short", where="--seconds", next_step=f"at least {least:g}")
    return length


def spread_windows(n_times: Sequence[int], window: int, count: int) -> tuple[tuple[int, int], ...]:
    """Choose windows evenly from all that lie end to end in recordings: (recording, first sample), in order.

    At most ``count``; fewer where there are not as many.
    """
    places = [(i, k * window) for i, n in enumerate(n_times) for k in range(n // window)]
    picks = np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int))
    return tuple(places[pick] for pick in picks)


def resampled(rows: Signal, sfreq: float, new_sfreq: float, n_times: int) -> Signal:
    """Bring float32 [..., time] to another rate; beyond its ends a row is continued by its own point reflection.

    Every output is the band-limited value at its instant (``neuromill.signals.resampling``).
    """
    from neuromill.signals.resampling import Grid

    if sfreq == new_sfreq:
        return rows[..., :n_times]
    grid = Grid.between(sfreq, new_sfreq)
    flat = rows.reshape(-1, rows.shape[-1])
    reach = math.ceil(grid.half_width) + 1
    start, stop = grid.span(0, n_times)
    after = max(stop - flat.shape[1], 0)
    padded = np.pad(flat, ((0, 0), (max(reach, -start), max(reach, after))), mode="reflect", reflect_type="odd")
    zero = max(reach, -start)
    out = np.empty((len(flat), n_times), np.float32)
    matrix = grid.matrix(0, grid.block) if grid.repeats else None
    for first in range(0, n_times, grid.block):
        n = min(grid.block, n_times - first)
        begin, end = grid.span(first, n)
        weights = matrix if matrix is not None and n == grid.block else grid.matrix(first, n)
        out[:, first : first + n] = padded[:, zero + begin : zero + end] @ weights
    return out.reshape(*rows.shape[:-1], n_times)


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """A prepared recording."""

    recording: Recording
    reader: StoreReader
    channels: ChannelTable
    rejection: Rejection | None

    @property
    def name(self) -> str:
        return self.recording.id.name

    @property
    def n_times(self) -> int:
        return int(self.reader.recording(self.name).n_rows)

    @property
    def sfreq(self) -> float:
        return float(self.reader.recording(self.name).sfreq)

    def read(self, start: int, stop: int) -> Signal:
        """Float32 [channel, time], physical units."""
        return np.ascontiguousarray(self.reader.read_physical(self.name, start, stop).T)

    def rejected(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Samples that preparation rejected, bool [channel, time]."""
        if self.rejection is None:
            return np.zeros((len(self.channels), stop - start), bool)
        return self.rejection.samples(start, stop - start).T

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which channels are good: [channel]."""
        good = np.zeros(len(self.channels), bool)
        good[list(good_channels(self.channels))] = True
        return good


def _sources(workspace: Workspace, pipeline: Pipeline, chosen: Chosen, stack: ExitStack) -> list[_Source]:
    """Open prepared recordings of one rate; the stack closes them."""
    from neuromill.store.reader import StoreReader

    identity = prepare_identity(pipeline)
    recordings = done_recordings(workspace, chosen, Stage.PREPARE, identity)
    if not recordings:
        raise ConfigError(
            "nothing is prepared", where=pipeline.name, next_step=f"run `neuromill prepare {pipeline.name}` first"
        )
    sources = []
    for recording in recordings:
        store = workspace.store(recording.id.dataset_version, Stage.PREPARE, identity)
        reader = stack.enter_context(StoreReader.of_groups(store, (recording.id.name,)))
        name = recording.id.name
        sources.append(_Source(recording, reader, channel_table(reader, name), rejection_of(reader, name)))
    rates = sorted({source.sfreq for source in sources})
    if len(rates) > 1:
        raise ConfigError(
            f"signals are prepared at {', '.join(f'{rate:g}' for rate in rates)} Hz",
            where=pipeline.name,
            next_step="add a resample step, or choose recordings of one rate with --where",
        )
    return sources


def _held_out(
    chosen: Chosen, sources: Sequence[_Source], contenders: Sequence[Contender], seconds: float
) -> tuple[list[_Source], str, tuple[str, ...]]:
    """Recordings of the most honest split that has one which is long enough and that every tokenizer takes."""
    refused: list[str] = []
    for split in SPLITS_BY_HONESTY:
        of_split = [source for source in sources if chosen.split_of(source.recording) == split]
        kept = []
        for source in of_split:
            reason = _refusal(source, contenders, seconds)
            if reason:
                refused.append(f"{source.recording.id}: {reason}")
            else:
                kept.append(source)
        if kept:
            return kept, split, tuple(refused)
    raise ConfigError(f"no recording can be compared on; {refused[0]}", where="tokenizer compare", next_step=_ADVICE)


_ADVICE = "leave the tokenizer out that refuses, or choose other recordings"


def _refusal(source: _Source, contenders: Sequence[Contender], seconds: float) -> str:
    """Why a recording is left out; "" where it is not."""
    if source.n_times < round(seconds * source.sfreq):
        return f"shorter than a window of {seconds:g} s"
    for one in contenders:
        n_times = math.floor(source.n_times / source.sfreq * one.tokenizer.sfreq)
        try:
            one.tokenizer.require(source.channels, n_times, partial(_read_at, source, one.tokenizer.sfreq))
        except RecordingError as error:
            return f"{one.name}: {error.what}"
    return ""


def _read_at(source: _Source, sfreq: float, start: int, stop: int) -> Signal:
    """Samples of a recording as if it had been prepared at another rate: float32 [time, channel]."""
    ratio = source.sfreq / sfreq
    begin = math.floor(start * ratio)
    end = min(math.ceil(stop * ratio), source.n_times)
    return resampled(source.read(begin, end), source.sfreq, sfreq, stop - start).T


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Windows of one recording: signal float32 and rejected bool, both [window, channel, time]."""

    source: _Source
    starts: tuple[int, ...]
    signal: Signal
    rejected: NDArray[np.bool_]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which channels are good, alive, and not rejected anywhere in the window: [window, channel]."""
        alive = np.isfinite(self.signal).all(axis=-1) & (np.ptp(self.signal, axis=-1) > 0)
        return np.asarray(alive & self.source.good & ~self.rejected.any(axis=-1))


def _batches(sources: Sequence[_Source], plan: Iterable[tuple[int, int]], window: int) -> Iterator[_Batch]:
    picks = list(plan)
    for number, source in enumerate(sources):
        starts = [start for recording, start in picks if recording == number]
        for first in range(0, len(starts), WINDOWS_PER_BATCH):
            some = tuple(starts[first : first + WINDOWS_PER_BATCH])
            signal = np.stack([source.read(start, start + window) for start in some])
            yield _Batch(source, some, signal, np.stack([source.rejected(start, start + window) for start in some]))


@dataclass(frozen=True, slots=True, eq=False)
class Trip:
    """Windows there and back: float32 [window, channel, time], and their codes [window, frame, quantizer, channel].

    ``amplitudes`` are those of each piece, where a tokenizer has a codebook of its own for spectra.
    """

    back: Signal
    codes: NDArray[np.integer]
    amplitudes: tuple[Amplitudes, ...] = ()


@dataclass(slots=True, eq=False)
class Bench:
    """One tokenizer at work: encodes, decodes, and is timed while it encodes."""

    contender: Contender
    sfreq: float
    rows_per_forward: int
    seconds: float = 0.0
    encoded_seconds: float = 0.0
    is_warm: bool = False

    @property
    def tokenizer(self) -> Tokenizer:
        """What is compared."""
        return self.contender.tokenizer

    @property
    def speed(self) -> float:
        """Seconds of signal times channels encoded in a second."""
        return self.encoded_seconds / self.seconds if self.seconds > 0 else math.nan

    def pieces(self, n_times: int) -> list[tuple[int, int]]:
        """Segments that the tokenizer sees: its own windows, or the whole."""
        step = self.tokenizer.window_samples or n_times
        return [(start, min(start + step, n_times)) for start in range(0, n_times, step)]

    def round_trip(self, signal: Signal, channels: ChannelTable, rejected: NDArray[np.bool_] | None = None) -> Trip:
        """Encode and decode float32 [window, channel, time].

        A joint tokenizer does not get to see what is ``rejected``, bool like the signal: as in ``tokenize``.
        """
        from neuromill.tokenizers.tfdual import TfDualTokenizer

        n_own = round(signal.shape[-1] / self.sfreq * self.tokenizer.sfreq)
        own = resampled(signal, self.sfreq, self.tokenizer.sfreq, n_own)
        if rejected is not None and self.tokenizer.is_joint:
            nearest = np.minimum(np.arange(n_own) * self.sfreq / self.tokenizer.sfreq, signal.shape[-1] - 1).astype(int)
            own = np.where(rejected[..., nearest], np.float32(np.nan), own)
        parts, codes, amplitudes = [], [], []
        for start, stop in self.pieces(n_own):
            piece = np.ascontiguousarray(own[..., start:stop])
            if not self.is_warm:  # the first pass of a network pays for what all share
                self.tokenizer.encode_segments(piece[:1], channels, self.rows_per_forward)
                self.is_warm = True
            begin = time.perf_counter()
            block = self.tokenizer.encode_segments(piece, channels, self.rows_per_forward)
            self.seconds += time.perf_counter() - begin
            self.encoded_seconds += piece.size / self.tokenizer.sfreq
            codes.append(block.codes)
            parts.append(self.tokenizer.decode_segments(block, channels, stop - start, self.rows_per_forward))
            if isinstance(self.tokenizer, TfDualTokenizer):
                amplitudes.append(self.tokenizer.amplitudes(piece, block, channels, self.rows_per_forward))
        decoded = np.concatenate(parts, axis=-1)
        back = resampled(decoded, self.tokenizer.sfreq, self.sfreq, signal.shape[-1])
        return Trip(back, np.concatenate(codes, axis=1), tuple(amplitudes))


@dataclass(slots=True, eq=False)
class Judging:
    """Scores every tokenizer on the same rows, batch by batch."""

    benches: Sequence[Bench]
    sfreq: float
    band: Band
    scores: list[list[RowScores]] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    amplitudes: dict[int, AmplitudeScores] = field(default_factory=dict)
    n_rows: int = 0
    n_seen: int = 0
    shown: Shown | None = None

    def see(self, batch: _Batch) -> None:
        """Encode, decode and score the windows of a batch."""
        from neuromill.tokenizers.comparison import AmplitudeScores, bands_within, score_rows, shape_of
        from neuromill.tokenizers.usage import Usage

        if not self.scores:
            self.scores = [[] for _ in self.benches]
            self.usages = [Usage.empty(one.tokenizer.n_quantizers, one.tokenizer.codebook_size) for one in self.benches]
        trips = [bench.round_trip(batch.signal, batch.source.channels, batch.rejected) for bench in self.benches]
        alive = batch.usable
        for trip in trips:
            alive &= np.isfinite(trip.back).all(axis=-1)
        self.n_seen += alive.size
        self.n_rows += int(alive.sum())
        if not alive.any():
            return
        target, bands = shape_of(batch.signal[alive], self.sfreq, self.band), bands_within(self.band)
        outputs = [shape_of(trip.back[alive], self.sfreq, self.band) for trip in trips]
        for number, trip in enumerate(trips):
            self.scores[number].append(score_rows(target, outputs[number], self.sfreq, bands))
            codes = trip.codes.transpose(0, 3, 2, 1)[alive]
            self.usages[number] += Usage.of(codes, self.usages[number].counts.shape[1])
            for one in trip.amplitudes:
                more, before = AmplitudeScores.of(one, alive, bands), self.amplitudes.get(number)
                self.amplitudes[number] = more if before is None else before + more
        if self.shown is None:
            self.shown = self._show(batch, alive, target, outputs)

    def _show(
        self, batch: _Batch, alive: NDArray[np.bool_], target: NDArray[np.float64], outputs: list[NDArray[np.float64]]
    ) -> Shown:
        """Choose the row whose correlation, averaged over tokenizers, is the middle one of the batch."""
        from neuromill.tokenizers.comparison import EDGE_SECONDS

        means = np.mean([parts[-1].correlation for parts in self.scores], axis=0)
        row = int(np.argsort(means, kind="stable")[len(means) // 2])
        window, channel = np.argwhere(alive)[row]
        n = min(target.shape[1], round(EXAMPLE_SECONDS * self.sfreq))
        first = (target.shape[1] - n) // 2
        span = slice(first, first + n)
        return Shown(
            recording=str(batch.source.recording.id),
            channel=batch.source.channels.names[channel],
            start_seconds=batch.starts[window] / self.sfreq + EDGE_SECONDS + first / self.sfreq,
            original=target[row, span],
            reconstructions=tuple(output[row, span] for output in outputs),
        )


def _result(
    pipeline: Pipeline,
    judging: Judging,
    sources: Sequence[_Source],
    split: str,
    refused: tuple[str, ...],
    seconds: float,
    plan: Sequence[tuple[int, int]],
) -> Comparison:
    import torch

    if judging.shown is None:
        raise ConfigError(
            f"none of {judging.n_seen} channels of windows can be compared",
            where=pipeline.name,
            next_step="all are bad, rejected, constant, or unknown to one of the tokenizers; choose others",
        )
    used = tuple(str(sources[number].recording.id) for number in sorted({recording for recording, _ in plan}))
    devices = {str(getattr(bench.tokenizer, "device", "cpu")) for bench in judging.benches}
    return Comparison(
        pipeline=pipeline.name,
        split=split,
        recordings=used,
        refused=refused,
        n_windows=len(plan),
        window_seconds=seconds,
        sfreq=judging.sfreq,
        band=judging.band,
        n_rows=judging.n_rows,
        n_left_out=judging.n_seen - judging.n_rows,
        n_threads=torch.get_num_threads(),
        device=", ".join(sorted(devices)),
        tokenizers=tuple(_compared(judging, number, seconds, used) for number in range(len(judging.benches))),
        shown=judging.shown,
    )


def _compared(judging: Judging, number: int, seconds: float, used: Sequence[str]) -> Compared:
    from neuromill.tokenizers.comparison import RowScores, bands_within, rate_of

    bench, usage, bands = judging.benches[number], judging.usages[number], bands_within(judging.band)
    one, tokenizer = bench.contender, bench.tokenizer
    segment = seconds if tokenizer.window_samples is None else tokenizer.window_samples / tokenizer.sfreq
    return Compared(
        name=one.name,
        kind=tokenizer.config.kind,
        source=one.source,
        digest=tokenizer.digest,
        sfreq=tokenizer.sfreq,
        n_quantizers=tokenizer.n_quantizers,
        codebook_size=tokenizer.codebook_size,
        n_parameters=tokenizer.n_parameters,
        resampled=tokenizer.sfreq != judging.sfreq,
        seen=bool(one.fitted_on & set(used)),
        rate=rate_of(tokenizer, usage, segment),
        fidelity=RowScores.joined(judging.scores[number]).fidelity(bands),
        amplitude_error=judging.amplitudes[number].shares(bands) if number in judging.amplitudes else {},
        usage=usage,
        encode_speed=bench.speed,
    )
