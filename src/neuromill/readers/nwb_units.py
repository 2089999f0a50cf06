"""The units table of an NWB file: which units, on which electrodes, and their spike times one unit at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.readers.clocks import QUIET_SECONDS, run_spans, stretches
from neuromill.readers.complaints import missing_fact, no_spikes, too_large, truncated, unreadable
from neuromill.readers.trees import join
from neuromill.records import UnitTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neuromill.readers.trees import Tree, TreeArray
    from neuromill.records import ColumnIs, UnitsLayout

ELECTRODES = "general/extracellular_ephys/electrodes"
PREFIX = "electrodes."
BLOCK_ROWS = 2**20
MAX_UNITS = 2**20  # a thousand times what the largest probes give; each has a row of Python objects
NOT_NAMES = ("", "unknown", "none", "n/a", "na")
SORTED_WORDS = ("sorted", "good", "su", "single", "true")
UNSORTED_WORDS = ("unsorted", "mua", "multi", "noise", "false")


class Ragged:
    """A ragged column: values and, per row, the end of its stretch in them.

    Rows that are asked for one after the other read every chunk of the file about once: a block of rows is kept.

    Raises
    ------
    RecordingError
        ``truncated`` where the index promises values that are not there; ``unreadable`` where it goes back, or where
        the two are not numbers.
    """

    def __init__(self, tree: Tree, path: str) -> None:
        self._where, self._path = tree.where, path
        self._values = tree.array(path)
        index_path = f"{path}_index"
        if tree.kind(index_path) != "array":
            raise unreadable(f"{path} has no index: whose values are whose is unknown", tree.where)
        index = tree.array(index_path)
        if self._values.values != "number" or index.values != "number" or len(index.shape) != 1:
            raise unreadable(f"{path} and its index are not numbers", tree.where)
        ends = index.read().astype(np.int64)
        self._bounds = np.concatenate([[0], ends])
        if (np.diff(self._bounds) < 0).any():
            raise unreadable(f"{index_path} goes back", tree.where)
        if self._bounds[-1] > self._values.shape[0]:
            raise truncated(
                f"{index_path} promises {self._bounds[-1]} values, {path} has {self._values.shape[0]}", tree.where
            )
        self._block: tuple[int, NDArray[Any]] = (0, np.empty((0, *self._values.shape[1:])))
        self._block_rows = max(BLOCK_ROWS, 2 * self._values.chunk_rows)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def row(self, row: int) -> NDArray[np.float64]:
        """Values of one row: float64 [value], a copy."""
        start, stop = int(self._bounds[row]), int(self._bounds[row + 1])
        begin, held = self._block
        if start < begin or stop > begin + len(held):
            begin, held = start, self._values.read(start, max(stop, start + self._block_rows))
            self._block = (begin, held)
        return held[start - begin : stop - begin].astype(np.float64)  # callers may sort it in place


@dataclass(frozen=True, slots=True, eq=False)
class TrainScan:
    """What one pass over the spikes of a unit says.

    How many, first and last, why it is masked, the runs between resets of its clock, and, in order of time, the
    stretches without a silence above ``QUIET_SECONDS``.
    """

    n_spikes: int = 0
    first: float = np.inf
    last: float = -np.inf
    bad: str = ""
    runs: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    stretches: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))


def scan(times: NDArray[np.float64], earliest: float) -> TrainScan:
    """Look at the spike times of one unit, float64 [spike] as the file has them.

    A unit with a time that is not finite, or that lies before ``earliest``, is masked: which of its other times are
    right is unknown.
    """
    if not times.size:
        return TrainScan()
    if not np.isfinite(times).all():
        return TrainScan(len(times), bad="non_finite")
    first, last = float(times.min()), float(times.max())
    bad = "before_start" if first < earliest else ""
    runs = run_spans(times)
    ordered = times if len(runs) == 1 else np.sort(times)
    return TrainScan(len(times), first, last, bad, runs, stretches(ordered, QUIET_SECONDS))


@dataclass(frozen=True, slots=True)
class UnitRows:
    """Units that the layout keeps: their rows in the file, the table, and what was odd."""

    rows: tuple[int, ...]
    table: UnitTable
    notes: tuple[str, ...] = ()


def check_has_units(tree: Tree, layout: UnitsLayout) -> int:
    """Return the number of rows of the units table; raises ``no_spikes`` where there are none."""
    if tree.kind(layout.path) != "group":
        raise no_spikes(f"no units table at {layout.path}", tree.where)
    if tree.kind(join(layout.path, "spike_times")) != "array":
        raise no_spikes(f"{layout.path} has no spike_times", tree.where)
    rows = tree.array(join(layout.path, "id")).shape if tree.kind(join(layout.path, "id")) == "array" else None
    index = join(layout.path, "spike_times_index")
    n_rows = tree.array(index).shape if tree.kind(index) == "array" else rows
    if n_rows == (0,) or rows == (0,):
        raise no_spikes(f"{layout.path} has no rows", tree.where)
    if rows is not None and n_rows is not None and rows != n_rows:
        raise unreadable(f"{layout.path} has {rows} ids and spike times of {n_rows} units", tree.where)
    return int((n_rows or (0,))[0])


def read_unit_rows(tree: Tree, layout: UnitsLayout, n_rows: int, group: str) -> UnitRows:
    """Read the columns of ``n_rows`` units that lie at ``group`` (a units table, or a series with electrodes).

    Raises
    ------
    RecordingError
        ``too_large`` (more units than ``MAX_UNITS``), ``no_spikes`` (the card keeps none), ``missing_fact`` (a column
        that the card names is not there), ``truncated`` or ``unreadable`` (a column is damaged).
    """
    if n_rows > MAX_UNITS:
        raise too_large(f"{group} declares {n_rows} units, the limit is {MAX_UNITS}", tree.where)
    columns = UnitColumns(tree, group, n_rows)
    dropped = set(layout.drop_rows)
    kept = [row for row in range(n_rows) if row not in dropped]
    for condition in layout.keep:
        values = columns.needed(condition.column)
        kept = [row for row in kept if meets(values[row], condition)]
    if not kept:
        raise no_spikes("no unit meets the conditions of the card", tree.where)
    table = UnitTable(
        names=_take(columns.names(), kept),
        electrodes=_take(columns.electrode_ids(), kept),
        arrays=_take(_words(columns, layout.array_column or f"{PREFIX}group_name", needed=layout.array_column), kept),
        areas=_take(_areas(columns, layout), kept),
        is_sorted=_take(_sorted_flags(columns, layout), kept),
        bads=("",) * len(kept),
    )
    absent = sorted(row for row in dropped if row >= n_rows)
    if absent:
        columns.notes.append(f"rows {', '.join(map(str, absent))} that the card drops are not among the {n_rows} units")
    if len(kept) < n_rows:
        columns.notes.append(f"{n_rows - len(kept)} of {n_rows} units are left out by the card")
    return UnitRows(tuple(kept), table, tuple(dict.fromkeys(columns.notes)))


class UnitColumns:
    """Columns of a units table, and of the electrodes that its rows refer to."""

    def __init__(self, tree: Tree, group: str, n_rows: int) -> None:
        self._tree, self._group, self.n_rows = tree, group, n_rows
        self.notes: list[str] = []
        self._table, self._first, self._all = self._regions()

    def names(self) -> tuple[str, ...]:
        """Ids as text; row numbers where there are none or some repeat."""
        ids = self._column(join(self._group, "id"), self.n_rows)
        if ids is None or len(set(ids)) != self.n_rows:
            if ids is not None:
                self.notes.append("unit ids repeat: units are named by their row")
            return tuple(map(str, range(self.n_rows)))
        return tuple(map(str, ids))

    def electrode_ids(self) -> tuple[str, ...]:
        """Ids of the electrodes of each unit, joined by commas."""
        n_electrodes = self._n_electrodes()
        ids = self._column(join(self._table, "id"), n_electrodes) if n_electrodes else None
        names = ids or range(n_electrodes)
        return tuple(",".join(str(names[row]) for row in rows) for rows in self._all)

    def get(self, column: str) -> tuple[Any, ...] | None:
        """Values of a column, one per unit; None where the file has no such simple column."""
        if not column.startswith(PREFIX):
            return self._column(join(self._group, column), self.n_rows)
        name = column.removeprefix(PREFIX)
        n_electrodes = self._n_electrodes()
        values = self._column(join(self._table, name), n_electrodes) if n_electrodes else None
        if values is None:
            return None
        return tuple("" if row is None else values[row] for row in self._first)

    def needed(self, column: str) -> tuple[Any, ...]:
        """Values of a column that the card names; raises ``missing_fact`` where the file lacks it."""
        values = self.get(column)
        if values is None:
            raise missing_fact(f"the units have no column {column}, which the card names", self._tree.where)
        return values

    def _n_electrodes(self) -> int:
        path = join(self._table, "id")
        return self._tree.array(path).shape[0] if self._tree.kind(path) == "array" else 0

    def _column(self, path: str, n_rows: int) -> tuple[Any, ...] | None:
        if self._tree.kind(path) != "array" or self._tree.kind(f"{path}_index") == "array":
            return None
        array = self._tree.array(path)
        if array.values == "other":
            self.notes.append(f"{path} is stored in a way that is not read")
            return None
        if len(array.shape) != 1:
            return None
        if array.shape[0] < n_rows:
            raise truncated(f"{path} has {array.shape[0]} of {n_rows} rows", self._tree.where)
        return tuple(array.read().tolist())

    def _regions(self) -> tuple[str, tuple[int | None, ...], tuple[tuple[int, ...], ...]]:
        path = join(self._group, "electrodes")
        if self._tree.kind(path) != "array":
            return "", (None,) * self.n_rows, ((),) * self.n_rows
        table = str(self._tree.attributes(path).get("table") or ELECTRODES)
        rows = self._region_rows(path)
        end = self._tree.array(join(table, "id")).shape[0] if self._tree.kind(join(table, "id")) == "array" else 0
        if any(row >= end for unit in rows for row in unit):
            raise truncated(f"{path} names electrodes beyond the {end} of {table}", self._tree.where)
        return table, tuple(unit[0] if unit else None for unit in rows), rows

    def _region_rows(self, path: str) -> tuple[tuple[int, ...], ...]:
        if self._tree.kind(f"{path}_index") == "array":
            ragged = Ragged(self._tree, path)
            if len(ragged) != self.n_rows:
                raise unreadable(f"{path} has {len(ragged)} rows, there are {self.n_rows} units", self._tree.where)
            units = [ragged.row(row).astype(np.int64).tolist() for row in range(self.n_rows)]
        else:
            flat = self._column(path, self.n_rows) or ()
            if not all(isinstance(value, int) for value in flat):
                raise unreadable(f"{path} is not a column of row numbers", self._tree.where)
            units = [[value] for value in flat[: self.n_rows]]
        return tuple(tuple(row for row in unit if row >= 0) for unit in units)


def meets(value: Any, condition: ColumnIs) -> bool:
    """Whether a value of a column is one of those of a condition; text is never equal to a number."""
    return any(value == wanted for wanted in condition.values if isinstance(value, str) is isinstance(wanted, str))


def _take(values: Sequence[Any], rows: Sequence[int]) -> tuple[Any, ...]:
    return tuple(values[row] for row in rows)


def _words(columns: UnitColumns, column: str, needed: str) -> tuple[str, ...]:
    values = columns.needed(column) if needed else columns.get(column)
    if values is None:
        values = columns.get("electrode_group")  # a reference to the group, that is its path
        values = None if values is None else tuple(str(path).rsplit("/", 1)[-1] for path in values)
    if values is None:
        values = ("",) * columns.n_rows
    return tuple("" if str(value).strip().lower() in NOT_NAMES else str(value).strip() for value in values)


def _areas(columns: UnitColumns, layout: UnitsLayout) -> tuple[str, ...]:
    if layout.area:
        return (layout.area,) * columns.n_rows
    column = layout.area_column or f"{PREFIX}location"
    values = columns.needed(column) if layout.area_column else columns.get(column)
    values = ("",) * columns.n_rows if values is None else values
    return tuple("" if str(value).strip().lower() in NOT_NAMES else str(value).strip() for value in values)


def _sorted_flags(columns: UnitColumns, layout: UnitsLayout) -> tuple[bool | None, ...]:
    if not layout.sorted_column:
        return (layout.is_sorted,) * columns.n_rows
    return tuple(sorted_flag(value) for value in columns.needed(layout.sorted_column))


def sorted_flag(value: Any) -> bool | None:
    """Whether a value of a column says sorted; None where it says neither."""
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in SORTED_WORDS else False if word in UNSORTED_WORDS else None
    return bool(value) if isinstance(value, bool | int | float) else None


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """When units were listened to, as the file has it.

    Attributes
    ----------
    intervals
        float64 [interval, 2] seconds: those of the first unit, or of all units one after the other where they differ.
    same
        Whether all units have the same.
    """

    intervals: NDArray[np.float64]
    same: bool


def read_observed(tree: Tree, group: str, rows: Sequence[int]) -> Observed | None:
    """Read the intervals of these units; None where the table has none.

    Raises
    ------
    RecordingError
        ``unreadable`` where they are no table [interval, 2], ``truncated`` where units have none, and what ``Ragged``
        raises.
    """
    path = join(group, "obs_intervals")
    if tree.kind(path) != "array":
        return None
    array: TreeArray = tree.array(path)
    if not array.shape or array.shape[0] == 0:
        return None
    if len(array.shape) != 2 or array.shape[1] != 2:  # noqa: PLR2004 - start and stop
        raise unreadable(f"{path} is not a table of start and stop", tree.where)
    ragged = Ragged(tree, path)
    if rows and max(rows) >= len(ragged):
        raise truncated(f"{path} has intervals of {len(ragged)} units, there are more", tree.where)
    each = [ragged.row(row) for row in rows]
    same = all(np.array_equal(one, each[0], equal_nan=True) for one in each)
    return Observed(each[0] if same else np.concatenate(each), same)
