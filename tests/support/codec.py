"""A small codec and MEG-like signals for the tests of tokenizers."""

import numpy as np
import torch

from neuromill.tokenizers.biocodec import BioCodec
from neuromill.tokenizers.config import BioCodecConfig, TokenizerConfig
from neuromill.tokenizers.tokenizer import RvqTokenizer

SMALL = BioCodecConfig(
    base_width=4, dilations=(1,), lstm_layers=1, latent_dim=16, n_quantizers=3, codebook_size=16, codebook_dim=4
)


def small_tokenizer(seed: int = 0, config: BioCodecConfig = SMALL) -> RvqTokenizer:
    """A random, unfitted tokenizer; its codes are as deterministic as those of a fitted one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RvqTokenizer(TokenizerConfig(network=config), BioCodec(config))


def meg_like(n_rows: int, n_times: int, seed: int = 0, sfreq: float = 50.0) -> np.ndarray:
    """Rows of 1/f background plus waxing alpha, 0.1 to 22 Hz, around 1e-13 T: float32 [row, time]."""
    rng = np.random.default_rng(seed)
    freqs = np.fft.rfftfreq(n_times, 1 / sfreq)
    shape = np.where((freqs >= 0.1) & (freqs <= 22), 1 / np.maximum(freqs, 0.1), 0)
    phases = rng.standard_normal((n_rows, len(freqs))) + 1j * rng.standard_normal((n_rows, len(freqs)))
    background = np.fft.irfft(phases * shape, n_times)
    background /= background.std(axis=1, keepdims=True)
    envelope = np.abs(np.fft.irfft(phases[:, ::-1] * (freqs < 0.5), n_times))
    envelope /= envelope.mean(axis=1, keepdims=True) + 1e-30
    alpha = np.sin(2 * np.pi * (10 + rng.uniform(-1, 1, (n_rows, 1))) * np.arange(n_times) / sfreq)
    rows = background + rng.uniform(0.2, 1.0, (n_rows, 1)) * envelope * alpha
    return (rows * 1e-13).astype(np.float32)
