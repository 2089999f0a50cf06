"""Settings of NDT3's tokens. Imports no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from neuromill.records import Config


class Ndt3TokenizerConfig(Config):
    """Tokens of spikes by rule: nothing is fitted. The slot layout is part of the vocabulary and never changes.

    Attributes
    ----------
    chunk_bins
        Bins per chunk; 100 bins of 20 ms are the published 2 s.
    min_chunk_bins
        The rest of a segment is a shorter chunk if it has this many bins.
    sanity_rule
        Leave out chunks without any spike, and chunks in which every covariate is constant. The published rule for
        most data sets; Perich's and FALCON's sessions were not held to it.
    covariates_in
        Which covariates count in the loss: ``observed`` takes all that the recording's masks allow, ``trials`` only
        those inside successful trials (published for Perich's sessions).
    scale_from
        What a covariate is divided by: the scale of the whole ``recording`` as preparation stored it, or the same
        quantile over its ``train`` part alone, where the card holds blocks of time out. Then nothing of a held-out
        block is in the scale, and what is larger there is clipped.
    parity
        The published behaviour where ours differs: chunks are cut from the first bin on, over gaps and joins, and the
        rest is dropped; a chunk of a recording without covariates gets a dummy covariate token that counts in the
        loss.
    """

    kind: Literal["ndt3"] = "ndt3"
    chunk_bins: int = Field(default=100, ge=5, le=1500)
    min_chunk_bins: int = Field(default=5, ge=1)
    sanity_rule: bool = True
    covariates_in: Literal["observed", "trials"] = "observed"
    scale_from: Literal["recording", "train"] = "recording"
    parity: bool = False

    @model_validator(mode="after")
    def _chunks_are_long_enough(self) -> Self:
        if self.min_chunk_bins > self.chunk_bins:
            raise ValueError("min_chunk_bins is above chunk_bins: no chunk would be long enough")
        return self
