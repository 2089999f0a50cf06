"""What counts as a recording of a dataset: a filter over file names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, field_validator, model_validator

from neuromill.catalog.path_patterns import check_path_pattern, glob_match
from neuromill.records import ENTITIES, Config

if TYPE_CHECKING:
    from neuromill.records import Entities

Datatype = Literal["meg", "eeg", "ieeg", "spikes"]
BIDS_DATATYPES: tuple[Datatype, ...] = ("meg", "eeg", "ieeg")
DATATYPES: tuple[Datatype, ...] = (*BIDS_DATATYPES, "spikes")

Selection = dict[str, tuple[str, ...]]
"""Labels by BIDS entity, ``{"run": ("56", "57")}``: selects recordings that have one of the labels of every entity.

``*`` in a label stands for any text: FALCON's splits are subjects whose labels end in ``held-out-calib``.
"""


class RecordingRules(Config):
    """Filter that says which files of a snapshot are recordings.

    Attributes
    ----------
    layout
        ``bids``: file names carry entities, sidecars are inherited. ``dandi``: NWB files whose names carry entities
        (``sub-X_ses-Y_behavior+ecephys.nwb``), with any suffix and no sidecars. ``plain``: every file in a known
        format is one.
    path_pattern
        Of layout ``plain``: where the path carries entities, ``{subject}_{session}.mat`` (see `match_path`). A file
        that does not match is left out; ``datatypes`` then names the one datatype of the others.
    datatypes
        Of layout ``bids``: datatypes to take; the suffix of a recording is its datatype. Of layout ``plain``: a .mat
        file is a recording only where ``spikes`` are among them.
    entities, exclude_entities
        Labels to keep, labels to leave out, by the long name of the entity.
    include, exclude
        Globs over the path of the recording (see `glob_match`). No ``include`` means everything.
    """

    layout: Literal["bids", "dandi", "plain"] = "bids"
    path_pattern: str = ""
    datatypes: tuple[Datatype, ...] = BIDS_DATATYPES
    entities: Selection = Field(default_factory=dict)
    exclude_entities: Selection = Field(default_factory=dict)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @field_validator("entities", "exclude_entities")
    @classmethod
    def _known_entities(cls, selection: Selection) -> Selection:
        return check_selection(selection)

    @field_validator("path_pattern")
    @classmethod
    def _usable_pattern(cls, pattern: str) -> str:
        return check_path_pattern(pattern)

    @model_validator(mode="after")
    def _pattern_goes_with_plain(self) -> Self:
        if self.path_pattern and self.layout != "plain":
            raise ValueError("`path_pattern` goes with `layout: plain`; names of the other layouts carry entities")
        if self.layout == "bids" and "spikes" in self.datatypes:
            raise ValueError("`spikes` go with `layout: dandi` or `layout: plain`")
        return self

    @property
    def asks_for_spikes(self) -> bool:
        """Whether recordings of spikes are wanted: by the layout, or by name."""
        return self.layout == "dandi" or "spikes" in self.datatypes

    def refusal(self, path: str, datatype: str, entities: Entities) -> str:
        """Why these rules leave a recording out, "" where they take it."""
        if self.layout == "bids" and datatype not in self.datatypes:
            return f"datatype {datatype} is not asked for"
        if self.entities and not matches(self.entities, entities):
            return "entities are not asked for"
        if any(_is_one_of(getattr(entities, name), labels) for name, labels in self.exclude_entities.items()):
            return "entities are excluded"
        if self.include and not any(glob_match(pattern, path) for pattern in self.include):
            return "no include pattern matches"
        excluded = next((pattern for pattern in self.exclude if glob_match(pattern, path)), "")
        return f"excluded by {excluded}" if excluded else ""


def check_selection(selection: Selection) -> Selection:
    """Return the selection, or raise ValueError where it names an unknown entity or no labels."""
    for name, labels in selection.items():
        if name not in ENTITIES:
            raise ValueError(f"{name!r} is no BIDS entity; use the long names: {', '.join(ENTITIES)}")
        if not labels:
            raise ValueError(f"{name!r} lists no labels")
    return selection


def matches(selection: Selection, entities: Entities) -> bool:
    """Whether every entity of the selection has one of its labels; an empty selection matches nothing."""
    return bool(selection) and all(_is_one_of(getattr(entities, name), labels) for name, labels in selection.items())


def _is_one_of(label: str, wanted: tuple[str, ...]) -> bool:
    return any(label == one or ("*" in one and glob_match(one, label)) for one in wanted)
