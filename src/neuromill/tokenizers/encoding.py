"""Encode a whole recording on its segment grid, rows of many channels and segments per forward pass.

Codes must not depend on what else is encoded beside a row. Matrix products choose their kernel by shape, so the
same row differs in the last bit between batches of 1 and of 16; within one shape it does not, wherever the row
stands and whatever its companions are (measured on CPU, torch 2.13: see ``docs/tokenizers.md``). Every forward pass
therefore has exactly ``rows_per_forward`` rows of one length; missing ones are zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ConfigError
from neuromill.tokenizers.rows import encode_rows
from neuromill.tokenizers.segments import plan_segments
from neuromill.tokenizers.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from neuromill.records import ChannelTable
    from neuromill.tokenizers.config import TokenizeConfig
    from neuromill.tokenizers.protocol import Codes, Read, Tokenizer
    from neuromill.tokenizers.rejection import Rejection
    from neuromill.tokenizers.segments import Segment, SegmentGrid

__all__ = ["SegmentCodes", "encode_rows", "encode_segments", "grid_for", "usage_of"]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentCodes:
    """Codes of one segment.

    Attributes
    ----------
    segment
        Where it stands in the recording.
    codes
        uint8 or uint16 [frame, quantizer, channel].
    scale
        float32 [channel]; NaN for channels without values, whose codes mean nothing.
    """

    segment: Segment
    codes: Codes
    scale: NDArray[np.float32]


def grid_for(tokenizer: Tokenizer, config: TokenizeConfig, n_times: int) -> SegmentGrid:
    """Lay the segment grid that this tokenizer and these settings put over ``n_times`` samples.

    Raises
    ------
    ConfigError
        The settings ask for another length than the windows that the tokenizer sees.
    RecordingError
        ``empty`` if there is no sample.
    """
    seconds = config.segment_seconds
    if tokenizer.window_samples is not None:
        own = tokenizer.window_samples / tokenizer.sfreq
        if "segment_seconds" in config.model_fields_set and seconds != own:
            raise ConfigError(
                f"this tokenizer sees windows of {own:g} s, not of {seconds:g} s",
                where="tokenize.segment_seconds",
                next_step=f"leave it out, or set it to {own:g}",
            )
        seconds = own
    return plan_segments(n_times, sfreq=tokenizer.sfreq, segment_seconds=seconds, hop_samples=tokenizer.hop_samples)


def encode_segments(
    tokenizer: Tokenizer,
    read: Read,
    segments: Sequence[Segment],
    config: TokenizeConfig,
    channels: ChannelTable | None = None,
    rejection: Rejection | None = None,
) -> Iterator[SegmentCodes]:
    """Encode some segments of a recording, in any order and selection; yields them in the order given.

    Parameters
    ----------
    tokenizer
        Fitted tokenizer; its device is used.
    read
        ``read(start, stop)`` gives float32 [time, channel] in physical units; the same channels every time.
    segments
        From ``grid_for(...).segments``; all of them or any part: each gives the same codes either way.
    config
        Rows per forward pass.
    channels
        The columns that ``read`` gives; may be left out where channels do not see each other.
    rejection
        What preparation rejected of the recording. A joint tokenizer does not get to see it: there a channel counts as
        missing, as it does in the fit. Others encode it all the same, for it changes no code but its own.
    """
    shown = _without(read, rejection) if rejection is not None and tokenizer.is_joint else read
    for group, blocks in _groups(shown, segments, config.rows_per_forward):
        signal = np.stack([block.T for block in blocks])
        encoded = tokenizer.encode_segments(signal, channels, config.rows_per_forward)
        for i, segment in enumerate(group):
            yield SegmentCodes(segment, encoded.codes[i], encoded.scale[i].copy())


def usage_of(tokenizer: Tokenizer, codes: Codes, channels: Sequence[int] | None = None) -> Usage:
    """Count codes, integers [frame, quantizer, channel], of the given channels (all, if None; leave bad ones out)."""
    chosen = codes if channels is None else codes[:, :, list(channels)]
    return Usage.of(chosen.transpose(2, 1, 0), tokenizer.codebook_size)


def _without(read: Read, rejection: Rejection) -> Read:
    """Read with NaN where samples are rejected."""
    return lambda start, stop: rejection.hidden(read(start, stop), start)


def _groups(
    read: Read, segments: Sequence[Segment], rows: int
) -> Iterator[tuple[list[Segment], list[NDArray[np.float32]]]]:
    """Read neighbouring segments of equal length until their rows fill a forward pass."""
    group: list[Segment] = []
    blocks: list[NDArray[np.float32]] = []
    for segment in segments:
        full = sum(block.shape[1] for block in blocks) + (blocks[0].shape[1] if blocks else 0) > rows
        if group and (full or len(group[0].span) != len(segment.span)):
            yield group, blocks
            group, blocks = [], []
        group.append(segment)
        blocks.append(_checked(read(segment.span.start, segment.span.stop), segment))
    if group:
        yield group, blocks


def _checked(block: NDArray[np.float32], segment: Segment) -> NDArray[np.float32]:
    if block.ndim != 2 or len(block) != len(segment.span) or block.shape[1] == 0:  # noqa: PLR2004
        raise ConfigError(
            f"expected [time, channel] of {len(segment.span)} samples, got {block.shape}",
            where=f"segment {segment.index}",
            next_step="the reader must give the samples it is asked for",
        )
    return np.asarray(block, dtype=np.float32)
