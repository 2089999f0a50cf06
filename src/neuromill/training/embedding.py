"""Features of a trained model for the tokens of a recording.

Quick start, from a folder of weights and a token store::

    model = from_pretrained("runs/meg-xl/model")
    tokens = StoreTokens.open(["stores/ds004078@1.2.1/tokenize/0123456789abcdef"])
    for block in embed_recording(model, tokens, 0, window_frames=625):
        ...  # float32 [frame, channel, dim]
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
    from neuromill.models.sensors import SensorGeometry
    from neuromill.training.tokens import TokenSource


def embed(model: CrissCross, codes: NDArray[np.uint8], geometry: SensorGeometry) -> torch.Tensor:
    """Features float32 [batch, channel, frame, dim] of codes [batch, channel, quantizer, frame], nothing hidden.

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
    edges = [*range(0, one.n_frames, window_frames), one.n_frames]
    for start, stop in pairwise(edges):
        first = max(0, min(start, stop - window_frames))
        codes = np.empty((stop - first, one.n_quantizers, one.n_channels), dtype=np.uint8)
        tokens.read_codes(recording, first, stop, codes)
        features = embed(model, codes.transpose(2, 1, 0)[None], one.geometry)[0]
        yield np.ascontiguousarray(features[:, start - first :].permute(1, 0, 2).cpu().numpy())


def _sensors(geometry: SensorGeometry, n_windows: int, device: torch.device) -> Sensors:
    def repeat(column: NDArray[np.generic]) -> torch.Tensor:
        return torch.tensor(column, device=device).expand(n_windows, *column.shape)

    mask = None if geometry.mask.all() else repeat(geometry.mask)
    return Sensors(repeat(geometry.positions), repeat(geometry.orientations), repeat(geometry.types), mask)
