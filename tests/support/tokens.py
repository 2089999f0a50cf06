"""Token recordings made up for tests: codes that follow a few smooth sources, so that there is something to learn."""

import numpy as np

from neuromill.models.sensors import place_sensors
from neuromill.training.tokens import MemoryTokens, TokenRecording


def codebooks(n_quantizers: int = 6, size: int = 256, dim: int = 16) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(n_quantizers, size, dim))
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def recording(
    name: str,
    n_frames: int,
    n_channels: int,
    *,
    subject: str = "",
    dataset: str = "demo",
    n_bad: int = 0,
    n_quantizers: int = 6,
    segment_frames: int | None = None,
) -> TokenRecording:
    rng = np.random.default_rng(n_channels)
    normals = rng.normal(size=(n_channels, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    geometry = place_sensors(
        0.1 * normals, normals, np.arange(n_channels) % 3 == 0, np.arange(n_channels) >= n_bad, where=name
    )
    return TokenRecording(name, dataset, subject or name, n_frames, n_quantizers, geometry, segment_frames)


def memory_tokens(*recordings: TokenRecording, size: int = 256, seed: int = 0) -> MemoryTokens:
    """Level 0 counts the phase of a source the channels see; every further level follows the one before."""
    codes = []
    for index, one in enumerate(recordings):
        rng = np.random.default_rng([seed, index])
        source = np.sin(np.cumsum(rng.normal(0.3, 0.1, size=(one.n_frames, 1)), axis=0))
        gain = one.geometry.positions[:, 2]
        level = np.clip((source * gain + 1) * size / 2, 0, size - 1).astype(np.uint8)
        levels = [(level.astype(int) * (q + 1) % size).astype(np.uint8) for q in range(one.n_quantizers)]
        codes.append(np.stack(levels, axis=1))
    return MemoryTokens(recordings, codes)
