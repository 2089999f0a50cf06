"""From a pipeline and a selection to recordings, their splits and their stores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from neuromill.records import ConfigError
from neuromill.stages.planning import share_of
from neuromill.stages.refreshing import index_tables

if TYPE_CHECKING:
    from neuromill.catalog.duplicates import Duplicate, DuplicateTable
    from neuromill.records import Recording, RecordingId
    from neuromill.stages.datasets import Dataset
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Chosen:
    """The recordings a command is about, sorted by id, and the datasets they belong to.

    Attributes
    ----------
    recordings
        Those this process works on: with ``--part`` its share of ``selected``.
    selected
        All that are chosen; what a tokenizer or a model learns from never depends on how the work is shared.
    duplicates
        Recordings left out because another dataset of the pipeline has the same session.
    table
        Which releases share subjects.
    """

    datasets: tuple[Dataset, ...]
    recordings: tuple[Recording, ...]
    selected: tuple[Recording, ...]
    duplicates: tuple[Duplicate, ...] = ()
    table: DuplicateTable | None = None

    def split_of(self, recording: Recording) -> str:
        """Split that the card of its dataset puts a recording in."""
        card = next(d.card for d in self.datasets if d.card.dataset_version == recording.id.dataset_version)
        return card.split_of(recording)

    def require_no_leaks(self) -> None:
        """Refuse a card whose split lets something of the held-out recordings into training.

        Raises
        ------
        ConfigError
            Names the card and what leaks.
        """
        from neuromill.catalog.splits import check_split

        for dataset in self.datasets:
            version = dataset.card.dataset_version
            leaks = check_split([r for r in self.selected if r.id.dataset_version == version], dataset.card)
            if leaks:
                raise ConfigError(
                    f"the split of {dataset.card.id} leaks: {'; '.join(str(leak) for leak in leaks[:3])}",
                    where=dataset.card.id,
                    next_step="correct `splits` in its card",
                )
        if self.table is not None:
            self._require_disjoint_sessions(self.table)

    def _require_disjoint_sessions(self, table: DuplicateTable) -> None:
        """Refuse one session, published twice, in training and held out at once.

        Blocks of time hold a part of every recording out, so no other dataset may train on any of their sessions.
        """
        from neuromill.catalog.duplicates import require_disjoint

        training = [recording for recording in self.selected if self.split_of(recording) == "train"]
        held_out = [recording for recording in self.selected if self.split_of(recording) != "train"]
        require_disjoint(training, held_out, table)
        for dataset in self.datasets:
            if dataset.card.splits.time_blocks is not None:
                version = dataset.card.dataset_version
                mine = [recording for recording in training if recording.id.dataset_version == version]
                others = [recording for recording in training if recording.id.dataset_version != version]
                require_disjoint(others, mine, table)


def choose(workspace: Workspace, pipeline: Pipeline, selection: Selection) -> Chosen:
    """Look the recordings up in the index (written first where it is missing).

    The pipeline's own condition is about its own datasets, so it does not apply to a folder given with ``data``.

    Raises
    ------
    ConfigError
        A condition is no SQL expression over the index, nothing is left, or smoothing reaches over the guard between
        blocks of time.
    """
    from neuromill.catalog.duplicates import drop_duplicates
    from neuromill.catalog.index import table_recordings

    datasets = workspace.datasets(pipeline, selection)
    tables = index_tables(workspace, datasets)
    clauses = [selection.where] if selection.data is not None else [pipeline.where, selection.where]
    kept = _matching(tables, [clause for clause in clauses if clause.strip()])
    recordings = [r for table in tables for r in table_recordings(table) if kept is None or r.id in kept]
    if not recordings:
        raise ConfigError(
            "no recording is chosen",
            where=" AND ".join(clause for clause in clauses if clause) or str(selection.data or pipeline.name),
            next_step="look with `neuromill catalog query true`",
        )
    if not any(dataset.card.modality == "spikes" for dataset in datasets):
        return Chosen(datasets, share_of(recordings, selection.part), share_of(recordings, None))
    from neuromill.stages.spike_preparing import check_smoothing

    for dataset in datasets:
        check_smoothing(pipeline, dataset.card)
    table = workspace.duplicates()
    once, duplicates = drop_duplicates(_read_as_cards_say(recordings, datasets), table)
    return Chosen(datasets, share_of(once, selection.part), share_of(once, None), duplicates, table)


def _read_as_cards_say(recordings: list[Recording], datasets: tuple[Dataset, ...]) -> list[Recording]:
    """Take the layout from the card as it is now: the index holds that of the day it was written."""
    layouts = {d.card.dataset_version: d.card.spikes.digest if d.card.spikes else "" for d in datasets}
    return [replace(recording, layout=layouts[recording.id.dataset_version]) for recording in recordings]


def _matching(tables: list[object], clauses: list[str]) -> set[RecordingId] | None:
    from neuromill.catalog.query import where

    if not clauses:
        return None
    return set.intersection(*(set(where(tables, clause)) for clause in clauses))
