"""Settings of NDT3's tokens. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from neuromill.records import Config


class Ndt3TokenizerConfig(Config):
    """Tokens of spikes by rule: nothing is fitted. The slot layout is part of the vocabulary and never changes.

    Attributes
    ----------
    chunk_bins
        Bins per chunk; 100 bins of 20 ms are the published 2 s.
    parity
        The published behaviour where ours differs: chunks run over gaps and joins, chunks without covariates get a
        dummy covariate token that counts in the loss, covariates outside trials count.
    """

    kind: Literal["ndt3"] = "ndt3"
    chunk_bins: int = Field(default=100, ge=5, le=1500)
    parity: bool = False
