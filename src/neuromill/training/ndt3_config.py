"""Settings of an NDT3 run. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from neuromill.models.ndt3_config import Ndt3Config
from neuromill.training.config import RunConfig


class Ndt3TrainConfig(RunConfig):
    """A run of NDT3: next-token prediction over spikes, regression of covariates.

    Attributes
    ----------
    start_from
        Folder of a trained model to fine-tune; "" trains from scratch.
    spike_weight, covariate_weight
        Weights of the two losses.
    """

    kind: Literal["ndt3"] = "ndt3"
    model: Ndt3Config = Ndt3Config()
    start_from: str = ""
    spike_weight: float = Field(default=1.0, ge=0)
    covariate_weight: float = Field(default=1.0, ge=0)
