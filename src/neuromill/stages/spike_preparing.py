"""Prepare spikes: one recording from its file to counts per bin and behaviour on the same clock."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.signals.binning import MAX_COUNT, count_session, grid_over, rebin_session, segments
from neuromill.signals.covariates import apply_steps, mask_on_grid, scale_of, to_grid
from neuromill.signals.standstill import standstills
from neuromill.stages.raw_files import drop_raw, lay_out_raw, layout_of
from neuromill.stages.sections import spike_preparation

MAX_BYTES = 2 * 2**30  # of counts and behaviour, held in memory together: a day of 500 units; beyond, a clock jumped
COVARIATE_BYTES = 5  # per bin: float32 and whether it is valid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuromill.catalog.cards import Card
    from neuromill.readers.spike_protocol import SpikeRecording
    from neuromill.records import UnitTable
    from neuromill.signals.binning import BinGrid, SessionCounts
    from neuromill.signals.covariates import OnGrid
    from neuromill.stages.outcomes import WorkItem
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.prepare_config import SpikePrepareConfig
    from neuromill.stages.work import Made, WorkContext
    from neuromill.store.attributes import SpikeAttributes
    from neuromill.store.spike_writer import Behaviour


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """Units, their counts uint8 [time, unit], the segment of each bin, what fell into no bin, and what was odd."""

    units: UnitTable
    counts: NDArray[np.uint8]
    segment: NDArray[np.int32]
    n_before: int = 0
    n_after: int = 0
    n_saturated: int = 0
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, int]:
        """JSON values."""
        return {
            "n_spikes": int(self.counts.sum(dtype=np.int64)),
            "n_before": self.n_before,
            "n_after": self.n_after,
            "n_saturated": self.n_saturated,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """Behaviour on the bins, and what was odd."""

    behaviour: Behaviour
    notes: tuple[str, ...] = ()


def check_smoothing(pipeline: Pipeline, card: Card) -> None:
    """Refuse smoothing that reaches across the guard between the splits of a recording.

    A smoothed value takes in values ``n_back`` before and ``n_ahead`` after its own, added up over the steps. If both
    together fit into the guard, no value has a part in the labels of two splits.

    Raises
    ------
    ConfigError
        The steps reach further than ``splits.time_blocks.guard_seconds`` of the card.
    """
    blocks = card.splits.time_blocks
    if blocks is None or pipeline.prepare.kind != "spikes":
        return
    config = spike_preparation(pipeline)
    n_bins = sum(sum(step.reach(config.bin_seconds)) for step in config.steps)
    guard = ceil(round(blocks.guard_seconds / config.bin_seconds, 6))  # as the blocks are cut
    if n_bins > guard:
        raise ConfigError(
            f"steps of `prepare` mix values {n_bins * config.bin_seconds:g} s apart, "
            f"the guard between splits of {card.id} is {blocks.guard_seconds:g} s",
            where=card.id,
            next_step="raise `splits.time_blocks.guard_seconds` in its card, or smooth less",
        )


def prepare_spikes(context: WorkContext, item: WorkItem) -> Made:
    """Bin one recording and publish it: spikes unit by unit, never spikes times bins in memory.

    Raises
    ------
    RecordingError
        ``too_short``, ``no_spikes`` where every unit is masked, and whatever the reader raises.
    """
    from neuromill.readers.spikes import open_spikes
    from neuromill.stages.scratch import scratch_folder
    from neuromill.stages.work import Made
    from neuromill.store.spike_writer import SpikeWriter

    recording, config = item.recording, spike_preparation(context.pipeline)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(context.scratch()))
        lay_out_raw(context, recording, folder)
        layout = layout_of(context, recording)
        spikes = stack.enter_context(open_spikes(recording, folder, layout))
        grid = _grid(spikes, config, recording.path)
        counted = count_recording(spikes, grid)
        if layout.units.sum_by == "electrode":
            counted = summed_by_electrode(counted)
        aligned = align_behaviour(spikes, grid, counted.segment, config)
        behaviour, notes = aligned.behaviour, [*spikes.facts.notes, *counted.notes, *aligned.notes]
        attributes = _attributes(context, item, spikes, grid, counted, notes)
        units, trials = counted.units, spikes.trials
    with SpikeWriter(
        context.store(item), recording.id.name, n_units=len(units), bin_seconds=config.bin_seconds
    ) as writer:
        writer.write(counted.counts)
        published = writer.publish(attributes, units, behaviour=behaviour, trials=trials, replace=True)
    if not context.pipeline.keep_raw:
        drop_raw(context, recording)
    facts = counted.facts | {
        "n_units": len(units),
        "n_bins": grid.n_bins,
        "seconds": grid.n_bins * grid.bin_seconds,
        "covariates": list(behaviour.names),
        "notes": notes,
    }
    return Made(bytes_out=published.n_bytes, adopted=not published.created, facts=facts)


def _grid(spikes: SpikeRecording, config: SpikePrepareConfig, where: str) -> BinGrid:
    if all(spikes.units.bads):
        raise RecordingError(
            FailureCode.NO_SPIKES, "every unit is masked", where=where, next_step="see its notes with `explain`"
        )
    grid = grid_over(spikes.observation.intervals, config.bin_seconds)
    seconds = grid.n_bins * grid.bin_seconds
    if seconds < config.min_seconds:
        raise RecordingError(
            FailureCode.TOO_SHORT,
            f"{seconds:.3g} s of whole bins, the pipeline asks for {config.min_seconds:g} s",
            where=where,
            next_step="lower prepare.min_seconds if this is wanted",
        )
    require_room(grid, len(spikes.units), sum(len(series.names) for series in spikes.covariates), where)
    return grid


def require_room(grid: BinGrid, n_units: int, n_covariates: int, where: str) -> None:
    """Refuse what would take more than ``MAX_BYTES``; raises ``too_large`` before anything is allocated."""
    n_bytes = grid.n_bins * (n_units + COVARIATE_BYTES * n_covariates)
    if n_bytes > MAX_BYTES:
        raise RecordingError(
            FailureCode.TOO_LARGE,
            f"{grid.n_bins} bins of {n_units} units and {n_covariates} covariates are {n_bytes / 2**30:.1f} GiB",
            where=where,
            next_step="its clock may have jumped; if not, use wider bins or fewer units",
        )


def count_recording(spikes: SpikeRecording, grid: BinGrid) -> Counted:
    """Count the spikes of every unit; masked units have none."""
    segment = segments(grid, spikes.observation.intervals, spikes.observation.joins)
    binned = spikes.binned
    if binned is not None:
        session = rebin_session(binned.stamps, binned.counts, binned.width_seconds, binned.bin_edge, grid)
    else:
        trains = (spikes.spike_times(unit) for unit in range(len(spikes.units)))
        session = count_session(trains, len(spikes.units), grid)
    totals = (int(session.n_before.sum()), int(session.n_after.sum()), int(session.n_saturated.sum()))
    return Counted(spikes.units, session.counts, segment, *totals, notes=_numbering_notes("counts", session))


def summed_by_electrode(counted: Counted) -> Counted:
    """Add the counts of all units of one electrode; sums above 255 are counted as saturated."""
    units, rows = counted.units.by_electrode()
    sums = np.zeros((len(counted.counts), len(units)), np.uint16)
    for unit, row in enumerate(rows):
        sums[:, row] += counted.counts[:, unit]
    n_saturated = counted.n_saturated + int(np.count_nonzero(sums > MAX_COUNT))
    counts = np.minimum(sums, MAX_COUNT).astype(np.uint8)
    n_masked, n_members = counted.units.masked_within(rows)
    masked = (f"{n_masked} units of {n_members} masked within summed columns",) if n_masked else ()
    return replace(counted, units=units, counts=counts, n_saturated=n_saturated, notes=(*counted.notes, *masked))


def align_behaviour(
    spikes: SpikeRecording, grid: BinGrid, segment: NDArray[np.int32], config: SpikePrepareConfig
) -> Aligned:
    """Bring every series to the bins, apply the declared steps and masks, and measure the scales."""
    from neuromill.store.spike_writer import Behaviour

    names: list[str] = []
    units: list[str] = []
    notes: list[str] = []
    values = [np.empty((grid.n_bins, 0), np.float32)]
    for series in spikes.covariates:
        on_grid = to_grid(
            series.stamps,
            series.values,
            grid,
            segment,
            series.derivative,
            series.bin_edge,
            moment=config.covariate_moment,
            longest_step=float("inf") if series.held else None,
        )
        values.append(on_grid.values)
        what = ", ".join(series.names)
        notes += _numbering_notes(what, on_grid)
        if not series.held:  # targets stay where they are
            notes += [f"{what}: {one}" for one in standstills(series.stamps, series.values)]
        names += series.names
        units += [_unit(series.unit, series.derivative)] * len(series.names)
    together = apply_steps(np.concatenate(values, axis=1), config.steps, grid, segment)
    valid = np.isfinite(together)
    for mask in spikes.masks:
        valid &= mask_on_grid(mask.stamps, mask.values, grid)[:, None]
    behaviour = Behaviour(
        names=tuple(names),
        units=tuple(units),
        values=together,
        valid=valid,
        scale=scale_of(together, valid, config.scale_quantile),
        segment=segment,
        start_seconds=grid.start_seconds,
    )
    return Aligned(behaviour, tuple(notes))


def _numbering_notes(what: str, made: SessionCounts | OnGrid) -> tuple[str, ...]:
    """What a clock that drifts against the bins did to a series of one row per bin."""
    if not (made.n_shared or made.n_skipped):
        return ()
    return (
        f"{what}: clock drifts against the bins: {made.n_shared} rows share a bin, {made.n_skipped} bins have none",
    )


def _unit(unit: str, derivative: str) -> str:
    """Unit after differentiation: that of the values per second."""
    return f"{unit}/s" if derivative and unit else unit


def _attributes(
    context: WorkContext, item: WorkItem, spikes: SpikeRecording, grid: BinGrid, counted: Counted, notes: list[str]
) -> SpikeAttributes:
    from neuromill.store.attributes import SpikeAttributes, recording_facts

    facts: dict[str, Any] = {"spikes": asdict(spikes.facts), "counting": counted.facts}
    facts["spikes"]["notes"] = notes
    return SpikeAttributes.model_validate(
        recording_facts(item.recording)
        | {
            "sfreq": 1 / grid.bin_seconds,
            "bin_seconds": grid.bin_seconds,
            "start_seconds": grid.start_seconds,
            "facts": facts,
            "pipeline": context.pipeline_attributes(item),
        }
    )
