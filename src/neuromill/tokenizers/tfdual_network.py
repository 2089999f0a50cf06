"""The TFDual network: one encoder, two quantizers, a temporal and a frequency decoder (CodeBrain paper, stage 1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from neuromill.tokenizers.fsq import FiniteScalar
from neuromill.tokenizers.norm_ema import NormEmaCodebook
from neuromill.tokenizers.tfdual_config import N_CODEBOOKS
from neuromill.tokenizers.transformer import INIT_STD, GridTransformer, initialise_linear

if TYPE_CHECKING:
    from neuromill.tokenizers.quantizer import Learning
    from neuromill.tokenizers.tfdual_config import TfDualNetworkConfig, TfDualTokenizerConfig

TEMPORAL, FREQUENCY = range(N_CODEBOOKS)


@dataclass(frozen=True, slots=True, eq=False)
class TfDualPass:
    """One training pass.

    Attributes
    ----------
    features
        float32 [window, channel, patch, width] of the encoder.
    waveform
        float32 [window, channel, patch, sample].
    amplitude
        float32 [window, channel, patch, bin].
    phase
        The same for angles; twice the bins (cosines, then sines) otherwise.
    codes
        int64 [window, quantizer, channel, patch].
    commitments
        [quantizer].
    """

    features: Tensor
    waveform: Tensor
    amplitude: Tensor
    phase: Tensor
    codes: Tensor
    commitments: Tensor


class StemBranch(nn.Module):
    """Three convolutions along a patch, each normalised over the whole window, so that patches keep their ratios."""

    def __init__(self, config: TfDualNetworkConfig) -> None:
        super().__init__()
        n = config.stem_channels
        layers: list[nn.Module] = []
        first = nn.Conv2d(
            1, n, (1, config.stem_kernel), stride=(1, config.stem_stride), padding=(0, config.stem_kernel // 2)
        )
        for convolution in (first, *(nn.Conv2d(n, n, (1, 3), padding=(0, 1)) for _ in range(2))):
            # Two features per group, as in the eight-feature stem with four groups that this halves.
            layers += [convolution, nn.GroupNorm(n // 2 if n % 2 == 0 else 1, n), nn.GELU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Float [window, token, sample] -> [window, token, feature], features of one position side by side."""
        return cast("Tensor", self.layers(x[:, None])).permute(0, 2, 3, 1).flatten(2)


class Stem(nn.Module):
    """The patch and its magnitude spectrum through a branch each, side by side."""

    def __init__(self, config: TfDualNetworkConfig) -> None:
        super().__init__()
        self.time = StemBranch(config)
        self.frequency = StemBranch(config)

    def forward(self, x: Tensor) -> Tensor:
        """float32 [window, channel, patch, sample] -> [window, channel, patch, width]."""
        rows = x.flatten(1, 2)
        spectrum = torch.fft.fft(rows.float(), norm="ortho").abs()
        return torch.cat([self.time(rows), self.frequency(spectrum)], dim=-1).view(*x.shape[:3], -1)


def head(width: int, out: int, std: float = INIT_STD) -> nn.Sequential:
    """Linear, tanh, linear; weights of this standard deviation."""
    layers = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, out))
    return layers.apply(partial(initialise_linear, std=std))


class CodeDecoder(nn.Module):
    """Quantized vectors of a window back to features."""

    def __init__(self, config: TfDualTokenizerConfig) -> None:
        super().__init__()
        self.project_in = nn.Linear(config.code_dim, config.network.width)
        self.transformer = GridTransformer(config.network, config.network.decoder_depth)

    def forward(self, vectors: Tensor) -> Tensor:
        """Float [window, channel, patch, code dim] -> [window, channel, patch, width]."""
        return cast("Tensor", self.transformer(self.project_in(vectors)))


class TfDual(nn.Module):
    """Encoder, code heads, quantizers, decoders and output heads."""

    def __init__(self, config: TfDualTokenizerConfig) -> None:
        super().__init__()
        network, width = config.network, config.network.width
        self.stem = Stem(network)
        self.encoder = GridTransformer(network, network.depth)
        # Rounding needs vectors of order one; only the direction of the others counts.
        std = INIT_STD if config.quantizer == "vq" else width**-0.5
        self.code_heads = nn.ModuleList(head(width, config.code_dim, std) for _ in range(N_CODEBOOKS))
        self.quantizers = nn.ModuleList(
            NormEmaCodebook(config.codebook_size, config.code_dim)
            if config.quantizer == "vq"
            else FiniteScalar(config.levels)
            for _ in range(N_CODEBOOKS)
        )
        self.decoders = nn.ModuleList(CodeDecoder(config) for _ in range(N_CODEBOOKS))
        self.waveform_head = head(width, network.patch_samples)
        self.amplitude_head = head(width, config.n_bins)
        self.phase_head = head(width, config.n_bins if config.uses_angle else 2 * config.n_bins)

    def quantizer(self, level: int) -> NormEmaCodebook | FiniteScalar:
        """Quantizer of one code stream."""
        return cast("NormEmaCodebook | FiniteScalar", self.quantizers[level])

    def features(self, x: Tensor) -> Tensor:
        """Encode float32 [window, channel, patch, sample] to [window, channel, patch, width]."""
        return cast("Tensor", self.encoder(self.stem(x)))

    def vectors(self, features: Tensor, level: int) -> Tensor:
        """Unquantized vectors float32 [token, code dim] of one stream, in float32 whatever autocast says."""
        with torch.autocast(features.device.type, enabled=False):
            return cast("Tensor", self.code_heads[level](features.float())).flatten(0, 2)

    def forward(self, x: Tensor, learning: Learning | None = None, valid: Tensor | None = None) -> TfDualPass:
        """Run float32 [window, channel, patch, sample] through everything.

        Parameters
        ----------
        x
            Scaled windows; zeros where a channel is missing.
        learning
            How codebooks move; None leaves them alone.
        valid
            bool [window, channel]: channels that are really there; None takes all.
        """
        features = self.features(x)
        rows = None if valid is None else valid[:, :, None].expand(x.shape[:3]).reshape(-1)
        grids, codes, commitments = [], [], []
        for level in range(N_CODEBOOKS):
            with torch.autocast(x.device.type, enabled=False):
                looked = self.quantizer(level)(self.vectors(features, level), learning, rows)
            grids.append(looked.vectors.view(*x.shape[:3], -1))
            codes.append(looked.codes.view(x.shape[:3]))
            commitments.append(looked.commitment)
        temporal = self.decoders[TEMPORAL](grids[TEMPORAL])
        frequency = self.decoders[FREQUENCY](grids[FREQUENCY])
        outputs = (self.waveform_head(temporal), self.amplitude_head(frequency), self.phase_head(frequency))
        return TfDualPass(features, *outputs, torch.stack(codes, dim=1), torch.stack(commitments))

    @torch.no_grad()
    def start(self, x: Tensor, learning: Learning, *, kmeans: bool, valid: Tensor | None = None) -> None:
        """Place the codes by the whole first batch; does nothing later.

        ``x`` and ``valid`` are those of ``forward``; without ``kmeans`` the random codes stay.
        """
        features = self.features(x).float()
        rows = slice(None) if valid is None else valid[:, :, None].expand(x.shape[:3]).reshape(-1)
        for level in range(N_CODEBOOKS):
            self.quantizer(level).start(self.vectors(features, level)[rows], learning, kmeans=kmeans)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes int64 [window, quantizer, channel, patch] of float32 [window, channel, patch, sample]."""
        with torch.autocast(x.device.type, enabled=False):
            features = self.features(x)
            codes = [self.quantizer(i)(self.vectors(features, i)).codes for i in range(N_CODEBOOKS)]
        return torch.stack([one.view(x.shape[:3]) for one in codes], dim=1)

    @torch.no_grad()
    def decode(self, codes: Tensor, known: Tensor) -> Tensor:
        """Waveform float32 [window, channel, patch, sample] of temporal codes [window, channel, patch].

        ``known`` bool [channel]: positions whose codes are there; the others enter as zero vectors.
        """
        with torch.autocast(codes.device.type, enabled=False):
            vectors = self.quantizer(TEMPORAL).decode(codes) * known[:, None, None]
            return cast("Tensor", self.waveform_head(self.decoders[TEMPORAL](vectors)))

    @torch.no_grad()
    def decode_amplitude(self, codes: Tensor, known: Tensor) -> Tensor:
        """Z-scored magnitudes float32 [window, channel, patch, bin] of frequency codes; otherwise as ``decode``."""
        with torch.autocast(codes.device.type, enabled=False):
            vectors = self.quantizer(FREQUENCY).decode(codes) * known[:, None, None]
            return cast("Tensor", self.amplitude_head(self.decoders[FREQUENCY](vectors)))
