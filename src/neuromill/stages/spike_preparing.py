"""Prepare spikes: one recording from its file to counts per bin and behaviour on the same clock."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.records import FailureCode, RecordingError
from neuromill.signals.binning import count_spikes, grid_over, rebin, segments
from neuromill.signals.covariates import apply_steps, mask_on_grid, scale_of, to_grid
from neuromill.stages.raw_files import drop_raw, lay_out_raw, layout_of
from neuromill.stages.sections import spike_preparation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuromill.readers.spike_protocol import SpikeRecording
    from neuromill.records import TrialTable
    from neuromill.signals.binning import BinGrid
    from neuromill.stages.outcomes import WorkItem
    from neuromill.stages.prepare_config import SpikePrepareConfig
    from neuromill.stages.work import Made, WorkContext
    from neuromill.store.attributes import SpikeAttributes
    from neuromill.store.spike_writer import Behaviour


def prepare_spikes(context: WorkContext, item: WorkItem) -> Made:
    """Bin one recording and publish it; whole, because counts of a session are small."""
    from neuromill.readers.spikes import open_spikes
    from neuromill.stages.scratch import scratch_folder
    from neuromill.stages.work import Made
    from neuromill.store.spike_writer import SpikeWriter

    recording, config = item.recording, spike_preparation(context.pipeline)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(context.scratch()))
        lay_out_raw(context, recording, folder)
        spikes = stack.enter_context(open_spikes(recording, folder, layout_of(context, recording)))
        grid = _grid(spikes, config, recording.path)
        counted = _count(spikes, grid)
        behaviour = _behaviour(spikes, grid, config)
        units, trials = spikes.units, spikes.trials
        attributes = _attributes(context, item, spikes, grid, counted.facts)
    with SpikeWriter(
        context.store(item), recording.id.name, n_units=len(units), bin_seconds=config.bin_seconds
    ) as writer:
        writer.write(counted.counts)
        published = writer.publish(attributes, units, behaviour=behaviour, trials=trials, replace=True)
    if not context.pipeline.keep_raw:
        drop_raw(context, recording)
    return Made(bytes_out=published.n_bytes, adopted=not published.created, facts={})
