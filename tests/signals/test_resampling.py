"""Odd rates against closed forms: a sum of sinusoids, known at every instant, in float64."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.signals.fir import design_filter
from neuromill.signals.resampling import PASSBAND, Grid
from neuromill.signals.steps import Filter, Resample
from support.signals import process

RATES = [
    (1000.0, 50.0),
    (1200.0, 50.0),
    (300.307, 50.0),
    (300.3074951171875, 50.0),
    (1017.25, 50.0),
    (1017.2526245117188, 50.0),
    (90.0, 50.0),
    (999.412, 50.0),
    (40.0, 50.0),
    (250.0, 200.0),
]
# Ripple of the kernel at 100 dB is 1e-5, once for the resampling and once in the filter made with it.
TOLERANCE = 5e-5


def sinusoids(times, top, rows=3, n=40):
    rng = np.random.default_rng(5)
    freqs, phases = rng.uniform(0, top, (rows, n, 1)), rng.uniform(0, 2 * np.pi, (rows, n, 1))
    return freqs, np.sin(2 * np.pi * freqs * times + phases)


@pytest.mark.parametrize(("sfreq", "new"), RATES)
def test_samples_sit_exactly_on_the_grid(sfreq, new):
    n, top = round(20 * sfreq), PASSBAND * min(sfreq, new) / 2
    _, x = sinusoids(np.arange(n) / sfreq, top)
    chain, y = process((Resample(sfreq=new),), 1e-12 * (1e3 + x.sum(axis=1)), sfreq)
    _, parts = sinusoids(np.arange(chain.n_times) / new, top)
    oracle = 1e-12 * (1e3 + parts.sum(axis=1))
    inside = slice(round(3 * new), -round(3 * new))
    # float32 output rounds the offset: 1e-9 T at 6e-8
    np.testing.assert_allclose(y[:, inside], oracle[:, inside], atol=TOLERANCE * 1e-12 * np.sqrt(40) + 7e-17)


@pytest.mark.parametrize(("sfreq", "new"), RATES)
def test_filtered_and_resampled_on_the_grid(sfreq, new):
    """A linear filter multiplies each sinusoid by its response, which the taps of MNE's design give."""
    step, n, top = Filter(l_freq=0.5, h_freq=15.0), round(40 * sfreq), PASSBAND * min(sfreq, new) / 2
    _, x = sinusoids(np.arange(n) / sfreq, top)
    chain, y = process((step, Resample(sfreq=new)), 1e3 + x.sum(axis=1), sfreq)
    fir = design_filter(step, sfreq)
    freqs, parts = sinusoids(np.arange(chain.n_times) / new, top)
    lags = np.arange(-fir.reach, fir.reach + 1) / sfreq
    gain = np.cos(2 * np.pi * freqs * lags) @ fir.taps
    oracle = (gain[..., None] * parts).sum(axis=1) + 1e3 * fir.taps.sum()
    inside = slice(round(10 * new), -round(10 * new))
    assert chain.facts.fused
    offset = 1e3 * 1e-6  # what is left of a constant may differ by 120 dB below it (measured: 4.3e-7 at 90 -> 50 Hz)
    np.testing.assert_allclose(y[:, inside], oracle[:, inside], atol=TOLERANCE * np.sqrt(40) + offset)


def test_nothing_folds_back():
    """From the new Nyquist frequency on, a sinusoid is at least 100 dB down, wherever it would fold to."""
    times = np.arange(20000) / 1000
    freqs = np.array([25.0, 25.5, 28.0, 37.0, 60.0, 90.0, 149.0, 480.0])[:, None]
    _, y = process((Resample(sfreq=50.0),), np.sin(2 * np.pi * freqs * times + 1), 1000.0)
    assert np.abs(y[:, 100:-100]).max() < 2e-5


@given(
    n=st.integers(1, 10**7),
    sfreq=st.floats(20, 5000, allow_nan=False),
    new=st.sampled_from([50.0, 100.0, 128.0, 250.0]),
)
def test_the_grid_ends_within_the_recording(n, sfreq, new):
    grid = Grid.between(sfreq, new)
    made = grid.n_outputs(n)
    duration = Fraction(n - 1) / Fraction(sfreq)
    assert Fraction(made - 1) / Fraction(new) <= duration < Fraction(made) / Fraction(new)


@pytest.mark.parametrize(("sfreq", "new"), RATES)
def test_every_output_has_weights_that_sum_to_one_within_its_span(sfreq, new):
    grid = Grid.between(sfreq, new)
    for first in (-3 * grid.block, 0, grid.block, 10**6 * grid.block):
        start, stop = grid.span(first, grid.block)
        matrix = grid.matrix(first, grid.block)
        assert matrix.shape == (stop - start, grid.block)
        np.testing.assert_allclose(matrix.sum(axis=0), 1.0, atol=1e-12)
        centres = (start + np.arange(stop - start)) @ matrix
        np.testing.assert_allclose(
            centres - start, (first + np.arange(grid.block)) * float(grid.ratio) - start, rtol=0.001
        )
        if grid.repeats:
            np.testing.assert_array_equal(matrix, grid.matrix(0, grid.block))
    assert math.isclose(grid.half_width * (1 / sfreq), 6.41 / ((1 - PASSBAND) * min(sfreq, new)), rel_tol=0.02)
