"""Block normalisation against a numpy oracle with the semantics of scikit-learn's RobustScaler."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromill.tokenizers.config import NormalizationConfig
from neuromill.tokenizers.normalization import normalize_blocks
from support.codec import meg_like

CONFIG = NormalizationConfig()


def oracle(signal, config=CONFIG):
    out = np.zeros(signal.shape)
    for start in range(0, signal.shape[1], config.block_samples):
        block = signal[:, start : start + config.block_samples].astype(np.float64)
        low, middle, high = np.percentile(block, [25, 50, 75], axis=1, keepdims=True)
        out[:, start : start + config.block_samples] = (block - middle) / np.where(high > low, high - low, np.inf)
    return np.clip(out, -config.clip, config.clip)


@pytest.mark.parametrize("n_times", [1, 2, 3, 149, 150, 151, 299, 300, 1234])
@pytest.mark.parametrize("unit", [1e-13, 1.0, 1e6])
def test_equals_the_oracle(n_times, unit):
    signal = (np.random.default_rng(n_times).standard_normal((7, n_times)) * unit).astype(np.float32)
    np.testing.assert_allclose(normalize_blocks(torch.from_numpy(signal), CONFIG), oracle(signal), atol=2e-5)


def test_offset_far_above_the_signal_keeps_float32_precision():
    signal = meg_like(4, 900) + np.float32(1e-11)
    np.testing.assert_allclose(normalize_blocks(torch.from_numpy(signal), CONFIG), oracle(signal), atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(exponent=st.integers(-80, 60), seed=st.integers(0, 1000), n_times=st.integers(1, 400))
def test_powers_of_two_change_no_bit(exponent, seed, n_times):
    signal = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, n_times)).astype(np.float32))
    scaled = torch.ldexp(signal, torch.tensor(exponent))
    assert torch.equal(normalize_blocks(signal, CONFIG), normalize_blocks(scaled, CONFIG))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), n_times=st.integers(1, 700))
def test_range_and_independence_of_rows(seed, n_times):
    signal = torch.from_numpy(np.random.default_rng(seed).standard_cauchy((3, n_times)).astype(np.float32))
    out = normalize_blocks(signal, CONFIG)
    assert out.abs().max() <= CONFIG.clip
    assert torch.equal(out[1:2], normalize_blocks(signal[1:2], CONFIG))
    start = min(150, n_times - 1) // 150 * 150
    assert torch.equal(out[:, start:], normalize_blocks(signal[:, start:], CONFIG)) or signal.abs().amax() == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_with_non_finite_samples_become_silence_and_others_stay(bad):
    signal = meg_like(3, 450)
    expected = normalize_blocks(torch.from_numpy(signal), CONFIG)
    signal[1, 77] = bad
    out = normalize_blocks(torch.from_numpy(signal), CONFIG)
    assert not out[1].any()
    assert torch.equal(out[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("level", [0.0, 1e-13, 3e-38, 1.0, 12345.678])
def test_flat_channels_become_zeros(level):
    assert not normalize_blocks(torch.full((1, 300), level), CONFIG).any()


def test_rounding_noise_on_an_offset_is_flat():
    """One float32 step of flicker on a large offset carries no signal; dividing by it would make +-1 of it."""
    steps = torch.randint(0, 2, (1, 300), generator=torch.Generator().manual_seed(0)) * torch.finfo(torch.float32).eps
    assert not normalize_blocks(1 + steps.float(), CONFIG).any()


def test_signal_above_the_flat_floor_is_kept():
    signal = 1 + 1e-4 * torch.randn(1, 300, generator=torch.Generator().manual_seed(0))
    assert normalize_blocks(signal, CONFIG).std() > 0.5
