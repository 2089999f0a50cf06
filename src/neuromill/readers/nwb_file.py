"""An NWB file as a ``SpikeRecording``: its parts read, put on one clock, and checked against each other.

Arrays are read from the tree directly: the schema cached in a file is not needed for that, and in dandiset 000207 it
is broken.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from neuromill.readers.clocks import held_samples, merge_repeats
from neuromill.readers.complaints import missing_fact, no_covariates, no_usable_units, unsupported
from neuromill.readers.nwb_behaviour import Behaviour, RawMask, covariate_names, read_behaviour, read_masks
from neuromill.readers.nwb_binned import RawCounts, bin_width, counts_array, observed_by, read_counts
from neuromill.readers.nwb_clock import FileClock, RawClocks, Times, check_overlap, file_clock, observation
from neuromill.readers.nwb_trials import read_trials, trial_table
from neuromill.readers.nwb_units import (
    Ragged,
    TrainScan,
    UnitRows,
    check_has_units,
    read_observed,
    read_unit_rows,
    scan,
)
from neuromill.readers.spike_protocol import Binned, CovariateSeries, MaskSeries, Observation, SpikeFacts
from neuromill.readers.trees import join, scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neuromill.readers.clocks import BlockClock
    from neuromill.readers.nwb_behaviour import RawCovariate
    from neuromill.readers.nwb_trials import RawTrials
    from neuromill.readers.nwb_units import Observed
    from neuromill.readers.trees import Tree
    from neuromill.records import SpikeLayout, TrialTable, UnitTable

DEVICES = "general/devices"
MAX_DEVICES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """Everything of a file but its spike times, on the clock of the recording."""

    units: UnitTable
    facts: SpikeFacts
    observation: Observation
    covariates: tuple[CovariateSeries, ...]
    masks: tuple[MaskSeries, ...]
    trials: TrialTable
    binned: Binned | None


@dataclass(frozen=True, slots=True, eq=False)
class Neurons:
    """The units of a file: the kept rows, and either their trains with what one pass over them said, or counts."""

    rows: UnitRows
    trains: Ragged | None = None
    scans: tuple[TrainScan, ...] = ()
    counts: RawCounts | None = None

    @property
    def bads(self) -> dict[int, str]:
        """Units that are masked for what is in them alone."""
        if self.counts is not None:
            return dict(self.counts.bads)
        return {i: one.bad for i, one in enumerate(self.scans) if one.bad}


class NwbSpikes:
    """An open NWB file; see ``SpikeRecording``. Spike times stay in the file, unit by unit."""

    def __init__(self, tree: Tree, contents: Contents, neurons: Neurons, clock: BlockClock) -> None:
        self._tree, self._contents, self._neurons, self._clock = tree, contents, neurons, clock
        self._closed = False

    @property
    def units(self) -> UnitTable:
        """The units, in file order."""
        return self._contents.units

    @property
    def facts(self) -> SpikeFacts:
        """What the recording says about itself."""
        return self._contents.facts

    @property
    def observation(self) -> Observation:
        """When the units were observed."""
        return self._contents.observation

    @property
    def covariates(self) -> tuple[CovariateSeries, ...]:
        """Behaviour."""
        return self._contents.covariates

    @property
    def masks(self) -> tuple[MaskSeries, ...]:
        """Declared masks of the covariates."""
        return self._contents.masks

    @property
    def trials(self) -> TrialTable:
        """Trials."""
        return self._contents.trials

    @property
    def binned(self) -> Binned | None:
        """Counts or raster where the file holds no spike times."""
        return self._contents.binned

    def spike_times(self, unit: int) -> NDArray[np.float64]:
        """Spike times of one unit in seconds, float64 [spike] ascending; a masked unit has none.

        Raises
        ------
        ValueError
            The recording is closed.
        """
        if self._closed:
            raise ValueError("the recording is closed")
        if self._neurons.trains is None or self.units.bads[unit]:
            return np.empty(0)
        times = self._neurons.trains.row(self._neurons.rows.rows[unit])
        if len(self._clock) > 1 and times.size:
            return times + self._clock.shifts(times)
        if len(self._neurons.scans[unit].runs) > 1:
            times.sort()
        return times

    def close(self) -> None:
        """Let go of the file."""
        self._closed = True
        self._tree.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_nwb(tree: Tree, layout: SpikeLayout) -> NwbSpikes:
    """Read an NWB file from an open tree, which the recording then owns.

    Reads everything but the spike times, and passes over those once, one unit at a time.

    Raises
    ------
    RecordingError
        ``missing_fact, unsupported_format, no_spikes, no_covariates, no_usable_channels, bad_timestamps, truncated,
        unreadable, missing_member``: see ``docs/failures``.
    """
    with ExitStack() as on_failure:
        on_failure.callback(tree.close)
        check_version(tree)
        recording = _read(tree, layout)
        on_failure.pop_all()
    return recording


def check_version(tree: Tree) -> str:
    """Return the version of NWB a file follows; raises ``missing_fact`` where it says none, ``unsupported_format``."""
    version = tree.attributes("").get("nwb_version")
    if version is None and tree.kind("nwb_version") == "array":
        version = scalar(tree, "nwb_version")  # NWB 1 has a data set at the top
    if version is None:
        raise missing_fact("file does not say which version of NWB it follows", tree.where)
    if not str(version).startswith("2."):
        raise unsupported(f"NWB version {version}", tree.where, "convert it to NWB 2")
    return str(version)


def _read(tree: Tree, layout: SpikeLayout) -> NwbSpikes:
    where = tree.where
    is_table = layout.units.kind == "times"
    n_units = check_has_units(tree, layout.units) if is_table else counts_array(tree, layout.units).shape[1]
    rows = read_unit_rows(tree, layout.units, n_units, layout.units.path)
    observed = read_observed(tree, layout.units.path, rows.rows) if is_table else None
    behaviour = read_behaviour(tree, layout)
    if layout.need_covariates and not behaviour.covariates:
        raise no_covariates("there is no behaviour that the card could take", where)
    masks = read_masks(tree, layout.masks, behaviour.covariates)
    trials = read_trials(tree, layout.trials)
    neurons = _read_neurons(tree, layout, rows, _earliest(observed, behaviour))
    clock = file_clock(_raw_clocks(behaviour, masks, trials, neurons), layout, where)
    contents = _contents(tree, layout, neurons, behaviour, masks, trials, clock, observed)
    return NwbSpikes(tree, contents, neurons, clock.clock)


def _earliest(observed: Observed | None, behaviour: Behaviour) -> float:
    """Start of the recording: zero, or before it where the file says that it was listened or moved before it."""
    starts = [one.series.stamps[:1] for one in behaviour.covariates]
    starts += [observed.intervals[:, 0]] if observed is not None else []
    return float(np.nanmin(np.concatenate([np.zeros(1), *starts])))


def _read_neurons(tree: Tree, layout: SpikeLayout, rows: UnitRows, earliest: float) -> Neurons:
    if layout.units.kind != "times":
        return Neurons(rows, counts=read_counts(tree, layout.units, rows.rows))
    trains = Ragged(tree, join(layout.units.path, "spike_times"))
    return Neurons(rows, trains, tuple(scan(trains.row(row), earliest) for row in rows.rows))


def _raw_clocks(behaviour: Behaviour, masks: Sequence[RawMask], trials: RawTrials, neurons: Neurons) -> RawClocks:
    series = [(one.series.path, one.series.stamps) for one in behaviour.covariates]
    series += [(one.path, one.stamps) for one in masks]
    series += [("the counts", neurons.counts.stamps)] if neurons.counts is not None else []
    return RawClocks(tuple(series), trials.starts, trials.stops, neurons.scans)


def _contents(
    tree: Tree,
    layout: SpikeLayout,
    neurons: Neurons,
    behaviour: Behaviour,
    masks: Sequence[RawMask],
    trials: RawTrials,
    clock: FileClock,
    observed: Observed | None,
) -> Contents:
    notes = [*neurons.rows.notes, *behaviour.notes, *clock.notes]
    units = neurons.rows.table.with_bads(neurons.bads | dict(clock.bads))
    if all(units.bads):
        raise no_usable_units(f"all {len(units)} units are masked: {_counted(units.bads)}", tree.where)
    if any(units.bads):
        notes.append(f"units masked: {_counted(units.bads)}")
    covariates, repeats = _on_clock(behaviour.covariates, clock.clock)
    table, trial_notes = trial_table(trials, clock.clock)
    binned = None if neurons.counts is None else _binned(neurons.counts, layout, clock.clock, tree.where)
    bins = None if binned is None else observed_by(binned)
    if bins is None:
        times = observation(clock, neurons.scans, covariates, observed, tree.where)
    else:
        times = Times(Observation(bins, clock.clock.joins))
    spans = clock.spike_spans(neurons.scans) if bins is None else bins
    check_overlap(spans, times.value.intervals, [one.stamps for one in covariates], tree.where)
    return Contents(
        units=units,
        facts=_facts(tree, tuple(dict.fromkeys([*notes, *repeats, *trial_notes, *times.notes]))),
        observation=times.value,
        covariates=covariates,
        masks=tuple(_mask(mask, clock.clock) for mask in masks),
        trials=table,
        binned=binned,
    )


def _counted(bads: Sequence[str]) -> str:
    counts = Counter(bad for bad in bads if bad)
    return ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))


def _on_clock(raw: Sequence[RawCovariate], clock: BlockClock) -> tuple[tuple[CovariateSeries, ...], tuple[str, ...]]:
    found, notes = [], []
    for one in raw:
        stamps, path = one.series.stamps + clock.shifts(one.series.stamps), one.series.path
        merged = merge_repeats(stamps, one.series.values)
        if merged.n_merged:
            notes.append(f"{merged.n_merged} repeated time stamps of {path} merged")
        stamps, values = merged.stamps, merged.values
        if one.layout.samples == "held":
            n_rows = len(stamps)
            stamps, values = held_samples(stamps, values)
            notes.append(f"{n_rows - len(stamps)} of {n_rows} values of {path} were held")
        found.append(
            CovariateSeries(
                names=covariate_names(one),
                unit=one.series.unit,
                stamps=stamps,
                values=values,
                derivative=one.layout.derivative,
                bin_edge=one.layout.bin_edge,
                held=one.layout.samples == "held",
            )
        )
    return tuple(found), tuple(notes)


def _mask(mask: RawMask, clock: BlockClock) -> MaskSeries:
    """A mask on the clock; where a stamp repeats, any False counts."""
    stamps = mask.stamps + clock.shifts(mask.stamps)
    first = np.flatnonzero(np.diff(stamps, prepend=-np.inf) > 0)
    values = np.logical_and.reduceat(mask.values, first) if first.size else mask.values
    return MaskSeries(stamps[first], values)


def _binned(raw: RawCounts, layout: SpikeLayout, clock: BlockClock, where: str) -> Binned:
    stamps = raw.stamps + clock.shifts(raw.stamps)
    return Binned(stamps, raw.counts, bin_width(stamps, where), layout.units.bin_edge)


def _facts(tree: Tree, notes: tuple[str, ...]) -> SpikeFacts:
    return SpikeFacts(
        format="nwb",
        device=_device(tree),
        subject=str(scalar(tree, "general/subject/subject_id") or ""),
        session_description=str(scalar(tree, "session_description") or ""),
        notes=notes,
    )


def _device(tree: Tree) -> str:
    """Makers of the devices, or their names where no maker is stated; of many, the first."""
    names = sorted(tree.children(DEVICES))
    stated = [str(tree.attributes(join(DEVICES, name)).get("manufacturer") or name) for name in names]
    distinct = list(dict.fromkeys(stated))
    more = f" and {len(distinct) - MAX_DEVICES} more" if len(distinct) > MAX_DEVICES else ""
    return ", ".join(distinct[:MAX_DEVICES]) + more
