"""``catalog refresh``: ask the source for a snapshot's manifest, write the recording index."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from neuromill.records import ConfigError, RecordingError
from neuromill.stages.asking import address_of, ask_archive, telling
from neuromill.stages.orphans import recordings_without_data
from neuromill.stages.participants import keep_participants

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from neuromill.catalog.cards import Card
    from neuromill.catalog.discovery import LeftOut, Problem
    from neuromill.catalog.splits import Difference
    from neuromill.records import DatasetVersion, Recording
    from neuromill.sources.protocol import Listing, Skipped, Source
    from neuromill.stages.datasets import Dataset
    from neuromill.stages.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh found; nothing but sidecars and ``participants.tsv`` was fetched."""

    dataset_version: DatasetVersion
    index: Path
    revision: str
    recordings: tuple[Recording, ...]
    left_out: tuple[LeftOut, ...]
    problems: tuple[Problem, ...]
    skipped: tuple[Skipped, ...]
    differences: tuple[Difference, ...]

    @property
    def size(self) -> int:
        """Bytes behind the recordings; a file that several share counts once."""
        return sum({m.path: m.size for recording in self.recordings for m in recording.members}.values())


def refresh(workspace: Workspace, dataset: Dataset) -> Refreshed:
    """List the card's version in its archive and write the recording index of it.

    Raises
    ------
    RecordingError
        ``unreachable_upstream`` where the archive cannot be asked, or does not answer within `listing_seconds`.
    ConfigError
        Nothing fetches the dataset and it is not in the card's folder, or no reader opens its files.
    """
    from neuromill.catalog.cards import require_obtainable
    from neuromill.catalog.discovery import discover
    from neuromill.catalog.index import write_index
    from neuromill.catalog.splits import check_expected

    require_obtainable(dataset.card)
    card, source = dataset.card, dataset.origin.open(workspace.settings)
    _keep_folders_apart(workspace, dataset)
    asked = f"asking the archive what is in {card.dataset_version}"
    listing = ask_archive(workspace, dataset, asked, partial(_listing, source, card))
    with telling(f"reading the sidecars of {card.dataset_version} [{address_of(workspace, dataset)}]", workspace.say):
        found = discover(listing.manifest, card.recordings, source.read)
    layout = card.spikes.digest if card.spikes else ""
    listed = (*found.recordings, *recordings_without_data(listing.manifest, card.recordings, found))
    recordings = tuple(replace(r, line_freq=r.line_freq or card.line_freq, layout=layout) for r in listed)
    path = workspace.index_path(card.dataset_version)
    write_index(path, recordings, card.split_of)
    keep_participants(workspace, dataset, listing.manifest, source)
    return Refreshed(
        dataset_version=card.dataset_version,
        index=path,
        revision=listing.manifest.revision,
        recordings=recordings,
        left_out=found.left_out,
        problems=found.problems,
        skipped=listing.skipped,
        differences=check_expected(recordings, card),
    )


def _listing(source: Source, card: Card) -> Listing:
    try:
        return source.listing(card.version)
    except RecordingError as error:
        if not card.synthetic:
            raise
        raise ConfigError(
            f"{card.id} is synthetic and in no archive", where=error.where, next_step="`neuromill demo` makes it"
        ) from error


def _keep_folders_apart(workspace: Workspace, dataset: Dataset) -> None:
    """Refuse a folder with the name of another one: they would share a store. A moved one is welcome."""
    if dataset.folder is None:
        return
    note = workspace.index_path(dataset.card.dataset_version).with_suffix(".folder")
    known = note.read_text(encoding="utf-8") if note.is_file() else ""
    if known != str(dataset.folder) and known and Path(known).is_dir():
        raise ConfigError(
            f"another folder of this name was used in this home: {known}",
            where=str(dataset.folder),
            next_step=f"rename it, use another --home, or, if it is the same data, delete {note}",
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(str(dataset.folder), encoding="utf-8")


def index_tables(workspace: Workspace, datasets: Sequence[Dataset]) -> list[pa.Table]:
    """Open the recording index of each dataset; one that is missing, or belongs to a folder, is written first.

    Raises
    ------
    ConfigError
        A folder holds no recording; the message tells the first thing that was left out.
    """
    from neuromill.catalog.index import read_table

    for dataset in datasets:
        if dataset.folder is not None or not workspace.index_path(dataset.card.dataset_version).is_file():
            refreshed = refresh(workspace, dataset)
            if dataset.folder is not None and not refreshed.recordings:
                raise ConfigError(
                    f"no recording is found in this folder{_first_loss(refreshed)}",
                    where=str(dataset.folder),
                    next_step="layouts and formats: docs/cards.md, docs/sources.md",
                )
    return [read_table(workspace.index_path(dataset.card.dataset_version)) for dataset in datasets]


def _first_loss(refreshed: Refreshed) -> str:
    reasons = [f"{skipped.path}: {skipped.reason}" for skipped in refreshed.skipped]
    reasons += [f"{left.path}: {left.reason}" for left in refreshed.left_out]
    reasons += [f"{problem.path}: {problem.message}" for problem in refreshed.problems]
    return f"; {len(reasons)} files are left out, the first is {reasons[0]}" if reasons else ""
