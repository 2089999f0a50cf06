"""Dataset cards: one YAML file says where a dataset lives, what is in it and how it is split."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from neuromill.catalog.rules import RecordingRules, Selection, check_selection, matches
from neuromill.catalog.strict_yaml import parse_yaml
from neuromill.catalog.time_blocks import TimeBlocks
from neuromill.records import Config, ConfigError, DatasetVersion, RecordingError, check_name
from neuromill.records.layouts import SpikeLayout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from neuromill.records import Recording

Split = Literal["train", "validation", "test"]
Archive = Literal[
    "openneuro", "dandi", "osf", "huggingface", "radboud", "physionet", "zenodo", "crcns", "figshare", "synapse",
    "website", "local",
]  # fmt: skip
Modality = Literal["meg", "eeg", "ieeg", "spikes"]
T = TypeVar("T", int, float)

MAX_CARD_BYTES = 1_000_000
FETCHED = ("openneuro", "dandi")  # archives that files are fetched from; of the others a person gets them
STREAMED = ("dandi", "local")  # archives that serve parts of a file; of a local one the files are read where they lie
NO_CARDS = frozenset({"duplicates.yaml"})  # tables that lie among the cards


class Access(StrEnum):
    """What a person must do before the bytes can be fetched."""

    OPEN = "open"
    AGREEMENT = "agreement"
    APPLICATION = "application"


class Fact(Config, Generic[T]):
    """A number about a dataset; ``verified`` once it was counted in the snapshot itself, not only read in a paper."""

    value: T
    verified: bool = False


class Expected(Config):
    """What the recordings of the card should add up to; None where nobody said.

    ``channels`` counts by MNE channel type (``grad: 204``); ``n_channels`` counts those of the card's modality, units
    where that is spikes. ``bytes`` is what the recordings weigh; published sizes are rounded, so 5 % are granted.
    ``classes`` are those of the labelled task the dataset is known for: for people, nothing compares them.
    """

    subjects: Fact[int] | None = None
    recordings: Fact[int] | None = None
    bytes: Fact[int] | None = None
    hours: Fact[float] | None = None
    n_channels: Fact[int] | None = None
    channels: dict[str, Fact[int]] = Field(default_factory=dict)
    sfreq: Fact[float] | None = None
    classes: Fact[int] | None = None


class Splits(Config):
    """Which recordings are held out; everything else is ``train``.

    Attributes
    ----------
    validation, test
        Labels by entity; a recording that both select is ``test``.
    disjoint
        Entities whose labels never occur in training and in a held-out split. ``subject`` is the safe choice;
        ``run`` where each run is one stimulus and all subjects get all of them.
    time_blocks
        Stretches of time that are held out inside every recording of the split ``train``.
    """

    validation: Selection = Field(default_factory=dict)
    test: Selection = Field(default_factory=dict)
    disjoint: tuple[str, ...] = ("subject",)
    time_blocks: TimeBlocks | None = None

    @field_validator("validation", "test")
    @classmethod
    def _known_entities(cls, selection: Selection) -> Selection:
        return check_selection(selection)

    @field_validator("disjoint")
    @classmethod
    def _disjoint_entities(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        check_selection(dict.fromkeys(names, ("any",)))
        return names

    @model_validator(mode="after")
    def _something_is_disjoint(self) -> Splits:
        if (self.validation or self.test) and not self.disjoint:
            raise ValueError("splits need at least one entity in 'disjoint'")
        return self


class Card(Config):
    """One dataset version and everything about it that cannot be read from its files.

    Attributes
    ----------
    access, agreement
        What a person must do before the bytes can be had, and which terms are accepted by it. The place to do it is
        ``url``.
    folder
        Where the files lie, of an archive that nothing fetches from: absolute, or ``~``.
    fetch
        ``whole`` files, or ``stream``: only the objects that the layout names are read, by range requests. Of NWB files
        in the archives ``dandi`` and ``local`` only.
    spikes
        Of modality ``spikes``: where things lie in a file; the defaults read any NWB file that follows the standard.
    """

    id: str
    title: str
    archive: Archive
    version: str
    modality: Modality
    device: str
    line_freq: float | None = Field(default=None, gt=0, description="Hz; used where the sidecars do not say")
    licence: str
    citation: str
    url: str = Field(default="", pattern=r"^(https?://\S+)?$", description="page where it is described, and asked for")
    access: Access = Access.OPEN
    agreement: str = Field(default="", description="what must be accepted before the data may be used")
    fetch: Literal["whole", "stream"] = "whole"
    folder: Path | None = Field(default=None, description="where the files lie that nothing fetches, absolute or ~")
    no_reader: str = Field(default="", description="why no reader opens the files; whoever asks for them is told so")
    synthetic: bool = Field(
        default=False, description="made by a program; in no archive but the one the program writes"
    )
    notes: str = ""
    recordings: RecordingRules = RecordingRules()
    expected: Expected = Expected()
    splits: Splits = Splits()
    spikes: SpikeLayout | None = None

    @field_validator("id", "version")
    @classmethod
    def _safe(cls, name: str) -> str:
        try:
            return check_name(name)
        except RecordingError as error:
            raise ValueError(error.what) from error

    @model_validator(mode="after")
    def _folder_goes_with_what_nothing_fetches(self) -> Card:
        if self.folder is None:
            if self.archive == "local":
                raise ValueError("a `folder` goes with `archive: local`; name it")
        elif self.archive in FETCHED:
            raise ValueError(
                f"a `folder` goes with `archive: local` and others that nothing fetches from, not with {self.archive}"
            )
        elif not self.folder.expanduser().is_absolute():
            raise ValueError("`folder` must be absolute or begin with ~")
        return self

    @model_validator(mode="after")
    def _spikes_go_together(self) -> Card:
        if self.modality != "spikes" and (self.spikes is not None or self.fetch == "stream"):
            raise ValueError("`spikes` and `fetch: stream` go with `modality: spikes`, and only with it")
        if (self.modality == "spikes") != self.recordings.asks_for_spikes:
            raise ValueError(
                "`modality: spikes` goes with `recordings.layout: dandi`, or `plain` with `datatypes: [spikes]`"
            )
        return self

    @model_validator(mode="after")
    def _what_is_streamed_can_be(self) -> Card:
        if self.fetch != "stream":
            return self
        if self.archive not in STREAMED:
            raise ValueError(
                f"`fetch: stream` goes with `archive: {'` or `archive: '.join(STREAMED)}`: no part of a file is read"
                f" from {self.archive}; take it out"
            )
        if self.spikes is not None and self.spikes.format != "nwb":
            raise ValueError(
                f"`fetch: stream` goes with `spikes.format: nwb`: {self.spikes.format} is read whole; take it out"
            )
        return self

    @model_validator(mode="after")
    def _agreement_is_told(self) -> Card:
        if self.access is not Access.OPEN and not (self.agreement and self.url):
            raise ValueError("`access` is not open: say in `agreement` what must be accepted, and in `url` where")
        return self

    @property
    def dataset_version(self) -> DatasetVersion:
        """The dataset version the card pins."""
        return DatasetVersion(self.id, self.version)

    def split_of(self, recording: Recording) -> Split:
        """Split a recording belongs to; ``test`` wins over ``validation``, the rest is ``train``."""
        if matches(self.splits.test, recording.entities):
            return "test"
        return "validation" if matches(self.splits.validation, recording.entities) else "train"


def load_card(path: Path) -> Card:
    """Read one card.

    Raises
    ------
    ConfigError
        Not readable, not safe YAML, an unknown or missing key, a value of the wrong kind. Names file and key.
    """
    document = _read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError("a card is a mapping of keys to values", where=str(path), next_step="see docs/cards.md")
    try:
        return Card.model_validate(document)
    except ValidationError as error:
        raise _explain(error, path) from error


def load_cards(folders: Iterable[Path]) -> tuple[Card, ...]:
    """Read every ``*.yaml`` below the folders, sorted by id.

    Raises
    ------
    ConfigError
        As `load_card`; a folder that is not there; two cards with one id.
    """
    found: dict[str, tuple[Card, Path]] = {}
    for path in _card_files(folders):
        card = load_card(path)
        if card.id in found:
            raise ConfigError(
                f"two cards have the id {card.id}", where=f"{found[card.id][1]} and {path}", next_step="remove one"
            )
        found[card.id] = (card, path)
    return tuple(found[name][0] for name in sorted(found))


def require_obtainable(card: Card) -> None:
    """Return where a source can list the recordings of a card; say what a person must do where none can.

    Raises
    ------
    ConfigError
        No reader opens the files; or nothing fetches them, and they are not in the card's folder. Names the page of the
        dataset, and the agreement.
    """
    where = card.url or str(card.folder or card.id)
    if card.no_reader:
        raise ConfigError(
            f"no reader opens the files of {card.id}: {card.no_reader}",
            where=where,
            next_step="convert them to EDF, BrainVision or FIF, then give their folder with --data or in your own card",
        )
    if card.archive in FETCHED or (card.folder is not None and card.folder.expanduser().is_dir()):
        return
    if card.access is not Access.OPEN:
        what = f"{card.id} is given by agreement, and is not here: {card.agreement}"
    elif card.archive == "local":
        what = f"the folder of {card.id} is not there"
    else:
        what = f"nothing fetches from {card.archive} yet, and {card.id} is not here"
    place = (
        f"put the files, or a link to them, at {card.folder}" if card.folder else "name their `folder` in your own card"
    )
    raise ConfigError(what, where=where, next_step=place)


def card_schema() -> dict[str, Any]:
    """JSON schema of a card, for editors."""
    return Card.model_json_schema()


def _card_files(folders: Iterable[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError("no folder of cards", where=str(folder), next_step="give a folder that exists")
        for path in sorted(folder.rglob("*.yaml")):
            if path.resolve() not in seen and not path.name.startswith(".") and path.name not in NO_CARDS:
                seen.add(path.resolve())
                yield path


def _read_yaml(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise ConfigError("file is too large for a card", where=str(path))
        return parse_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read the card: {error.strerror}", where=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"not valid YAML: {text}", where=str(path), next_step="correct the file") from error


def _explain(error: ValidationError, path: Path) -> ConfigError:
    """One line out of pydantic's many: the first problem, how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    key = ".".join(str(part) for part in first["loc"]) or "(card)"
    if first["type"] == "extra_forbidden":
        what, step = f"unknown key {key!r}", "remove it or correct its spelling"
    elif first["type"] == "missing":
        what, step = f"key {key!r} is missing", "add it"
    elif first["type"] == "string_type":
        what, step = f"key {key!r} must be text, not {first['input']!r}", "put it in quotes"
    else:
        what, step = f"key {key!r}: {first['msg']}", "see docs/cards.md"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ConfigError(what + more, where=f"{path}: {key}", next_step=step)
