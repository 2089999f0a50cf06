"""The clocks of an NWB file made one: what they say about resets, when was listened, whether they belong together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from neuromill.readers.clocks import QUIET_SECONDS, BlockClock, joined, lay_out, run_spans, run_starts, stretches, union
from neuromill.readers.complaints import bad_timestamps, no_spikes
from neuromill.readers.spike_protocol import Observation

STRAY_SECONDS = 1.0  # a stretch shorter than this beyond a long silence is no recording, but a stray time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from neuromill.readers.nwb_units import Observed, TrainScan
    from neuromill.readers.spike_protocol import CovariateSeries
    from neuromill.records import SpikeLayout


@dataclass(frozen=True, slots=True, eq=False)
class RawClocks:
    """All times of a file but single spikes: stamps of series by name, trials, and the stretches of units."""

    series: tuple[tuple[str, NDArray[np.float64]], ...]
    trial_starts: NDArray[np.float64]
    trial_stops: NDArray[np.float64]
    scans: tuple[TrainScan, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FileClock:
    """The clock of a file, units that do not fit it, and what was odd."""

    clock: BlockClock = field(default_factory=BlockClock)
    bads: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def spike_spans(self, scans: Sequence[TrainScan]) -> NDArray[np.float64]:
        """First and last spike of each good unit in each of its blocks, float64 [span, 2]."""
        offsets = np.array(self.clock.offsets)[:, None]
        each = [
            one.runs + offsets if len(self.clock) > 1 else np.array([[one.first, one.last]])
            for i, one in enumerate(scans)
            if one.n_spikes and not one.bad and i not in self.bads
        ]
        return np.concatenate(each) if each else np.empty((0, 2))


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """When was listened, and what was odd about it."""

    value: Observation
    notes: tuple[str, ...] = ()


def file_clock(raw: RawClocks, layout: SpikeLayout, where: str) -> FileClock:
    """Make one clock of those of a file.

    Raises
    ------
    RecordingError
        ``bad_timestamps`` where stamps go back (or, if the layout reads resets as blocks, where series and trials
        differ in how often), or where a layout refuses repeated stamps.
    """
    _refuse_repeats(raw, layout, where)
    if layout.restarts == "refuse":
        for name, stamps in raw.series:
            back = int((np.diff(stamps) < 0).sum())
            if back:
                raise bad_timestamps(f"time stamps of {name} go back {_times(back)}", where)
        _check_not_reset(raw, where)
        return FileClock(notes=_unsorted(raw.scans))
    return _blocks(raw, layout.block_gap_seconds, where)


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _refuse_repeats(raw: RawClocks, layout: SpikeLayout, where: str) -> None:
    if layout.covariates == "auto":
        return
    strict = tuple(one.path.strip("/") for one in layout.covariates if one.repeats == "refuse")
    for name, stamps in raw.series:
        repeats = int((np.diff(stamps) == 0).sum())
        if repeats and any(name == path or name.startswith(f"{path}/") for path in strict):
            raise bad_timestamps(f"{_times(repeats)} a time stamp of {name} repeats", where)


def _check_not_reset(raw: RawClocks, where: str) -> None:
    """Trials that go back together with most units are no matter of order: the clock was reset."""
    heard = [one for one in raw.scans if one.n_spikes and not one.bad]
    back = sum(len(one.runs) > 1 for one in heard)
    if len(run_starts(raw.trial_starts)) > 1 and 2 * back > len(heard):
        raise bad_timestamps(f"trials and {back} of {len(heard)} units go back: the clock was reset", where)


def _unsorted(scans: Sequence[TrainScan]) -> tuple[str, ...]:
    n = sum(len(one.runs) > 1 and not one.bad for one in scans)
    return (f"spikes of {n} units were not in the order of time: sorted",) if n else ()


def _blocks(raw: RawClocks, gap_seconds: float, where: str) -> FileClock:
    named = [(name, run_spans(stamps)) for name, stamps in raw.series if stamps.size]
    if raw.trial_starts.size:
        named.append(("trials", run_spans(raw.trial_starts, raw.trial_stops)))
    counts = {name: len(spans) for name, spans in named}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise bad_timestamps(f"clocks differ in their number of blocks: {said}", where)
    good = {i: one.runs for i, one in enumerate(raw.scans) if one.n_spikes and not one.bad}
    n_blocks = _agreed(list(counts.values()) or [len(runs) for runs in good.values()])
    if n_blocks == 1:
        return FileClock(notes=_unsorted(raw.scans))
    bads = {i: "blocks_disagree" for i, runs in good.items() if len(runs) != n_blocks}
    spans = [spans for _, spans in named] + [runs for i, runs in good.items() if i not in bads]
    clock = lay_out(spans, gap_seconds)
    note = f"the clock was reset {_times(n_blocks - 1)}: {n_blocks} blocks, laid {gap_seconds:g} s apart"
    return FileClock(clock, bads, (note,))


def _agreed(counts: Sequence[int]) -> int:
    """The most frequent number, the smallest of equals; 1 for none."""
    return max(sorted(Counter(counts).items()), key=lambda item: item[1])[0] if counts else 1


def observation(
    clock: FileClock,
    scans: Sequence[TrainScan],
    covariates: Sequence[CovariateSeries],
    observed: Observed | None,
    where: str,
) -> Times:
    """Return when the units were listened to.

    What the file says (``observed``). Else the blocks of the clock, or, where it was never reset, the stretches of time
    in which spikes or stamps of behaviour are no more than ``QUIET_SECONDS`` apart, zero counting as one of them unless
    the file has intervals that say nothing.

    Raises
    ------
    RecordingError
        ``no_spikes`` where nothing says so and there is neither a spike nor behaviour.
    """
    joins = clock.clock.joins
    notes: tuple[str, ...] = ()
    if observed is not None:
        times = _stated(clock.clock, observed)
        if len(times.value.intervals):
            return times
        notes = times.notes
    blocks = np.array(clock.clock.spans).reshape(-1, 2)
    if len(blocks):
        return Times(Observation(blocks, joins), (*notes, "observed: the blocks of the clock"))
    heard = [one.stretches for i, one in enumerate(scans) if not one.bad and i not in clock.bads]
    found = _active([*heard, *(_behaved(one) for one in covariates)], from_zero=observed is None)
    if not len(found.value.intervals):
        raise no_spikes("no spike, and nothing says when the units were observed", where)
    return Times(found.value, (*notes, *found.notes))


def _active(active: Sequence[NDArray[np.float64]], *, from_zero: bool) -> Times:
    """Stretches in which something happened, without stray times, but with the longest of them."""
    apart = joined(np.concatenate([np.zeros((int(from_zero), 2)), *active]), QUIET_SECONDS)
    seconds = apart[:, 1] - apart[:, 0]
    kept = (seconds > 0) & ((seconds >= STRAY_SECONDS) | (seconds == seconds.max(initial=0.0)))
    notes = ["observed: from the start to the last spike or stamp, as nothing states it"]
    if kept.sum() > 1:
        notes.append(f"{int(kept.sum()) - 1} silences of more than {QUIET_SECONDS:g} s were not observed")
    stray = [f"{start:g}" for start in apart[~kept, 0] if start != 0]
    if stray:
        notes.append(f"stray times at {', '.join(stray[:3])} s ({len(stray)}), far from all others, are not observed")
    return Times(Observation(apart[kept]), tuple(notes))


def _behaved(series: CovariateSeries) -> NDArray[np.float64]:
    """Stretches of a series; long steps between change points of a held value are rests, rows of NaN its gaps."""
    if not series.held:
        return stretches(series.stamps, QUIET_SECONDS)
    known = np.asarray(np.isfinite(series.values).any(axis=1))
    parts = np.split(np.arange(len(known)), np.flatnonzero(~known))
    spans = [series.stamps[rows[known[rows]]][[0, -1]] for rows in parts if known[rows].any()]
    return np.array(spans).reshape(-1, 2)


def _stated(clock: BlockClock, observed: Observed) -> Times:
    intervals, same = observed.intervals, observed.same
    notes = [] if same else ["units were observed at different times: their union is used"]
    good = np.isfinite(intervals).all(axis=1) & (intervals[:, 1] > intervals[:, 0])
    if not good.all():
        notes.append(f"{int((~good).sum())} observed intervals are empty or have no start or stop")
    intervals = intervals[good]
    if len(clock) > 1:
        if not same or len(run_starts(intervals[:, 0])) != len(clock):
            return Times(Observation(np.empty((0, 2))), ())
        intervals = intervals + clock.shifts(intervals[:, 0])[:, None]
    return Times(Observation(union(intervals), clock.joins), tuple(notes))


def check_overlap(
    spans: NDArray[np.float64],
    intervals: NDArray[np.float64],
    stamps: Sequence[NDArray[np.float64]],
    where: str,
) -> None:
    """Check that spikes, when was listened, and behaviour belong to one clock.

    Behaviour may be shorter than the spikes, and a single series may miss them; all of it may not.

    Parameters
    ----------
    spans
        float64 [span, 2], seconds: first and last spike of the units (``FileClock.spike_spans``), or their bins.
    intervals
        float64 [interval, 2], seconds, sorted: when was listened.
    stamps
        float64 [time], seconds, ascending: of each series of behaviour.

    Raises
    ------
    RecordingError
        ``bad_timestamps`` where all spikes lie outside of what was observed, or outside of all behaviour.
    """
    if not len(spans):
        return
    first, last = float(spans[:, 0].min()), float(spans[:, 1].max())
    if last < intervals[0, 0] or first > intervals[-1, 1]:
        raise bad_timestamps(
            f"all spikes ({first:g} to {last:g} s) lie outside of what was observed "
            f"({intervals[0, 0]:g} to {intervals[-1, 1]:g} s)",
            where,
        )
    bounds = [(float(one[0]), float(one[-1])) for one in stamps if one.size]
    if bounds and all(last < low or first > high for low, high in bounds):
        low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
        raise bad_timestamps(
            f"spikes ({first:g} to {last:g} s) and behaviour ({low:g} to {high:g} s) do not overlap", where
        )
