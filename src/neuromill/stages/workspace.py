"""One home folder: cache, catalog, stores, tokenizers, runs, ledger."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from neuromill.records import ConfigError
from neuromill.stages.datasets import Dataset, dataset_of_folder
from neuromill.stages.report import Silent
from neuromill.stages.shipped import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neuromill.catalog.cards import Card, Modality
    from neuromill.catalog.duplicates import DuplicateTable
    from neuromill.catalog.ledger import Ledger
    from neuromill.records import DatasetVersion
    from neuromill.stages.outcomes import Stage
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.selection import Selection
    from neuromill.stages.settings import Settings

SILENT = Silent()


class Workspace:
    """The places below ``settings.home``, and the ledger. Nothing is created before it is written to.

    Parameters
    ----------
    settings
        Of this machine.
    say
        Told what a command waits for (an archive that does not answer), possibly from another thread.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None] = SILENT.say) -> None:
        self.settings, self.say = settings, say

    @property
    def home(self) -> Path:
        """The home folder, absolute."""
        return self.settings.home

    @cached_property
    def ledger(self) -> Ledger:
        """Return the ledger: a SQLite file in the home folder unless the settings name a database."""
        from neuromill.catalog.ledger import Ledger, sqlite_url

        self.home.mkdir(parents=True, exist_ok=True)
        return Ledger(self.settings.ledger_url or sqlite_url(self.home / "ledger.sqlite"))

    def close(self) -> None:
        """Give the ledger's connections back."""
        if "ledger" in self.__dict__:
            self.ledger.close()
            del self.__dict__["ledger"]

    def cards(self) -> tuple[Card, ...]:
        """Every card: those of the package, of ``<home>/catalogs`` and of the folders the settings name."""
        from neuromill.catalog.cards import load_cards

        return load_cards(self._card_folders())

    def duplicates(self) -> DuplicateTable:
        """Return the table of sessions that several releases have: of the home folder, else the package's."""
        from neuromill.catalog.duplicates import duplicates_of

        return duplicates_of(reversed(self._card_folders()))

    def _card_folders(self) -> list[Path]:
        folders = [shipped_folder("catalogs"), *self.settings.catalogs]
        own = self.home / "catalogs"
        return [*folders, own] if own.is_dir() else folders

    def dataset(self, card_id: str) -> Dataset:
        """Return the dataset with this card; ``ConfigError`` where there is none."""
        cards = {card.id: card for card in self.cards()}
        if card_id not in cards:
            raise ConfigError(
                "no card has this id", where=card_id, next_step=f"known: {', '.join(cards)}; see docs/cards.md"
            )
        card = cards[card_id]
        return Dataset(card, card.folder.expanduser() if card.folder else None)

    def datasets(self, pipeline: Pipeline, selection: Selection) -> tuple[Dataset, ...]:
        """Return the datasets a command is about: the folder given with ``--data``, else the pipeline's."""
        if selection.data is not None:
            modality: Modality | None = "spikes" if pipeline.prepare.kind == "spikes" else None
            return (dataset_of_folder(selection.data, modality),)
        if not pipeline.datasets:
            raise ConfigError("the pipeline names no datasets", where=pipeline.name, next_step="give --data FOLDER")
        return tuple(self.dataset(name) for name in pipeline.datasets)

    def index_path(self, version: DatasetVersion) -> Path:
        """Recording index of a dataset version."""
        return self.home / "catalog" / f"{version}.parquet"

    def store(self, version: DatasetVersion, stage: Stage, identity: str) -> Path:
        """Folder of one identity of one stage."""
        from neuromill.store.layout import StoreId

        return StoreId(str(version), stage.value, identity).path(self.home)

    def tokenizer_folder(self, identity: str) -> Path:
        """Folder of a fitted tokenizer."""
        return self.home / "tokenizers" / identity

    def run_folder(self, identity: str) -> Path:
        """Folder of a training run."""
        return self.home / "runs" / identity
