"""Where electrodes are: ``electrodes.tsv`` in the unit that ``coordsystem.json`` states, where the file has no places.

Found in listings of real datasets: coordinates of a unit sphere stated as mm (ds004362), centimetres without any
coordinate system (ds003645), "n/a" as the unit. So a place counts only where its unit is stated and the electrodes
then lie as far from each other as electrodes can. Nothing is rescaled: what cannot be is left out and told.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.readers.sidecars import decode, number, read_rows
from neuromill.readers.tables import VOLT_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from neuromill.records import ChannelTable

METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}
PREFIXES = ("EEG", "iEEG")  # of the keys of coordsystem.json
HEAD_SYSTEMS = frozenset({"captrak", "elektaneuromag"})  # what MNE calls head: x to the right ear, y to the nose
# Metres: median distance of electrodes from their centre, from micro-wires to any head. The range is a factor of 1000,
# so that none stays inside. With a cap of at least eight it is 60 to 130 mm, and a factor of 10 does not stay either.
POSSIBLE = (0.25e-3, 0.25)
POSSIBLE_CAP = (0.03, 0.25)
CAP = 8
FARTHEST = 0.5  # from the centre: a slip of the pen, not an electrode


@dataclass(frozen=True, slots=True)
class ElectrodeTable:
    """An ``electrodes.tsv`` as it was found, with the coordinate systems that apply to it, general before special."""

    name: str
    content: bytes
    systems: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Positions for the channels of a recording.

    Attributes
    ----------
    positions
        [channel, 3] float64, metres; NaN where unknown.
    frame
        ``head``, else the name of the coordinate system in lower case; "" where no channel has a place.
    notes
        What was not used, and why.
    """

    positions: NDArray[np.float64]
    frame: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CoordinateSystem:
    """Name and unit that ``coordsystem.json`` states; "" where it states none."""

    name: str = ""
    unit: str = ""


def place_electrodes(channels: ChannelTable, tables: Sequence[ElectrodeTable]) -> Places:
    """Give the electrodes among the channels the places of the first table that has any.

    Tables come in the order of preference. Channels that are no electrodes have no place here.
    """
    notes: list[str] = []
    nowhere = np.full((len(channels), 3), np.nan)
    for at, table in enumerate(tables):
        system = coordinate_system(table.systems)
        positions, told = _places(channels, table, system)
        notes += told
        if not np.isfinite(positions).any():
            continue
        if at + 1 < len(tables):
            notes.append(f"positions are those of {table.name}; not looked at: {_names(tables[at + 1 :])}")
        stated = system.name.lower() or "unknown"
        return Places(positions, "head" if stated in HEAD_SYSTEMS else stated, tuple(notes))
    return Places(nowhere, "", tuple(notes))


def coordinate_system(documents: Sequence[bytes]) -> CoordinateSystem:
    """What the sidecars state of electrodes, later ones over earlier ones; what is no JSON object states nothing."""
    stated: dict[str, Any] = {}
    for document in documents:
        stated |= _document(document)
    prefix = next((prefix for prefix in PREFIXES if f"{prefix}CoordinateUnits" in stated), PREFIXES[0])
    name, unit = (str(stated.get(f"{prefix}Coordinate{what}", "")).strip() for what in ("System", "Units"))
    return CoordinateSystem(name, unit)


def _document(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(decode(content))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _places(
    channels: ChannelTable, table: ElectrodeTable, system: CoordinateSystem
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Positions of the channels by one table, and notes; all NaN where the table cannot be used."""
    nowhere = np.full((len(channels), 3), np.nan)
    stated, twice = _stated(table.content)
    notes = (f"{table.name}: {', '.join(twice[:5])} stand more than once and are left out",) if twice else ()
    if not stated:
        return nowhere, notes
    if system.unit not in METRES:
        return nowhere, (*notes, f"{table.name} is not used: its unit is {system.unit or 'not stated'}")
    rows, names = _matched(channels, stated)
    if not rows:
        return nowhere, (*notes, f"{table.name} names no electrode of the recording")
    found = np.array([stated[name] for name in names]) * METRES[system.unit]
    distances = np.linalg.norm(found - (np.median(found, axis=0) if len(rows) > 1 else 0), axis=1)
    is_cap = sum(channels.types[row] == "eeg" for row in rows) >= CAP
    low, high = POSSIBLE_CAP if is_cap else POSSIBLE
    typical = float(np.median(distances))
    if not low <= typical <= high:
        what = f"its electrodes would lie {typical:.2g} m from their centre, in {system.unit} as stated"
        return nowhere, (*notes, f"{table.name} is not used: {what}")
    near = distances <= FARTHEST
    nowhere[np.array(rows)[near]] = found[near]
    if not near.all():
        far = [channels.names[row] for row, here in zip(rows, near, strict=True) if not here]
        notes = (*notes, f"{table.name}: {', '.join(far[:5])} would lie outside any head and are left out")
    return nowhere, notes


def _stated(content: bytes) -> tuple[dict[str, tuple[float, float, float]], tuple[str, ...]]:
    """Places by the names of the electrodes as they stand there, and names that stand more than once.

    All zeros, n/a and what is not finite are no places.
    """
    rows = [row for row in read_rows(content) if row.get("name")]
    counts = Counter(row["name"] for row in rows)
    found: dict[str, tuple[float, float, float]] = {}
    for row in rows:
        x, y, z = (number(row.get(axis)) for axis in "xyz")
        if x is not None and y is not None and z is not None and (x or y or z) and counts[row["name"]] == 1:
            found[row["name"]] = (x, y, z)
    return found, tuple(name for name, count in counts.items() if count > 1)


def _matched(channels: ChannelTable, stated: Mapping[str, object]) -> tuple[list[int], list[str]]:
    """Channels that are electrodes of the table: by name, else by name but for capitals, dots, and EDF's "EEG"."""
    loose = Counter(_loose(name) for name in stated)
    by_loose = {_loose(name): name for name in stated if loose[_loose(name)] == 1}
    electrodes = [row for row, kind in enumerate(channels.types) if kind in VOLT_TYPES]
    claims = Counter(_loose(channels.names[row]) for row in electrodes)
    rows, names = [], []
    for row in electrodes:
        name = channels.names[row]
        other = by_loose.get(_loose(name)) if claims[_loose(name)] == 1 else None
        found = name if name in stated else other
        if found is not None:
            rows.append(row)
            names.append(found)
    return rows, names


def _loose(name: str) -> str:
    return name.upper().removeprefix("EEG ").strip(" .")


def _names(tables: Sequence[ElectrodeTable]) -> str:
    return ", ".join(table.name for table in tables)
