"""Where things lie inside a file of spikes and behaviour: declared by a card, followed by two or three readers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from neuromill.records.config import Config
from neuromill.records.digests import Digest, canonical_json

Row = Annotated[int, Field(ge=0)]


class ColumnIs(Config):
    """A condition on one column of a table: its value is one of ``values``."""

    column: str
    values: tuple[str | bool | float, ...] = Field(min_length=1)


class UnitsLayout(Config):
    """Where the spikes are.

    Attributes
    ----------
    path
        Table of units (``times``), or series [time, unit] that is binned already (``counts``, ``raster``).
    kind
        ``times``: ragged spike times in seconds. ``raster``: spikes per sample of a regular clock, binned by us.
        ``counts``: spikes per bin of the pipeline's own width, taken as they are.
    bin_edge
        Of ``counts``: whether a time stamp is the start or the end of its bin.
    is_sorted
        Whether a row is a sorted neuron; None where nobody says.
    sorted_column
        Column of the table that says it per unit.
    area, area_column
        Brain area of all units, or the column that names it; a column of the electrodes table begins with
        ``electrodes.``.
    array_column
        Column that names the array, which groups channels into patches.
    keep
        Conditions that all kept rows meet (held-in units only).
    drop_rows
        Rows, from 0, that are known to be corrupt.
    sum_by
        ``electrode`` adds the counts of all units of one electrode of one array: sorting is undone, a column is a
        channel, and means the same in every session of an array. "" keeps units apart.
    """

    path: str = "units"
    kind: Literal["times", "raster", "counts"] = "times"
    bin_edge: Literal["start", "end"] = "start"
    is_sorted: bool | None = None
    sorted_column: str = ""
    area: str = ""
    area_column: str = ""
    array_column: str = ""
    keep: tuple[ColumnIs, ...] = ()
    drop_rows: tuple[Row, ...] = ()
    sum_by: Literal["", "electrode"] = ""


class CovariateLayout(Config):
    """Where one behaviour series is, and how to read it.

    Attributes
    ----------
    path
        Series [time] or [time, dimension] in the file; a container with several series gives one dimension each.
    name
        How its dimensions are called, followed by ``_<axis>``; "" takes the last part of the path.
    axes
        Names of the dimensions that are kept, in order; () takes all, named by number or by the file.
    columns
        Columns of the series that ``axes`` names; () takes all.
    unit
        Unit of the values after the file's ``conversion``, where the file says none or a wrong one.
    factor
        Multiplies the values after the file's ``conversion``; a sign per source is a fact of the card.
    clock
        ``timestamps``: one per row. ``rate``: ``starting_time`` and rate in Hz. ``period``: the field ``rate`` holds
        seconds per sample. ``auto``: time stamps where there are any, else the rate.
    repeats
        Time stamps that occur twice: ``merge`` keeps the mean of their rows, ``refuse`` fails with
        ``bad_timestamps``. Stamps that go back always fail, unless the layout has ``restarts: blocks``.
    samples
        ``held``: a value is repeated until it changes; only change points are kept and interpolated between.
    derivative
        ``before`` or ``after`` resampling to the bins: position becomes velocity. "" leaves the values.
    bin_edge
        Of series that have one value per bin already: whether a stamp is the start or the end of its bin; "" for
        samples of a continuous quantity.
    """

    path: str
    name: str = ""
    axes: tuple[str, ...] = ()
    columns: tuple[Row, ...] = ()
    unit: str = ""
    factor: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    clock: Literal["auto", "timestamps", "rate", "period"] = "auto"
    repeats: Literal["merge", "refuse"] = "merge"
    samples: Literal["points", "held"] = "points"
    derivative: Literal["", "before", "after"] = ""
    bin_edge: Literal["", "start", "end"] = ""

    @field_validator("factor")
    @classmethod
    def _factor_keeps_something(cls, factor: float) -> float:
        if factor == 0:
            raise ValueError("`factor: 0` leaves nothing of the values")
        return factor

    @field_validator("axes", "columns")
    @classmethod
    def _differ(cls, listed: tuple[str | int, ...]) -> tuple[str | int, ...]:
        if len(set(listed)) != len(listed):
            raise ValueError("a dimension is named more than once")
        return listed

    @model_validator(mode="after")
    def _one_name_per_column(self) -> Self:
        if self.columns and self.axes and len(self.columns) != len(self.axes):
            raise ValueError(f"`axes` names {len(self.axes)} dimensions, `columns` takes {len(self.columns)}")
        return self


class TrialsLayout(Config):
    """Where the trials are, which columns are kept (() takes all), and what makes one a success.

    A trial that ``discard`` applies to stays in the table and is no success.
    """

    path: str = "intervals/trials"
    columns: tuple[str, ...] = ()
    success: ColumnIs | None = None
    discard: ColumnIs | None = None


class MaskLayout(Config):
    """A series of booleans on its own clock: where it is False, covariates do not count (``eval_mask``).

    ``clock`` as in ``CovariateLayout``; a series that has neither stamps nor a rate, but as many rows as a covariate
    has, is on the clock of that covariate.
    """

    path: str
    clock: Literal["auto", "timestamps", "rate", "period"] = "auto"


class SpikeLayout(Config):
    """One file layout; the defaults read any NWB file that follows the standard.

    Attributes
    ----------
    format
        ``nwb`` (HDF5 or Zarr), ``odoherty`` (MATLAB 7.3), ``flint`` (MATLAB 5).
    covariates
        ``auto`` takes every numeric time series of ``processing/behavior``; () takes none.
    need_covariates
        Fail with ``no_covariates`` where there are none.
    restarts
        Clocks that jump back: ``refuse`` fails with ``bad_timestamps``; ``blocks`` reads each run as a block of its
        own and lays them one after the other, ``block_gap_seconds`` apart.
    """

    format: Literal["nwb", "odoherty", "flint"] = "nwb"
    units: UnitsLayout = UnitsLayout()
    covariates: tuple[CovariateLayout, ...] | Literal["auto"] = "auto"
    need_covariates: bool = False
    trials: TrialsLayout | None = TrialsLayout()
    masks: tuple[MaskLayout, ...] = ()
    restarts: Literal["refuse", "blocks"] = "refuse"
    block_gap_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0

    @field_validator("covariates")
    @classmethod
    def _each_once(
        cls, covariates: tuple[CovariateLayout, ...] | Literal["auto"]
    ) -> tuple[CovariateLayout, ...] | Literal["auto"]:
        if covariates != "auto":
            keys = [(one.path.strip("/"), one.name) for one in covariates]
            twice = sorted({path for path, name in keys if keys.count((path, name)) > 1})
            if twice:
                raise ValueError(f"declared twice under one name: {', '.join(twice)}")
        return covariates

    @model_validator(mode="after")
    def _something_to_need(self) -> Self:
        if self.need_covariates and self.covariates == ():
            raise ValueError("`need_covariates` with `covariates: []` can never be met")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of what differs from the defaults, hex: part of the identity of what is read with it."""
        return Digest.of(canonical_json(self.non_defaults())).hex
