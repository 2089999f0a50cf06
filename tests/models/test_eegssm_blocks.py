"""Parts of EEGSSM against what they are defined by: sums over lags, dense attention."""

import numpy as np
import pytest
import torch
from torch import nn

from neuromill.models.eegssm_blocks import BandedAttention, GlobalConv, RMSNorm, band, magnitude_spectrum
from neuromill.models.eegssm_config import EEGSSMConfig


def global_conv(*, bidirectional: bool = True, lmax: int = 16) -> GlobalConv:
    torch.manual_seed(0)
    config = EEGSSMConfig(res_channels=2, s4_lmax=lmax, s4_bidirectional=bidirectional, drop_prob=0)
    return GlobalConv(config).eval()


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("n", [1, 5, 16, 40])
@torch.no_grad()
def test_a_global_convolution_is_a_sum_over_lags(n: int, *, bidirectional: bool) -> None:
    conv = global_conv(bidirectional=bidirectional)
    x = torch.randn(2, 4, n)
    taps = conv.kernels(1000).double().numpy()
    assert taps.shape[-1] == 16  # 2 + 2 + 4 + 8
    samples = x.double().numpy()
    made = conv.skip_weight.double().numpy()[None, :, :, None] * samples[:, None]
    for t in range(n):
        for source in range(n):
            lag = t - source
            if 0 <= lag < 16:
                made[:, :, :, t] += taps[:4, :, lag] * samples[:, None, :, source]
            if bidirectional and 0 <= -1 - lag < 16:
                made[:, :, :, t] += taps[4:, :, -1 - lag] * samples[:, None, :, source]
    np.testing.assert_allclose(conv._convolved(x).numpy(), made, atol=1e-5)


@torch.no_grad()
def test_kernels_have_unit_norm_and_decay() -> None:
    conv = global_conv(lmax=570)
    kernels = conv.kernels(5000)
    assert kernels.shape == (8, 4, 1024)
    torch.testing.assert_close(kernels.norm(dim=-1), torch.ones(8, 4))
    power = kernels.square().mean(dim=(0, 1))
    assert power[:2].mean() > 100 * power[512:].mean()


@torch.no_grad()
def test_the_norm_is_measured_once() -> None:
    conv = global_conv()
    norm = conv.kernel_norm.clone()
    conv.kernel_list[0].mul_(3)
    conv(torch.randn(1, 4, 9))
    assert torch.equal(conv.kernel_norm, norm)
    again = global_conv()
    again.load_state_dict(conv.state_dict())
    assert torch.equal(again.kernel_norm, norm)


@torch.no_grad()
def test_a_norm_that_was_never_measured_is() -> None:
    """The published class saves ones and False before its first forward pass, and measures in it."""
    conv, other = global_conv(), global_conv()
    state = {k: 2 * v if "kernel_list" in k else v for k, v in conv.state_dict().items()}
    state["kernel_norm"], state["kernel_norm_initialized"] = torch.ones(8, 4, 1), torch.tensor(data=False)
    other.load_state_dict(state)
    torch.testing.assert_close(other.kernel_norm, 2 * conv.kernel_norm)
    assert other.kernel_norm_initialized


def dense(attention: BandedAttention, x: torch.Tensor) -> torch.Tensor:
    """Oracle: torch's attention with an N x N mask."""
    n, dim = x.shape[1:]
    oracle = nn.MultiheadAttention(dim, attention.heads, batch_first=True).eval()
    oracle.load_state_dict(attention.state_dict())
    position = torch.arange(n)
    far = (position[:, None] - position[None]).abs() > attention.window // 2
    return oracle(x, x, x, attn_mask=far, need_weights=False)[0]


@pytest.mark.parametrize("window", [1, 3, 9, 63, 201])
@pytest.mark.parametrize("n", [1, 7, 64, 150])
@torch.no_grad()
def test_banded_attention_is_dense_attention_with_a_band(window: int, n: int) -> None:
    torch.manual_seed(1)
    attention = BandedAttention(12, 4, window, 0.0).eval()
    nn.init.normal_(attention.in_proj_bias)
    x = torch.randn(2, n, 12)
    torch.testing.assert_close(attention(x), dense(attention, x), atol=1e-6, rtol=1e-5)


def test_a_band_grows_with_the_tokens_and_no_faster() -> None:
    sizes = [band(n, -(-n // 64), 64, 3, torch.device("cpu")).numel() for n in (640, 6400)]
    assert sizes[1] == 10 * sizes[0]
    assert sizes[1] < 6400 * 6400 / 50


@pytest.mark.parametrize("window", [1, 5])
def test_attention_dropout_only_while_training(window: int) -> None:
    torch.manual_seed(1)
    attention = BandedAttention(8, 4, window, 0.5)
    x = torch.randn(1, 500, 8)
    assert not torch.allclose(attention.train()(x), attention(x))
    kept = torch.stack([attention(x) for _ in range(200)]).mean(dim=0)
    with torch.no_grad():
        assert (kept - attention.eval()(x)).abs().mean() < 0.1 * attention(x).abs().mean()
        assert torch.equal(attention(x), attention(x))


def test_root_mean_square_norm() -> None:
    x = 5 * torch.randn(2, 16, 3)
    torch.testing.assert_close(RMSNorm(16)(x).square().mean(dim=1), torch.ones(2, 3))


def test_magnitude_of_a_sine() -> None:
    x = 3 * torch.cos(2 * torch.pi * 10 * torch.arange(200) / 200)
    spectrum = magnitude_spectrum(x[None, None, None])[0, 0, 0]
    assert spectrum.shape == (101,)
    assert spectrum[10] == pytest.approx(1.5, abs=1e-5)
    assert spectrum.sum() == pytest.approx(1.5, abs=1e-3)
