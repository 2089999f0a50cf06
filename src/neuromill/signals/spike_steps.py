"""Steps that a pipeline may declare for behaviour beside spikes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from neuromill.signals.steps import BaseStep


class SmoothCovariates(BaseStep):
    """Boxcar over covariates on the bin clock.

    ``causal`` looks back only; ``centred`` looks ``seconds / 2`` ahead, which a decoder that runs live cannot.
    """

    step: Literal["smooth"] = "smooth"
    seconds: Annotated[float, Field(gt=0)]
    direction: Literal["causal", "centred"]


SpikeStep = SmoothCovariates
