"""A small TFDual tokenizer and EEG-like windows for the tests of tokenizers."""

import numpy as np
import torch

from neuromill.records import ChannelTable
from neuromill.tokenizers.tfdual import TfDualTokenizer
from neuromill.tokenizers.tfdual_config import TfDualNetworkConfig, TfDualTokenizerConfig
from neuromill.tokenizers.tfdual_network import TfDual

NAMES = tuple("ABCDEFGH")
SMALL = TfDualNetworkConfig(
    patch_samples=40, window_patches=6, width=60, depth=2, heads=6, mlp_ratio=2, decoder_depth=1,
    codebook_size=64, codebook_dim=16, max_channels=8, max_patches=6,
)  # fmt: skip
CONFIG = TfDualTokenizerConfig(network=SMALL, channels=NAMES)
WINDOW = CONFIG.window_samples


def random_tokenizer(config: TfDualTokenizerConfig = CONFIG, seed: int = 0) -> TfDualTokenizer:
    """Random weights, codes said to be placed; its codes are as deterministic as those of a fitted one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TfDual(config)
        # Small as they start, random heads give every token nearly the same direction.
        for head in network.code_heads:
            head.apply(lambda m: torch.nn.init.normal_(m.weight) if isinstance(m, torch.nn.Linear) else None)
    for quantizer in network.quantizers:
        if hasattr(quantizer, "inited"):
            quantizer.inited.fill_(1)
    return TfDualTokenizer(config, network)


def table(names: tuple[str, ...] = NAMES, *, kind: str = "eeg", unit: str = "V", bads: tuple[str, ...] = ()):
    """A channel table without positions; ``bads`` are names."""
    n = len(names)
    nowhere = np.full((n, 3), np.nan)
    marks = tuple("marked" if name in bads else "" for name in names)
    return ChannelTable(names, (kind,) * n, ("",) * n, (unit,) * n, nowhere, nowhere, marks)


def eeg_like(n_windows: int, n_channels: int, n_times: int, seed: int = 0, sfreq: float = 200.0) -> np.ndarray:
    """1/f background and waxing alpha, around 30 uV: float32 [window, channel, time]."""
    rng = np.random.default_rng(seed)
    freqs = np.fft.rfftfreq(n_times, 1 / sfreq)
    shape = np.where((freqs >= 0.3) & (freqs <= 75), np.maximum(freqs, 0.3) ** -0.75, 0)

    def noise(n: int) -> np.ndarray:
        return rng.standard_normal((n_windows, n, len(freqs))) + 1j * rng.standard_normal((n_windows, n, len(freqs)))

    own = noise(n_channels)
    x = np.fft.irfft((own + noise(1)) * shape, n_times)
    x /= x.std(axis=-1, keepdims=True)
    envelope = np.abs(np.fft.irfft(own[..., ::-1] * (freqs < 5), n_times))
    envelope /= envelope.mean(axis=-1, keepdims=True)
    alpha = 10 + rng.uniform(-1, 1, (n_windows, n_channels, 1))
    weight = rng.uniform(0.2, 1.5, (n_windows, n_channels, 1))
    x += weight * envelope * np.sin(2 * np.pi * alpha * np.arange(n_times) / sfreq)
    return (x * 20e-6).astype(np.float32)
