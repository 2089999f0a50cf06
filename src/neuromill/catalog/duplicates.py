"""Sessions that were published twice, under other names and in other formats (NDT3 7.3): found, and told apart.

Three ways to know that two recordings of two datasets are one session: their bytes are equal; their subject, date and
task are; or, of a subject that several datasets have and where a name tells no date, they may be one. The first two
count once; the last is only kept from being in training and held out at the same time.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import yaml
from pydantic import Field, ValidationError

from neuromill.catalog.path_patterns import glob_match
from neuromill.catalog.strict_yaml import parse_yaml
from neuromill.records import Config, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from neuromill.records import Recording, RecordingId

Why = Literal["digest", "identity"]
TABLE = "duplicates.yaml"
_TASK_IN_SESSION = re.compile(r"([A-Za-z]+)-?\d")
_DATE = re.compile(r"(?<!\d)((?:19|20)\d{2})-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01])(?!\d)")


class Release(Config):
    """A dataset that shares sessions with others.

    Attributes
    ----------
    name
        What the table calls it.
    datasets
        Globs over the ids of its cards.
    task
        Task of all its recordings, "" where their names say it or nobody does.
    dated
        Whether the names of its recordings hold true dates; FALCON's are anonymised.
    """

    name: str
    datasets: tuple[str, ...] = Field(min_length=1)
    task: str = ""
    dated: bool = True


class Animal(Config):
    """A subject of several releases: the labels (globs) it has in each, by the release's name.

    A label is compared with the subject of a recording, and where the recording tells none with its name.
    """

    name: str
    labels: dict[str, tuple[str, ...]]


class DuplicateTable(Config):
    """Which releases have which subjects in common; the first release that has a session keeps it."""

    releases: tuple[Release, ...] = ()
    animals: tuple[Animal, ...] = ()


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A recording of a session that other recordings have too.

    Attributes
    ----------
    dropped
        The recording that does not count.
    kept
        Those that stand for it; several where the other dataset cut the session up.
    why
        ``digest``: the bytes are equal. ``identity``: subject, date and task are.
    session
        Subject and date, "" for equal bytes.
    """

    dropped: RecordingId
    kept: tuple[RecordingId, ...]
    why: Why
    session: str = ""


@dataclass(frozen=True, slots=True)
class _Session:
    """What a name says of a session: ``date`` and ``task`` are "" where it says nothing."""

    recording: Recording
    content: tuple[str, ...]
    release: str = ""
    animal: str = ""
    date: str = ""
    task: str = ""

    @property
    def day(self) -> str:
        return f"{self.animal} {self.date}" if self.animal and self.date else ""

    def same_task(self, other: _Session) -> bool:
        return self.task == other.task or not self.task or not other.task


def load_duplicates(path: Path) -> DuplicateTable:
    """Read the table.

    Raises
    ------
    ConfigError
        Not readable, not of this form, or an animal names a release that is not there.
    """
    try:
        table = DuplicateTable.model_validate(parse_yaml(path.read_text(encoding="utf-8")))
    except (OSError, ValidationError, yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        what = f"cannot read the table of duplicates: {' '.join(str(error).split())}"
        raise ConfigError(what, where=str(path), next_step="correct the file") from error
    names = {release.name for release in table.releases}
    for animal in table.animals:
        if unknown := sorted(set(animal.labels) - names):
            raise ConfigError(
                f"{animal.name} is in {', '.join(unknown)}, which the table does not list as releases",
                where=str(path), next_step="add them to `releases`",
            )  # fmt: skip
    return table


def duplicates_of(folders: Iterable[Path]) -> DuplicateTable:
    """Read the ``duplicates.yaml`` of the first folder of cards that has one; an empty table where none has."""
    place = next((folder / TABLE for folder in folders if (folder / TABLE).is_file()), None)
    return load_duplicates(place) if place else DuplicateTable()


def find_duplicates(recordings: Iterable[Recording], table: DuplicateTable) -> tuple[Duplicate, ...]:
    """Find the recordings that do not count because others are of the same session, sorted by id.

    The dataset that the table lists first keeps a session, then the one whose id comes first. Within one dataset
    version only equal bytes make a duplicate: several files of one day are pieces of it.
    """
    order = [release.name for release in table.releases]
    sessions = [_session(recording, table) for recording in recordings]
    sessions.sort(key=lambda s: (order.index(s.release) if s.release else len(order), str(s.recording.id)))
    by_content: dict[tuple[str, ...], _Session] = {}
    by_day: dict[str, list[_Session]] = defaultdict(list)
    found = []
    for session in sessions:
        one = session.recording.id
        twins = [s for s in by_day.get(session.day, ()) if _elsewhere(s, session) and s.same_task(session)]
        if session.content and session.content in by_content:
            found.append(Duplicate(one, (by_content[session.content].recording.id,), "digest"))
        elif twins:
            found.append(Duplicate(one, tuple(s.recording.id for s in twins), "identity", session.day))
        else:
            by_content[session.content] = session
            if session.day:
                by_day[session.day].append(session)
    return tuple(sorted(found, key=lambda duplicate: str(duplicate.dropped)))


def drop_duplicates(
    recordings: Sequence[Recording], table: DuplicateTable
) -> tuple[tuple[Recording, ...], tuple[Duplicate, ...]]:
    """Leave out what another dataset has, too: the recordings that count, in the order given, and why others do not.

    Within one dataset every recording counts, whatever its bytes.
    """
    found = tuple(
        duplicate
        for duplicate in find_duplicates(recordings, table)
        if all(kept.dataset != duplicate.dropped.dataset for kept in duplicate.kept)
    )
    gone = {duplicate.dropped for duplicate in found}
    return tuple(r for r in recordings if r.id not in gone), found


def require_disjoint(training: Iterable[Recording], held_out: Iterable[Recording], table: DuplicateTable) -> None:
    """Refuse a session that is in training and held out at once, under whatever name, or that may be.

    Raises
    ------
    ConfigError
        Names a pair: equal bytes; equal subject, date and task in two datasets; or a subject of two releases where a
        name tells no date, so that any of its sessions may be meant.
    """
    trained = [_session(recording, table) for recording in training]
    for held in (_session(recording, table) for recording in held_out):
        for other in trained:
            if what := _overlap(held, other):
                raise ConfigError(
                    f"{other.recording.id} is in training and {held.recording.id} is held out: {what}",
                    where=str(held.recording.id),
                    next_step="leave one of the datasets out, or hold the subject out in both",
                )


def _overlap(one: _Session, other: _Session) -> str:
    """Why two recordings are of one session or may be, "" where they are not."""
    if one.content and one.content == other.content:
        return "their bytes are equal"
    if not one.animal or one.animal != other.animal or not _elsewhere(one, other):
        return ""
    if one.date and one.date == other.date and one.same_task(other):
        return f"both are {one.animal} on {one.date}"
    if one.release != other.release and not (one.date and other.date):
        return f"both are of {one.animal}, and a name tells no date, so it may be one session"
    return ""


def _elsewhere(one: _Session, other: _Session) -> bool:
    return one.recording.id.dataset_version != other.recording.id.dataset_version


def _session(recording: Recording, table: DuplicateTable) -> _Session:
    content = _content(recording)
    release = next((r for r in table.releases if any(glob_match(g, recording.id.dataset) for g in r.datasets)), None)
    if release is None:
        return _Session(recording, content)
    label = recording.entities.subject or recording.id.name
    animals = (a.name for a in table.animals if any(glob_match(g, label) for g in a.labels.get(release.name, ())))
    date = _DATE.search(recording.entities.session) or _DATE.search(recording.id.name) if release.dated else None
    in_session = _TASK_IN_SESSION.match(recording.entities.session)
    task = release.task or recording.entities.task or (in_session[1] if in_session else "")
    return _Session(
        recording, content, release.name, next(animals, ""), "".join(date.groups()) if date else "", task.casefold()
    )


def _content(recording: Recording) -> tuple[str, ...]:
    """Digests of the data of a recording, without its sidecars, which many share; () where any is unknown."""
    data = [m for m in recording.members if m.path == recording.path or m.path.startswith(f"{recording.path}/")]
    known = [str(m.digest) for m in data if m.digest is not None and m.size]
    return tuple(sorted(known)) if known and len(known) == len(data) else ()
