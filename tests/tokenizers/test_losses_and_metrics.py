"""Losses and metrics against formulas written down independently."""

import numpy as np
import pytest
import torch
from scipy.signal import stft

from neuromill.records import ConfigError
from neuromill.tokenizers.biocodec import Reconstruction
from neuromill.tokenizers.config import LossConfig
from neuromill.tokenizers.losses import codec_losses, spectral_loss, spectral_parts
from neuromill.tokenizers.metrics import correlation, evaluate, row_scores, si_sdr_db
from support.codec import SMALL, meg_like, small_tokenizer

CONFIG = LossConfig()


def rows(n=3, n_times=400, seed=0):
    return torch.randn(n, n_times, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("window", [32, 64, 128, 256])
def test_spectral_parts_equal_scipy(window):
    x, hop = rows(), window // 8
    padded = np.pad(x.numpy(), ((0, 0), ((window - hop) // 2,) * 2), mode="reflect")
    hann = np.hanning(window + 1)[:-1]
    _, _, spectrum = stft(padded, window=hann, nperseg=window, noverlap=window - hop, boundary=None, padded=False)
    spectrum = spectrum * hann.sum()
    parts = spectral_parts(x, window)
    np.testing.assert_allclose(parts[:, 0], np.log1p(np.abs(spectrum)), atol=2e-3)
    clear = np.abs(spectrum) > 0.05  # the floor bends the phase of smaller ones
    phase = (spectrum / np.abs(spectrum))[clear]
    np.testing.assert_allclose((parts[:, 1] + 1j * parts[:, 2]).numpy()[clear], 0.2 * phase, atol=2e-4)


def test_spectral_loss_is_l1_plus_l2_over_the_windows_that_fit():
    a, b = rows(n_times=100), rows(n_times=100, seed=1)
    expected = 0.0
    for window in (32, 64):
        difference = spectral_parts(a, window) - spectral_parts(b, window)
        expected += difference.abs().mean() + difference.square().mean()
    torch.testing.assert_close(spectral_loss(a, b, (32, 64, 128, 256)), expected)


def test_no_window_fits():
    with pytest.raises(ConfigError, match="no STFT window fits"):
        spectral_loss(rows(n_times=20), rows(n_times=20), (32, 64))


def result(output, target, commitment=2.0):
    return Reconstruction(target, output, torch.zeros(1), torch.tensor(commitment))


def test_total_is_the_weighted_sum():
    output, target = rows(), rows(seed=1)
    losses = codec_losses(result(output, target), CONFIG)
    error = (output - target).abs()
    huber = torch.where(error < 0.7, error.square() / 1.4, error - 0.35).mean()
    torch.testing.assert_close(losses.time, huber)
    torch.testing.assert_close(losses.total, 0.2 * losses.time + losses.frequency + 0.25 * 2.0)


def test_parity_counts_commitment_twice():
    output, target = rows(), rows(seed=1)
    once, twice = (codec_losses(result(output, target), LossConfig(parity=p)).total for p in (False, True))
    torch.testing.assert_close(twice - once, torch.tensor(0.25 * 2.0))


def test_perfect_reconstruction_costs_nothing():
    losses = codec_losses(result(rows(), rows(), commitment=0.0), CONFIG)
    assert losses.total == 0


def test_silent_rows_have_finite_gradients():
    output = torch.zeros(2, 400, requires_grad=True)
    codec_losses(result(output, torch.zeros(2, 400)), CONFIG).total.backward()
    assert output.grad.isfinite().all()
    small = torch.full((2, 400), 1e-9, requires_grad=True)
    codec_losses(result(small, torch.zeros(2, 400)), CONFIG).total.backward()
    assert small.grad.abs().max() < 1e3


def test_correlation_and_si_sdr():
    target = rows()
    noisy = target + 0.3 * rows(seed=1)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(noisy.numpy(), target.numpy(), strict=True)]
    np.testing.assert_allclose(correlation(noisy, target), expected, atol=1e-6)
    a, b = (x.double() - x.double().mean(dim=1, keepdim=True) for x in (noisy, target))
    projection = (a * b).sum(dim=1, keepdim=True) / b.square().sum(dim=1, keepdim=True) * b
    ratio = projection.square().sum(dim=1) / (a - projection).square().sum(dim=1)
    np.testing.assert_allclose(si_sdr_db(noisy.double(), target.double()), 10 * torch.log10(ratio), atol=1e-6)
    np.testing.assert_allclose(si_sdr_db(5 * noisy + 1, target), si_sdr_db(noisy, target), atol=1e-3)


def test_constant_predictions_score_nothing():
    target = rows()
    mean = target.mean(dim=1, keepdim=True).expand_as(target)
    scores = row_scores(mean, target)
    np.testing.assert_allclose(scores[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(scores[:, 2], scores[:, 3], rtol=1e-5)
    np.testing.assert_allclose(scores[:, 1], -100, atol=20)


def test_evaluation_leaves_silent_rows_out():
    signal = torch.from_numpy(meg_like(4, 600))
    signal[1] = 0
    signal[2, 5] = float("nan")
    tokenizer = small_tokenizer()
    quality = evaluate(tokenizer, [signal[:2], signal[2:]])
    assert quality.n_rows == 2
    assert quality.usage.n_frames == 2 * SMALL.n_frames(600)
    alone = evaluate(tokenizer, [signal[[0, 3]]])
    assert alone.correlation == pytest.approx(quality.correlation, abs=1e-6)
    assert quality.mse >= quality.baseline_mse  # nothing was learnt


def test_nothing_to_evaluate():
    with pytest.raises(ConfigError, match="no row with a signal"):
        evaluate(small_tokenizer(), [torch.zeros(2, 600)])
