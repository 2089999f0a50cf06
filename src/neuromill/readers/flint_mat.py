"""Reader of the MATLAB 5 files of Flint and others (CRCNS DREAM, Flint_2012): one day of centre-out reaching per file.

Layout (NDT3 7.2): a struct array ``Subject``, one element per recording of the day; each has a struct array ``Trial``
with ``Time`` [time, 1] seconds at 100 Hz, ``HandPos`` and ``HandVel`` [time, 3] whose third column is empty, and a
struct array ``Neuron`` with ``Spike`` [spike, 1] in the seconds of ``Time``.

The unit lists of the recordings differ, and nothing says which neuron is which: a row is a place in the list. Where a
layout takes several recordings, they are blocks with joins between them, and a row is another neuron in each; a note
says so. ``units.path: Subject(2)`` takes one recording alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.readers.clocks import BlockClock, lay_out
from neuromill.readers.complaints import bad_timestamps, missing_fact, no_spikes, no_usable_units, unreadable
from neuromill.readers.mat5 import read_mat5
from neuromill.readers.mat_trees import (
    MatRecording,
    RawSeries,
    ascending,
    check_clock,
    covariate_series,
    kept_rows,
    needs_covariates,
    observed_intervals,
)
from neuromill.readers.spike_protocol import CovariateSeries, Observation, SpikeFacts
from neuromill.records import CovariateLayout, TrialTable, UnitTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.readers.mat5 import MatArray
    from neuromill.records import SpikeLayout

    Record = dict[str, MatArray]

VARIABLE = "Subject"
SERIES = ("HandPos", "HandVel")
_ONE = re.compile(r"Subject\((\d+)\)")


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One trial: float64 [time] stamps, its behaviour by name [time, dimension], the spike times of each neuron."""

    stamps: NDArray[np.float64]
    series: dict[str, NDArray[np.float64]]
    trains: tuple[NDArray[np.float64], ...]


def open_flint(path: Path, where: str, layout: SpikeLayout) -> MatRecording:
    """Open the recordings of one day.

    Raises
    ------
    RecordingError
        ``unreadable``, ``unsupported_format`` (MATLAB 7.3), ``no_spikes``, ``bad_timestamps`` (a clock that goes back;
        several recordings and ``restarts: refuse``), ``no_covariates``, ``missing_fact`` (the layout names a recording,
        columns or conditions that the file does not have).
    """
    notes: list[str] = []
    blocks = [
        _trials(record, where, notes) for record in _chosen(read_mat5(path, VARIABLE, where).structs(), layout, where)
    ]
    blocks = [trials for trials in blocks if trials]
    if not blocks:
        raise no_spikes("no recording has a trial", where)
    clock = _block_clock(blocks, layout, where)
    laid = [_shifted(trials, offset) for trials, offset in zip(blocks, clock.offsets, strict=True)]
    table, trains = _units(laid, layout, where, notes)
    stamps = [np.concatenate([trial.stamps for trial in trials]) for trials in laid]
    covariates = _covariates(laid, np.concatenate(stamps), layout, where, notes)
    needs_covariates(layout, covariates, where)
    return MatRecording(
        units=table,
        facts=SpikeFacts(format="flint", notes=tuple(notes)),
        observation=Observation(np.concatenate([observed_intervals(each) for each in stamps]), clock.joins),
        covariates=covariates,
        trials=_trial_table(laid),
        read=lambda unit: trains[unit],
        let_go=trains.clear,
    )


def _chosen(records: list[Record], layout: SpikeLayout, where: str) -> list[Record]:
    """Recordings that the layout takes: all, or the one it names (from 1, as MATLAB counts)."""
    one = _ONE.fullmatch(layout.units.path)
    if one is None and layout.units.path not in (VARIABLE, "units"):
        raise missing_fact(f"no units at {layout.units.path!r}; they are at Subject, or Subject(1)", where)
    if one is None:
        return records
    if not 1 <= int(one[1]) <= len(records):
        raise missing_fact(f"no {layout.units.path}: the file has {len(records)} recordings", where)
    return records[int(one[1]) - 1 : int(one[1])]


def _trials(record: Record, where: str, notes: list[str]) -> list[Trial]:
    if "Trial" not in record:
        raise unreadable("a recording has no struct array 'Trial'", where)
    trials = [_trial(each, where) for each in record["Trial"].structs()]
    kept = [trial for trial in trials if len(trial.stamps)]
    if len(kept) < len(trials):
        notes.append(f"{len(trials) - len(kept)} trials without a time stamp are left out")
    if len({len(trial.trains) for trial in kept}) > 1:
        raise unreadable("trials of one recording differ in their number of neurons", where)
    if kept:
        check_clock(np.concatenate([trial.stamps for trial in kept]), "Time", where)
    return kept


def _trial(record: Record, where: str) -> Trial:
    stamps = _times(record, "Time")
    series = {name: record[name].numbers() for name in SERIES if name in record}
    series = {name: values for name, values in series.items() if values.size}
    for name, values in series.items():
        if values.ndim != 2 or len(values) != len(stamps):  # noqa: PLR2004 - [time, dimension]
            raise unreadable(f"{name} has the shape {values.shape}, Time {len(stamps)} samples", where)
    neurons = record["Neuron"].structs() if "Neuron" in record and record["Neuron"].is_struct else []
    return Trial(stamps, series, tuple(_times(neuron, "Spike") for neuron in neurons))


def _times(record: Record, name: str) -> NDArray[np.float64]:
    return record[name].numbers().ravel() if name in record else np.empty(0)


def _block_clock(blocks: Sequence[list[Trial]], layout: SpikeLayout, where: str) -> BlockClock:
    if len(blocks) == 1:
        return BlockClock()
    if layout.restarts != "blocks":
        raise bad_timestamps(
            f"{len(blocks)} recordings with clocks of their own; set `restarts: blocks`, or take one by `units.path`",
            where,
        )
    ends = [np.array([trials[0].stamps[0], trials[-1].stamps[-1]]) for trials in blocks]
    return lay_out([np.stack(ends)], layout.block_gap_seconds)


def _shifted(trials: list[Trial], offset: float) -> list[Trial]:
    return [Trial(each.stamps + offset, each.series, tuple(train + offset for train in each.trains)) for each in trials]


def _units(
    blocks: Sequence[list[Trial]], layout: SpikeLayout, where: str, notes: list[str]
) -> tuple[UnitTable, dict[int, NDArray[np.float64]]]:
    """Table and spike times of the places in the unit lists that the layout keeps."""
    counts = [len(trials[0].trains) for trials in blocks]
    names = [f"n{place + 1:03}" for place in range(max(counts))]
    kept = kept_rows(layout.units, {"name": names}, where)
    trains, bads = {}, []
    for row, place in enumerate(kept):
        pieces = [t.trains[place] for trials in blocks for t in trials if place < len(t.trains)]
        times, bad = _joined(pieces, names[place], notes)
        trains[row] = times
        bads.append(bad)
    if not any(train.size for train in trains.values()):
        raise no_usable_units("every neuron is masked", where) if any(bads) else no_spikes("no neuron fires", where)
    if len(blocks) > 1:
        notes.append(f"{len(blocks)} recordings with {counts} neurons: a row is another neuron in each of them")
    blank, rule = ("",) * len(kept), layout.units
    is_sorted = True if rule.is_sorted is None else rule.is_sorted
    table = UnitTable(
        tuple(names[place] for place in kept),
        blank,
        blank,
        (rule.area,) * len(kept),
        (is_sorted,) * len(kept),
        tuple(bads),
    )
    return table, trains


def _joined(pieces: Sequence[NDArray[np.float64]], name: str, notes: list[str]) -> tuple[NDArray[np.float64], str]:
    """Spike times of one neuron out of its trials, and why it is masked."""
    times = np.concatenate(pieces)
    if not np.isfinite(times).all():
        return np.empty(0), "non_finite"
    times = ascending(times)[0]
    unique = np.unique(times)
    if len(unique) < len(times):  # a spike on the border of two trials is in both
        notes.append(f"{len(times) - len(unique)} spikes of {name} that occur twice count once")
    return unique, ""


def _covariates(
    blocks: Sequence[list[Trial]], stamps: NDArray[np.float64], layout: SpikeLayout, where: str, notes: list[str]
) -> tuple[CovariateSeries, ...]:
    trials = [trial for block in blocks for trial in block]
    present = [name for name in SERIES if all(name in trial.series for trial in trials)]
    wanted = tuple(CovariateLayout(path=name) for name in present) if layout.covariates == "auto" else layout.covariates
    found = []
    for each in wanted:
        if each.path not in present:
            notes.append(f"no {each.path} in every trial")
            continue
        if len({trial.series[each.path].shape[1] for trial in trials}) > 1:
            raise unreadable(f"{each.path} has another number of columns in some trials", where)
        values = np.concatenate([trial.series[each.path] for trial in trials])
        found.append(covariate_series(RawSeries(each.path, stamps, values), each, where, notes))
    return tuple(found)


def _trial_table(blocks: Sequence[list[Trial]]) -> TrialTable:
    rows = [(i + 1, trial) for i, trials in enumerate(blocks) for trial in trials]
    return TrialTable(
        starts=np.array([trial.stamps[0] for _, trial in rows]),
        stops=np.array([trial.stamps[-1] for _, trial in rows]),
        success=np.ones(len(rows), dtype=bool),
        columns={"recording": np.array([float(number) for number, _ in rows])},
    )
