"""Settings of an EEGSSM run. Imports no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from neuromill.models.eegssm_config import EEGSSMConfig
from neuromill.records import Config
from neuromill.training.config import OptimConfig, RunConfig, WindowConfig

PUBLISHED_COSINE_EPOCHS = 40


class PatchWindowConfig(Config):
    """How recordings are cut into windows of patches; a patch is one frame of the tokenizer.

    Attributes
    ----------
    window_patches
        Length of a window; 30 patches of 1 s are 30 s.
    stride_patches
        From one window to the next; null is `window_patches` (no overlap).
    min_patches
        A shorter rest at the end of a segment is left out; null takes whole windows only. The network normalises
        over all patches of a window, so windows are never padded: a rest is a batch shape of its own.
    """

    window_patches: int = Field(default=30, ge=2)
    stride_patches: int | None = Field(default=None, ge=1)
    min_patches: int | None = Field(default=None, ge=2)

    @property
    def in_frames(self) -> WindowConfig:
        """The same in the words of the window planner; windows keep to the tokenizer's segments."""
        return WindowConfig(
            window_frames=self.window_patches,
            stride_frames=self.stride_patches,
            min_frames=self.min_patches or self.window_patches,
        )


class EEGSSMOptimConfig(OptimConfig):
    """AdamW as CodeBrain trains its second stage."""

    weight_decay: float = Field(default=5e-3, ge=0)
    final_lr_share: float = Field(default=0.1, ge=0, le=1)
    clip_norm: float = Field(default=5.0, gt=0)


class EEGSSMTrainConfig(RunConfig):
    """A run of EEGSSM (CodeBrain, stage 2): the codes of hidden patches are predicted from the signal around them.

    Attributes
    ----------
    model
        Sizes of the backbone. The code heads are those of the tokens: one per quantizer.
    mask_share
        Chance of a patch to be hidden, independently per window, channel and patch.
    cosine_epochs
        Length of the cosine in epochs; null ends it with the last step. Published: 40, of which 10 are run.
    parity
        The published recipe where it differs: no warm-up, a cosine of 40 epochs, and a window in which one channel is
        rejected is left out with all its channels.
    """

    kind: Literal["eegssm"] = "eegssm"
    model: EEGSSMConfig = EEGSSMConfig()
    windows: PatchWindowConfig = PatchWindowConfig()
    mask_share: float = Field(default=0.5, gt=0, lt=1)
    optim: EEGSSMOptimConfig = EEGSSMOptimConfig()
    cosine_epochs: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=32, ge=1)
    accumulate_batches: int = Field(default=8, ge=1)
    precision: Literal["auto", "32-true", "bf16-mixed"] = "32-true"
    best_by: Literal["loss", "accuracy"] = "loss"
    parity: bool = False

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.model.n_outputs:
            raise ValueError("a run predicts codes; n_outputs is for `neuromill probe` and fine-tuning")
        if self.cosine_epochs is not None and self.cosine_epochs < self.epochs:
            raise ValueError(f"a cosine of {self.cosine_epochs} epochs ends before epoch {self.epochs}")
        return self

    @property
    def cosine_length(self) -> int | None:
        """Epochs of the cosine; None where it ends with the run."""
        if self.cosine_epochs is None and self.parity:
            return max(PUBLISHED_COSINE_EPOCHS, self.epochs)
        return self.cosine_epochs
