"""The `prepare` section of a pipeline: of continuous signals, or of spikes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from neuromill.records import Config
from neuromill.records.ticks import is_width
from neuromill.signals.spike_steps import SpikeStep
from neuromill.signals.steps import Step


class PrepareConfig(Config):
    """Preprocessing: ordered steps named as in MNE, and how the result is stored.

    Attributes
    ----------
    steps
        Applied in this order.
    dtype
        Of the stored signal; float16 with one scale per channel halves the bytes at 73 dB.
    min_seconds
        Shorter recordings fail with ``too_short``.
    """

    kind: Literal["signal"] = "signal"
    steps: tuple[Step, ...]
    dtype: Literal["float16", "float32", "int16"] = "float16"
    min_seconds: float = Field(default=1.0, gt=0)


class SpikePrepareConfig(Config):
    """Preparation of spikes: counts per bin, behaviour on the same clock.

    Attributes
    ----------
    bin_seconds
        Width of a bin; a whole number of microseconds, as only those have edges that can be written down.
    covariate_moment
        Which moment of its bin a covariate stands for. At the end, a decoder has seen the spikes up to that very
        moment; the published road takes the start, 20 ms earlier.
    scale_quantile
        The scale of a covariate is this quantile of its absolute value in the recording; stored, never applied.
    steps
        Applied to the covariates in this order; none by default.
    min_seconds
        Shorter recordings fail with ``too_short``.
    """

    kind: Literal["spikes"] = "spikes"
    bin_seconds: float = Field(default=0.02, gt=0, allow_inf_nan=False)
    covariate_moment: Literal["start", "centre", "end"] = "end"
    scale_quantile: float = Field(default=0.999, gt=0, le=1)
    steps: tuple[SpikeStep, ...] = ()
    min_seconds: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _bins_have_edges(self) -> Self:
        if not is_width(self.bin_seconds):
            raise ValueError(f"bin_seconds {self.bin_seconds} is no whole number of microseconds: 0.016667 for 60 Hz")
        return self
