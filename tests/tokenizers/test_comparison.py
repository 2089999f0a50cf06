"""Scores against closed forms, and what must not matter to them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import butter, sosfiltfilt

from neuromill.records import ConfigError
from neuromill.tokenizers.comparison import (
    AmplitudeScores,
    Band,
    RowScores,
    bands_within,
    common_band,
    rate_of,
    score_rows,
    shape_of,
)
from neuromill.tokenizers.fixed import FixedTokenizer
from neuromill.tokenizers.fixed_config import MuLawConfig
from neuromill.tokenizers.tfdual import Amplitudes
from neuromill.tokenizers.usage import Usage
from support.codec import small_tokenizer

SFREQ = 200.0
BAND = Band("common", 0.5, 75.0)
BANDS = bands_within(BAND)


def white(n: int = 4, n_times: int = 6000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, n_times))


def fidelity(original: np.ndarray, reconstruction: np.ndarray, band: Band = BAND, sfreq: float = SFREQ):
    bands = bands_within(band)
    return score_rows(shape_of(original, sfreq, band), shape_of(reconstruction, sfreq, band), sfreq, bands).fidelity(
        bands
    )


@pytest.mark.parametrize("share", [0.1, 0.5, 2.0])
def test_white_noise_has_the_scores_of_the_formula(share: float) -> None:
    found = fidelity(white(), white() + share * white(seed=1))
    r = 1 / math.sqrt(1 + share**2)
    assert found.correlation == pytest.approx(r, abs=0.02)
    assert found.si_sdr_db == pytest.approx(-20 * math.log10(share), abs=0.5)
    assert found.n_rows == 4
    for error in found.band_error.values():
        assert error == pytest.approx(1 - r**2, rel=0.2)


def test_perfect_and_nothing() -> None:
    same = fidelity(white(), white())
    assert same.correlation == pytest.approx(1.0)
    assert same.si_sdr_db == pytest.approx(100.0)
    assert max(same.band_error.values()) < 1e-20
    silent = fidelity(white(), np.zeros((4, 6000)))
    assert (silent.correlation, silent.si_sdr_db) == (0.0, -100.0)
    assert list(silent.band_error.values()) == pytest.approx([1.0] * len(BANDS))
    assert set(silent.band_level_db.values()) == {-100.0}


def test_a_reconstruction_without_gamma_is_wrong_in_gamma_alone() -> None:
    x = white()
    low = sosfiltfilt(butter(8, 26.0, fs=SFREQ, output="sos"), x, axis=1)
    found = fidelity(x, low)
    assert found.band_error["gamma"] > 0.95
    assert found.band_level_db["gamma"] < -12
    assert max(found.band_error[name] for name in ("delta", "theta", "alpha")) < 0.6  # scaled to fit what is there
    assert found.band_error["alpha"] < found.band_error["gamma"]


@given(st.floats(1e-15, 1e9), st.floats(-3, 3), st.integers(0, 5))
def test_gain_and_offset_of_a_window_do_not_matter(gain: float, offset: float, seed: int) -> None:
    x = white(2, 1600, seed)
    noisy = x + 0.3 * white(2, 1600, seed + 10)
    plain, moved = fidelity(x, noisy), fidelity(x * 1e-5, gain * (noisy + offset))
    assert moved.correlation == pytest.approx(plain.correlation, rel=1e-6)
    assert moved.si_sdr_db == pytest.approx(plain.si_sdr_db, abs=1e-5)
    assert moved.band_error == pytest.approx(plain.band_error, rel=1e-5)


def test_a_gain_that_changes_inside_the_window_does() -> None:
    x = white()
    faded = x * np.linspace(0.2, 1.8, x.shape[1])
    assert fidelity(x, faded).correlation < 0.95


def test_what_lies_outside_the_band_does_not_matter() -> None:
    x, times = white(2, 4000), np.arange(4000) / SFREQ
    band = Band("common", 1.0, 20.0)
    hum = 5 * np.sin(2 * np.pi * 50 * times) + 3 * times  # mains and a drift
    assert fidelity(x, x + hum, band).correlation > 0.995


def test_shape_has_deviation_one_and_no_edges() -> None:
    shape = shape_of(white(3, 1000) * 1e-13 + 7e-12, SFREQ, BAND)
    assert shape.shape == (3, 800)
    assert shape.std(axis=1) == pytest.approx([1, 1, 1])
    assert shape.mean(axis=1) == pytest.approx([0, 0, 0], abs=1e-12)
    assert not shape_of(np.full((2, 1000), 3e-5), SFREQ, BAND).any()


def test_bands_are_cut_to_what_is_common() -> None:
    assert [(b.name, b.low, b.high) for b in bands_within(common_band([200.0, 50.0], 0.1, 75.0))] == [
        ("delta", 0.5, 4.0), ("theta", 4.0, 8.0), ("alpha", 8.0, 13.0), ("beta", 13.0, 22.0),
    ]  # fmt: skip
    assert common_band([200.0], 2.0, 40.0) == Band("common", 2.0, 40.0)
    assert common_band([200.0], None, None) == Band("common", 0.5, 88.0)
    with pytest.raises(ConfigError, match="no band is common"):
        common_band([200.0, 1.0])


def test_joined_rows_weigh_alike() -> None:
    bands = BANDS
    parts = [
        score_rows(shape_of(white(n, seed=n), SFREQ, BAND), shape_of(white(n, seed=9), SFREQ, BAND), SFREQ, bands)
        for n in (1, 3)
    ]
    joined = RowScores.joined(parts).fidelity(bands)
    assert joined.n_rows == 4
    assert joined.correlation == pytest.approx(np.mean([*parts[0].correlation, *parts[1].correlation]))


def test_amplitude_errors_are_shares_of_the_variation_within_a_band() -> None:
    rng = np.random.default_rng(0)
    freqs = np.arange(0, 40, 2.0)
    bands = (Band("low", 1, 8), Band("none", 8.5, 9.5), Band("high", 9, 30))
    bins = {band.name: (freqs >= band.low) & (freqs < band.high) for band in bands}
    target = rng.standard_normal((3, 4, 5, 20)).astype(np.float32) + freqs.astype(np.float32)
    rows = np.ones((3, 4), bool)
    rows[1, 2] = False
    means = np.empty_like(target)
    for band in bins.values():
        means[..., band] = target[rows][..., band].mean() if band.any() else 0
    noisy = target + np.sqrt(0.5).astype(np.float32) * rng.standard_normal(target.shape).astype(np.float32)
    target[1, 2] = np.nan

    def scores(frequency: np.ndarray, part: slice = slice(None)) -> AmplitudeScores:
        found = Amplitudes(target[part], frequency[part], means[part], freqs)
        return AmplitudeScores.of(found, rows[part], bands)

    perfect = scores(target).shares(bands)
    assert perfect["frequency"] == {"low": 0, "high": 0}
    assert perfect["temporal"] == pytest.approx({"low": 1, "high": 1})
    variance = {name: target[rows][..., bins[name]].var(dtype=np.float64) for name in ("low", "high")}
    found = scores(noisy).shares(bands)["frequency"]
    errors = {name: np.square(noisy - target)[rows][..., bins[name]].mean(dtype=np.float64) for name in variance}
    assert found == pytest.approx({name: errors[name] / variance[name] for name in variance}, rel=1e-5)
    halves = scores(noisy, slice(0, 1)) + scores(noisy, slice(1, 3))
    assert halves.shares(bands)["frequency"] == pytest.approx(found)


def test_rates() -> None:
    mu_law = FixedTokenizer(MuLawConfig(sfreq=SFREQ))
    counts = np.zeros((1, 256), np.int64)
    counts[0, :4] = 25
    rate = rate_of(mu_law, Usage(counts), 10.0)
    assert (rate.nominal, rate.scale) == (1600.0, 3.2)
    assert rate.entropy == pytest.approx(2 * SFREQ)
    small = rate_of(small_tokenizer(), Usage(np.ones((3, 16), np.int64)), 3.0)
    assert small.nominal == pytest.approx(3 * 4 * 50 / 12)
    assert small.entropy == pytest.approx(small.nominal)
