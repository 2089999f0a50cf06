"""Datasets a pipeline works on: a card with its source, or a lab's own folder without a card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuromill.catalog.cards import Card, Splits
from neuromill.catalog.rules import BIDS_DATATYPES, RecordingRules
from neuromill.records import ConfigError, RecordingError, safe_name

if TYPE_CHECKING:
    from pathlib import Path

    from neuromill.catalog.cards import Modality
    from neuromill.catalog.time_blocks import TimeBlocks
    from neuromill.records import SpikeLayout
    from neuromill.sources.protocol import Source
    from neuromill.stages.settings import Settings

EEG_SUFFIXES = frozenset({".edf", ".bdf", ".vhdr", ".set"})


@dataclass(frozen=True, slots=True)
class Origin:
    """What a worker has to know of a dataset: where its bytes come from, how spikes are read, and what is held out."""

    dataset: str
    archive: str
    folder: Path | None
    layout: SpikeLayout | None = None
    fetch: str = "whole"
    time_blocks: TimeBlocks | None = None

    def open(self, settings: Settings) -> Source:
        """Open the source; nothing is asked or read yet."""
        from neuromill.sources.opening import open_source

        endpoints = settings.endpoints.model_copy(
            update={"local_folder": self.folder, "cache_folder": settings.home / "cache" / "sources"}
        )
        return open_source(self.archive, self.dataset, endpoints)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A card, and the folder it lies in where it is a local one."""

    card: Card
    folder: Path | None = None

    @property
    def origin(self) -> Origin:
        """The part of it that goes to workers; what lies in a folder is read there, whatever archive it is of."""
        card = self.card
        archive = "local" if self.folder is not None else card.archive
        return Origin(card.id, archive, self.folder, card.spikes, card.fetch, card.splits.time_blocks)


def dataset_of_folder(folder: Path, modality: Modality | None = None) -> Dataset:
    """Make a dataset of a folder without a card; all its recordings are in the training split.

    Folders with ``sub-*`` inside are read as BIDS (spikes: as DANDI has them), others as plain files. The modality is
    that of its first datatype folder, or of its first file in a format of EEG, unless it is given.

    Raises
    ------
    ConfigError
        There is no such folder, or its name has no letter or digit.
    """
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError("no such folder", where=str(folder), next_step="--data takes a folder of recordings")
    try:
        name = safe_name(folder.name)
    except RecordingError:
        raise ConfigError(
            "the dataset is named like its folder, and this is no name",
            where=str(folder),
            next_step="rename the folder, or give a link to it",
        ) from None
    card = Card(
        id=name,
        title=f"Recordings in {folder.name}",
        archive="local",
        version="local",
        folder=folder,
        modality=modality or _modality(folder),
        device="as the files say",
        licence="own data",
        citation="",
        recordings=_rules(folder, modality),
        splits=Splits(),
    )
    return Dataset(card, folder)


def _modality(folder: Path) -> Modality:
    """Modality of a folder of signals, for people to read: its recordings bear their own."""
    for kind in BIDS_DATATYPES:
        if any(folder.glob(f"sub-*/{kind}")) or any(folder.glob(f"sub-*/ses-*/{kind}")):
            return kind
    files = (path.suffix.lower() for path in folder.rglob("*"))
    return "eeg" if any(suffix in EEG_SUFFIXES for suffix in files) else "meg"


def _rules(folder: Path, modality: Modality | None) -> RecordingRules:
    by_subject = any(child.is_dir() for child in folder.glob("sub-*"))
    if modality == "spikes":
        return RecordingRules(layout="dandi") if by_subject else RecordingRules(layout="plain", datatypes=("spikes",))
    return RecordingRules(layout="bids" if by_subject else "plain")
