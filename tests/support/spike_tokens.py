"""Spike tokens made up for tests: units tuned to the velocity of a cursor, so that there is something to decode."""

from collections.abc import Sequence

import numpy as np

from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.tokenizers.spikes import tokenize_spikes
from neuromill.training.spike_source import MemorySpikeTokens, Span, SpikeTokenRecording

CHUNK_BINS = 20


def reaching(n_bins: int, n_units: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts uint8 [time, unit] of cosine-tuned units, and the velocity float32 [time, 2] that drives them."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n_bins + 40, 2))
    kernel = np.hanning(41) / np.linalg.norm(np.hanning(41))
    velocity = np.stack([np.convolve(column, kernel, "valid") for column in noise.T], axis=1)
    angles = rng.uniform(0, 2 * np.pi, n_units)
    drive = velocity @ np.stack((np.cos(angles), np.sin(angles)))
    return rng.poisson(np.exp(0.8 * drive - 0.3)).clip(max=255).astype(np.uint8), velocity.astype(np.float32)


def spike_source(
    *names: str,
    n_bins: int = 600,
    n_units: int = 24,
    spans: Sequence[Span] = (Span("train", 0, 440), Span("validation", 460, 600)),
    seed: int = 0,
) -> MemorySpikeTokens:
    """Recordings of one array and two covariates, in chunks of 20 bins; the tuning is another in each."""
    recordings, tokens = [], []
    for index, name in enumerate(names):
        counts, velocity = reaching(n_bins, n_units, seed + index)
        scale = np.quantile(np.abs(velocity), 0.999, axis=0).astype(np.float32)
        made, patch_channels = tokenize_spikes(
            Ndt3TokenizerConfig(chunk_bins=CHUNK_BINS), counts, ("M1",) * n_units, velocity,
            np.ones(velocity.shape, bool), scale, np.zeros(n_bins, np.int32),
        )  # fmt: skip
        recordings.append(
            SpikeTokenRecording(
                name=name,
                dataset="demo",
                bin_seconds=0.02,
                covariates=("velocity_x", "velocity_y"),
                patch_channels=patch_channels,
                chunk_start_bins=made.chunk_start_bins,
                chunk_n_bins=made.chunk_n_bins.astype(np.int64),
                spans=tuple(spans),
            )
        )
        tokens.append(made)
    return MemorySpikeTokens(recordings, tokens)
