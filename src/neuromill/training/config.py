"""Settings of a training run; importing this module imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from neuromill.models.config import CrissCrossConfig
from neuromill.records import Config

# Where a run is computed and how it is fed, not what is computed: a run may continue with other values of these, and
# they are no part of its name. An accelerator or a strategy may still change the last bits of a sum.
FREE_SETTINGS = ("loader_threads", "keep_checkpoints", "accelerator", "strategy")


class WindowConfig(Config):
    """How recordings are cut into training windows. A frame is one token: 0.24 s at 50 Hz and hop 12.

    Attributes
    ----------
    window_frames
        Context length; 625 frames are 150 s.
    stride_frames
        From one window to the next; None is ``window_frames`` (no overlap).
    min_frames
        A shorter rest at the end of a recording is left out; a longer one is kept as a window of its own, padded
        and masked. 2 is the least a masked prediction needs: one frame hidden, one seen.
    align_to_segments
        Never let a window straddle two segments of the tokenizer unless it holds them whole. The tokenizer starts
        anew at each segment, so codes do not continue smoothly across the seam.
    """

    window_frames: int = Field(default=625, ge=2)
    stride_frames: int | None = Field(default=None, ge=1)
    min_frames: int = Field(default=2, ge=2)
    align_to_segments: bool = True


class MaskingConfig(Config):
    """Which frames are hidden.

    Attributes
    ----------
    block_seconds
        Length of a hidden block; rounded down to whole frames (3 s are 12 frames, 2.88 s).
    share
        Share of the frames that are hidden, whatever the length of the window.
    sfreq, hop_samples
        Sampling rate of the signal and samples per frame.
    published_blocks
        Blocks hidden per window under parity, whatever its length: 38.4 % of 150 s, 96 % of 30 s.
    """

    block_seconds: float = Field(default=3.0, gt=0)
    share: float = Field(default=0.4, gt=0, lt=1)
    sfreq: float = Field(default=50.0, gt=0)
    hop_samples: int = Field(default=12, ge=1)
    published_blocks: int = Field(default=20, ge=1)

    @property
    def block_frames(self) -> int:
        """Frames of a hidden block."""
        return max(1, round(self.block_seconds * self.sfreq) // self.hop_samples)


class OptimConfig(Config):
    """AdamW with a cosine schedule, as published, and a warm-up that works (parity leaves it out, as published)."""

    lr: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_steps: int = Field(default=250, ge=0)
    final_lr_share: float = Field(default=0.01, ge=0, le=1)
    clip_norm: float = Field(default=1.0, gt=0)


class RunConfig(Config):
    """What every training run has, whatever the model.

    Attributes
    ----------
    epochs
        Passes over all windows; the cosine ends with the last step.
    max_steps
        Fewer steps than ``epochs`` would make; None for no limit.
    batch_size
        Windows (or chunks of spikes) per rank and batch.
    accumulate_batches
        Batches per step: their gradients are averaged, so large steps fit into little memory. The last step of an
        epoch may have fewer.
    validation_batches
        Upper bound on the batches of one validation; None for all.
    keep_checkpoints
        Older ones are removed; None keeps all.
    keep
        Which weights are the model: those of the ``last`` step, or those of the ``best`` validation. Both need the
        same time.
    best_by
        Score of a validation that decides which is the best: the smallest loss, or the largest of another score.
    patience
        Stop after so many validations in a row without a better one; None makes every step.
    accelerator, strategy
        Handed to ``lightning_fabric.Fabric``.
    devices
        Ranks. Each learns from ``batch_size`` windows per step, so their number is part of the identity.
    cpu_threads
        Threads of a run on a CPU: sums in another order give another loss curve, so the number is part of the identity.
    precision
        Of the forward pass; "auto" is bf16 autocast on a GPU and float32 on a CPU.
    """

    seed: int = Field(default=42, ge=0)
    optim: OptimConfig = OptimConfig()
    epochs: int = Field(default=50, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=1, ge=1)
    accumulate_batches: int = Field(default=1, ge=1)
    log_every_steps: int = Field(default=10, ge=1)
    validate_every_steps: int = Field(default=500, ge=1)
    validation_batches: int | None = Field(default=None, ge=1)
    checkpoint_every_steps: int = Field(default=5000, ge=1)
    keep_checkpoints: int | None = Field(default=3, ge=1)
    keep: Literal["last", "best"] = "last"
    best_by: Literal["loss", "accuracy", "r2"] = "loss"
    patience: int | None = Field(default=None, ge=1)
    loader_threads: int = Field(default=2, ge=1)
    cpu_threads: int = Field(default=2, ge=1)
    accelerator: str = "auto"
    devices: int = Field(default=1, ge=1)
    strategy: str = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"


class TrainConfig(RunConfig):
    """A run of the criss-cross transformer (MEG-XL).

    ``model.parity`` is the one switch for published behaviour, in the model and around it.
    """

    kind: Literal["criss_cross"] = "criss_cross"
    model: CrissCrossConfig = CrissCrossConfig()
    windows: WindowConfig = WindowConfig()
    masking: MaskingConfig = MaskingConfig()
    best_by: Literal["loss", "accuracy"] = "loss"
