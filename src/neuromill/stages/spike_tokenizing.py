"""Tokenize spikes: one prepared recording to NDT3 tokens, by rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuromill.stages.outcomes import WorkItem
    from neuromill.stages.work import Made, WorkContext


def tokenize_spike_recording(context: WorkContext, item: WorkItem) -> Made:
    """Read counts and covariates of the prepared store, cut them into chunks and publish their tokens.

    Raises
    ------
    RecordingError
        Whatever the tokenizer raises: more channels or covariates than the vocabulary has places for.
    """
    raise NotImplementedError
