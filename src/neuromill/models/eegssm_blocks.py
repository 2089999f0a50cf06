"""The parts of EEGSSM: patch stem, global convolution, banded attention, gated residual block.

Names of parameters and buffers are those of the published class, so that its state dict loads as it is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from neuromill.models.eegssm_config import TAPS

if TYPE_CHECKING:
    from torch import Tensor

    from neuromill.models.eegssm_config import EEGSSMConfig

KERNEL_HEADS = 4
DECAY = 2.0
"""A kernel's piece is this much smaller than the one before it, which is half as long."""
NORM_EPSILON = 1e-6
ATTENTION_BLOCK = 64


class PatchEmbedding(nn.Module):
    """Features of every patch: convolutions of the samples, its magnitude spectrum, and where it stands.

    The normalisations of the stem take their statistics over all patches of a window together.
    """

    def __init__(self, config: EEGSSMConfig) -> None:
        super().__init__()
        width, size = config.conv_out_chans, config.patch_size
        # Never learned: a masked patch is silence.
        self.mask_encoding = nn.Parameter(torch.zeros(size), requires_grad=False)
        layers: list[nn.Module] = []
        kernels = [(1, config.proj_kernel_size, width, config.proj_padding)]
        kernels += 2 * [(width, config.proj_refine_kernel, 1, config.proj_refine_kernel // 2)]
        for n_in, kernel, stride, padding in kernels:
            layers.append(nn.Conv2d(n_in, width, (1, kernel), stride=(1, stride), padding=(0, padding)))
            layers += [nn.GroupNorm(config.conv_groups, width), nn.GELU()]
        self.proj_in = nn.Sequential(*layers)
        self.spectral_proj = nn.Sequential(nn.Linear(size // 2 + 1, size), nn.Dropout(config.spectral_dropout))
        rows, columns = config.pos_kernel
        position = nn.Conv2d(size, size, config.pos_kernel, padding=(rows // 2, columns // 2), groups=size)
        self.positional_encoding = nn.Sequential(position)

    def forward(self, patches: Tensor, mask: Tensor | None = None) -> Tensor:
        """Float [batch, channel, patch, sample] -> [batch, channel, patch, feature].

        ``mask`` is bool [batch, channel, patch], True where hidden. Hiding comes first: neither the convolutions nor
        the spectrum see anything of a masked patch.
        """
        if mask is not None:
            patches = torch.where(mask[..., None], self.mask_encoding.to(patches.dtype), patches)
        features: Tensor = self._of_samples(patches) + self.spectral_proj(magnitude_spectrum(patches))
        positions: Tensor = self.positional_encoding(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return features + positions

    def _of_samples(self, patches: Tensor) -> Tensor:
        batch, channels, count, size = patches.shape
        grid = self.proj_in(patches.reshape(batch, 1, channels * count, size))  # [batch, stem, token, step]
        features: Tensor = grid.permute(0, 2, 1, 3).reshape(batch, channels, count, -1)
        return features


def magnitude_spectrum(patches: Tensor) -> Tensor:
    """One-sided |DFT| / n of float [..., sample], whatever autocast says: float32 [..., sample // 2 + 1]."""
    with torch.autocast(patches.device.type, enabled=False):
        spectrum: Tensor = torch.fft.rfft(patches.float(), norm="forward").abs()
    return spectrum


def conv(n_in: int, n_out: int, kernel: int = 1, *, normalised: bool = True) -> nn.Module:
    """Make a convolution over [batch, feature, token] that keeps the number of tokens."""
    made = nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2)
    if not normalised:
        return made
    nn.init.kaiming_normal_(made.weight)
    normal: nn.Module = weight_norm(made)
    return normal


class Conv(nn.Module):
    """A convolution one name deeper."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, *, normalised: bool = True) -> None:
        super().__init__()
        self.conv = conv(n_in, n_out, kernel, normalised=normalised)

    def forward(self, x: Tensor) -> Tensor:
        """Float [batch, feature, token] -> [batch, feature, token]."""
        made: Tensor = self.conv(x)
        return made


class RMSNorm(nn.Module):
    """Divides the features of a token by their root mean square, times a learned scale."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Float [batch, feature, token], same shape back."""
        return x * torch.rsqrt(x.float().square().mean(dim=1, keepdim=True) + NORM_EPSILON).to(x.dtype) * self.scale


class GlobalConv(nn.Module):
    """Structured global convolution (SGConv): kernels as long as the sequence, learned in pieces.

    Each kernel is ``config.n_scales`` pieces of two taps, stretched linearly to 2, 2, 4, 8, ... samples, the nearest
    weighted most. A kernel is divided by the norm it had when it was made, a buffer: the published class measures it
    in its first forward pass, here it is there from the start (and measured from the weights when a state dict says
    that it never was), so that a forward pass changes nothing.
    """

    kernel_norm: Tensor
    kernel_norm_initialized: Tensor
    multiplier: Tensor

    def __init__(self, config: EEGSSMConfig) -> None:
        super().__init__()
        self.dim = 2 * config.res_channels
        self.directions = 2 if config.s4_bidirectional else 1
        shape = (self.directions * KERNEL_HEADS, self.dim, TAPS)
        self.kernel_list = nn.ParameterList(nn.Parameter(torch.randn(shape)) for _ in range(config.n_scales))
        self.skip_weight = nn.Parameter(torch.randn(KERNEL_HEADS, self.dim))
        self.output_linear = nn.Linear(KERNEL_HEADS * self.dim, self.dim)
        self.dropout = nn.Dropout1d(config.drop_prob)
        self.register_buffer("multiplier", torch.full((1, self.dim, 1), DECAY))
        self.register_buffer("kernel_norm", torch.ones(*shape[:2], 1))
        self.register_buffer("kernel_norm_initialized", torch.tensor(data=True))
        self.measure_norm()
        self.register_load_state_dict_post_hook(_measure_if_never_done)

    def measure_norm(self) -> None:
        """Take the norm of the kernels as they are now."""
        with torch.no_grad():
            self.kernel_norm.copy_(self._pieces().norm(dim=-1, keepdim=True))
            self.kernel_norm_initialized.fill_(value=True)

    def kernels(self, n: int) -> Tensor:
        """First ``n`` taps (or fewer, where a kernel is shorter) of all kernels: float32 [kernel, feature, tap]."""
        return (self._pieces() / self.kernel_norm)[..., :n]

    def forward(self, x: Tensor) -> Tensor:
        """Float [batch, feature, token], same shape back."""
        with torch.autocast(x.device.type, enabled=False):
            heads = self._convolved(x.float())
        mixed = self.dropout(functional.gelu(heads).flatten(1, 2))
        made: Tensor = self.output_linear(mixed.transpose(1, 2))
        return made.transpose(1, 2)

    def _convolved(self, x: Tensor) -> Tensor:
        """[batch, feature, token] -> [batch, head, feature, token]."""
        n = x.shape[-1]
        taps = self.kernels(n)
        n_fft = n + taps.shape[-1]  # no tap of one end of the circle meets one of the other
        response = torch.fft.rfft(self._two_sided(taps, n_fft))
        spectrum = torch.fft.rfft(x, n=n_fft)
        filtered: Tensor = torch.fft.irfft(spectrum[:, None] * response, n=n_fft)[..., :n]
        return filtered + x[:, None] * self.skip_weight[:, :, None]

    def _two_sided(self, taps: Tensor, n_fft: int) -> Tensor:
        """Kernels on a circle of ``n_fft`` samples: tap m at lag m, tap m of the other direction at lag -1 - m."""
        taps = functional.pad(taps, (0, n_fft - taps.shape[-1]))
        if self.directions == 1:
            return taps
        ahead, behind = taps.chunk(2)
        return ahead + behind.flip(-1)

    def _pieces(self) -> Tensor:
        last = len(self.kernel_list) - 1
        pieces = [
            functional.interpolate(piece.float(), scale_factor=2 ** max(0, scale - 1), mode="linear")
            * self.multiplier ** (last - scale)
            for scale, piece in enumerate(self.kernel_list)
        ]
        return torch.cat(pieces, dim=-1)


def _measure_if_never_done(module: nn.Module, _: object) -> None:
    if isinstance(module, GlobalConv) and not module.kernel_norm.is_meta and not module.kernel_norm_initialized:
        module.measure_norm()


class BandedAttention(nn.Module):
    """Attention of each token to the ``window`` tokens around it, with the weights of ``nn.MultiheadAttention``.

    At a window of 1 the softmax over one key is 1: what is left are the projections of values and output, and that
    is what is computed. Wider windows go in blocks, so that memory grows with the number of tokens and no faster.
    """

    def __init__(self, dim: int, heads: int, window: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.window, self.dropout = heads, window, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Float [batch, token, feature], same shape back."""
        if self.window == 1:
            mixed = self._own_values(x)
        else:
            parts = functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
            query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
            mixed = self._banded(query, key, value).transpose(1, 2).flatten(2)
        made: Tensor = self.out_proj(mixed)
        return made

    def _own_values(self, x: Tensor) -> Tensor:
        dim = x.shape[-1]
        value: Tensor = functional.linear(x, self.in_proj_weight[2 * dim :], self.in_proj_bias[2 * dim :])
        if not (self.training and self.dropout):
            return value
        weights = value.new_ones(*value.shape[:2], self.heads, 1)
        kept = functional.dropout(weights, self.dropout)  # of attention weights that are all 1
        dropped: Tensor = (value.unflatten(-1, (self.heads, -1)) * kept).flatten(2)
        return dropped

    def _banded(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[batch, head, token, feature] each. Queries in blocks, keys in the same blocks and half a window around."""
        n, half = query.shape[2], self.window // 2
        block = max(ATTENTION_BLOCK, self.window)
        count = -(-n // block)
        fill = count * block - n
        queries = functional.pad(query, (0, 0, 0, fill)).unflatten(2, (count, block))
        keys, values = (
            functional.pad(part, (0, 0, half, half + fill)).unfold(2, block + 2 * half, block).transpose(-1, -2)
            for part in (key, value)
        )
        mixed: Tensor = functional.scaled_dot_product_attention(
            queries, keys, values, band(n, count, block, half, query.device), self.dropout if self.training else 0.0
        )
        return mixed.flatten(2, 3)[:, :, :n]


def band(n: int, count: int, block: int, half: int, device: torch.device) -> Tensor:
    """Which keys a query sees: bool [block, query, key]; queries beyond the end see what they like."""
    query = torch.arange(block, device=device)[:, None]
    key = torch.arange(block + 2 * half, device=device)[None] - half
    near = (key - query).abs() <= half
    starts = torch.arange(count, device=device)[:, None, None] * block
    exists = (starts + key >= 0) & (starts + key < n)
    return (near & exists) | (starts + query >= n)[:, :, :1]


class ResidualBlock(nn.Module):
    """Convolution, global convolution, banded attention, gate; a residual and a skip output."""

    def __init__(self, config: EEGSSMConfig) -> None:
        super().__init__()
        width = config.res_channels
        self.conv_layer = Conv(width, 2 * width, 3)
        self.sgconv = GlobalConv(config)
        self.attention = BandedAttention(2 * width, config.attention_heads, config.swa_window_size, config.drop_prob)
        self.layer_norm = nn.LayerNorm(width) if config.s4_layernorm else None
        self.res_conv = conv(width, width)
        self.skip_conv = conv(width, config.skip_channels)
        self.rms_norm = RMSNorm(width)

    def forward(self, state: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """State and first state, float [batch, feature, token] -> (next state, skip [batch, skip feature, token])."""
        mixed = self.sgconv(functional.gelu(self.conv_layer(state + embedded)))
        mixed = mixed + self.attention(mixed.transpose(1, 2)).transpose(1, 2)
        value, gate = mixed.chunk(2, dim=1)
        gated = torch.tanh(value) * torch.sigmoid(gate)
        if self.layer_norm is not None:
            gated = self.layer_norm(gated.transpose(1, 2)).transpose(1, 2)
        return (self.rms_norm(state) + self.res_conv(gated)) * math.sqrt(0.5), self.skip_conv(gated)
