"""Causal convolutional encoder and decoder (SEANet as in EnCodec; BioCodec paper, EEG preset).

Module names are chosen so that a state dict has the published names
(``encoder.model.0.conv.conv.parametrizations.weight.original0``): the nesting of wrappers has no other purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

if TYPE_CHECKING:
    from neuromill.tokenizers.config import BioCodecConfig


def pad_reflect(x: Tensor, left: int, right: int) -> Tensor:
    """Reflect-pad float [row, channel, time] to [row, channel, left + time + right].

    Inputs no longer than the pad are first filled up with zeros on the right.
    """
    missing = max(0, max(left, right) - x.shape[-1] + 1)
    padded = functional.pad(functional.pad(x, (0, missing)), (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - missing]


class NormedConv(nn.Module):
    """Weight-normalised ``nn.Conv1d``."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(n_in, n_out, kernel, stride, dilation=dilation))

    def forward(self, x: Tensor) -> Tensor:
        """Float [row, channel, time] -> [row, channel, (time - (kernel - 1) * dilation - 1) // stride + 1]."""
        return cast("Tensor", self.conv(x))


class CausalConv(nn.Module):
    """Convolution that looks back only: padded on the left, and on the right just enough to complete the last frame."""

    def __init__(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = NormedConv(n_in, n_out, kernel, stride, dilation)
        self.stride = stride
        self.left = (kernel - 1) * dilation + 1 - stride

    def forward(self, x: Tensor) -> Tensor:
        """Float [row, channel, time] -> [row, channel, ceil(time / stride)]."""
        right = -x.shape[-1] % self.stride
        return cast("Tensor", self.conv(pad_reflect(x, self.left, right)))


class NormedConvTranspose(nn.Module):
    """Weight-normalised ``nn.ConvTranspose1d``."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.convtr = weight_norm(nn.ConvTranspose1d(n_in, n_out, kernel, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Float [row, channel, frame] -> [row, channel, (frame - 1) * stride + kernel]."""
        return cast("Tensor", self.convtr(x))


class CausalConvTranspose(nn.Module):
    """Upsampling by ``stride``; all excess is cut off on the right."""

    def __init__(self, n_in: int, n_out: int, *, stride: int) -> None:
        super().__init__()
        self.convtr = NormedConvTranspose(n_in, n_out, 2 * stride, stride)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Float [row, channel, frame] -> [row, channel, frame * stride]."""
        y = cast("Tensor", self.convtr(x))
        return y[..., : x.shape[-1] * self.stride]


class ResidualUnit(nn.Module):
    """ELU, dilated convolution, ELU, pointwise convolution, plus the input."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ELU(), CausalConv(width, width, kernel, dilation=dilation), nn.ELU(), CausalConv(width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Float [row, channel, time] -> the same shape."""
        return x + cast("Tensor", self.block(x))


class ResidualLSTM(nn.Module):
    """Unidirectional LSTM over time, plus its input."""

    def __init__(self, width: int, n_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, n_layers)

    def forward(self, x: Tensor) -> Tensor:
        """Float [row, channel, time] -> the same shape."""
        by_time = x.permute(2, 0, 1)
        y, _ = self.lstm(by_time)
        return cast("Tensor", y + by_time).permute(1, 2, 0)


def _residual_units(config: BioCodecConfig, width: int) -> list[nn.Module]:
    return [ResidualUnit(width, config.kernel_size, dilation) for dilation in config.dilations]


class Encoder(nn.Module):
    """[row, 1, time] -> [row, latent, frame]."""

    def __init__(self, config: BioCodecConfig) -> None:
        super().__init__()
        width, kernel = config.base_width, config.kernel_size
        layers: list[nn.Module] = [CausalConv(1, width, kernel)]
        for stride in config.strides:
            layers += [
                *_residual_units(config, width),
                nn.ELU(),
                CausalConv(width, 2 * width, 2 * stride, stride=stride),
            ]
            width *= 2
        layers += [ResidualLSTM(width, config.lstm_layers), nn.ELU(), CausalConv(width, config.latent_dim, kernel)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Float [row, 1, time] -> [row, latent, frame]."""
        return cast("Tensor", self.model(x))


class Decoder(nn.Module):
    """[row, latent, frame] -> [row, 1, frame * hop]."""

    def __init__(self, config: BioCodecConfig) -> None:
        super().__init__()
        width, kernel = config.base_width * 2 ** len(config.strides), config.kernel_size
        layers: list[nn.Module] = [
            CausalConv(config.latent_dim, width, kernel),
            ResidualLSTM(width, config.lstm_layers),
        ]
        for stride in reversed(config.strides):
            layers += [nn.ELU(), CausalConvTranspose(width, width // 2, stride=stride)]
            width //= 2
            layers += _residual_units(config, width)
        layers += [nn.ELU(), CausalConv(width, 1, kernel)]
        self.model = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Float [row, latent, frame] -> [row, 1, frame * hop]."""
        return cast("Tensor", self.model(z))
