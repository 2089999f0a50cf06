"""Targets and losses as the paper says, against plain numpy and the broadcast form."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from neuromill.tokenizers.tfdual_config import TfDualLossConfig, TfDualTokenizerConfig
from neuromill.tokenizers.tfdual_losses import (
    contrastive_loss,
    spectral_targets,
    split_halves,
    squared_error,
    tfdual_losses,
    zscore,
)
from neuromill.tokenizers.tfdual_network import TfDual
from support.tfdual import CONFIG, eeg_like, random_tokenizer

X = torch.from_numpy(eeg_like(2, 3, 4 * 40).reshape(2, 3, 4, 40) * 1e4)
PARITY = CONFIG.model_copy(update={"parity": True})
VALID = torch.tensor([[True, False, True], [True, True, True]])


def test_published_targets():
    targets = spectral_targets(X, PARITY)
    spectrum = np.fft.fft(X.double().numpy())
    raw = np.abs(spectrum)
    expected = (raw - raw.mean((1, 2, 3), keepdims=True)) / raw.std((1, 2, 3), keepdims=True, ddof=1)
    np.testing.assert_allclose(targets.amplitude.numpy(), expected, atol=1e-4)
    # The angle of the two real bins is 0, pi or -pi by the sign of a rounding error, which also shifts the mean.
    complex_bins = [k for k in range(40) if k not in (0, 20)]
    ours, raw = (x[0][..., complex_bins].ravel() for x in (targets.phase.numpy(), np.angle(spectrum)))
    assert np.corrcoef(ours, raw)[0, 1] > 0.9999
    np.testing.assert_allclose(targets.phase.std(dim=(1, 2, 3)).numpy(), 1, rtol=1e-4)
    assert targets.amplitude.shape == targets.phase.shape == X.shape


def test_our_targets_are_one_sided_and_round():
    targets = spectral_targets(X, CONFIG)
    angle = np.angle(np.fft.rfft(X.double().numpy()))
    assert targets.amplitude.shape == (2, 3, 4, 21)
    np.testing.assert_allclose(targets.phase[..., 1:20].numpy(), np.cos(angle)[..., 1:20], atol=1e-3)
    np.testing.assert_allclose(targets.phase[..., 22:41].numpy(), np.sin(angle)[..., 1:20], atol=1e-3)


@pytest.mark.parametrize("option", [{"phase": "angle"}, {"spectrum": "two_sided"}, {"parity": True}, {}], ids=str)
def test_heads_are_as_wide_as_targets(option):
    config = CONFIG.model_copy(update=option)
    result = random_tokenizer(config).network(X)
    targets = spectral_targets(X, config)
    assert result.amplitude.shape == targets.amplitude.shape
    assert result.phase.shape == targets.phase.shape
    assert result.waveform.shape == X.shape


def test_zscore_over_valid_channels_only():
    scores = zscore(X, VALID)
    np.testing.assert_allclose(scores[0, [0, 2]].numpy(), zscore(X[:1, [0, 2]])[0].numpy(), rtol=1e-4, atol=1e-5)
    assert zscore(torch.zeros(1, 1, 2, 3)).abs().max() == 0


def test_squared_error():
    other = torch.zeros_like(X)
    torch.testing.assert_close(squared_error(X, other), X.square().mean())
    kept = X.square()[VALID].mean()
    torch.testing.assert_close(squared_error(X, other, VALID), kept)


def test_contrastive_loss_is_the_broadcast_form():
    halves = torch.randn(10, 3, 2, 5, generator=torch.Generator().manual_seed(0))
    flat = halves.flatten(1)
    similarity = functional.cosine_similarity(flat[:, None], flat[None], dim=-1) / 0.1
    logits = similarity.masked_fill(torch.eye(10, dtype=torch.bool), -torch.inf)
    partners = [(i + 5) % 10 for i in range(10)]
    expected = -torch.stack([logits[i].log_softmax(-1)[k] for i, k in enumerate(partners)]).mean()
    torch.testing.assert_close(contrastive_loss(halves, 0.1), expected)


def test_halves():
    halves = split_halves(torch.arange(10).view(2, 1, 5, 1))
    assert halves.flatten(1).tolist() == [[0, 1], [5, 6], [3, 4], [8, 9]]


def test_total_is_the_weighted_sum():
    weights = TfDualLossConfig(time_weight=2, amplitude_weight=3, phase_weight=0, contrastive_weight=5)
    network = random_tokenizer().network
    result = network(X)
    losses = tfdual_losses(result, X, network.features(split_halves(X)), CONFIG, weights)
    parts = 2 * losses.time + 3 * losses.amplitude + losses.commitment + 5 * losses.contrastive
    torch.testing.assert_close(losses.total, parts)
    assert losses.commitment <= 2 * 4 / CONFIG.code_dim
    torch.testing.assert_close(losses.time, (result.waveform - X).square().mean())


def test_published_init_does_not_predict_anything():
    """At the start both spectra cost about their variance, which z-scoring makes one."""
    network = TfDual(PARITY)
    for quantizer in network.quantizers:
        quantizer.inited.fill_(1)
    with torch.no_grad():
        losses = tfdual_losses(network(X), X, None, PARITY, TfDualLossConfig())
    assert float(losses.amplitude) == pytest.approx(1, rel=0.1)
    assert float(losses.phase) == pytest.approx(1, rel=0.1)
    assert TfDualTokenizerConfig(parity=True).n_bins == 200
