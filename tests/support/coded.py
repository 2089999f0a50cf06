"""Signals and codes made up for tests: the code of a patch is what its neighbours in time and space tell."""

import numpy as np

from neuromill.training.coded_signals import CodedRecording, MemoryCodedSignals

HOP = 50  # the smallest patch that the stem of EEGSSM takes


def coded(
    *subjects: str,
    n_frames: int = 24,
    n_channels: int = 3,
    n_quantizers: int = 2,
    size: int = 8,
    dataset: str = "demo",
    seed: int = 0,
) -> MemoryCodedSignals:
    """One recording per subject: all channels see one source, whose level in each patch is the code of every channel.

    Quantizer q counts q times as fast, so that the streams differ.
    """
    recordings, signals, codes, fit = [], [], [], []
    for index, subject in enumerate(subjects):
        rng = np.random.default_rng([seed, index, len(subject)])
        level = rng.integers(0, size, n_frames)
        phase = np.linspace(0, 4 * np.pi, HOP)
        wave = (level[:, None] + 1) / size * np.sin(phase + 0.1) + level[:, None] / size
        signal = np.tile(wave.ravel(), (n_channels, 1)) + 0.01 * rng.standard_normal((n_channels, n_frames * HOP))
        streams = np.stack([(q + 1) * level % size for q in range(n_quantizers)], axis=1)
        recordings.append(
            CodedRecording(f"{dataset}/{subject}", dataset, subject, n_frames, n_channels, n_quantizers, size, HOP, 12)
        )
        signals.append(signal.astype(np.float32))
        codes.append(np.tile(streams[:, :, None], (1, 1, n_channels)).astype(np.uint16))
        fit.append(np.ones((n_channels, n_frames), np.bool_))
    return MemoryCodedSignals(recordings, signals, codes, fit)
