"""Bipolar channels: which electrodes or channels of a recording they are made of, and their differences.

A difference of two electrodes is one only where both were recorded against the same reference: C3-A2 less C4-A1 is not
C3-C4 but has the two ears in it. So the names have to say the same of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ConfigError
from neuromill.signals.montage import bipolar_of, position_of, refuse_lacking

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from neuromill.records import ChannelTable
    from neuromill.signals.eeg_steps import PickBipolar

BIPOLAR_MONTAGES: Mapping[str, tuple[str, ...]] = {
    "double-banana-16": (
        "FP1-F7", "F7-T3", "T3-T5", "T5-O1", "FP2-F8", "F8-T4", "T4-T6", "T6-O2",
        "FP1-F3", "F3-C3", "C3-P3", "P3-O1", "FP2-F4", "F4-C4", "C4-P4", "P4-O2",
    ),
}  # fmt: skip
"""Names and order of the pairs: four chains from the front back, without the midline (TUAB, TUEV, CHB-MIT)."""

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class BipolarMatch:
    """What the bipolar channels of a recording are made of; a table of those that could be made, in declared order.

    Attributes
    ----------
    names
        The pairs, as they were declared.
    indices
        Rows of the channel table: the two electrodes, or the one channel that is this pair already.
    sources
        Names in the recording of these rows.
    references
        What the names of the two electrodes say of the reference that cancels, upper case; "" where nothing.
    missing
        Pairs that could not be made.
    mixed
        Those of them whose two electrodes are there, against different references or in different units.
    unmatched
        EEG channels of the recording that no pair uses.
    twice
        Pair or electrode that a pair needs -> channels of the recording that all claim to be it.
    """

    names: tuple[str, ...]
    indices: tuple[tuple[int, ...], ...]
    sources: tuple[tuple[str, ...], ...]
    references: tuple[str, ...]
    missing: tuple[str, ...]
    mixed: tuple[str, ...]
    unmatched: tuple[str, ...]
    twice: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Derivation:
    """How the channels of an output are made of those that are read: each is one of them, or one less another.

    Attributes
    ----------
    plus, minus
        Rows of what is read, for each output channel; ``minus`` is -1 where nothing is subtracted.
    """

    plus: NDArray[np.intp]
    minus: NDArray[np.intp]

    def of(self, block: NDArray[np.float64]) -> NDArray[np.float64]:
        """Output channels [channel, time] of a block that was read; not finite where one of their rows is not."""
        made = block[self.plus]
        rows = np.flatnonzero(self.minus >= 0)
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf; the channel is found bad for it
            made[rows] -= block[self.minus[rows]]
        return made

    def bads(self, inputs: Mapping[int, str]) -> dict[int, str]:
        """Output channels of which a row is bad, with the reason; of two, the first one's."""
        reasons = {at: inputs.get(int(a)) or inputs.get(int(b)) for at, (a, b) in enumerate(self._rows())}
        return {at: reason for at, reason in reasons.items() if reason}

    def _rows(self) -> Iterator[tuple[np.intp, np.intp]]:
        return zip(self.plus, self.minus, strict=True)


def declared_pairs(step: PickBipolar) -> tuple[str, ...]:
    """Names of the pairs that a step asks for."""
    return BIPOLAR_MONTAGES[step.pairs] if isinstance(step.pairs, str) else step.pairs


def match_bipolar(pairs: Sequence[str], channels: ChannelTable) -> BipolarMatch:
    """Find what the pairs are made of among the channels of type ``eeg``; raises nothing, see ``require_bipolar``.

    A channel that is named as the pair is taken as it is, even where its two electrodes are there as well.
    """
    electrodes, ready = _claims(channels)
    found: list[tuple[str, tuple[int, ...], str]] = []
    missing: list[str] = []
    mixed: list[str] = []
    twice: dict[str, tuple[str, ...]] = {}
    for name in pairs:
        pair = require_pair(name)
        claims = [(name, ready[pair])] if pair in ready else [(one, electrodes.get(one, ())) for one in pair]
        twice |= {what: tuple(channels.names[row] for row in rows) for what, rows in claims if len(rows) > 1}
        rows = tuple(rows[0] for _, rows in claims if rows)
        references = {(_reference(channels.names[row]), channels.units[row]) for row in rows}
        if len(rows) < len(claims):
            missing.append(name)
        elif len(references) > 1:
            missing.append(name)
            mixed.append(name)
        else:
            found.append((name, rows, references.pop()[0]))
    used = {row for _, rows, _ in found for row in rows}
    return BipolarMatch(
        names=tuple(name for name, _, _ in found),
        indices=tuple(rows for _, rows, _ in found),
        sources=tuple(tuple(channels.names[row] for row in rows) for _, rows, _ in found),
        references=tuple(reference for _, _, reference in found),
        missing=tuple(missing),
        mixed=tuple(mixed),
        unmatched=tuple(
            name for row, name in enumerate(channels.names) if channels.types[row] == "eeg" and row not in used
        ),
        twice=twice,
    )


def require_bipolar(step: PickBipolar, channels: ChannelTable, where: str = "") -> BipolarMatch:
    """Match, and refuse what the step does not allow.

    Raises
    ------
    RecordingError
        ``duplicate_channels`` where two channels claim to be one electrode or pair that is needed;
        ``no_usable_channels`` where pairs are missing.
    """
    pairs = declared_pairs(step)
    match = match_bipolar(pairs, channels)
    mixed = f"; against different references: {', '.join(match.mixed)}" if match.mixed else ""
    asked = f"{len(pairs)} bipolar channels"
    refuse_lacking(step, match, place="electrode or pair", asked=asked, these="these pairs", where=where, note=mixed)
    return match


def bipolar_channels(match: BipolarMatch, channels: ChannelTable) -> ChannelTable:
    """Channel table of the pairs: each lies midway between its electrodes, and is bad where one of them is."""
    table = channels.pick([rows[0] for rows in match.indices])
    return replace(
        table,
        names=match.names,
        coils=("",) * len(table),
        positions=np.array([channels.positions[list(rows)].mean(axis=0) for rows in match.indices]).reshape(-1, 3),
        orientations=np.full((len(table), 3), np.nan),
        bads=tuple(next((channels.bads[row] for row in rows if channels.bads[row]), "") for rows in match.indices),
    )


def derivation_of(match: BipolarMatch) -> tuple[tuple[int, ...], Derivation]:
    """Rows of the channel table to read, ascending, and how the pairs are made of them."""
    needed = tuple(sorted({row for rows in match.indices for row in rows}))
    places = {row: at for at, row in enumerate(needed)}
    plus = [places[rows[0]] for rows in match.indices]
    minus = [places[rows[1]] if len(rows) > 1 else -1 for rows in match.indices]
    return needed, Derivation(np.array(plus, dtype=np.intp), np.array(minus, dtype=np.intp))


def require_pair(name: str) -> Pair:
    """Electrodes of a declared pair; raises ``ConfigError`` where the name is of none."""
    pair = bipolar_of(name)
    if pair is None:
        raise ConfigError(f"{name!r} names no two electrodes", next_step="write pairs as FP1-F7")
    return pair


def _claims(channels: ChannelTable) -> tuple[dict[str, list[int]], dict[Pair, list[int]]]:
    """Rows of the EEG channels that say they are an electrode, and of those that say they are a pair."""
    electrodes: dict[str, list[int]] = {}
    ready: dict[Pair, list[int]] = {}
    for row, name in enumerate(channels.names):
        if channels.types[row] != "eeg":
            continue
        if position := position_of(name):
            electrodes.setdefault(position[0], []).append(row)
        if pair := bipolar_of(name):  # both where a mastoid stands behind the name
            ready.setdefault(pair, []).append(row)
    return electrodes, ready


def _reference(name: str) -> str:
    position = position_of(name)
    return position[1] if position else ""
