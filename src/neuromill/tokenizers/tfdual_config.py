"""Settings of the TFDual tokenizer (CodeBrain, stage 1). Imports neither torch nor a reader."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from neuromill.records import Config
from neuromill.tokenizers.config import Beta, Positive, RevivalConfig, Share

CHANNELS_10_20 = (
    "FP1", "FP2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2",
    "F7", "F8", "T3", "T4", "T5", "T6", "FZ", "CZ", "PZ",
)  # fmt: skip
"""Channels of a window in the order that the published position table is tied to."""

N_CODEBOOKS = 2
"""Temporal first, frequency second."""

PositiveFloat = Annotated[float, Field(gt=0)]


class TfDualNetworkConfig(Config):
    """Sizes of the TFDual network; the defaults are the published ones (about 9.1 M learnable parameters).

    Attributes
    ----------
    patch_samples
        Samples of a patch, which is one frame.
    window_patches
        Patches of a whole window; the last window of a recording may have fewer.
    width, depth, heads, mlp_ratio
        Of the encoder; the decoders share all but the depth.
    decoder_depth
        Blocks of each of the two decoders.
    stem_stride, stem_kernel
        First convolution of each branch of the stem: raw samples, and magnitude spectrum.
    codebook_size, codebook_dim
        Rows of each of the two codebooks, and numbers per row.
    max_channels, max_patches
        Rows of the position tables.
    """

    patch_samples: Positive = 200
    window_patches: Positive = 30
    width: Positive = 200
    depth: Positive = 12
    heads: Positive = 10
    mlp_ratio: Positive = 4
    decoder_depth: Positive = 3
    stem_stride: Positive = 8
    stem_kernel: Positive = 15
    codebook_size: Annotated[int, Field(ge=2, le=65_535)] = 4096
    codebook_dim: Positive = 32
    max_channels: Positive = 128
    max_patches: Positive = 60

    @property
    def stem_steps(self) -> int:
        """Positions that a stem branch makes of one patch."""
        return -(-self.patch_samples // self.stem_stride)

    @property
    def stem_channels(self) -> int:
        """Features per position of each of the two stem branches."""
        return self.width // (2 * self.stem_steps)

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.stem_channels < 1 or self.width % (2 * self.stem_steps):
            raise ValueError(f"width {self.width} is not a multiple of 2 x {self.stem_steps} stem positions")
        if self.stem_kernel % 2 == 0:
            raise ValueError(f"stem_kernel {self.stem_kernel} is even")
        if self.window_patches > self.max_patches:
            raise ValueError(f"window_patches {self.window_patches} is above max_patches {self.max_patches}")
        return self


class TfDualInputConfig(Config):
    """How physical values become what the network sees.

    Attributes
    ----------
    scaling
        ``fixed``: divide by ``unit_volts``; channels must be in volts (CodeBrain: one unit is 100 uV). ``robust``:
        divide each channel of a window by its inter-quartile range over 1.349, whatever its unit: for MEG, whose
        teslas have no such unit. The divisor is stored with the codes either way.
    unit_volts
        Volts per unit of ``fixed``.
    plausible_units
        ``fixed`` only: a recording whose median channel has its standard deviation outside this range is refused. EEG
        has 0.05 to 1 unit, so a factor of 100 in either direction falls outside. So is one with single channels outside
        that are more than 20 times larger or smaller than the others.
    clip
        Largest absolute value after scaling; None clips nothing, as published.
    """

    scaling: Literal["fixed", "robust"] = "fixed"
    unit_volts: PositiveFloat = 100e-6
    plausible_units: tuple[PositiveFloat, PositiveFloat] = (0.015, 4.0)
    clip: PositiveFloat | None = None


class TfDualTokenizerConfig(Config):
    """Everything that decides which codes a window gets, apart from the weights.

    Attributes
    ----------
    sfreq
        Rate in Hz of the signals it takes.
    channels
        Names in the order of the position table; upper or lower case is the same. Recorded channels that are not named
        get no codes, named ones that are missing or bad are zeros in the window. Empty: any channels at all, see
        ``group_channels``.
    min_channels
        Fewer named channels than this in a recording, and it is refused; None asks for all of them.
    group_channels
        Without names: channels of one type are cut into groups of at most this many, in file order; a group is encoded
        jointly and a channel's position is its rank in the group.
    phase, spectrum
        Targets of the frequency decoder: the angle itself or its cosine and sine; all bins or only those that are not
        mirror images.
    quantizer, levels
        ``vq``: two learned codebooks. ``fsq``: finite scalar quantization with these levels, no codebook to collapse;
        the codebook size is their product.
    parity
        The published targets: angle and amplitude of all bins, z-scored per window.
    """

    kind: Literal["tfdual"] = "tfdual"
    sfreq: PositiveFloat = 200.0
    network: TfDualNetworkConfig = TfDualNetworkConfig()
    input: TfDualInputConfig = TfDualInputConfig()
    channels: tuple[str, ...] = CHANNELS_10_20
    min_channels: Positive | None = None
    group_channels: Positive = 128
    phase: Literal["angle", "sincos"] = "sincos"
    spectrum: Literal["one_sided", "two_sided"] = "one_sided"
    quantizer: Literal["vq", "fsq"] = "vq"
    levels: tuple[Annotated[int, Field(ge=3)], ...] = (8, 8, 8, 8)
    parity: bool = False

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        most = self.network.max_channels
        if (len(self.channels) or self.group_channels) > most:
            raise ValueError(f"more channels than the {most} rows of the position table")
        if len({name.upper() for name in self.channels}) < len(self.channels):
            raise ValueError("a channel is named twice")
        if not self.levels or self.codebook_size > 65_535:  # noqa: PLR2004
            raise ValueError("codes must fit 16 bits")
        targets = (("phase", "angle"), ("spectrum", "two_sided"))
        if self.parity and any(
            name in self.model_fields_set and getattr(self, name) != value for name, value in targets
        ):
            raise ValueError("parity means the angle of a two-sided spectrum")
        return self

    @property
    def codebook_size(self) -> int:
        """Codes are below this."""
        return self.network.codebook_size if self.quantizer == "vq" else math.prod(self.levels)

    @property
    def code_dim(self) -> int:
        """Numbers per quantized vector."""
        return self.network.codebook_dim if self.quantizer == "vq" else len(self.levels)

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""
        return self.network.patch_samples

    @property
    def window_samples(self) -> int:
        """Samples of a whole window."""
        return self.network.patch_samples * self.network.window_patches

    @property
    def n_quantizers(self) -> int:
        """Codes per frame and channel."""
        return N_CODEBOOKS

    @property
    def uses_angle(self) -> bool:
        """Whether the phase target is the angle."""
        return self.parity or self.phase == "angle"

    @property
    def n_bins(self) -> int:
        """Bins of the spectra that are predicted."""
        samples = self.network.patch_samples
        return samples if self.parity or self.spectrum == "two_sided" else samples // 2 + 1


class TfDualLossConfig(Config):
    """Weights of the training loss; all are one as published."""

    commitment_weight: float = Field(default=1.0, ge=0)
    time_weight: float = Field(default=1.0, ge=0)
    amplitude_weight: float = Field(default=1.0, ge=0)
    phase_weight: float = Field(default=1.0, ge=0)
    contrastive_weight: float = Field(default=1.0, ge=0)
    """0 spares the third and fourth half passes of the encoder."""
    temperature: PositiveFloat = 0.1


class TfDualFitConfig(Config):
    """How a TFDual tokenizer is fitted.

    Attributes
    ----------
    batch_size
        Windows per step.
    lr, min_lr, warmup_share
        Linear warm-up over this share of the steps, then half a cosine from ``lr`` to ``min_lr`` over all the rest.
    ema_decay
        Of the codebooks and of their usage.
    kmeans_init, kmeans_iterations
        Place the codes by spherical k-means on the whole first batch; otherwise they start as random unit vectors.
    revival
        Replaces unused codes by encoder vectors of the batch. Off is the published behaviour, and collapses.
    log_every
        Steps over which codebook use is counted before the count starts anew.
    precision
        Arithmetic of encoder and decoders; heads, quantizers and losses always work in float32.
    """

    kind: Literal["tfdual"] = "tfdual"
    batch_size: Positive = 256
    steps: Positive = 80_000
    lr: PositiveFloat = 1e-4
    min_lr: Annotated[float, Field(ge=0)] = 1e-5
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup_share: Share = 0.05
    max_grad_norm: PositiveFloat | None = None
    ema_decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    kmeans_init: bool = True
    kmeans_iterations: Positive = 10
    revival: RevivalConfig = RevivalConfig(every=1)
    losses: TfDualLossConfig = TfDualLossConfig()
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    cpu_threads: Positive = 2
    """Threads of a fit on a CPU: sums in another order give other weights, so the number is part of the identity."""
    log_every: Positive = 100
    checkpoint_every: Positive = 1000
