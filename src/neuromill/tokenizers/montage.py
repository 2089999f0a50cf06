"""Which channels of a recording stand at which positions of a window. Pure planning, no tensors."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from neuromill.records import FailureCode, RecordingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.records import ChannelTable
    from neuromill.tokenizers.tfdual_config import TfDualTokenizerConfig

MISSING = -1
"""Stands where a position has no channel."""

Group = tuple[int, ...]
"""Index of the channel at each position of a window, or ``MISSING``."""


def channel_groups(config: TfDualTokenizerConfig, channels: ChannelTable) -> tuple[Group, ...]:
    """Place the channels of a recording: each group is encoded jointly, its members see each other.

    With names, there is one group and its positions are the names'. Without, the channels of each type, in file order,
    make as few groups of at most ``group_channels`` as they can, of sizes that differ by one at most.

    Raises
    ------
    RecordingError
        ``no_usable_channels`` if fewer named channels are there than ``min_channels`` asks for, or none at all;
        ``duplicate_channels`` if two channels have the same name in different case.
    """
    if config.channels:
        return (_named(config, channels),)
    groups = tuple(group for kind in dict.fromkeys(channels.types) for group in _ranked(config, channels, kind))
    if not groups:
        raise RecordingError(FailureCode.NO_USABLE_CHANNELS, "there is no channel to tokenize")
    return groups


def _named(config: TfDualTokenizerConfig, channels: ChannelTable) -> Group:
    names = [name.upper() for name in channels.names]
    wanted = [name.upper() for name in config.channels]
    twice = sorted({name for name in wanted if names.count(name) > 1})
    if twice:
        raise RecordingError(FailureCode.DUPLICATE_CHANNELS, f"{', '.join(twice)} stand more than once")
    missing = [name for name in wanted if name not in names]
    least = len(wanted) if config.min_channels is None else config.min_channels
    if len(wanted) - len(missing) < least:
        raise RecordingError(
            FailureCode.NO_USABLE_CHANNELS,
            f"{len(wanted) - len(missing)} of the {least} channels that the tokenizer needs are there; "
            f"missing: {', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}",  # noqa: PLR2004
            next_step="rename the channels in `prepare`, set tokenizer.min_channels, or choose another tokenizer",
        )
    return tuple(names.index(name) if name in names else MISSING for name in wanted)


def _ranked(config: TfDualTokenizerConfig, channels: ChannelTable, kind: str) -> tuple[Group, ...]:
    rows = [i for i, one in enumerate(channels.types) if one == kind]
    n_groups = -(-len(rows) // config.group_channels)
    edges = [round(i * len(rows) / n_groups) for i in range(n_groups + 1)]
    return tuple(tuple(rows[start:stop]) for start, stop in pairwise(edges))


def present(group: Group, bads: Sequence[str]) -> tuple[bool, ...]:
    """Whether each position of a group has a channel that is not bad."""
    return tuple(i != MISSING and not bads[i] for i in group)


def good_members(group: Group, bads: Sequence[str]) -> Group:
    """Return the group with ``MISSING`` in place of bad channels."""
    return tuple(i if there else MISSING for i, there in zip(group, present(group, bads), strict=True))
