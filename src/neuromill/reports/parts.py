"""What a page is built from: tiles, tables, sections, and numbers in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuromill.reports.contents import SECONDS_IN_HOUR, SECONDS_IN_MINUTE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Tile:
    """A number at the top of the page."""

    name: str
    value: str
    warn: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """Heading of a table; numbers stand on the right, and our own words are never broken."""

    name: str
    number: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table below a picture."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a section is left out, and the command that makes it."""

    what: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page."""

    key: str
    title: str
    look_for: str = ""
    picture: Markup | None = None
    caption: str = ""
    tables: tuple[Table, ...] = ()
    missing: Missing | None = None


def duration(seconds: float) -> str:
    """Write a length as people say it: ``12.5 s``, ``3.4 min``, ``27.1 h``."""
    if seconds < SECONDS_IN_MINUTE:
        return f"{seconds:.1f} s"
    if seconds < SECONDS_IN_HOUR:
        return f"{seconds / SECONDS_IN_MINUTE:.1f} min"
    return f"{seconds / SECONDS_IN_HOUR:,.1f} h"


def count_of(number: int, thing: str) -> str:
    """Write ``1 recording``, ``2 recordings``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def left_out(key: str, title: str, what: str, command: str) -> Section:
    """A section that says why it is empty, and which command fills it."""
    return Section(key, title, missing=Missing(what, command))


def inline(picture: str) -> Markup:
    """Mark a picture of ours as what may go into a page as it is."""
    from markupsafe import Markup

    return Markup(picture)  # noqa: S704  # drawn here; matplotlib escapes the texts in it


def length(seconds: Sequence[float | None]) -> str:
    """Length of all recordings whose length is known."""
    known = [each for each in seconds if each is not None]
    return duration(sum(known)) if known else "unknown"


def without_dataset(names: Sequence[str]) -> dict[str, str]:
    """Ids of recordings without ``dataset@version/`` where they all share it: names as people say them."""
    same = len({name.partition("/")[0] for name in names}) == 1
    return {name: (name.partition("/")[2] if same else "") or name for name in names}


def number(value: float | None, form: str) -> str:
    """Write a number, or a dash where there is none."""
    return "-" if value is None else form.format(value)


def short(count: int) -> str:
    """Write a large count in three digits: ``1.2 M``."""
    for size, letter in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)
