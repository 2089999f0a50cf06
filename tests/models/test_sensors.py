"""Geometry as the networks see it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuromill.models.sensors import normalise_positions, place_sensors, sensor_types
from neuromill.records import FailureCode, RecordingError

COILS = [  # coil, type index, type index as published
    ("VV_PLANAR_T1", 0, 0),
    ("VV_MAG_T1", 1, 1),
    ("POINT_MAGNETOMETER", 1, 1),
    ("CTF_GRAD", 0, 0),
    ("KIT_GRAD", 0, 0),
    ("MAGNES_GRAD", 0, 1),
    ("MAGNES_MAG", 1, 1),
    ("MAGNES_OFFDIAG_REF_GRAD", 0, 1),
    ("BABY_MAG", 1, 1),
    ("QUSPIN_ZFOPM_MAG2", 1, 1),
    ("", 0, 0),
]


@pytest.mark.parametrize(("coil", "index", "published"), COILS)
def test_type_index(coil: str, index: int, published: int) -> None:
    assert sensor_types([coil]).tolist() == [index]
    assert sensor_types([coil], parity=True).tolist() == [published]


def test_every_coil_of_mne_that_is_called_gradiometer_is_type_0() -> None:
    from mne._fiff.constants import FIFF

    coils = [name.removeprefix("FIFFV_COIL_") for name in FIFF if name.startswith("FIFFV_COIL_")]
    assert len(coils) > 30
    gradiometers = [coil for coil in coils if "GRAD" in coil or "PLANAR" in coil]
    assert not sensor_types(gradiometers).any()


scattered = hnp.arrays(np.float64, st.tuples(st.integers(2, 40), st.just(3)), elements=st.floats(-0.2, 0.2)).filter(
    lambda x: np.sqrt(np.var(x, axis=0).sum()) > 1e-3
)


@given(scattered)
def test_normalised_layout_has_the_published_radius_and_is_stable(positions: np.ndarray) -> None:
    known = np.ones(len(positions), dtype=bool)
    once = normalise_positions(positions, known)
    assert np.sqrt(np.mean(np.sum(once.astype(float) ** 2, axis=1))) == pytest.approx(1 / np.sqrt(3), rel=1e-5)
    np.testing.assert_allclose(once.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(normalise_positions(once, known), once, atol=1e-5)


def test_unknown_positions_are_masked_and_move_nobody() -> None:
    rng = np.random.default_rng(1)
    positions, orientations = rng.normal(size=(6, 3)), np.tile([0.0, 0.0, 1.0], (6, 1))
    types, good = np.zeros(6, dtype=int), np.ones(6, dtype=bool)
    whole = place_sensors(positions[:5], orientations[:5], types[:5], good[:5])
    positions[5] = np.nan
    orientations[2] = np.nan
    good[1] = False
    placed = place_sensors(positions, orientations, types, good)
    assert placed.mask.tolist() == [True, False, True, True, True, False]
    np.testing.assert_array_equal(placed.positions[:5], whole.positions)
    assert not placed.positions[5].any()
    assert not placed.orientations[2].any()


def test_one_channel_sits_at_the_centre() -> None:
    placed = place_sensors(np.full((1, 3), 0.07), np.zeros((1, 3)), np.zeros(1, dtype=int), np.ones(1, dtype=bool))
    assert placed.positions.tolist() == [[0.0, 0.0, 0.0]]
    assert placed.mask.all()


def test_no_position_at_all_is_a_failure_with_a_code() -> None:
    nothing = np.full((3, 3), np.nan)
    with pytest.raises(RecordingError) as error:
        place_sensors(nothing, nothing, np.zeros(3, dtype=int), np.ones(3, dtype=bool), where="sub-01")
    assert error.value.code is FailureCode.NO_USABLE_CHANNELS
    assert "sub-01" in str(error.value)
