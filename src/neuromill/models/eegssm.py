"""EEGSSM, the second stage of CodeBrain: global convolutions over the patches of all channels.

An implementation of its own behind the interface of ``braindecode.models.CodeBrain``; the names of parameters and
buffers are the same, so weights go from one to the other.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self, TypedDict

from pydantic import ValidationError
from torch import nn
from torch.utils.checkpoint import checkpoint

from neuromill.hub.mixin import HubMixin
from neuromill.models.eegssm_blocks import Conv, PatchEmbedding, ResidualBlock
from neuromill.models.eegssm_config import EEGSSMConfig
from neuromill.records import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

WITHOUT_MEANING = frozenset({"chs_info", "input_window_seconds", "sfreq", "s4_d_state"})
"""Settings of the published class that change nothing there; taken from its configurations and left out."""

Logits = tuple["Tensor", ...]


class Features(TypedDict):
    """What ``return_features=True`` gives.

    Attributes
    ----------
    features
        float [batch, channel, patch, out_channels].
    cls_token
        None: this network has none.
    """

    features: Tensor
    cls_token: None


class EEGSSM(HubMixin, nn.Module, files="neuromill.models.eegssm_files"):
    """CodeBrain's backbone with the heads its settings ask for and no others.

    Parameters
    ----------
    config
        Sizes. Or give them by name: ``EEGSSM(num_res_layers=4, pretrain_mode=True)``.

    Raises
    ------
    ConfigError
        Settings that do not fit together or are not known.
    """

    def __init__(self, config: EEGSSMConfig | None = None, **settings: Any) -> None:
        super().__init__()
        self.config = config = settings_of({**(config.non_defaults() if config else {}), **settings})
        activation: type[nn.Module] = getattr(nn, config.activation)
        self.patch_embedding = PatchEmbedding(config)
        self.init_conv = nn.Sequential(Conv(config.embed_dim, config.res_channels), activation())
        self.residual_layer = ResidualStack(config)
        self.final_conv = nn.Sequential(
            Conv(config.skip_channels, config.skip_channels),
            activation(),
            Conv(config.skip_channels, config.out_channels, normalised=False),
        )
        self.norm = nn.LayerNorm(config.out_channels)
        if config.pretrain_mode and config.codebook_sizes:
            heads = (nn.Linear(config.out_channels, size, bias=False) for size in config.codebook_sizes)
            self.lm_heads = nn.ModuleList(heads)
        elif config.pretrain_mode:
            self.lm_head_t = nn.Linear(config.out_channels, config.codebook_size_t, bias=False)
            self.lm_head_f = nn.Linear(config.out_channels, config.codebook_size_f, bias=False)
        if config.n_outputs:
            self.final_layer = classifier(config)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, return_features: bool = False
    ) -> Tensor | Logits | Features:
        """Features, code logits or class logits of windows.

        Parameters
        ----------
        x
            float [batch, channel, time] in units of 100 uV: volts times 1e4. Any number of channels and samples.
        mask
            [batch, channel, patch], integer or bool: 1 hides a patch.
        return_features
            Return what the heads would be given, whatever heads there are.

        Returns
        -------
        dict, tuple of tensors, or tensor
            ``Features``; or, with ``pretrain_mode``, logits of the temporal and the frequency code (or of each of
            ``codebook_sizes``): [batch, channel, patch, code], with a mask those of the hidden patches alone, [hidden,
            code] in the row-major order of the mask; or class logits [batch, n_outputs].

        Raises
        ------
        ConfigError
            ``x`` has no patch or ``mask`` another shape than its patches; or the model has no head.
        """
        features = self.features(x, mask)
        if return_features:
            return {"features": features, "cls_token": None}
        if self.config.pretrain_mode:
            chosen = features if mask is None else features[mask.bool()]
            if self.config.codebook_sizes:
                return tuple(head(chosen) for head in self.lm_heads)
            return self.lm_head_t(chosen), self.lm_head_f(chosen)
        if self.config.n_outputs:
            logits: Tensor = self.final_layer(features)
            return logits
        raise ConfigError("this model has no head", next_step="return_features=True, pretrain_mode or reset_head(n)")

    def features(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Backbone alone: float [batch, channel, patch, out_channels]; see ``forward``."""
        patches = self._patches(x)
        if mask is not None and mask.shape != patches.shape[:3]:
            raise ConfigError(f"a mask of {tuple(mask.shape)} for patches {tuple(patches.shape[:3])}")
        embedded = self.patch_embedding(patches, None if mask is None else mask.bool())
        tokens = self.init_conv(embedded.flatten(1, 2).transpose(1, 2))
        made = self.final_conv(self.residual_layer(tokens)).transpose(1, 2)
        features: Tensor = self.norm(made).unflatten(1, patches.shape[1:3])
        return features

    def _patches(self, x: Tensor) -> Tensor:
        if x.ndim != 3 or x.shape[-1] < self.config.patch_size:  # noqa: PLR2004 - batch, channel, time
            raise ConfigError(
                f"an input of {tuple(x.shape)} holds no patch",
                next_step=f"give [batch, channel, time] with at least {self.config.patch_size} samples",
            )
        count = x.shape[-1] // self.config.patch_size
        return x[..., : count * self.config.patch_size].reshape(*x.shape[:2], count, self.config.patch_size)

    def reset_head(self, n_outputs: int, **settings: Any) -> None:
        """Replace whatever heads there are by a fresh classifier of ``n_outputs`` classes.

        ``settings`` may name ``head``, ``n_chans`` and ``n_times``. The code heads go, for nothing would train them.
        """
        new = {**self.get_config(), **settings, "n_outputs": n_outputs, "pretrain_mode": False}
        self.config = settings_of(new)
        for name in ("lm_head_t", "lm_head_f", "lm_heads", "final_layer"):
            if name in self._modules:
                delattr(self, name)
        parameter = self.norm.weight
        self.final_layer = classifier(self.config).to(device=parameter.device, dtype=parameter.dtype)

    def get_config(self) -> dict[str, Any]:
        """All settings, as JSON values."""
        return self.config.model_dump(mode="json")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **changes: Any) -> Self:
        """Build a model of random weights from what ``get_config`` gave, of this class or of the published one."""
        known = {key: _plain(value) for key, value in config.items() if key not in WITHOUT_MEANING}
        return cls(**known | changes)


class ResidualStack(nn.Module):
    """The residual blocks and the sum of what they skip.

    Nobody asks for the state after the last block, so its residual projection and norm learn nothing (40,600 values
    of the published 13,529,200). They are frozen: with gradients, data-parallel training would wait for theirs.
    """

    def __init__(self, config: EEGSSMConfig) -> None:
        super().__init__()
        self.checkpoint = config.checkpoint_activations
        blocks = [ResidualBlock(config) for _ in range(config.num_res_layers)]
        self.residual_blocks = nn.ModuleList(blocks)
        blocks[-1].res_conv.requires_grad_(requires_grad=False)
        blocks[-1].rms_norm.requires_grad_(requires_grad=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, feature, token] -> [batch, skip feature, token]."""
        state, total = tokens, tokens.new_zeros(())
        for block in self.residual_blocks:
            if self.checkpoint and self.training:
                state, skip = checkpoint(block, state, tokens, use_reentrant=False)
            else:
                state, skip = block(state, tokens)
            total = total + skip
        return total * math.sqrt(1 / len(self.residual_blocks))


class MeanHead(nn.Module):
    """A linear classifier of the mean patch."""

    def __init__(self, width: int, n_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, n_outputs)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, channel, patch, feature] -> [batch, n_outputs]."""
        logits: Tensor = self.linear(features.mean(dim=(1, 2)))
        return logits


def classifier(config: EEGSSMConfig) -> nn.Module:
    """Head that ``config`` names."""
    width, n_outputs = config.out_channels, config.n_outputs or 1
    if config.head == "mean":
        return MeanHead(width, n_outputs)
    n_patches = (config.n_chans or 0) * ((config.n_times or 0) // config.patch_size)
    hidden = config.mlp_hidden_multiplier * width
    sizes = [n_patches * width, hidden, width, n_outputs]
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in pairwise(sizes[:-1]):
        layers += [nn.Linear(n_in, n_out), nn.ELU(), nn.Dropout(config.drop_prob)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def settings_of(values: Mapping[str, Any]) -> EEGSSMConfig:
    """Check settings given by name."""
    try:
        return EEGSSMConfig.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"settings of EEGSSM: {name}{': ' if name else ''}{first['msg']}") from error


def _plain(value: Any) -> Any:
    """Turn a class of activations into its name (``torch.nn.modules.activation.ReLU`` -> ``ReLU``)."""
    if isinstance(value, type):
        return value.__name__
    return value.rsplit(".", 1)[-1] if isinstance(value, str) else value
