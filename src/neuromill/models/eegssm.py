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

WITHOUT_MEANING = frozenset({"chs_info", "input_window_seconds", "s4_d_state"})
"""Settings of the published class that are accepted and not kept: they say what others say, or change nothing there."""

INPUT_FACTS = ("sfreq", "unit_volts")

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
        Sizes. Or give them by name: ``EEGSSM(num_res_layers=4, pretrain_mode=True)``. All that the published class
        takes by name is taken: ``chs_info`` counts the channels, ``input_window_seconds`` with ``sfreq`` the samples.

    Raises
    ------
    ConfigError
        Settings that do not fit together, contradict each other or are not known.
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
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        usable: Tensor | None = None,
        return_features: bool = False,
    ) -> Tensor | Logits | Features:
        """Features, code logits or class logits of windows.

        Parameters
        ----------
        x
            float [batch, channel, time] in the unit of the weights, ``config.unit_volts`` (CodeBrain's: 100 uV). The
            class does not scale. Any number of channels and samples.
        mask
            [batch, channel, patch], integer or bool: 1 hides a patch.
        usable
            bool [batch, channel, patch]: which patches the ``mean`` classifier averages; None takes all. What is not
            fit for use goes in as silence. The ``flatten`` classifier takes all of them, as published.
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
            ``x`` has no patch, ``mask`` or ``usable`` another shape than its patches; or the model has no head.
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
            return self._classes(features, usable)
        raise ConfigError("this model has no head", next_step="return_features=True, pretrain_mode or reset_head(n)")

    def _classes(self, features: Tensor, usable: Tensor | None) -> Tensor:
        if usable is not None and usable.shape != features.shape[:3]:
            raise ConfigError(f"usable is {tuple(usable.shape)} for patches {tuple(features.shape[:3])}")
        mean = isinstance(self.final_layer, MeanHead)
        logits: Tensor = self.final_layer(features, usable) if mean else self.final_layer(features)
        return logits

    def features(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Backbone alone: float [batch, channel, patch, out_channels].

        ``x`` and ``mask`` as ``forward`` takes them.

        Raises
        ------
        ConfigError
            ``x`` has no patch, or ``mask`` another shape than its patches.
        """
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
        require_same_input(self.config, settings)
        new = {**self.get_config(), **settings, "n_outputs": n_outputs, "pretrain_mode": False}
        self.config = settings_of(new)
        for name in ("lm_head_t", "lm_head_f", "lm_heads", "final_layer"):
            if name in self._modules:
                delattr(self, name)
        parameter = self.norm.weight
        self.final_layer = classifier(self.config).to(device=parameter.device, dtype=parameter.dtype)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **changes: Any) -> Self:
        """Build a model of random weights from what ``get_config`` gave, of this class or of the published one."""
        return cls(**resolved(config) | changes)


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
        """Float [batch, feature, token] -> [batch, skip feature, token]."""
        state, total = tokens, tokens.new_zeros(())
        for block in self.residual_blocks:
            if self.checkpoint and self.training:
                state, skip = checkpoint(block, state, tokens, use_reentrant=False)
            else:
                state, skip = block(state, tokens)
            total = total + skip
        return total * math.sqrt(1 / len(self.residual_blocks))


class MeanHead(nn.Module):
    """A linear classifier of the mean patch, over those that are fit for use."""

    def __init__(self, width: int, n_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, n_outputs)

    def forward(self, features: Tensor, usable: Tensor | None = None) -> Tensor:
        """Float [batch, channel, patch, feature] -> [batch, n_outputs]; ``usable`` is bool [batch, channel, patch]."""
        if usable is None:
            pooled = features.mean(dim=(1, 2))
        else:
            weight = usable[..., None].to(features.dtype)
            pooled = (features * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1)
        logits: Tensor = self.linear(pooled)
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
    """Check settings given by name; also those that only the published class has.

    Raises
    ------
    ConfigError
        A setting has no such name or value, or what ``resolved`` raises.
    """
    try:
        return EEGSSMConfig.model_validate(resolved(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"settings of EEGSSM: {name}{': ' if name else ''}{first['msg']}") from error


def resolved(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the published class as settings of ours: what is said in other words is translated, the rest stays.

    Raises
    ------
    ConfigError
        The number of channels or of samples is given twice, and differently; or one of these is no number or list.
    """
    settings = {name: value for name, value in values.items() if name not in WITHOUT_MEANING}
    if "activation" in settings:
        settings["activation"] = _name_of(settings["activation"])
    channels, seconds, sfreq = values.get("chs_info"), values.get("input_window_seconds"), values.get("sfreq")
    try:
        if channels is not None:
            _agree(settings, "n_chans", len(channels), "chs_info")
        if seconds is not None and sfreq is not None:
            _agree(settings, "n_times", round(seconds * sfreq), f"input_window_seconds {seconds:g} at sfreq {sfreq:g}")
    except (TypeError, ValueError) as error:
        raise ConfigError(f"settings of EEGSSM: chs_info, input_window_seconds or sfreq: {error}") from error
    return settings


def _agree(settings: dict[str, Any], name: str, value: int, source: str) -> None:
    """Take a number that others imply; it must not contradict the one that is given."""
    if settings.get(name) not in (None, value):
        raise ConfigError(f"settings of EEGSSM: {name} is {settings[name]}, {source} makes {value}")
    settings[name] = value


def require_same_input(config: EEGSSMConfig, changes: Mapping[str, Any]) -> None:
    """Refuse another rate or unit than the weights were trained on.

    Raises
    ------
    ConfigError
        ``sfreq`` or ``unit_volts`` of ``changes`` contradict those of ``config``; None contradicts nothing.
    """
    given = settings_of({name: changes[name] for name in INPUT_FACTS if name in changes})
    conflict = config.input.conflict(given.input)
    if conflict:
        raise ConfigError(conflict, next_step="these are facts of the weights; prepare the signal as they say")


def _name_of(activation: Any) -> Any:
    """``nn.ReLU``, ``torch.nn.modules.activation.ReLU`` or ``<class '...ReLU'>`` -> ``ReLU``."""
    if isinstance(activation, type):
        return activation.__name__
    return activation.strip("<>'\"").rsplit(".", 1)[-1] if isinstance(activation, str) else activation
