"""Settings of an NDT3 run. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from neuromill.models.ndt3_config import Ndt3Config
from neuromill.records import Config
from neuromill.training.config import RunConfig


class RidgeConfig(Config):
    """The linear decoder beside which NDT3 is read (NDT3 paper): smoothed counts, lags, ridge.

    Attributes
    ----------
    tau_seconds, n_taps
        Causal exponential filter of the counts, normalised to sum 1.
    lags
        Numbers of past bins beside the current one that are tried. Published: 5 to 50 in steps of 5; the cost grows
        with the cube of units times lags, so the default stops at 10.
    n_alphas, min_alpha, max_alpha
        Penalties that are tried, on a logarithmic grid.
    folds
        Blocks of time of the cross-validation that chooses lags and penalty.
    """

    tau_seconds: float = Field(default=0.24, gt=0)
    n_taps: int = Field(default=12, ge=1)
    lags: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(5, 10), min_length=1)
    n_alphas: int = Field(default=20, ge=1)
    min_alpha: float = Field(default=1e-5, gt=0)
    max_alpha: float = Field(default=1e5, gt=0)
    folds: int = Field(default=5, ge=2)


class Ndt3TrainConfig(RunConfig):
    """A run of NDT3: next-token prediction over spikes, regression of covariates.

    Attributes
    ----------
    start_from
        Folder of a trained model to fine-tune; "" trains from scratch.
    compare_scratch
        Of a fine-tune: train the same model from random weights too, and print its R2 beside.
    spike_weight, covariate_weight
        Weights of the two losses.
    weigh_chunks
        Every chunk weighs the same. Published, and the default: every element does, so that recordings with many
        units or covariates weigh more.
    token_budget
        Chunks with more tokens are cropped in time: at random in training, from their first bin in validation.
    block_chunks, buffer_blocks
        Chunks are read in blocks of ``block_chunks`` neighbours; ``buffer_blocks`` blocks, drawn at random, are
        mixed. Larger buffers mix better and take more memory.
    split
        "stored": the splits that the index of the token store says (the card, where it says none).
        "random_chunks": the published 80/20 draw over chunks, which puts neighbours in time on both sides; for parity
        runs only.
    ridge
        Settings of the baseline; None leaves it out.
    """

    kind: Literal["ndt3"] = "ndt3"
    model: Ndt3Config = Ndt3Config()
    start_from: str = ""
    compare_scratch: bool = False
    spike_weight: float = Field(default=1.0, ge=0)
    covariate_weight: float = Field(default=1.0, ge=0)
    weigh_chunks: bool = False
    token_budget: int = Field(default=4096, ge=1)
    block_chunks: int = Field(default=64, ge=1)
    buffer_blocks: int = Field(default=64, ge=1)
    split: Literal["stored", "random_chunks"] = "stored"
    ridge: RidgeConfig | None = RidgeConfig()
    best_by: Literal["loss", "r2"] = "loss"

    @model_validator(mode="after")
    def _parity_only(self) -> Self:
        if self.split == "random_chunks" and not self.model.parity:
            raise ValueError("split: random_chunks leaks between neighbours in time; it needs model.parity: true")
        if self.compare_scratch and not self.start_from:
            raise ValueError("compare_scratch needs start_from: without it the run is from scratch")
        return self
