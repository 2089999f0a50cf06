"""The numbers behind the pictures, against scipy, numpy and geometry."""

import numpy as np
import pytest
from scipy.signal import welch

from neuromill.reports.measures import (
    amplitude_density,
    correlations,
    flatten,
    frequencies,
    perplexity,
    places,
    root_mean_square,
    shown_in,
)


@pytest.mark.parametrize(("sfreq", "n_times"), [(50.0, 751), (100.0, 200), (62.5, 1000), (49.5, 500)])
def test_density_is_that_of_scipy(sfreq: float, n_times: int) -> None:
    signal = np.random.default_rng(0).standard_normal((3, n_times)).astype(np.float32) * 1e-12 + 1e-10
    n = round(2 * sfreq)
    freqs, power = welch(signal.astype(np.float64), sfreq, nperseg=n, noverlap=n - n // 2, detrend="constant")
    np.testing.assert_allclose(frequencies(sfreq), freqs[1:], rtol=1e-12)
    np.testing.assert_allclose(amplitude_density(signal, sfreq), np.sqrt(power[:, 1:]), rtol=1e-6)


def test_density_of_something_short_is_empty() -> None:
    assert amplitude_density(np.zeros((3, 99), np.float32), 50.0).shape == (0, 50)


def test_root_mean_square_is_about_the_mean() -> None:
    time = np.arange(1000) / 1000
    signal = np.stack([np.sin(2 * np.pi * 5 * time) + 7, np.full(1000, np.nan)]).astype(np.float32)
    np.testing.assert_allclose(root_mean_square(signal), [np.sqrt(0.5), np.nan], rtol=1e-5)


def test_flat_map_of_a_sphere_that_is_not_at_the_origin() -> None:
    directions = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, np.sqrt(0.5), np.sqrt(0.5)]])
    flat = flatten(directions * 0.1 + [0.02, -0.01, 0.05])
    np.testing.assert_allclose(flat, [[0, 0], [1, 0], [0, 1], [-1, 0], [0, 0.5]], atol=1e-9)


@pytest.mark.parametrize("positions", [np.zeros((1, 3)), np.array([[0.1, 0, 0], [0, 0.1, 0]])])
def test_flat_map_of_too_few_sensors_is_finite(positions: np.ndarray) -> None:
    assert np.isfinite(flatten(positions)).all()


def test_coils_at_one_place_share_it() -> None:
    here, there, far = [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]
    positions = np.array([here, np.add(here, 1e-6), there, far, [np.nan] * 3])
    found = places(positions, np.array([3.0, 4.0, np.nan, 2.0, 9.0]), ("", "", "flat", "", "flat"))
    order = np.argsort(found.rms)  # NaN last
    np.testing.assert_allclose(found.rms[order], [2, np.sqrt(12.5), np.nan])
    np.testing.assert_allclose(found.positions[order], [far, here, there], atol=1e-5)
    assert found.bad[order].tolist() == [False, False, True]


def test_perplexity_and_correlations() -> None:
    shares = np.array([[0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0], [0.5, 0.5, 0, 0]])
    np.testing.assert_allclose(perplexity(shares), [4, 1, 2])
    a, b = np.random.default_rng(1).standard_normal((2, 3, 50))
    b[2] = 4
    expected = [np.corrcoef(a[0], b[0])[0, 1], np.corrcoef(a[1], b[1])[0, 1], 0]
    np.testing.assert_allclose(correlations(a, b), expected)


@pytest.mark.parametrize(
    ("unit", "name", "shown"), [("T", "fT", 1000.0), ("T/m", "fT/cm", 10.0), ("V", "µV", 1e-6), ("", "a.u.", 1e-12)]
)
def test_units_of_the_field(unit: str, name: str, shown: float) -> None:
    scale = shown_in(unit)
    assert scale.name == name
    assert 1e-12 * scale.factor == pytest.approx(shown)
