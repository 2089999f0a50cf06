"""Tokenize spikes: one prepared recording to NDT3 tokens, by rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.stages.sections import spike_preparation, spike_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neuromill.catalog.time_blocks import TimeBlocks
    from neuromill.records import UnitTable
    from neuromill.stages.outcomes import WorkItem
    from neuromill.stages.work import Made, WorkContext
    from neuromill.store.attributes import SpikeTokenAttributes
    from neuromill.store.reader import StoreReader


@dataclass(frozen=True, slots=True, eq=False)
class PreparedSpikes:
    """One prepared recording of spikes, in memory, without its masked units.

    Attributes
    ----------
    counts
        uint8 [time, unit].
    values, valid
        float32 and bool [time, covariate].
    scale
        float32 [covariate].
    segment
        int32 [time].
    trials
        bool [time], True inside successful trials.
    attributes
        Of the group.
    """

    units: UnitTable
    counts: NDArray[np.uint8]
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    scale: NDArray[np.float32]
    segment: NDArray[np.int32]
    trials: NDArray[np.bool_]
    attributes: Mapping[str, Any]


def read_prepared(reader: StoreReader, name: str) -> PreparedSpikes:
    """Read a prepared recording, without masked units, whole: a session of hours is some tens of megabytes."""
    from neuromill.store.attributes import unit_table_of

    about = reader.recording(name)
    units = unit_table_of(about.attributes)
    n_times, n_covariates = about.n_rows, len(about.attributes["covariate_names"])

    def read(array: str, empty: NDArray[Any]) -> NDArray[Any]:
        return reader.read(name, array) if array in about.arrays else empty

    return PreparedSpikes(
        units=units.pick(units.good),
        counts=np.ascontiguousarray(reader.read(name, "counts")[:, list(units.good)]),
        values=read("covariate", np.empty((n_times, n_covariates), np.float32)),
        valid=read("covariate_valid", np.empty((n_times, n_covariates), bool)).astype(bool),
        scale=read("covariate_scale", np.ones(n_covariates, np.float32)),
        segment=reader.read(name, "segment"),
        trials=read("trial_success_mask", np.ones(n_times, bool)).astype(bool),
        attributes=about.attributes,
    )


def tokenize_spike_recording(context: WorkContext, item: WorkItem) -> Made:
    """Read counts and covariates of the prepared store, cut them into chunks and publish their tokens.

    Raises
    ------
    RecordingError
        Whatever the tokenizer raises: more units or covariates than the vocabulary has slots for, no chunk left.
    """
    from neuromill.stages.work import Made
    from neuromill.store.reader import StoreReader
    from neuromill.store.spike_writer import SpikeTokenWriter
    from neuromill.tokenizers.spikes import chunks_of, tokenize_spikes

    name, config = item.recording.id.name, spike_tokenizer(context.pipeline)
    with StoreReader.of_groups(context.prepared_store(item), (name,)) as reader:
        prepared = read_prepared(reader, name)
    prepared = replace(prepared, scale=scale_for(context, item, prepared))
    chunks = chunks_of(config, prepared.counts, prepared.values, prepared.scale, prepared.segment)
    tokens, patch_channels = tokenize_spikes(
        config,
        prepared.counts,
        prepared.units.arrays,
        prepared.values,
        prepared.valid,
        prepared.scale,
        prepared.segment,
        trials=prepared.trials,
        chunks=chunks,
    )
    with SpikeTokenWriter(context.store(item), name) as writer:
        published = writer.publish(
            _attributes(context, item, prepared),
            tokens,
            prepared.units,
            prepared.attributes["covariate_names"],
            prepared.scale,
            patch_channels,
            replace=True,
        )
    facts = {"n_chunks": tokens.n_chunks, "n_tokens": len(tokens.slots), "left_out": dict(chunks.left_out)}
    return Made(bytes_out=published.n_bytes, adopted=not published.created, facts=facts)


def scale_for(context: WorkContext, item: WorkItem, prepared: PreparedSpikes) -> NDArray[np.float32]:
    """Scale of each covariate as ``tokenizer.scale_from`` wants it: float32 [covariate]."""
    blocks = context.origin(item.recording.id.dataset).time_blocks
    if spike_tokenizer(context.pipeline).scale_from == "recording" or blocks is None:
        return prepared.scale
    return training_scale(prepared, blocks, spike_preparation(context.pipeline).scale_quantile)


def training_scale(prepared: PreparedSpikes, blocks: TimeBlocks, quantile: float) -> NDArray[np.float32]:
    """Scale of each covariate over the training part of a recording: float32 [covariate].

    Neither held-out blocks nor the guards beside them count. A covariate that is not observed in the training part
    keeps the scale of the recording: no model learns it there.
    """
    from neuromill.catalog.time_blocks import block_spans
    from neuromill.signals.covariates import scale_of

    inside = np.zeros(len(prepared.values), np.bool_)
    for span in block_spans(blocks, len(inside), float(prepared.attributes["bin_seconds"])):
        inside[span.start : span.stop] = span.split == "train"
    counts = prepared.valid & inside[:, None]
    return np.where(counts.any(axis=0), scale_of(prepared.values, counts, quantile), prepared.scale)


def _attributes(context: WorkContext, item: WorkItem, prepared: PreparedSpikes) -> SpikeTokenAttributes:
    from neuromill.store.attributes import SpikeTokenAttributes, recording_facts
    from neuromill.tokenizers.spike_vocabulary import vocabulary_digest

    config = spike_tokenizer(context.pipeline)
    return SpikeTokenAttributes.model_validate(
        recording_facts(item.recording)
        | {name: prepared.attributes[name] for name in ("sfreq", "bin_seconds", "start_seconds")}
        | {
            "chunk_bins": config.chunk_bins,
            "tokenizer": vocabulary_digest(config),
            "pipeline": context.pipeline_attributes(item),
        }
    )
