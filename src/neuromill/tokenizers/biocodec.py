"""BioCodec: a causal neural codec for single channels (BioCodec paper; the tokenizer of MEG-XL)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from neuromill.records import ConfigError
from neuromill.tokenizers.config import BioCodecConfig
from neuromill.tokenizers.protocol import Encoded
from neuromill.tokenizers.quantizer import ResidualQuantizer
from neuromill.tokenizers.seanet import Decoder, Encoder

if TYPE_CHECKING:
    from neuromill.tokenizers.quantizer import Learning

RMS_FLOOR = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """One training pass: ``target`` and ``output`` float32 [row, time], ``codes`` int64, ``commitment`` scalar."""

    target: Tensor
    output: Tensor
    codes: Tensor
    commitment: Tensor


def rms_scale(x: Tensor) -> Tensor:
    """Root mean square over the last axis plus a floor of 1e-8: float32 [..., 1]."""
    return x.square().mean(dim=-1, keepdim=True).sqrt() + RMS_FLOOR


class BioCodec(nn.Module):
    """Encoder, residual quantizer and decoder; one channel is one row.

    Parameters
    ----------
    config
        Sizes. With the defaults: 3,152,770 parameters, hop 12, six codes of eight bits per frame.
    """

    def __init__(self, config: BioCodecConfig | None = None) -> None:
        super().__init__()
        self.config = config or BioCodecConfig()
        self.encoder = Encoder(self.config)
        self.quantizer = ResidualQuantizer(self.config)
        self.decoder = Decoder(self.config)

    def forward(self, x: Tensor, learning: Learning | None = None) -> Reconstruction:
        """Pass float32 [row, time] through the codec; loss is to be taken between ``output`` and ``target``."""
        target = x / rms_scale(x) if self.config.rms else x
        quantized = self.quantizer(cast("Tensor", self.encoder(target[:, None])), learning)
        output = cast("Tensor", self.decoder(quantized.latent))[:, 0, : x.shape[-1]]
        return Reconstruction(target, output.float(), quantized.codes, quantized.commitment)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Encoded:
        """Encode float32 [row, time] or [row, 1, time], time >= 1, in float32 whatever autocast says.

        Frames = ceil(time / hop). Frame t depends on samples up to ``hop * t + hop - 1``, on everything before
        them (LSTM), on the root mean square of the whole span, and, at the very start, on the few samples that
        reflect padding mirrors.
        """
        rows = _rows(x).float()
        scale = rms_scale(rows) if self.config.rms else torch.ones_like(rows[:, :1])
        with torch.autocast(rows.device.type, enabled=False):
            latent = self.encoder((rows / scale)[:, None])
            codes = self.quantizer(latent).codes
        return Encoded(codes.to(torch.uint8), scale[:, 0])

    @torch.no_grad()
    def decode(self, codes: Tensor, scale: Tensor, n_times: int) -> Tensor:
        """Reconstruct float32 [row, n_times] from codes [row, quantizer, frame] and scale [row].

        Raises
        ------
        ConfigError
            If the codes have another number of levels, or too few frames for ``n_times``.
        """
        levels, frames = codes.shape[1:]
        if levels != self.config.n_quantizers or frames != self.config.n_frames(n_times):
            raise ConfigError(
                f"codes of {levels} levels and {frames} frames do not make {n_times} samples",
                next_step=f"expected {self.config.n_quantizers} levels and {self.config.n_frames(n_times)} frames",
            )
        with torch.autocast(codes.device.type, enabled=False):
            rows = cast("Tensor", self.decoder(self.quantizer.decode(codes)))[:, 0, :n_times]
        return rows * scale[:, None]


def _rows(x: Tensor) -> Tensor:
    """[row, 1, time] or [row, time] -> [row, time]."""
    rows = x[:, 0] if x.ndim == 3 and x.shape[1] == 1 else x  # noqa: PLR2004
    if rows.ndim != 2 or rows.shape[-1] == 0:  # noqa: PLR2004
        raise ConfigError(f"expected rows of samples, got shape {tuple(x.shape)}", next_step="pass [row, time]")
    return rows
