"""The helmet's coils and the dipole formula, against MNE's own forward solution."""

import mne
import numpy as np
import pytest

from neuromill.synthetic.brain import SPHERE_CENTRE, head_position, lead_field
from neuromill.synthetic.fif import _info
from neuromill.synthetic.helmet import MAGNETOMETER, PLANAR, dipole_field, helmet


def test_a_magnetometer_and_two_crossed_gradiometers_at_102_sites() -> None:
    coils = helmet()
    assert len(set(coils.names)) == 306
    assert [(coils.coils == kind).sum() for kind in (MAGNETOMETER, PLANAR)] == [102, 204]
    by_site = coils.positions.reshape(102, 3, 3)
    assert np.array_equal(by_site[:, 0], by_site[:, 1])
    assert len(np.unique(by_site[:, 0].round(4), axis=0)) == 102
    ex = coils.axes.reshape(102, 3, 3, 3)[:, :, 0]
    assert np.abs(np.einsum("sx,sx->s", ex[:, 0], ex[:, 1])).max() < 1e-12


def test_coil_frames_are_right_handed_and_point_outward() -> None:
    axes = helmet().axes
    identity = np.einsum("cix,cjx->cij", axes, axes)
    assert np.allclose(identity, np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(axes), 1.0)
    assert (np.einsum("cx,cx->c", axes[:, 2], helmet().positions) > 0).all()


@pytest.mark.parametrize("place", [(0.03, 0.01, 0.05), (-0.05, 0.0, 0.02), (0.0, -0.06, 0.01)])
def test_lead_field_is_that_of_mne_with_a_sphere_model(place: tuple[float, float, float]) -> None:
    position = head_position(np.random.default_rng(3))
    moment = np.cross(place, (0.3, 0.5, -0.2))
    moment /= np.linalg.norm(moment)
    ours = lead_field(position, np.array([place]), moment[None])[:, 0]
    info = _info(position, 250.0, 50.0)
    sphere = mne.make_sphere_model(r0=SPHERE_CENTRE, head_radius=None, verbose="error")
    dipole = mne.Dipole([0.0], [np.array(place) + SPHERE_CENTRE], [1.0], [moment], [100.0])
    forward, _ = mne.make_forward_dipole(dipole, sphere, info, verbose="error")
    theirs = forward["sol"]["data"][:, 0]
    for kind in (MAGNETOMETER, PLANAR):
        rows = helmet().coils == kind
        error = np.linalg.norm(ours[rows] - theirs[rows]) / np.linalg.norm(theirs[rows])
        assert error < 0.01  # measured 0.005: MNE takes more points per coil here


def test_a_radial_dipole_is_silent_outside_the_sphere() -> None:
    place = np.array([0.01, 0.03, 0.05])
    points = np.random.default_rng(0).normal(size=(20, 3))
    points *= 0.12 / np.linalg.norm(points, axis=1, keepdims=True)
    tangential = dipole_field(points, place, np.cross(place, [1.0, 0.0, 0.0]))
    radial = dipole_field(points, place, place)
    assert np.abs(radial).max() < 1e-12 * np.abs(tangential).max()
