"""Labels of a task: where they are written, and which spellings of them are one class."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from neuromill.records import ENTITIES, ConfigError
from neuromill.stages.participants import PARTICIPANTS, read_participants
from neuromill.training.probe_config import folded

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from neuromill.records import Recording, RecordingId
    from neuromill.stages.choosing import Chosen
    from neuromill.stages.workspace import Workspace
    from neuromill.training.probe_config import LabelConfig

SHOWN = 5
SUBJECT = "participant_id"


def recording_labels(
    workspace: Workspace, chosen: Chosen, recordings: Sequence[Recording], labels: LabelConfig
) -> dict[RecordingId, str]:
    """Label of each recording, "" where it has none; nothing for events.

    Raises
    ------
    ConfigError
        The column or the entity is not there, or rows of ``participants.tsv`` contradict each other.
    """
    if labels.source == "events":
        return {}
    if labels.source == "entity":
        if labels.column not in ENTITIES:
            raise ConfigError(
                f"{labels.column!r} is no entity", where="labels.column", next_step=f"one of {', '.join(ENTITIES)}"
            )
        return {recording.id: getattr(recording.entities, labels.column) for recording in recordings}
    found: dict[RecordingId, str] = {}
    for dataset in chosen.datasets:
        mine = [one for one in recordings if one.id.dataset_version == dataset.card.dataset_version]
        if mine:
            subjects = {one.entities.subject for one in mine}
            content = read_participants(workspace, dataset)
            by_subject = participant_labels(content, labels.column, subjects, dataset.card.id)
            found |= {one.id: by_subject.get(one.entities.subject, "") for one in mine}
    return found


def participant_labels(content: bytes, column: str, subjects: Collection[str], where: str) -> dict[str, str]:
    """Column of a ``participants.tsv`` by subject (without ``sub-``); "" where it says n/a.

    A subject may have several rows (one per session, say) as long as they agree; n/a contradicts nothing.

    Raises
    ------
    ConfigError
        A column is missing, or one of ``subjects`` has rows with different labels.
    """
    from neuromill.readers.sidecars import NOT_AVAILABLE, read_rows

    rows = read_rows(content)
    missing = [name for name in (SUBJECT, column) if not rows or name not in rows[0]]
    if missing:
        raise ConfigError(
            f"{PARTICIPANTS} has no column {' and no column '.join(map(repr, missing))}" if rows else "no row in it",
            where=f"{where}/{PARTICIPANTS}",
            next_step=f"columns: {', '.join(rows[0])}" if rows else "take other labels",
        )
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        label = row[column]
        found[row[SUBJECT].removeprefix("sub-")] |= set() if label.lower() in NOT_AVAILABLE else {label}
    contradicting = [
        f"sub-{subject} ({', '.join(sorted(found[subject]))})"
        for subject in sorted(found.keys() & set(subjects))
        if len(found[subject]) > 1
    ]
    if contradicting:
        more = f" and {len(contradicting) - SHOWN} more" if len(contradicting) > SHOWN else ""
        raise ConfigError(
            f"rows of one subject differ in {column!r}: {'; '.join(contradicting[:SHOWN])}{more}",
            where=f"{where}/{PARTICIPANTS}",
            next_step=f"correct {PARTICIPANTS}, or leave these subjects out with --where",
        )
    return {subject: next(iter(labels), "") for subject, labels in found.items()}


def class_names(found: Iterable[str], labels: LabelConfig) -> dict[str, str]:
    """Name of the class of each label; "" for one of no class of the task.

    Raises
    ------
    ConfigError
        Labels differ in capitals or spaces alone: one class written in two ways, or two classes, as only the task can
        say, by ``ignore_case`` or by naming them all in ``classes``.
    """
    spellings: dict[str, set[str]] = defaultdict(set)
    for label in {*found, *labels.classes} - {""}:
        spellings[folded(label)].add(label)
    names = {"": ""}
    for alike in spellings.values():
        listed = [name for name in labels.classes if name in alike]
        if labels.classes and not listed:
            names |= dict.fromkeys(alike, "")
        elif len(alike) == 1 or set(listed) == alike:
            names |= {label: label for label in alike}
        elif labels.ignore_case:
            names |= dict.fromkeys(alike, listed[0] if listed else min(alike))
        else:
            raise ConfigError(
                f"labels differ in capitals or spaces alone: {', '.join(map(repr, sorted(alike)))}",
                where=f"labels: {labels.source} {labels.column}".strip(),
                next_step="labels.ignore_case: true makes them one class; or name all that are meant in labels.classes",
            )
    return names
