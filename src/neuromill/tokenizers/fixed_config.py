"""Settings of the fixed tokenizers, the baselines of every learned one. Imports neither torch nor a reader."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from neuromill.records import Config

NumberOfCodes = Annotated[int, Field(ge=3, le=65_535)]


class _FixedConfig(Config):
    """What both have in common: one code per sample, nothing is fitted."""

    sfreq: Annotated[float, Field(gt=0)] = 200.0
    """Rate in Hz of the signals it takes."""
    n_codes: NumberOfCodes = 256
    """Amplitude levels; more than 256 make the codes uint16."""

    @property
    def codebook_size(self) -> int:
        """Codes are below this."""
        return self.n_codes

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""
        return 1

    @property
    def n_quantizers(self) -> int:
        """Codes per frame and channel."""
        return 1


class MuLawConfig(_FixedConfig):
    """Logarithmic levels between minus and plus the largest absolute value of a channel in its segment."""

    kind: Literal["mu_law"] = "mu_law"
    mu: Annotated[float, Field(gt=0)] = 255.0


class QuantileConfig(_FixedConfig):
    """Levels that a reference distribution fills evenly once a channel is divided by its spread in its segment.

    Attributes
    ----------
    reference
        ``laplace`` has the heavier tails (with 256 codes the outermost levels stand at 5.4 robust standard deviations
        in place of 3.1), ``normal`` the finer middle.
    """

    kind: Literal["quantile"] = "quantile"
    reference: Literal["laplace", "normal"] = "laplace"


FixedTokenizerConfig = MuLawConfig | QuantileConfig
