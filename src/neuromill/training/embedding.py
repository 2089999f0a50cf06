"""Features of a trained model for the tokens of a recording.

Quick start, from a folder of weights and a token store::

    model = from_pretrained("runs/meg-xl/model")
    tokens = StoreTokens.open(["stores/ds004078@1.2.1/tokenize/0123456789abcdef"])
    for block in embed_recording(model, tokens, 0, window_frames=625):
        ...  # float32 [frame, channel, dim]

A model of signals (EEGSSM) takes a store of prepared signals beside that of their tokens, and ``embed_signals``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from neuromill.models.criss_cross import Sensors
from neuromill.records import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from neuromill.models.criss_cross import CrissCross
    from neuromill.models.eegssm import EEGSSM
    from neuromill.models.sensors import SensorGeometry
    from neuromill.training.coded_signals import CodedSource
    from neuromill.training.tokens import TokenSource


def embed(model: CrissCross, codes: NDArray[np.uint8], geometry: SensorGeometry) -> torch.Tensor:
    """Features float32 [batch, channel, frame, dim] of uint8 codes [batch, channel, quantizer, frame], nothing hidden.

    All windows of the batch come from sensors at the same places. Runs on the device the model is on, in evaluation
    mode, without gradients. Channels that the geometry masks get NaN: the model never looked at them.

    Raises
    ------
    ConfigError
        The codes do not fit the model or the geometry.
    """
    expected = (len(geometry.mask), model.config.n_quantizers)
    if codes.ndim != 4 or codes.shape[1:3] != expected:  # noqa: PLR2004 - [batch, channel, quantizer, frame]
        raise ConfigError(f"codes are {codes.shape}, expected [batch, {expected[0]}, {expected[1]}, frame]")
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            features = model.features(torch.tensor(codes, device=device), _sensors(geometry, len(codes), device))
            features = features.float()
            features[:, ~torch.from_numpy(geometry.mask).to(device)] = torch.nan
    finally:
        model.train(training)
    return features


def embed_recording(
    model: CrissCross, tokens: TokenSource, recording: int, *, window_frames: int
) -> Iterator[NDArray[np.float32]]:
    """Features of a whole recording, block by block: float32 [frame, channel, dim], every frame once, in order.

    Each block is seen in a context of ``window_frames``; the last one in the last ``window_frames`` of the recording,
    so that the end has as much context as the rest. Memory is that of one window.
    """
    one = tokens.recordings[recording]
    for start, stop, first in _blocks(one.n_frames, window_frames):
        codes = np.empty((stop - first, one.n_quantizers, one.n_channels), dtype=np.uint8)
        tokens.read_codes(recording, first, stop, codes)
        features = embed(model, codes.transpose(2, 1, 0)[None], one.geometry)[0]
        yield _of_block(features, start - first)


def embed_patches(model: EEGSSM, signal: NDArray[np.float32], usable: NDArray[np.bool_]) -> torch.Tensor:
    """Features float32 [channel, patch, dim] of one window, nothing hidden.

    Runs on the device the model is on, in evaluation mode, without gradients. A patch that is not fit for use goes in
    as silence, as in training, and comes back as NaN: the model never looked at it.

    Parameters
    ----------
    signal
        float32 [channel, time] in the unit of the model; whole patches.
    usable
        bool [channel, patch].

    Raises
    ------
    ConfigError
        The signal is not that many patches of the model.
    """
    size = model.config.patch_size
    if signal.shape != (len(usable), usable.shape[1] * size):
        raise ConfigError(f"a signal of {signal.shape} is not {usable.shape} patches of {size} samples")
    device = next(model.parameters()).device
    patches = np.where(usable[..., None], signal.reshape(*usable.shape, size), np.float32(0))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            features = model.features(torch.from_numpy(patches.reshape(1, *signal.shape)).to(device))[0].float()
            features[~torch.from_numpy(usable).to(device)] = torch.nan
    finally:
        model.train(training)
    return features


def embed_signals(
    model: EEGSSM, source: CodedSource, recording: int, *, window_frames: int
) -> Iterator[NDArray[np.float32]]:
    """Features of a whole recording by a model of signals, block by block: float32 [frame, channel, dim].

    Blocks and their context are those of ``embed_recording``. A frame of the tokens is a patch of the model; NaN where
    it is not fit for use.

    Raises
    ------
    ConfigError
        A frame of the tokens is no patch of the model.
    """
    one = source.recordings[recording]
    for start, stop, first in _blocks(one.n_frames, window_frames):
        signal = np.empty((one.n_channels, (stop - first) * one.hop_samples), np.float32)
        source.read_signal(recording, first, stop, signal)
        yield _of_block(embed_patches(model, signal, source.usable(recording, first, stop)), start - first)


def _blocks(n_frames: int, window_frames: int) -> Iterator[tuple[int, int, int]]:
    """First frame and end of each block, and where its window begins."""
    for start, stop in pairwise([*range(0, n_frames, window_frames), n_frames]):
        yield start, stop, max(0, min(start, stop - window_frames))


def _of_block(features: torch.Tensor, skipped: int) -> NDArray[np.float32]:
    """[channel, frame, dim] of a window to [frame, channel, dim] of its block."""
    return np.ascontiguousarray(features[:, skipped:].permute(1, 0, 2).cpu().numpy())


def _sensors(geometry: SensorGeometry, n_windows: int, device: torch.device) -> Sensors:
    def repeat(column: NDArray[np.generic]) -> torch.Tensor:
        return torch.tensor(column, device=device).expand(n_windows, *column.shape)

    mask = None if geometry.mask.all() else repeat(geometry.mask)
    return Sensors(repeat(geometry.positions), repeat(geometry.orientations), repeat(geometry.types), mask)
