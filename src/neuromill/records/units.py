"""The unit table and the trial table: what the columns of spike counts are, and what the subject did when."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UnitTable:
    """Units (sorted neurons, or channels of threshold crossings) of a recording, in file order.

    Attributes
    ----------
    names
        Unit ids as text, unique.
    electrodes
        Electrode ids as text, "" where unknown.
    arrays
        Name of the array the unit was recorded on, "" where unknown. Units of one array share patches.
    areas
        Brain area ("M1", "PMd"), "" where unknown.
    is_sorted
        True for a sorted neuron, False for threshold crossings, None where nobody says.
    bads
        Reason why a unit is masked ("non_finite", "before_start"), "" for a good one.
    """

    names: tuple[str, ...]
    electrodes: tuple[str, ...]
    arrays: tuple[str, ...]
    areas: tuple[str, ...]
    is_sorted: tuple[bool | None, ...]
    bads: tuple[str, ...]

    def __post_init__(self) -> None:
        columns = (self.electrodes, self.arrays, self.areas, self.is_sorted, self.bads)
        if {len(column) for column in columns} != {len(self.names)}:
            raise ValueError("columns of a unit table differ in length")
        if len(set(self.names)) != len(self.names):
            raise ValueError("unit names occur more than once")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, names: Sequence[str]) -> Self:
        """Units of which nothing is known but the names."""
        blank = ("",) * len(names)
        return cls(tuple(names), blank, blank, blank, (None,) * len(names), blank)

    def pick(self, indices: Sequence[int]) -> UnitTable:
        """Rows ``indices``, in that order."""

        def rows(column: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(column[i] for i in indices)

        return UnitTable(
            names=rows(self.names),
            electrodes=rows(self.electrodes),
            arrays=rows(self.arrays),
            areas=rows(self.areas),
            is_sorted=rows(self.is_sorted),
            bads=rows(self.bads),
        )

    def by_electrode(self) -> tuple[UnitTable, tuple[int, ...]]:
        """One row per electrode of an array, in the order in which they first occur, and the row of each unit.

        A unit whose electrode is unknown keeps a row of its own; a row is masked where all of its units are.
        """
        keys = [
            (array, electrode or f"unit {name}")
            for array, electrode, name in zip(self.arrays, self.electrodes, self.names, strict=True)
        ]
        places = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        rows = tuple(places[key] for key in keys)
        first = [rows.index(row) for row in range(len(places))]
        members = [[unit for unit, own in enumerate(rows) if own == row] for row in range(len(places))]
        table = self.pick(first)
        names = tuple(f"{array}_{electrode}".lstrip("_") for array, electrode in places)
        bads = tuple(self.bads[units[0]] if all(self.bads[unit] for unit in units) else "" for units in members)
        sorted_ = tuple(False if len(units) > 1 else self.is_sorted[units[0]] for units in members)
        return replace(table, names=names, bads=bads, is_sorted=sorted_), rows

    def masked_within(self, rows: Sequence[int]) -> tuple[int, int]:
        """How many masked units lie in summed columns that are good, and how many units those columns have.

        ``rows`` as ``by_electrode`` returns them. Such a column lacks the spikes of its masked units.
        """
        alive = {row for row, bad in zip(rows, self.bads, strict=True) if not bad}
        masked = [row for row, bad in zip(rows, self.bads, strict=True) if bad and row in alive]
        hit = set(masked)
        return len(masked), sum(row in hit for row in rows)

    @property
    def good(self) -> tuple[int, ...]:
        """Indices of the units that are not masked."""
        return tuple(i for i, bad in enumerate(self.bads) if not bad)

    def with_bads(self, reasons: Mapping[int, str]) -> UnitTable:
        """Return a copy in which the units at these indices are masked for the reason given; earlier reasons stay."""
        return replace(self, bads=tuple(bad or reasons.get(i, "") for i, bad in enumerate(self.bads)))


@dataclass(frozen=True, slots=True, eq=False)
class TrialTable:
    """Trials on the clock of the recording, sorted by start.

    Attributes
    ----------
    starts, stops
        float64 [trial] seconds.
    success
        bool [trial]; all True where nobody says.
    columns
        Further columns by name, each of the table's length: float64, or str.
    """

    starts: NDArray[np.float64]
    stops: NDArray[np.float64]
    success: NDArray[np.bool_]
    columns: Mapping[str, NDArray[np.float64] | tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts)
