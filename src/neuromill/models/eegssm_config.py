"""Settings of EEGSSM; importing this module imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from neuromill.records import Config

TAPS = 2
"""Taps of each learned piece of a global kernel, before it is stretched."""
SAME = 1e-6
"""Rates and units that differ by less, relatively, are the same: one of them went through float32."""

UnitVolts = PositiveFloat | Literal["segment"]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What a model is given: rate in Hz and volts per unit; None where it is not known."""

    sfreq: float | None = None
    unit_volts: UnitVolts | None = None

    def conflict(self, given: ModelInput) -> str:
        """Say what of another input contradicts this one; "" where nothing does, or one of the two is not known."""
        ours, theirs = self.sfreq, given.sfreq
        if ours is not None and theirs is not None and not math.isclose(ours, theirs, rel_tol=SAME):
            return f"a signal at {theirs:g} Hz for a model trained at {ours:g} Hz"
        if self.unit_volts is not None and given.unit_volts is not None and not self._has_unit(given.unit_volts):
            return f"a signal {_told(given.unit_volts)} for a model trained on one {_told(self.unit_volts)}"
        return ""

    def _has_unit(self, unit: UnitVolts) -> bool:
        if isinstance(unit, str) or isinstance(self.unit_volts, str):
            return unit == self.unit_volts
        return math.isclose(unit, self.unit_volts or 0.0, rel_tol=SAME)


UNKNOWN_INPUT = ModelInput()


def _told(unit: UnitVolts) -> str:
    return "scaled segment by segment" if isinstance(unit, str) else f"in units of {1e6 * unit:g} uV"


class EEGSSMConfig(Config):
    """Sizes of the CodeBrain backbone and of its heads; names and defaults are those of the published class.

    Attributes
    ----------
    n_outputs
        Classes of the classifier; None builds none.
    n_chans, n_times
        Only the ``flatten`` head needs them; the backbone takes any number of channels and patches.
    sfreq
        Rate of the signals it was trained on; training takes it from the tokens. None: not known.
    unit_volts
        Volts per unit of them; ``segment``: the tokenizer divided each channel of a segment by what it found there.
        None: not known.
    head
        ``mean``: linear on the mean over channels and patches. ``flatten``: three layers on all patch features, as
        CodeBrain fine-tunes (91 M parameters at 19 channels and 30 patches).
    pretrain_mode
        Build the two code heads and answer with their logits.
    patch_size
        Samples of a patch; what is left at the end of a window is dropped.
    res_channels, skip_channels, out_channels
        Widths of the residual, the skip and the output stream.
    num_res_layers
        Residual blocks.
    drop_prob
        Dropout of the global convolution (whole channels), the attention and the ``flatten`` head.
    s4_bidirectional
        Kernels that look both ways.
    s4_layernorm
        LayerNorm before a block's output projections; False is what the published weights go with.
    s4_lmax
        Decides how many pieces a global kernel has, see ``n_scales``.
    conv_out_chans
        Channels of the stem, and the stride of its first convolution.
    conv_groups
        Groups of its normalisation.
    proj_kernel_size, proj_padding, proj_refine_kernel
        Its kernels.
    pos_kernel
        Depth-wise positional convolution over (channel, patch); both odd.
    spectral_dropout
        Dropout after the projection of the spectrum.
    mlp_hidden_multiplier
        Hidden width of the ``flatten`` head in ``out_channels``.
    swa_window_size
        Tokens that a token attends to, itself in the middle: odd. At 1 it attends to itself alone.
    attention_heads
        Heads of the attention.
    codebook_size_t, codebook_size_f
        Codes of the temporal and of the frequency codebook.
    codebook_sizes
        Codes of each codebook of a tokenizer with another number than two; in place of the two.
    activation
        Around the input and the output projections.
    checkpoint_activations
        Recompute each block in the backward pass instead of keeping its activations. Same numbers, less memory.
    """

    n_outputs: int | None = Field(default=None, ge=1)
    n_chans: int | None = Field(default=None, ge=1)
    n_times: int | None = Field(default=None, ge=1)
    sfreq: PositiveFloat | None = None
    unit_volts: UnitVolts | None = None
    head: Literal["mean", "flatten"] = "mean"
    pretrain_mode: bool = False
    patch_size: int = Field(default=200, ge=2)
    res_channels: int = Field(default=200, ge=1)
    skip_channels: int = Field(default=200, ge=1)
    out_channels: int = Field(default=200, ge=1)
    num_res_layers: int = Field(default=8, ge=1)
    drop_prob: float = Field(default=0.1, ge=0, lt=1)
    s4_bidirectional: bool = True
    s4_layernorm: bool = False
    s4_lmax: int = Field(default=570, ge=TAPS)
    conv_out_chans: int = Field(default=25, ge=1)
    conv_groups: int = Field(default=5, ge=1)
    proj_kernel_size: int = Field(default=49, ge=1)
    proj_padding: int = Field(default=24, ge=0)
    proj_refine_kernel: int = Field(default=3, ge=1)
    pos_kernel: tuple[int, int] = (19, 7)
    spectral_dropout: float = Field(default=0.1, ge=0, lt=1)
    mlp_hidden_multiplier: int = Field(default=4, ge=1)
    swa_window_size: int = Field(default=1, ge=1)
    attention_heads: int = Field(default=4, ge=1)
    codebook_size_t: int = Field(default=4096, ge=2)
    codebook_size_f: int = Field(default=4096, ge=2)
    codebook_sizes: tuple[Annotated[int, Field(ge=2)], ...] = ()
    activation: Literal["ReLU", "GELU", "ELU"] = "ReLU"
    checkpoint_activations: bool = False

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.embed_dim != self.patch_size:
            raise ValueError(
                f"the stem makes {self.embed_dim} features of {self.patch_size} samples; they must be equal, because "
                "a masked patch is replaced by a vector of that length (50, 100, 200 and 250 samples fit the defaults)"
            )
        odd = (self.proj_refine_kernel, self.swa_window_size, *self.pos_kernel)
        if any(size % 2 == 0 for size in odd):
            raise ValueError("proj_refine_kernel, pos_kernel and swa_window_size must be odd, to have a middle")
        if self.conv_out_chans % self.conv_groups or (2 * self.res_channels) % self.attention_heads:
            raise ValueError("conv_groups must divide conv_out_chans, attention_heads twice res_channels")
        return self

    @model_validator(mode="after")
    def _head_has_its_size(self) -> Self:
        if self.n_outputs and self.head == "flatten" and not (self.n_chans and self.n_times):
            raise ValueError("the flatten head needs n_chans and n_times; the mean head does not")
        if self.n_outputs and self.pretrain_mode:
            raise ValueError("a model answers with code logits (pretrain_mode) or with classes (n_outputs), not both")
        return self

    @property
    def input(self) -> ModelInput:
        """Rate and unit of the signals it was trained on."""
        return ModelInput(self.sfreq, self.unit_volts)

    @property
    def embed_dim(self) -> int:
        """Features the stem makes of a patch."""
        steps = (self.patch_size + 2 * self.proj_padding - self.proj_kernel_size) // self.conv_out_chans + 1
        return self.conv_out_chans * steps

    @property
    def n_scales(self) -> int:
        """Pieces of a global kernel: 1 + ceil(log2(s4_lmax / 2)), 10 for 570."""
        return 1 + math.ceil(math.log2(self.s4_lmax / TAPS))
