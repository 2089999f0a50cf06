"""A helmet of 102 sites with a magnetometer and two planar gradiometers each, and what its coils see.

Names and the order of the sites are those of MNE's Vectorview layout (shipped with it); the sites lie on an
ellipsoid of a Vectorview helmet's size. Coils: MNE's coil definitions 3012 (planar, base 16.8 mm) and 3024
(magnetometer, 21 mm square).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLANAR, MAGNETOMETER = 3012, 3024
MU0_OVER_4PI = 1e-7
_SEMI_AXES = np.array([0.105, 0.125, 0.112])  # metres: right, front, up
_RIM_ANGLE = np.deg2rad(112)  # the helmet reaches below its equator
_PLANAR_HALF_BASE = 0.0084
_PLANAR_HALF_WIDTH = 0.006713
_MAGNETOMETER_POINT = 0.00525
_WINDING_HEIGHT = 0.0003


@dataclass(frozen=True, slots=True, eq=False)
class Helmet:
    """Channels in file order: per site two gradiometers, then the magnetometer.

    Attributes
    ----------
    names
        ``MEG 0113`` and so on.
    coils
        Coil type per channel, 3012 or 3024.
    positions
        [channel, 3] metres, device frame.
    axes
        [channel, 3, 3]: rows ex, ey, ez of each coil; ez is the outward normal, ex the gradient of a planar one.
    points
        [channel, 4, 3] places where the field is taken, device frame.
    weights
        [channel, 4] of these points: T for magnetometers, T/m for gradiometers.
    """

    names: tuple[str, ...]
    coils: NDArray[np.int64]
    positions: NDArray[np.float64]
    axes: NDArray[np.float64]
    points: NDArray[np.float64]
    weights: NDArray[np.float64]

    def measure(self, field: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn the field, float64 [channel, point, 3] tesla at ``points``, into what each coil shows.

        float64 [channel], tesla and tesla per metre.
        """
        return np.asarray(np.einsum("cpx,cx,cp->c", field, self.axes[:, 2], self.weights))


@cache
def helmet() -> Helmet:
    """Return the helmet; always the same."""
    from mne.channels import read_layout

    layout = read_layout("Vectorview-mag")
    normals = _directions(np.asarray(layout.pos)[:, :2])
    sites = normals * _SEMI_AXES
    outward = normals / _SEMI_AXES
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    names, coils, positions, axes = [], [], [], []
    for name, site, normal in zip(layout.names, sites, outward, strict=True):
        ex, ey = _tangents(normal)
        turned = {"2": (ex, ey), "3": (ey, -ex), "1": (ex, ey)}
        for last, (x, y) in turned.items():
            names.append(name[:-1] + last)
            coils.append(MAGNETOMETER if last == "1" else PLANAR)
            positions.append(site)
            axes.append((x, y, normal))
    kinds, where, frames = np.array(coils), np.array(positions), np.array(axes)
    points, weights = _integration(kinds, where, frames)
    return Helmet(tuple(names), kinds, where, frames, points, weights)


def _directions(flat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return unit vectors for the flat layout: distance from the middle is the angle from the vertex."""
    centred = flat - (flat.max(axis=0) + flat.min(axis=0)) / 2
    centred /= np.abs(centred).max(axis=0)
    radius = np.linalg.norm(centred, axis=1)
    angle = radius / radius.max() * _RIM_ANGLE
    plane = centred / np.where(radius > 0, radius, 1.0)[:, None]
    return np.column_stack([plane * np.sin(angle)[:, None], np.cos(angle)])


def _tangents(normal: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two tangents of the surface, the first one towards the vertex; at the vertex itself to the front."""
    up = np.array([0.0, 0.0, 1.0]) if abs(normal[2]) < 1 - 1e-6 else np.array([0.0, 1.0, 0.0])
    ex = up - normal * (up @ normal)
    ex /= np.linalg.norm(ex)
    return ex, np.cross(normal, ex)


def _integration(
    coils: NDArray[np.int64], positions: NDArray[np.float64], axes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points and weights: two in each lobe of a planar coil, four quarters of a magnetometer (MNE's accuracy 1)."""
    planar = (coils == PLANAR)[:, None, None]
    corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    in_plane = corners * np.where(planar, [_PLANAR_HALF_BASE, _PLANAR_HALF_WIDTH], _MAGNETOMETER_POINT)
    points = positions[:, None] + in_plane @ axes[:, :2] + _WINDING_HEIGHT * axes[:, None, 2]
    slope = np.array([0.5, 0.5, -0.5, -0.5]) / (2 * _PLANAR_HALF_BASE)
    weights = np.where(planar[..., 0], slope, np.full(4, 0.25))
    return points, weights


def dipole_field(
    points: NDArray[np.float64], position: NDArray[np.float64], moment: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Magnetic field of a current dipole in a conducting sphere (Sarvas 1987, eq. 25).

    Parameters
    ----------
    points
        float64 [..., 3] metres, outside the sphere, relative to its centre.
    position, moment
        float64 [3] metres and ampere metres.

    Returns
    -------
    NDArray
        float64 [..., 3] tesla.
    """
    difference = points - position
    a = np.linalg.norm(difference, axis=-1, keepdims=True)
    r = np.linalg.norm(points, axis=-1, keepdims=True)
    along = (points @ position)[..., None]
    a_dot_r = r**2 - along
    f = a * (r * a + a_dot_r)
    gradient = (a**2 / r + a_dot_r / a + 2 * a + 2 * r) * points - (a + 2 * r + a_dot_r / a) * position
    turned = np.cross(moment, position)
    radial = (points @ turned)[..., None]
    return np.asarray(MU0_OVER_4PI * (f * turned - radial * gradient) / f**2)
