"""The channel table of a published group, as it was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ChannelTable

if TYPE_CHECKING:
    from neuromill.store.reader import StoreReader


def channel_table(reader: StoreReader, recording: str) -> ChannelTable:
    """Read the channel table of a recording; positions come back as float64 of what the store holds."""
    attributes = reader.recording(recording).attributes
    names = tuple(attributes["channel_names"])
    bads = attributes["bads"]
    return ChannelTable(
        names=names,
        types=tuple(attributes["channel_types"]),
        coils=tuple(attributes["channel_coils"]),
        units=tuple(attributes["channel_units"]),
        positions=np.asarray(reader.read(recording, "channel_position"), np.float64),
        orientations=np.asarray(reader.read(recording, "channel_orientation"), np.float64),
        bads=tuple(bads.get(name, "") for name in names),
    )


def good_channels(channels: ChannelTable) -> tuple[int, ...]:
    """Indices of the channels that are not bad."""
    return tuple(i for i, bad in enumerate(channels.bads) if not bad)
