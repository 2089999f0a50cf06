"""Tokenize: one prepared recording to its published codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import FailureCode, RecordingError
from neuromill.stages.channels import channel_table, good_channels
from neuromill.stages.rejections import rejection_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuromill.stages.outcomes import WorkItem
    from neuromill.stages.work import Made, WorkContext
    from neuromill.store.attributes import TokenAttributes
    from neuromill.store.contents import IndexedRecording
    from neuromill.tokenizers.protocol import Tokenizer
    from neuromill.tokenizers.segments import SegmentGrid


def tokenize_recording(context: WorkContext, item: WorkItem) -> Made:
    """Encode what the prepared store holds (not what was in memory before it was rounded) and publish the codes.

    Where a tokenizer sees channels jointly, what is rejected counts as missing, as in its fit.

    Raises
    ------
    RecordingError
        ``unit_conflict`` where the recording was prepared at another rate than the tokenizer works at, and whatever
        the tokenizer refuses: channels, length, unit.
    """
    import torch

    from neuromill.stages.work import Made
    from neuromill.store.reader import StoreReader
    from neuromill.store.writer import TokenWriter
    from neuromill.tokenizers.encoding import encode_segments, grid_for, usage_of

    torch.set_num_threads(1)  # workers share the cores; and codes must not depend on how many there are
    tokenizer = context.tokenizer()
    name = item.recording.id.name
    with StoreReader.of_groups(context.prepared_store(item), (name,)) as reader:
        signal = reader.recording(name)
        _require_rate(signal, tokenizer)
        grid = grid_for(tokenizer, context.pipeline.tokenize, signal.n_rows)
        channels = channel_table(reader, name)
        good = good_channels(channels)
        usage = np.zeros((tokenizer.n_quantizers, tokenizer.codebook_size), np.int64)

        def read(start: int, stop: int) -> NDArray[np.float32]:
            return reader.read_physical(name, start, stop)

        tokenizer.require(channels, signal.n_rows, read)
        with TokenWriter(
            context.store(item),
            name,
            n_channels=signal.n_channels,
            n_quantizers=tokenizer.n_quantizers,
            codebook_size=tokenizer.codebook_size,
        ) as writer:
            settings, rejection = context.pipeline.tokenize, rejection_of(reader, name)
            for part in encode_segments(tokenizer, read, grid.segments, settings, channels, rejection):
                writer.write_segment(part.codes, part.scale, part.segment.n_valid_samples)
                counted = [channel for channel in good if not np.isnan(part.scale[channel])]
                usage += usage_of(tokenizer, part.codes, counted).counts
            attributes = _attributes(context, item, signal, tokenizer, grid)
            published = writer.publish(attributes, channels, usage=usage, replace=True)
    facts = {"n_frames": grid.n_frames, "n_channels": signal.n_channels, "n_segments": len(grid.segments)}
    return Made(bytes_out=published.n_bytes, adopted=not published.created, facts=facts)


def _require_rate(signal: IndexedRecording, tokenizer: Tokenizer) -> None:
    sfreq = float(signal.attributes["sfreq"])
    if sfreq != tokenizer.sfreq:
        raise RecordingError(
            FailureCode.UNIT_CONFLICT,
            f"prepared at {sfreq:g} Hz, the tokenizer works at {tokenizer.sfreq:g} Hz",
            where=signal.name,
            next_step="set prepare.steps.resample.sfreq to the tokenizer's rate",
        )


def _attributes(
    context: WorkContext, item: WorkItem, signal: IndexedRecording, tokenizer: Tokenizer, grid: SegmentGrid
) -> TokenAttributes:
    from neuromill.store.attributes import TokenAttributes, recording_facts

    kept = {name: signal.attributes[name] for name in ("line_freq", "highpass", "lowpass")}
    return TokenAttributes.model_validate(
        recording_facts(item.recording)
        | kept
        | {
            "sfreq": tokenizer.sfreq,
            "frame_rate": tokenizer.sfreq / tokenizer.hop_samples,
            "hop_samples": tokenizer.hop_samples,
            "segment_samples": grid.segment_samples,
            "precision": context.pipeline.tokenize.precision,
            "tokenizer": tokenizer.digest,
            "pipeline": context.pipeline_attributes(item),
        }
    )
