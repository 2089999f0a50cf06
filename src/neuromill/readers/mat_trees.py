"""What the two readers of MATLAB files share: opening, clocks, covariates, units by condition.

MATLAB 7.3 files are HDF5 with MATLAB's conventions (cells are arrays of references, text is character codes, an empty
array is stored as its dimensions); MATLAB 5 files are read in ``mat5``. Neither is ever executed or unpickled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from neuromill.readers.clocks import GAP_STEPS, held_samples, merge_repeats, union
from neuromill.readers.complaints import bad_timestamps, missing_fact, no_covariates, unreadable
from neuromill.readers.spike_protocol import CovariateSeries
from neuromill.records import TrialTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from neuromill.readers.spike_protocol import Binned, MaskSeries, Observation, SpikeFacts
    from neuromill.readers.trees import Tree
    from neuromill.records import CovariateLayout, SpikeLayout, UnitsLayout, UnitTable

EMPTY_ATTRIBUTE = "MATLAB_empty"
MATRIX = 2  # dimensions that every MATLAB array has at least


@dataclass(eq=False)
class MatRecording:
    """An open recording of spikes out of a MATLAB file, see ``SpikeRecording``.

    ``read`` gives the spike times of a unit, ``let_go`` closes the file.
    """

    units: UnitTable
    facts: SpikeFacts
    observation: Observation
    covariates: tuple[CovariateSeries, ...]
    trials: TrialTable
    read: Callable[[int], NDArray[np.float64]]
    let_go: Callable[[], None]
    masks: tuple[MaskSeries, ...] = ()
    binned: Binned | None = None

    def spike_times(self, unit: int) -> NDArray[np.float64]:
        """Spike times of one unit in seconds, float64 [spike] ascending; a masked unit has none."""
        return np.empty(0) if self.units.bads[unit] else self.read(unit)

    def close(self) -> None:
        """Let go of the file."""
        self.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, eq=False)
class RawSeries:
    """A behaviour series as the file has it: float64 [time], which never goes back, and float64 [time, dimension]."""

    name: str
    stamps: NDArray[np.float64]
    values: NDArray[np.float64]
    unit: str = ""


def covariate_series(raw: RawSeries, layout: CovariateLayout, where: str, notes: list[str]) -> CovariateSeries:
    """Read one series as its layout says.

    Raises
    ------
    RecordingError
        ``bad_timestamps``: stamps occur twice and the layout refuses that. ``missing_fact``: the layout names a
        column or a clock that the series does not have.
    """
    columns = list(layout.columns) or list(range(raw.values.shape[1]))
    if (layout.axes and len(layout.axes) != len(columns)) or max(columns, default=0) >= raw.values.shape[1]:
        dimensions = f"{layout.path} has {raw.values.shape[1]} dimensions"
        raise missing_fact(f"{dimensions}, the card takes {columns} as {layout.axes}", where)
    if layout.clock in ("rate", "period"):
        raise missing_fact(f"{layout.path} has time stamps and no {layout.clock}", where)
    with np.errstate(invalid="ignore", over="ignore"):  # values of a damaged file; they stay what they are
        values = raw.values[:, columns] * layout.factor
    merged = merge_repeats(raw.stamps, values)
    if merged.n_merged and layout.repeats == "refuse":
        raise bad_timestamps(f"{merged.n_merged} time stamps of {layout.path} occur twice", where)
    if merged.n_merged:
        notes.append(f"{merged.n_merged} repeated time stamps of {layout.path} were merged")
    stamps, values = merged.stamps, merged.values
    if layout.samples == "held":
        stamps, values = held_samples(stamps, values)
    name = layout.name or raw.name
    axes = layout.axes or tuple(str(column) for column in columns)
    return CovariateSeries(
        names=tuple(f"{name}_{axis}" for axis in axes) if len(columns) > 1 or layout.axes else (name,),
        unit=layout.unit or raw.unit,
        stamps=stamps,
        values=values,
        derivative=layout.derivative,
        bin_edge=layout.bin_edge,
        held=layout.samples == "held",
    )


def observed_intervals(stamps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stretches without a gap, float64 [interval, 2]; each sample stands for its own step, the last one too.

    ``stamps`` float64 [time] never go back. So 1000 samples at 250 Hz are 4 s, which is 200 bins of 20 ms.
    """
    steps = np.diff(stamps)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    cuts = np.flatnonzero(steps > GAP_STEPS * step) + 1
    first, last = np.array([0, *cuts]), np.array([*(cuts - 1), len(stamps) - 1])
    return union(np.stack([stamps[first], stamps[last] + step], axis=1))


def check_clock(stamps: NDArray[np.float64], name: str, where: str) -> None:
    """Raise ``bad_timestamps`` where a clock, float64 [time] seconds, is empty, not finite, or goes back."""
    if not stamps.size:
        raise bad_timestamps(f"{name} has no samples", where)
    if not np.isfinite(stamps).all():
        raise bad_timestamps(f"{name} has time stamps that are not finite", where)
    back = np.flatnonzero(np.diff(stamps) < 0)
    if back.size:
        raise bad_timestamps(f"{name} goes back after {stamps[back[0]]:.3f} s", where)


def ascending(times: NDArray[np.float64]) -> tuple[NDArray[np.float64], bool]:
    """Spike times, float64 [spike], sorted, and whether they had to be."""
    unsorted = bool(times.size and (np.diff(times) < 0).any())
    return (np.sort(times), True) if unsorted else (times, False)


def kept_rows(layout: UnitsLayout, columns: Mapping[str, Sequence[str | bool | float]], where: str) -> list[int]:
    """Rows of the units that the layout keeps; ``missing_fact`` where a condition names none of the ``columns``."""
    n_rows = len(next(iter(columns.values())))
    for condition in layout.keep:
        if condition.column not in columns:
            raise missing_fact(f"units have no column {condition.column!r}, but {', '.join(columns)}", where)
    return [
        row for row in range(n_rows)
        if row not in layout.drop_rows and all(columns[c.column][row] in c.values for c in layout.keep)
    ]  # fmt: skip


def no_trials() -> TrialTable:
    """Return the table of a recording without trials."""
    return TrialTable(np.empty(0), np.empty(0), np.empty(0, dtype=bool))


def needs_covariates(layout: SpikeLayout, found: Sequence[CovariateSeries], where: str) -> None:
    """Raise ``no_covariates`` where a layout needs behaviour and there is none."""
    if layout.need_covariates and not any(len(series.stamps) for series in found):
        raise no_covariates("the card needs behaviour, and the file has none of what it names", where)


def cell_paths(tree: Tree, path: str) -> NDArray[np.object_]:
    """Paths of what the cells of a MATLAB 7.3 cell array hold, object ``str`` of the array's (transposed) shape.

    Raises
    ------
    RecordingError
        ``unreadable`` where it is not a cell array.
    """
    cells = tree.array(path)
    if cells.values != "reference":
        raise unreadable(f"{path} is not a cell array", tree.where)
    return np.asarray(cells.read(), dtype=object)


def is_empty_cell(tree: Tree, path: str) -> bool:
    """Whether a cell is empty.

    MATLAB stores an empty array as its dimensions, two integers, under an attribute that says so; files that went
    through other programs lost the attribute. Every real MATLAB array has two dimensions.
    """
    if not path or tree.attributes(path).get(EMPTY_ATTRIBUTE, 0):
        return True
    return len(tree.array(path).shape) < MATRIX


def text_of(tree: Tree, path: str) -> str:
    """Text that a MATLAB 7.3 array holds as character codes; raises ``unreadable`` for anything else."""
    if is_empty_cell(tree, path):
        return ""
    codes = np.ravel(tree.array(path).read())
    if codes.dtype.kind != "u":
        raise unreadable(f"{path} holds no text", tree.where)
    return "".join(chr(int(code)) for code in codes).strip()
