"""Settings of tokenizers. Imports neither torch nor a reader: a pipeline file is checked without them."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from neuromill.records import Config

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class BioCodecConfig(Config):
    """Sizes of the BioCodec network; the defaults are the published EEG preset (3,152,770 parameters).

    The same classes with smaller numbers make a codec that a laptop fits in a minute.

    Attributes
    ----------
    base_width
        Channels after the first convolution; each stride doubles them.
    strides
        Downsampling steps in encoder order; their product is the hop.
    kernel_size
        Kernel of the plain and the dilated convolutions; strided ones use twice their stride.
    dilations
        One residual unit per entry, after the first convolution and after each stride but the last.
    lstm_layers
        Layers of the causal LSTM between encoder and latent, and again in the decoder.
    latent_dim
        Width of the latent that the quantizer levels share.
    n_quantizers, codebook_size, codebook_dim
        Levels of the residual quantizer, rows per codebook (codes are uint8, hence at most 256), width of a row.
    rms
        Divide each row by its root mean square over the span passed to ``encode``; the scale goes with the codes.
    """

    base_width: Positive = 32
    strides: tuple[Positive, ...] = (2, 2, 3)
    kernel_size: Positive = 3
    dilations: tuple[Positive, ...] = (1, 2)
    lstm_layers: Positive = 2
    latent_dim: Positive = 128
    n_quantizers: Positive = 6
    codebook_size: Annotated[int, Field(ge=2, le=256)] = 256
    codebook_dim: Positive = 16
    rms: bool = True

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""
        return math.prod(self.strides)

    def n_frames(self, n_times: int) -> int:
        """Frames of ``n_times`` samples: the last, incomplete one counts."""
        return -(-n_times // self.hop_samples)


class NormalizationConfig(Config):
    """What happens to a row before the network sees it; stored with the tokenizer (MEG-XL, online preprocessing).

    Per row and block: subtract the median, divide by the inter-quartile range, clip. The root mean square over the
    whole span is the codec's own step (``BioCodecConfig.rms``) because its scale is needed to decode.

    Attributes
    ----------
    sfreq
        Rate in Hz that the tokenizer works at; signals of another rate must be resampled first.
    block_seconds
        Length of a block; a shorter last block is processed as is.
    clip
        Largest absolute value after scaling.
    """

    sfreq: Annotated[float, Field(gt=0)] = 50.0
    block_seconds: Seconds = 3.0
    clip: Annotated[float, Field(gt=0)] = 5.0

    @property
    def block_samples(self) -> int:
        """Samples per block."""
        return max(1, round(self.block_seconds * self.sfreq))


class TokenizerConfig(Config):
    """Everything that decides which codes a signal gets, apart from the weights."""

    kind: Literal["biocodec"] = "biocodec"
    network: BioCodecConfig = BioCodecConfig()
    normalization: NormalizationConfig = NormalizationConfig()

    @property
    def sfreq(self) -> float:
        """Rate in Hz of the signals it takes."""
        return self.normalization.sfreq

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""
        return self.network.hop_samples

    @property
    def n_quantizers(self) -> int:
        """Codes per frame and channel."""
        return self.network.n_quantizers

    @property
    def codebook_size(self) -> int:
        """Codes are below this."""
        return self.network.codebook_size


class RevivalConfig(Config):
    """When a codebook row counts as dead, and what it becomes.

    A row is dead when its moving count falls below ``below_share`` of what it would be if all rows were used alike.
    It then becomes a random vector of the batch, and its moving sums and counts restart from that vector (the
    published code overwrites the new row in the same step).
    """

    enabled: bool = True
    every: Positive = 10
    below_share: Annotated[float, Field(gt=0, lt=1)] = 0.1


class LossConfig(Config):
    """Weights of the training loss (BioCodec, training losses)."""

    time_weight: float = 0.2
    huber_beta: Annotated[float, Field(gt=0)] = 0.7
    frequency_weight: float = 1.0
    stft_windows: tuple[Annotated[int, Field(ge=8, multiple_of=8)], ...] = (32, 64, 128, 256)
    commitment_weight: float = 0.25
    parity: bool = False
    """Count the commitment loss twice, as the published training loop does by a second backward call."""


class FitConfig(Config):
    """How a tokenizer is fitted. Defaults follow the published recipe, scaled to windows of 50 Hz signals."""

    segment_seconds: Seconds = 30.0
    batch_size: Positive = 256
    steps: Positive = 20_000
    lr: Annotated[float, Field(gt=0)] = 1e-4
    betas: tuple[Beta, Beta] = (0.5, 0.9)
    warmup_share: Share = 0.25
    warmup_start: Share = 5e-4
    """First learning rate as a share of ``lr``."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    kmeans_iterations: Positive = 50
    losses: LossConfig = LossConfig()
    revival: RevivalConfig = RevivalConfig()
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network while fitting; the quantizer always works in float32."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    seed: int = 0
    cpu_threads: Positive = 2
    """Threads of a fit on a CPU: sums in another order give other weights, so the number is part of the identity."""
    checkpoint_every: Positive = 1000


class GateConfig(Config):
    """What a codebook must show before its tokenizer is published.

    Attributes
    ----------
    min_perplexity_share
        Perplexity of each level divided by the codebook size.
    min_used_share
        Share of rows that occur at all.
    max_dominant_share
        Share of the commonest code.
    min_frames
        Codes per level needed for a verdict; fewer is a problem of its own.
    min_correlation
        Mean correlation of reconstruction and input rows; None asks for none.
    min_codes, min_perplexity
        The same as the shares, as plain numbers: for codebooks so large that no held-out set fills a share of them.
    min_distinct_sequences, min_distinct_share
        Different code sequences of a level over rows (channels of windows), as a number and as a share of the rows.
    """

    min_perplexity_share: Share = 0.1
    min_used_share: Share = 0.5
    max_dominant_share: Share = 0.5
    min_frames: Positive = 2000
    min_correlation: float | None = None
    n_windows: Positive = 64
    """Windows of held-out signal that the verdict is made on."""
    min_codes: int = 0
    min_perplexity: float = 0.0
    min_distinct_sequences: int = 0
    min_distinct_share: Share = 0.0


class TokenizeConfig(Config):
    """How recordings are encoded. All of it is part of the identity of a token store.

    Codes depend on the span the network sees (LSTM state, root mean square), hence on the segment grid; and in
    the last bit of rounding on the shape of the forward pass, hence ``rows_per_forward`` is fixed and short
    batches are filled up with rows of zeros. A tokenizer that sees windows of one length brings that length along:
    ``segment_seconds`` may then be left out, or must be it. Rows are channels of segments: a tokenizer that sees the
    channels of a window jointly takes as many whole windows as ``rows_per_forward`` holds, at least one.
    """

    segment_seconds: Seconds = 150.0
    precision: Literal["float32"] = "float32"
    rows_per_forward: Positive = 16
