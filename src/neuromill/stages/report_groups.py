"""Groups of stores as a report reads them: opened, with the recording they are of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from neuromill.stages.channels import channel_table
from neuromill.stages.contexts import done_recordings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from neuromill.records import ChannelTable, DatasetVersion, Recording
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.outcomes import Stage
    from neuromill.stages.work import WorkContext
    from neuromill.stages.workspace import Workspace
    from neuromill.store.contents import IndexedRecording
    from neuromill.store.reader import StoreReader

T = TypeVar("T")

SPLITS_BY_HONESTY = ("validation", "test", "train")
"""Where an example comes from: what nothing was fitted on, if there is any."""


@dataclass(frozen=True, slots=True)
class Published:
    """A group that is in a store, opened."""

    recording: Recording
    reader: StoreReader

    @property
    def name(self) -> str:
        """Name of the group."""
        return self.recording.id.name

    @property
    def group(self) -> IndexedRecording:
        """What the group says of itself."""
        return self.reader.recording(self.name)

    @property
    def channels(self) -> ChannelTable:
        """Its channel table."""
        return channel_table(self.reader, self.name)

    def middle(self, seconds: float) -> tuple[int, int]:
        """Return first and last row + 1 of at most ``seconds`` in the middle."""
        rows = min(self.group.n_rows, round(seconds * self.group.sfreq))
        start = (self.group.n_rows - rows) // 2
        return start, start + rows

    def signal(self, start: int, stop: int) -> NDArray[np.float32]:
        """Signal in SI units: float32 [channel, time]; bad channels may be NaN."""
        return self.reader.read_physical(self.name, start, stop).T


def published_groups(workspace: Workspace, chosen: Chosen, stage: Stage, context: WorkContext) -> tuple[Published, ...]:
    """Groups of the chosen recordings that the ledger calls done and that are still in place."""
    from neuromill.store.layout import MANIFEST_FILE, group_name
    from neuromill.store.reader import StoreReader

    identity = context.identity(stage)
    if not identity:
        return ()
    by_version: defaultdict[DatasetVersion, list[Recording]] = defaultdict(list)
    for recording in done_recordings(workspace, chosen, stage, identity):
        store = workspace.store(recording.id.dataset_version, stage, identity)
        if (store / group_name(recording.id.name) / MANIFEST_FILE).is_file():
            by_version[recording.id.dataset_version].append(recording)
    return tuple(
        Published(recording, reader)
        for dataset_version, recordings in sorted(by_version.items(), key=lambda item: str(item[0]))
        for reader in [
            StoreReader.of_groups(workspace.store(dataset_version, stage, identity), [r.id.name for r in recordings])
        ]
        for recording in recordings
    )


def by_dataset(groups: Iterable[Published]) -> dict[str, list[Published]]:
    """Groups by the id of their dataset, sorted."""
    found: defaultdict[str, list[Published]] = defaultdict(list)
    for one in groups:
        found[one.recording.id.dataset].append(one)
    return dict(sorted(found.items()))


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count``, evenly spread over the list: never only the first subject."""
    places = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[place] for place in places]
