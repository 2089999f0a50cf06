"""Whether held-out recordings stay out of training, and whether a dataset is what its card says."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuromill.catalog.time_blocks import SplitSpan, TimeBlocks, block_spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from neuromill.catalog.cards import Card, Fact
    from neuromill.records import Recording, RecordingId

__all__ = [
    "Difference", "Leak", "SplitSpan", "TimeBlocks", "block_spans", "check_expected", "check_split", "find_leaks",
]  # fmt: skip

NOBODY = frozenset({"", "emptyroom"})  # labels that stand for no person or stimulus
HOURS_TOLERANCE = 0.01
BYTES_TOLERANCE = 0.05  # relative; archives publish sizes in two or three digits


@dataclass(frozen=True, slots=True)
class Leak:
    """A label (or, with entity ``recording``, one recording) that is in training and held out at once."""

    entity: str
    label: str
    training: tuple[RecordingId, ...]
    held_out: tuple[RecordingId, ...]

    def __str__(self) -> str:
        return (
            f"{self.entity} {self.label!r} is in training ({len(self.training)} recordings) "
            f"and held out ({len(self.held_out)})"
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact of the card that the recordings contradict."""

    fact: str
    expected: float
    found: float


def check_split(recordings: Iterable[Recording], card: Card) -> tuple[Leak, ...]:
    """Leaks of the card's own split over these recordings, judged by the card's ``disjoint`` entities.

    MEG-XL's published configuration declares a validation part and trains on it too (MEG-XL spec 8.1);
    nothing may be trained while this returns something.
    """
    training: list[Recording] = []
    held_out: list[Recording] = []
    for recording in recordings:
        (training if card.split_of(recording) == "train" else held_out).append(recording)
    return find_leaks(training, held_out, card.splits.disjoint)


def find_leaks(
    training: Sequence[Recording], held_out: Sequence[Recording], disjoint: Sequence[str]
) -> tuple[Leak, ...]:
    """Find recordings that are in both lists, and labels of the ``disjoint`` entities in both within a dataset."""
    leaks: list[Leak] = []
    for entity in ("recording_id", *disjoint):
        left, right = _by_label(training, entity), _by_label(held_out, entity)
        name = "recording" if entity == "recording_id" else entity
        leaks += [Leak(name, key[1], tuple(left[key]), tuple(right[key])) for key in sorted(left.keys() & right.keys())]
    return tuple(leaks)


def check_expected(recordings: Sequence[Recording], card: Card) -> tuple[Difference, ...]:
    """Facts of the card that the recordings contradict; a fact nobody measured yet (no sidecar) is not one."""
    expected = card.expected
    subjects = {r.entities.subject for r in recordings} - NOBODY
    seconds = [r.duration_seconds for r in recordings if r.duration_seconds is not None]
    rows: list[tuple[str, Fact[int] | Fact[float] | None, float]] = [
        ("subjects", expected.subjects, len(subjects)),
        ("recordings", expected.recordings, len(recordings)),
        ("bytes", expected.bytes, sum({m.path: m.size for r in recordings for m in r.members}.values())),
    ]
    if len(seconds) == len(recordings):
        rows.append(("hours", expected.hours, sum(seconds) / 3600))
    for name, values in (("n_channels", [r.n_channels for r in recordings]), ("sfreq", [r.sfreq for r in recordings])):
        rows += [(name, getattr(expected, name), value) for value in sorted({v for v in values if v is not None})]
    return tuple(
        Difference(name, fact.value, found) for name, fact, found in rows if fact and not _same(name, fact.value, found)
    )


def _same(name: str, expected: float, found: float) -> bool:
    tolerance = {"hours": HOURS_TOLERANCE, "bytes": BYTES_TOLERANCE * expected}
    return abs(expected - found) <= tolerance.get(name, 0)


def _by_label(recordings: Iterable[Recording], entity: str) -> dict[tuple[str, str], list[RecordingId]]:
    found: dict[tuple[str, str], list[RecordingId]] = defaultdict(list)
    for recording in recordings:
        label = recording.id.name if entity == "recording_id" else getattr(recording.entities, entity)
        if entity == "recording_id" or label not in NOBODY:
            found[recording.id.dataset, label].append(recording.id)
    return found
