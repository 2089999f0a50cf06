"""Steps that a pipeline may declare for behaviour beside spikes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from neuromill.signals.steps import BaseStep


class SmoothCovariates(BaseStep):
    """Boxcar over covariates on the bin clock.

    ``causal`` is the mean of the last ``seconds``, the bin itself included. ``centred`` looks as far ahead as back,
    which a decoder that runs live cannot; its length is odd in bins, so that it moves nothing. Stretches without a
    value are not smoothed over, and at the ends of a stretch the mean is of the bins that there are.
    """

    step: Literal["smooth"] = "smooth"
    seconds: Annotated[float, Field(gt=0)]
    direction: Literal["causal", "centred"]

    def reach(self, bin_seconds: float) -> tuple[int, int]:
        """How many bins before and after its own the mean of a bin takes in."""
        n_bins = max(1, round(self.seconds / bin_seconds))
        return (n_bins - 1, 0) if self.direction == "causal" else (n_bins // 2, n_bins // 2)


SpikeStep = SmoothCovariates
"""One of the steps above."""
