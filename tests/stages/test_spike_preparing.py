"""Counts that are summed by electrode."""

import numpy as np

from neuromill.records import UnitTable
from neuromill.stages.spike_preparing import Counted, summed_by_electrode

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
