"""Which channel is which electrode of the 10-20 system, by the rules that file formats and laboratories follow."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from neuromill.records import FailureCode, RecordingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuromill.records import ChannelTable
    from neuromill.signals.bipolar import BipolarMatch
    from neuromill.signals.eeg_steps import PickBipolar, PickMontage

MONTAGES: Mapping[str, tuple[str, ...]] = {
    "10-20-19": (
        "FP1", "FP2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2",
        "F7", "F8", "T3", "T4", "T5", "T6", "FZ", "CZ", "PZ",
    ),
}  # fmt: skip
"""Names and order of the channels of a montage."""

SAME_PLACE: Mapping[str, str] = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
"""Names of the 10-10 system -> those of the 10-20 system for the same place."""

REFERENCES = frozenset({
    "REF", "LE", "CLE", "LER", "AR", "AV", "AVG", "AVE", "AVERAGE", "CAR", "LINKED",
    "A1", "A2", "M1", "M2", "A12", "A1A2", "A2A1", "M1M2", "M2M1", "A1+A2", "A2+A1", "M1+M2", "M2+M1",
})  # fmt: skip
"""What may stand behind a name and leave it the name of one electrode. Another electrode there makes it bipolar."""

MASTOIDS = frozenset({"TP9", "TP10"})
"""Electrodes of large caps that are references as well: ``Fz-TP9`` is Fz, and the pair where that is asked for."""

POSITION = re.compile(r"[A-Z]{1,3}(?:\d{1,2}|Z)")
NAME = re.compile(
    r"(?:(?:EEG|POL)[\s_:-]*)?"  # EDF's type; Nihon Kohden's
    rf"(?P<position>{POSITION.pattern})"
    r"(?:\s*[\s_:-]\s*(?P<reference>[A-Z][A-Z0-9+]*)(?:-\d)?)?"  # MNE numbers equal names: EEG FP1-REF-0
)


@dataclass(frozen=True, slots=True)
class MontageMatch:
    """How the channels of a recording lie on a montage.

    Attributes
    ----------
    indices
        Rows of the channel table, in the order of the montage.
    names
        Name in the montage of each of them.
    sources
        Name in the recording of each of them.
    references
        What the name said of the reference of each of them, upper case; "" where it said nothing.
    missing
        Names of the montage that no channel of the recording has.
    unmatched
        EEG channels of the recording that are not in the montage.
    twice
        Name of the montage -> channels of the recording that all claim to be it.
    """

    indices: tuple[int, ...]
    names: tuple[str, ...]
    sources: tuple[str, ...]
    references: tuple[str, ...]
    missing: tuple[str, ...]
    unmatched: tuple[str, ...]
    twice: Mapping[str, tuple[str, ...]]


def position_of(name: str) -> tuple[str, str] | None:
    """Electrode and reference that a channel name says, upper case; None where it names no single electrode.

    ``EEG FP1-REF`` and ``EEG Fp1-LE`` (Temple University), ``EEG Fp1``, ``Fp1.`` and ``C3..`` (PhysioNet), ``fp1``,
    ``C3-A2`` (sleep), ``Fz-TP9`` are one electrode each; ``Fp1-F7`` is two, ``A2-A1`` two references, ``ECG`` none.
    """
    found = _parts(name)
    if found is None:
        return None
    position, reference = found
    if reference and (reference not in REFERENCES | MASTOIDS or position in REFERENCES | {reference}):
        return None
    return SAME_PLACE.get(position, position), reference


def bipolar_of(name: str) -> tuple[str, str] | None:
    """Two electrodes whose difference a channel name says it is, upper case: ``EEG Fp1-F7``, ``T8-P8`` (T4, T6)."""
    found = _parts(name)
    if found is None or POSITION.fullmatch(found[1]) is None or REFERENCES.intersection(found):
        return None
    first, second = (SAME_PLACE.get(position, position) for position in found)
    return (first, second) if first != second else None


def _parts(name: str) -> tuple[str, str] | None:
    """What a name says before and behind its separator, upper case; None where it begins with no electrode."""
    found = NAME.fullmatch(name.strip().strip(".").strip().upper())
    return (found["position"], found["reference"] or "") if found else None


def match_montage(montage: str, channels: ChannelTable) -> MontageMatch:
    """Find the channels of a montage among those of type ``eeg``; raises nothing, see ``require_montage``."""
    wanted = MONTAGES[montage]
    rows: dict[str, list[tuple[int, str]]] = {name: [] for name in wanted}
    unmatched = []
    for row, (name, kind) in enumerate(zip(channels.names, channels.types, strict=True)):
        position = position_of(name) if kind == "eeg" else None
        if position and position[0] in rows:
            rows[position[0]].append((row, position[1]))
        elif kind == "eeg":
            unmatched.append(name)
    found = [(name, *places[0]) for name, places in rows.items() if places]
    return MontageMatch(
        indices=tuple(row for _, row, _ in found),
        names=tuple(name for name, _, _ in found),
        sources=tuple(channels.names[row] for _, row, _ in found),
        references=tuple(reference for _, _, reference in found),
        missing=tuple(name for name, places in rows.items() if not places),
        unmatched=tuple(unmatched),
        twice={
            name: tuple(channels.names[row] for row, _ in places) for name, places in rows.items() if len(places) > 1
        },
    )


def require_montage(step: PickMontage, channels: ChannelTable, where: str = "") -> MontageMatch:
    """Match, and refuse what the step does not allow.

    Raises
    ------
    RecordingError
        ``duplicate_channels`` where two channels claim one place; ``no_usable_channels`` where channels are missing.
    """
    match = match_montage(step.montage, channels)
    asked = f"the {len(MONTAGES[step.montage])} channels of {step.montage}"
    refuse_lacking(step, match, place=f"place of {step.montage}", asked=asked, these="this montage", where=where)
    return match


def refuse_lacking(
    step: PickMontage | PickBipolar,
    match: MontageMatch | BipolarMatch,
    *,
    place: str,
    asked: str,
    these: str,
    where: str,
    note: str = "",
) -> None:
    """Refuse several channels for one ``place``, and a match without what the step cannot do without.

    Parameters
    ----------
    place, asked, these
        What stands in the messages for what a channel can claim to be, for all that the step wants, and for its name.
    note
        Behind what is missing.

    Raises
    ------
    RecordingError
        ``duplicate_channels`` or ``no_usable_channels``.
    """
    if match.twice:
        claims = "; ".join(f"{name}: {', '.join(sources)}" for name, sources in match.twice.items())
        raise RecordingError(
            FailureCode.DUPLICATE_CHANNELS,
            f"several channels for one {place} ({claims})",
            where=where,
            next_step=f"leave the others out with a pick step before {step.step}",
        )
    if not match.names or (step.require_all and match.missing):
        raise RecordingError(
            FailureCode.NO_USABLE_CHANNELS,
            f"{len(match.names)} of {asked}; missing: {', '.join(match.missing)}{note}",
            where=where,
            next_step=f"use a pipeline without {these}, or require_all: false" if match.names else "",
        )


def on_montage(match: MontageMatch, channels: ChannelTable) -> ChannelTable:
    """Channel table of the matched channels, in the order and under the names of the montage."""
    return replace(channels.pick(match.indices), names=match.names)
