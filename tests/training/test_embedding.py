"""Features of a recording."""

import numpy as np
import pytest
import torch

from neuromill.models.config import CrissCrossConfig
from neuromill.models.criss_cross import CrissCross
from neuromill.models.eegssm import EEGSSM
from neuromill.records import ConfigError
from neuromill.training.embedding import embed, embed_patches, embed_recording, embed_signals
from support.coded import HOP, coded
from support.tokens import codebooks, memory_tokens, recording

CONFIG = CrissCrossConfig(latent_dim=16, n_layers=2, n_heads=2, fourier_dim=8)
TOKENS = memory_tokens(recording("a", 61, 7, n_bad=2))


def model() -> CrissCross:
    torch.manual_seed(0)
    return CrissCross(CONFIG, torch.from_numpy(codebooks()))


def whole() -> np.ndarray:
    return TOKENS.codes[0].transpose(2, 1, 0)[None]


def test_shape_and_masked_channels() -> None:
    features = embed(model(), whole(), TOKENS.recordings[0].geometry)
    assert features.shape == (1, 7, 61, 16)
    assert features.dtype == torch.float32
    assert features[:, :2].isnan().all()
    assert features[:, 2:].isfinite().all()


def test_features_do_not_depend_on_the_mode_the_model_was_left_in() -> None:
    network = model().train()
    features = embed(network, whole(), TOKENS.recordings[0].geometry)
    assert network.training
    torch.testing.assert_close(embed(network.eval(), whole(), TOKENS.recordings[0].geometry), features, equal_nan=True)


def test_features_can_be_trained_on() -> None:
    features = embed(model(), whole(), TOKENS.recordings[0].geometry)[:, 2:]
    probe = torch.nn.Linear(16, 1)
    probe(features).mean().backward()
    assert probe.weight.grad is not None


@pytest.mark.parametrize("window_frames", [1, 20, 30, 61, 100])
def test_blocks_hold_every_frame_once(window_frames: int) -> None:
    blocks = list(embed_recording(model(), TOKENS, 0, window_frames=window_frames))
    assert sum(len(block) for block in blocks) == 61
    assert {block.shape[1:] for block in blocks} == {(7, 16)}
    if window_frames >= 61:
        expected = embed(model(), whole(), TOKENS.recordings[0].geometry)[0].permute(1, 0, 2).numpy()
        np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-6)


def test_the_last_block_has_full_context() -> None:
    last = list(embed_recording(model(), TOKENS, 0, window_frames=25))[-1]
    codes = whole()[..., 61 - 25 :]
    expected = embed(model(), codes, TOKENS.recordings[0].geometry)[0].permute(1, 0, 2).numpy()
    np.testing.assert_allclose(last, expected[-11:], atol=1e-6)


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected"):
        embed(model(), whole()[:, :5], TOKENS.recordings[0].geometry)


# Models of signals

SIGNALS = coded("01", n_frames=11, n_channels=3)
SIGNAL_MODEL = {
    "patch_size": HOP, "res_channels": 8, "skip_channels": 8, "out_channels": 8, "num_res_layers": 1,
    "pos_kernel": [3, 3], "s4_lmax": 64,
}  # fmt: skip


def signal_model() -> EEGSSM:
    torch.manual_seed(0)
    return EEGSSM(**SIGNAL_MODEL)


@pytest.mark.parametrize("window_frames", [2, 4, 10, 11, 30])
def test_blocks_of_a_signal_hold_every_frame_once(window_frames: int) -> None:
    blocks = list(embed_signals(signal_model(), SIGNALS, 0, window_frames=window_frames))
    assert [len(block) for block in blocks[:-1]] == [window_frames] * (len(blocks) - 1)
    found = np.concatenate(blocks)
    assert found.shape == (11, 3, 8)
    assert np.isfinite(found).all()
    last = signal_model().eval().features(torch.from_numpy(SIGNALS.signals[0][None, :, -window_frames * HOP :]))[0]
    expected = last.detach().permute(1, 0, 2).numpy()[-len(blocks[-1]) :]
    np.testing.assert_allclose(blocks[-1], expected, atol=1e-6)  # the last block has as much context as the others


def test_a_patch_that_is_not_fit_for_use_is_silence_and_has_no_features() -> None:
    network, usable = signal_model().train(), np.ones((3, 11), np.bool_)
    usable[1, 4:6] = False
    signal = SIGNALS.signals[0].copy()
    features = embed_patches(network, signal, usable)
    assert network.training
    np.testing.assert_array_equal(features.isnan().all(dim=2).numpy(), ~usable)
    signal[1, 4 * HOP : 6 * HOP] = np.nan
    torch.testing.assert_close(embed_patches(network, signal, usable), features, equal_nan=True)


def test_a_signal_of_another_length_is_refused() -> None:
    with pytest.raises(ConfigError, match="patches of 50 samples"):
        embed_patches(signal_model(), SIGNALS.signals[0][:, 1:], np.ones((3, 11), np.bool_))
