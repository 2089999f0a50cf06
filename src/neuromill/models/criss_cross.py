"""The criss-cross transformer of MEG-XL: temporal and spatial attention side by side on RVQ tokens of many sensors.

Names of parameters and buffers are those of the published checkpoint, so that its state dict loads as it is; its
rotary caches are recomputed here and have no place in ours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from neuromill.hub.mixin import HubMixin
from neuromill.models.attention import SelfAttention
from neuromill.models.rotary import make_rotation
from neuromill.records import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from neuromill.models.config import CrissCrossConfig
    from neuromill.models.rotary import Rotation

NORM_EPSILON = 1e-6


class Sensors(NamedTuple):
    """Where the channels of a batch sit. A named tuple, because wrappers (DDP, Fabric) look for tensors inside.

    Attributes
    ----------
    positions
        float32 [batch, channel, 3], normalised as in :mod:`neuromill.models.sensors`; zeros for padding.
    orientations
        float32 [batch, channel, 3] unit vectors; zeros for padding.
    types
        integer [batch, channel]: 1 magnetometer, 0 anything else.
    mask
        bool [batch, channel], False for padded or bad channels; None where every channel is real (the attention
        kernels without mask are faster).
    """

    positions: Tensor
    orientations: Tensor
    types: Tensor
    mask: Tensor | None = None


def masked_positions(masked_frames: Tensor, channel_mask: Tensor | None, n_channels: int) -> Tensor:
    """Positions to be predicted, bool [batch, channel, frame]: real channels of the masked frames [batch, frame]."""
    everywhere = masked_frames[:, None, :].expand(-1, n_channels, -1)
    return everywhere if channel_mask is None else everywhere & channel_mask[:, :, None]


class CrissCross(HubMixin, nn.Module, files="neuromill.models.files"):
    """Predicts masked RVQ codes of all sensors from the codes around them.

    Parameters
    ----------
    config
        Sizes; see :class:`CrissCrossConfig`.
    codebooks
        float32 [quantizer, code, codebook_dim] of the tokenizer that made the codes; kept frozen. None leaves
        zeros, for a state dict to be loaded over.
    """

    def __init__(self, config: CrissCrossConfig, codebooks: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        dim = config.latent_dim
        self.mask_token = nn.Parameter(torch.randn(dim))
        for level in range(config.n_quantizers):
            self.register_buffer(f"biocodec_embedding_{level}", torch.zeros(config.codebook_size, config.codebook_dim))
        self.rvq_projector = nn.Linear(config.n_quantizers * config.codebook_dim, dim)
        self.position_fourier_emb = FourierFeatures(config.fourier_dim, config.position_bandwidth)
        self.position_projector = nn.Linear(config.fourier_dim, dim)
        self.orientation_fourier_emb = FourierFeatures(config.fourier_dim, config.orientation_bandwidth)
        self.orientation_projector = nn.Linear(config.fourier_dim, dim)
        self.sensor_type_layer = nn.Embedding(config.n_sensor_types, dim)
        self.criss_cross_transformer = Encoder(config)
        self.output_head = nn.Linear(dim, config.n_quantizers * config.codebook_size)
        if codebooks is not None:
            self.load_codebooks(codebooks)

    def load_codebooks(self, codebooks: Tensor) -> None:
        """Copy the tokenizer's codebooks, float32 [quantizer, code, codebook_dim].

        Raises
        ------
        ConfigError
            If the sizes differ from the model's.
        """
        config = self.config
        wanted = (config.n_quantizers, config.codebook_size, config.codebook_dim)
        if tuple(codebooks.shape) != wanted:
            raise ConfigError(
                f"codebooks are {tuple(codebooks.shape)}, the model expects {wanted}",
                next_step="set n_quantizers, codebook_size and codebook_dim of the model to those of the tokenizer",
            )
        for level, codebook in enumerate(codebooks):
            self.get_buffer(f"biocodec_embedding_{level}").copy_(codebook)

    def forward(
        self, codes: Tensor, sensors: Sensors, masked_frames: Tensor, frame_mask: Tensor | None = None
    ) -> Tensor:
        """Logits of the masked positions only: float [position, quantizer, code].

        Parameters
        ----------
        codes
            integer [batch, channel, quantizer, frame].
        sensors
            Geometry and mask of the channels.
        masked_frames
            bool [batch, frame]; these frames are hidden on every channel and predicted on the real ones.
        frame_mask
            bool [batch, frame], False where a short window is padded; None where every frame is real.

        Notes
        -----
        The positions come in the order of ``masked_positions(...).nonzero()``. Gathering before the head matters:
        all logits of one 150 s window of 306 channels are 294 M values, of which 38 % are used.
        """
        features = self.features(codes, sensors, masked_frames=masked_frames, frame_mask=frame_mask)
        return self.logits(features[masked_positions(masked_frames, sensors.mask, codes.shape[1])])

    def features(
        self,
        codes: Tensor,
        sensors: Sensors,
        *,
        masked_frames: Tensor | None = None,
        frame_mask: Tensor | None = None,
    ) -> Tensor:
        """Features float [batch, channel, frame, latent_dim] of codes [batch, channel, quantizer, frame]."""
        tokens, places = self._embed_codes(codes), self._embed_sensors(sensors)[:, :, None, :]
        if masked_frames is None:
            x = tokens + places
        else:
            hidden = masked_positions(masked_frames, sensors.mask, codes.shape[1])[..., None]
            x = self._hide(tokens, places, hidden)
        if self.config.parity:
            return self.criss_cross_transformer(x, None, None)  # type: ignore[no-any-return]
        return self.criss_cross_transformer(x, sensors.mask, frame_mask)  # type: ignore[no-any-return]

    def logits(self, features: Tensor) -> Tensor:
        """Logits float [..., quantizer, code] of features float [..., latent_dim]."""
        logits: Tensor = self.output_head(features)
        return logits.reshape(*features.shape[:-1], self.config.n_quantizers, self.config.codebook_size)

    def _embed_codes(self, codes: Tensor) -> Tensor:
        levels = codes.long().unbind(2)
        looked_up = [
            functional.embedding(level_codes, self.get_buffer(f"biocodec_embedding_{level}"))
            for level, level_codes in enumerate(levels)
        ]
        return self.rvq_projector(torch.cat(looked_up, dim=-1))  # type: ignore[no-any-return]

    def _hide(self, tokens: Tensor, places: Tensor, hidden: Tensor) -> Tensor:
        mask_token = self.mask_token.to(tokens.dtype)
        if self.config.parity:  # rounding leaves a residue of the code in bf16: RMS 1.8e-3 against 1.5
            return tokens + places - hidden * tokens + hidden * mask_token
        return torch.where(hidden, mask_token, tokens) + places

    def _embed_sensors(self, sensors: Sensors) -> Tensor:
        position = self.position_projector(self.position_fourier_emb(sensors.positions))
        orientation = self.orientation_projector(self.orientation_fourier_emb(sensors.orientations))
        sensor_type = self.sensor_type_layer(sensors.types.long())
        return (position + orientation + sensor_type).to(position.dtype)  # type: ignore[no-any-return]


class FourierFeatures(nn.Module):
    """Sines and cosines of fixed random projections of a 3-vector; the projections are part of the checkpoint."""

    B: Tensor

    def __init__(self, dim: int, bandwidth: float) -> None:
        super().__init__()
        self.register_buffer("B", torch.randn(3, dim // 2) * bandwidth)

    def forward(self, vectors: Tensor) -> Tensor:
        """Features [..., dim] of vectors [..., 3], in float32 whatever the precision around it."""
        with torch.autocast(vectors.device.type, enabled=False):
            angles = 2 * math.pi * vectors.float() @ self.B
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class Encoder(nn.Module):
    """A stack of identical pre-norm layers on [batch, channel, frame, feature]; no norm at the end."""

    def __init__(self, config: CrissCrossConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(CrissCrossLayer(config) for _ in range(config.n_layers))

    def forward(self, x: Tensor, channel_mask: Tensor | None, frame_mask: Tensor | None) -> Tensor:
        """Run all layers; masks are bool [batch, channel] and [batch, frame]."""
        rotation = make_rotation(x.shape[2], self.config.branch_dim, x.device)
        for layer in self.layers:
            if self.config.checkpoint_activations and self.training:
                x = checkpoint(layer, x, rotation, channel_mask, frame_mask, use_reentrant=False)
            else:
                x = layer(x, rotation, channel_mask, frame_mask)
        return x


class CrissCrossLayer(nn.Module):
    """Half of the features attend over time, the other half over channels; then a feed-forward network."""

    def __init__(self, config: CrissCrossConfig) -> None:
        super().__init__()
        dim, branch = config.latent_dim, config.branch_dim
        self.branch_dim = branch
        self.pre_attn_norm = RMSNorm(dim)
        self.time_attn = SelfAttention(branch, config.branch_heads, dropout=config.dropout, drop_in_eval=config.parity)
        self.spatial_attn = SelfAttention(
            branch, config.branch_heads, dropout=config.dropout, drop_in_eval=config.parity
        )
        self.pre_ff_norm = RMSNorm(dim)
        self.ff = FeedForward(dim, config.feedforward_factor * dim, config.dropout)

    def forward(self, x: Tensor, rotation: Rotation, channel_mask: Tensor | None, frame_mask: Tensor | None) -> Tensor:
        """Apply the layer to float [batch, channel, frame, feature]; masks as :class:`Encoder` takes them."""
        for_time, for_space = self.pre_attn_norm(x).split(self.branch_dim, dim=-1)
        over_time = self._over_time(for_time, rotation, frame_mask)
        over_space = self._over_space(for_space, channel_mask)
        # The published network adds the spatial result to the half that fed the temporal branch, and vice versa.
        x = x + torch.cat((over_space, over_time), dim=-1)
        return x + self.ff(self.pre_ff_norm(x))  # type: ignore[no-any-return]

    def _over_time(self, x: Tensor, rotation: Rotation, frame_mask: Tensor | None) -> Tensor:
        n_channels = x.shape[1]
        keys = None if frame_mask is None else frame_mask.repeat_interleave(n_channels, dim=0)
        out: Tensor = self.time_attn(x.flatten(0, 1), keys=keys, rotation=rotation)
        return out.reshape(x.shape)

    def _over_space(self, x: Tensor, channel_mask: Tensor | None) -> Tensor:
        n_frames = x.shape[2]
        keys = None if channel_mask is None else channel_mask.repeat_interleave(n_frames, dim=0)
        out: Tensor = self.spatial_attn(x.transpose(1, 2).flatten(0, 1), keys=keys)
        return out.reshape(x.transpose(1, 2).shape).transpose(1, 2)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, computed in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Norm of ``x`` [..., dim], in the dtype of ``x``."""
        return functional.rms_norm(x.float(), self.weight.shape, self.weight.float(), NORM_EPSILON).to(x.dtype)


class FeedForward(nn.Module):
    """Linear, SELU, linear, dropout."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(dim, hidden), nn.SELU(), nn.Linear(hidden, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to float [..., dim]."""
        return self.layer(x)  # type: ignore[no-any-return]
