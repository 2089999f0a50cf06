"""Reader of the MATLAB 7.3 files of O'Doherty and Sabes (Zenodo 3854034): one session of reaching per file.

Layout (NDT3 2.2, 2.3, 7.2), in MATLAB's order of dimensions: ``t`` [time, 1] seconds at 250 Hz; ``finger_pos``
[time, 3 or 6] in cm, whose first columns are z, -x, -y; ``cursor_pos``, ``target_pos`` [time, 2]; ``spikes`` {channel,
unit} cells of seconds, unit 0 the unsorted hash, the others sorted; ``chan_names`` {channel, 1} ("M1 001"). HDF5 has
the dimensions the other way round.

Units stay apart: the hash of every channel is a row, silent or not, so that rows mean the same in every session of an
array; a sorted unit is a row where it fires. What cannot be a list of times is masked, not guessed. The clock is that
of the file: it begins with the first behaviour stamp, and spikes before it are for the binning to drop.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.readers.complaints import no_spikes, no_usable_units, unreadable
from neuromill.readers.mat_trees import (
    MATRIX,
    MatRecording,
    RawSeries,
    ascending,
    cell_paths,
    check_clock,
    covariate_series,
    is_empty_cell,
    kept_rows,
    needs_covariates,
    no_trials,
    observed_intervals,
    text_of,
)
from neuromill.readers.spike_protocol import CovariateSeries, Observation, SpikeFacts
from neuromill.readers.trees import open_hdf5
from neuromill.records import CovariateLayout, UnitTable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.readers.trees import Tree
    from neuromill.records import SpikeLayout

CLOCK, SPIKES, NAMES = "t", "spikes", "chan_names"
SERIES_UNITS = {"finger_pos": "cm", "cursor_pos": "", "target_pos": "mm"}  # as published; of the cursor nobody says


@dataclass(frozen=True, slots=True)
class Unit:
    """One cell of ``spikes``: where its times are, whose they are, why it is masked."""

    path: str
    channel: str
    index: int
    n_spikes: int
    bad: str = ""

    @property
    def name(self) -> str:
        """Name of the unit: ``M1_001_0``."""
        return f"{self.channel.replace(' ', '_')}_{self.index}"

    @property
    def area(self) -> str:
        """First word of the channel's name."""
        return self.channel.split()[0] if " " in self.channel else ""


def open_odoherty(path: Path, where: str, layout: SpikeLayout) -> MatRecording:
    """Open one session; the caller closes it.

    Raises
    ------
    RecordingError
        ``unreadable``, ``truncated`` (damaged, or not of this layout), ``no_spikes``, ``bad_timestamps`` (no clock, one
        that goes back), ``no_covariates``, ``no_usable_channels`` (every unit is masked), ``missing_fact`` (the layout
        names columns or conditions that such a file does not have).
    """
    notes: list[str] = []
    with ExitStack() as stack:
        tree = open_hdf5(path, where)
        stack.callback(tree.close)
        stamps = _clock(tree)
        units = _kept(_units(tree, notes), layout, where)
        covariates = _covariates(tree, stamps, layout, notes)
        needs_covariates(layout, covariates, where)
        stack.pop_all()
    return MatRecording(
        units=_table(units, layout),
        facts=SpikeFacts(format="odoherty", notes=tuple(notes)),
        observation=Observation(observed_intervals(stamps)),
        covariates=covariates,
        trials=no_trials(),
        read=lambda unit: ascending(_times(tree, units[unit].path))[0],
        let_go=tree.close,
    )


def _clock(tree: Tree) -> NDArray[np.float64]:
    if tree.kind(CLOCK) != "array":
        raise unreadable(f"no clock {CLOCK!r}", tree.where)
    stamps = np.ravel(tree.array(CLOCK).read()).astype(np.float64)
    check_clock(stamps, CLOCK, tree.where)
    return stamps


def _units(tree: Tree, notes: list[str]) -> list[Unit]:
    """Every hash unit, and the sorted units that have anything in their cell, channel by channel."""
    if tree.kind(SPIKES) != "array":
        raise no_spikes(f"no {SPIKES!r}", tree.where)
    cells = np.atleast_2d(cell_paths(tree, SPIKES))  # [unit, channel]: HDF5 turns MATLAB's order round
    channels = _channel_names(tree, cells.shape[1])
    return [
        unit
        for channel, column in zip(channels, cells.T, strict=True)
        for index, path in enumerate(column)
        if (unit := _unit(tree, str(path), channel, index, notes)) is not None
    ]


def _unit(tree: Tree, path: str, channel: str, index: int, notes: list[str]) -> Unit | None:
    if is_empty_cell(tree, path):
        return Unit(path, channel, index, 0, "") if index == 0 else None
    array = tree.array(path)
    if array.values != "number" or len(array.shape) > MATRIX or min(array.shape) > 1:
        notes.append(f"unit {index} of {channel} is no list of times (shape {array.shape}) and is masked")
        return Unit(path, channel, index, 0, "malformed")
    times = _times(tree, path)
    if not np.isfinite(times).all():
        return Unit(path, channel, index, len(times), "non_finite")
    if ascending(times)[1]:
        notes.append(f"spike times of unit {index} of {channel} were not in order and were sorted")
    return Unit(path, channel, index, len(times))


def _times(tree: Tree, path: str) -> NDArray[np.float64]:
    """Spike times of one cell, in the order of the file; none for an empty cell."""
    if is_empty_cell(tree, path):
        return np.empty(0)
    return np.ravel(tree.array(path).read()).astype(np.float64)


def _channel_names(tree: Tree, n_channels: int) -> list[str]:
    if tree.kind(NAMES) != "array":
        return [f"channel {i + 1:03}" for i in range(n_channels)]
    names = [text_of(tree, str(path)) for path in np.ravel(cell_paths(tree, NAMES))]
    if len(names) != n_channels:
        raise unreadable(f"{len(names)} channel names for {n_channels} channels", tree.where)
    if len(set(names)) < len(names) or "" in names:
        raise unreadable("channel names are empty or occur twice", tree.where)
    return names


def _kept(units: list[Unit], layout: SpikeLayout, where: str) -> list[Unit]:
    columns: dict[str, list[str | bool | float]] = {
        "name": [unit.name for unit in units],
        "channel": [unit.channel for unit in units],
        "area": [unit.area for unit in units],
        "is_sorted": [unit.index > 0 for unit in units],
    }
    kept = kept_rows(layout.units, columns, where)
    if not any(units[row].n_spikes or units[row].bad for row in kept):
        raise no_spikes("no unit that the card keeps has a spike", where)
    if not any(units[row].n_spikes for row in kept if not units[row].bad):
        raise no_usable_units("every unit that has something in its cell is masked", where)
    return [units[row] for row in kept]


def _table(units: list[Unit], layout: SpikeLayout) -> UnitTable:
    rule = layout.units
    return UnitTable(
        names=tuple(unit.name for unit in units),
        electrodes=tuple(unit.channel for unit in units),
        arrays=tuple(unit.area for unit in units),
        areas=tuple(rule.area or unit.area for unit in units),
        is_sorted=tuple(unit.index > 0 if rule.is_sorted is None else rule.is_sorted for unit in units),
        bads=tuple(unit.bad for unit in units),
    )


def _covariates(
    tree: Tree, stamps: NDArray[np.float64], layout: SpikeLayout, notes: list[str]
) -> tuple[CovariateSeries, ...]:
    if layout.covariates == "auto":
        wanted = tuple(CovariateLayout(path=name) for name in SERIES_UNITS if tree.kind(name) == "array")
    else:
        wanted = layout.covariates
    found = []
    for each in wanted:
        if tree.kind(each.path) != "array":
            notes.append(f"no {each.path}")
            continue
        values = np.atleast_2d(tree.array(each.path).read()).astype(np.float64).T
        if len(values) != len(stamps):
            raise unreadable(f"{each.path} has {len(values)} samples, the clock {len(stamps)}", tree.where)
        raw = RawSeries(each.path, stamps, values, SERIES_UNITS.get(each.path, ""))
        found.append(covariate_series(raw, each, tree.where, notes))
    return tuple(found)
