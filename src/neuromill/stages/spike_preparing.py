"""Prepare spikes: one recording from its file to counts per bin and behaviour on the same clock."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.records import FailureCode, RecordingError
from neuromill.signals.binning import MAX_COUNT, count_session, grid_over, rebin_session, segments
from neuromill.signals.covariates import apply_steps, mask_on_grid, scale_of, to_grid
from neuromill.stages.raw_files import drop_raw, lay_out_raw, layout_of
from neuromill.stages.sections import spike_preparation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuromill.readers.spike_protocol import SpikeRecording
    from neuromill.records import UnitTable
    from neuromill.signals.binning import BinGrid
    from neuromill.stages.outcomes import WorkItem
    from neuromill.stages.prepare_config import SpikePrepareConfig
    from neuromill.stages.work import Made, WorkContext
    from neuromill.store.attributes import SpikeAttributes
    from neuromill.store.spike_writer import Behaviour


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """Units, their counts uint8 [time, unit], the segment of each bin, and what did not fall into a bin."""

    units: UnitTable
    counts: NDArray[np.uint8]
    segment: NDArray[np.int32]
    n_before: int = 0
    n_after: int = 0
    n_saturated: int = 0

    @property
    def facts(self) -> dict[str, int]:
        """JSON values."""
        return {
            "n_spikes": int(self.counts.sum(dtype=np.int64)),
            "n_before": self.n_before,
            "n_after": self.n_after,
            "n_saturated": self.n_saturated,
        }


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
        behaviour = align_behaviour(spikes, grid, counted.segment, config)
        attributes = _attributes(context, item, spikes, grid, counted)
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
        "notes": list(spikes.facts.notes),
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
    return grid


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
    return Counted(spikes.units, session.counts, segment, *totals)


def summed_by_electrode(counted: Counted) -> Counted:
    """Add the counts of all units of one electrode; sums above 255 are counted as saturated."""
    units, rows = counted.units.by_electrode()
    sums = np.zeros((len(counted.counts), len(units)), np.uint16)
    for unit, row in enumerate(rows):
        sums[:, row] += counted.counts[:, unit]
    n_saturated = counted.n_saturated + int(np.count_nonzero(sums > MAX_COUNT))
    counts = np.minimum(sums, MAX_COUNT).astype(np.uint8)
    return replace(counted, units=units, counts=counts, n_saturated=n_saturated)


def align_behaviour(
    spikes: SpikeRecording, grid: BinGrid, segment: NDArray[np.int32], config: SpikePrepareConfig
) -> Behaviour:
    """Bring every series to the bins, apply the declared steps and masks, and measure the scales."""
    from neuromill.store.spike_writer import Behaviour

    names: list[str] = []
    units: list[str] = []
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
        names += series.names
        units += [_unit(series.unit, series.derivative)] * len(series.names)
    together = apply_steps(np.concatenate(values, axis=1), config.steps, grid, segment)
    valid = np.isfinite(together)
    for mask in spikes.masks:
        valid &= mask_on_grid(mask.stamps, mask.values, grid)[:, None]
    return Behaviour(
        names=tuple(names),
        units=tuple(units),
        values=together,
        valid=valid,
        scale=scale_of(together, valid, config.scale_quantile),
        segment=segment,
        start_seconds=grid.start_seconds,
    )


def _unit(unit: str, derivative: str) -> str:
    """Unit after differentiation: that of the values per second."""
    return f"{unit}/s" if derivative and unit else unit


def _attributes(
    context: WorkContext, item: WorkItem, spikes: SpikeRecording, grid: BinGrid, counted: Counted
) -> SpikeAttributes:
    from neuromill.store.attributes import SpikeAttributes, recording_facts

    facts: dict[str, Any] = {"spikes": asdict(spikes.facts), "counting": counted.facts}
    facts["spikes"]["notes"] = list(spikes.facts.notes)
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
