"""Counts that are summed by electrode; what is refused before anything is allocated or learnt."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from neuromill.catalog.cards import Splits
from neuromill.catalog.time_blocks import TimeBlocks
from neuromill.records import ConfigError, FailureCode, RecordingError, UnitTable
from neuromill.signals.binning import BinGrid
from neuromill.signals.spike_steps import SmoothCovariates
from neuromill.stages.prepare_config import SpikePrepareConfig
from neuromill.stages.spike_preparing import Counted, check_smoothing, require_room, summed_by_electrode

UNITS = UnitTable(
    names=("a", "b", "c", "d", "e"),
    electrodes=("1", "1", "1", "2", ""),
    arrays=("M1", "M1", "S1", "M1", "M1"),
    areas=("M1", "M1", "S1", "M1", "M1"),
    is_sorted=(False, True, True, True, None),
    bads=("", "non_finite", "", "before_start", ""),
)


def test_units_of_one_electrode_of_one_array_are_one_column():
    counts = np.array([[1, 2, 4, 8, 16], [200, 100, 0, 0, 0]], np.uint8)
    summed = summed_by_electrode(Counted(UNITS, counts, np.zeros(2, np.int32)))
    np.testing.assert_array_equal(summed.counts, [[3, 4, 8, 16], [255, 0, 0, 0]])
    assert summed.n_saturated == 1
    assert summed.units.names == ("M1_1", "S1_1", "M1_2", "M1_unit e")
    assert summed.units.bads == ("", "", "before_start", "")
    assert summed.units.is_sorted == (False, True, True, None)
    assert summed.units.arrays == ("M1", "S1", "M1", "M1")
    assert summed.notes == ("1 units of 2 masked within summed columns",)


def test_no_masked_unit_in_a_good_column_is_no_note():
    table = UNITS.with_bads({0: "non_finite"})  # the whole column is masked now: nothing is hidden in it
    assert table.masked_within(table.by_electrode()[1]) == (0, 0)
    good = UnitTable.of(("a", "b"))
    assert summed_by_electrode(Counted(good, np.zeros((3, 2), np.uint8), np.zeros(3, np.int32))).notes == ()


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 0.0, -0.02, 1 / 60, 1e-7, 0.02 + 1e-8])
def test_widths_without_edges_are_refused_when_configured(seconds: float):
    with pytest.raises(ValidationError, match="bin_seconds"):
        SpikePrepareConfig(bin_seconds=seconds)


@pytest.mark.parametrize("seconds", [0.02, 0.001, 0.016667, 1e-6, 0.1, 1.0, 0.29, 3600.0])
def test_widths_with_edges_make_a_grid(seconds: float):
    assert BinGrid(0.0, 1, SpikePrepareConfig(bin_seconds=seconds).bin_seconds).width == round(seconds * 1e6)


@pytest.mark.parametrize(("n_units", "n_covariates"), [(2**11, 0), (2**11 - 10, 2)])
def test_what_fits_into_memory_is_taken(n_units: int, n_covariates: int):
    require_room(BinGrid(0.0, 2**20, 0.02), n_units, n_covariates, "a.nwb")


@pytest.mark.parametrize(("n_units", "n_covariates"), [(2**11 + 1, 0), (2**11 - 10, 3)])
def test_what_does_not_fit_into_memory_is_too_large(n_units: int, n_covariates: int):
    with pytest.raises(RecordingError, match=r"2\.0 GiB") as caught:
        require_room(BinGrid(0.0, 2**20, 0.02), n_units, n_covariates, "a.nwb")
    assert caught.value.code is FailureCode.TOO_LARGE


def _smoothed(*steps: SmoothCovariates, guard: float | None) -> tuple[Any, Any]:
    blocks = None if guard is None else TimeBlocks(test=(0.8, 1.0), guard_seconds=guard)
    pipeline = SimpleNamespace(prepare=SpikePrepareConfig(steps=steps), name="p")
    return pipeline, SimpleNamespace(id="card", splits=Splits(time_blocks=blocks))


CENTRED = SmoothCovariates(seconds=0.3, direction="centred")  # 7 bins to each side
CAUSAL = SmoothCovariates(seconds=0.3, direction="causal")  # 14 bins back


@pytest.mark.parametrize(
    ("steps", "guard"),
    [((CENTRED,), 0.28), ((CAUSAL,), 0.28), ((CENTRED, CAUSAL), 0.56), ((), 0.0), ((CENTRED,), None), ((CAUSAL,), 1.0)],
)
def test_smoothing_within_the_guard_passes(steps: tuple[SmoothCovariates, ...], guard: float | None):
    check_smoothing(*_smoothed(*steps, guard=guard))


@pytest.mark.parametrize(
    ("steps", "guard"), [((CENTRED,), 0.26), ((CAUSAL,), 0.26), ((CENTRED, CAUSAL), 0.54), ((CAUSAL,), 0.0)]
)
def test_smoothing_across_the_guard_is_refused(steps: tuple[SmoothCovariates, ...], guard: float):
    with pytest.raises(ConfigError, match="guard"):
        check_smoothing(*_smoothed(*steps, guard=guard))
