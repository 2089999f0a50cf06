"""Fixed tokenizers: one code per sample by rule, nothing fitted. What every learned tokenizer is compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuromill.hub.mixin import HubMixin
from neuromill.tokenizers.fixed_config import MuLawConfig
from neuromill.tokenizers.protocol import Encoded, RoundTrip
from neuromill.tokenizers.rows import ByRows
from neuromill.tokenizers.tokenizer import tokenizer_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuromill.tokenizers.fixed_config import FixedTokenizerConfig, QuantileConfig

FIXED_CODE_VERSION = "1"
LOWER, UPPER = 0.25, 0.75
NORMAL_IQR = 2 * 0.6744897501960817
"""Inter-quartile range of the standard normal distribution."""
LAPLACE_RATE = 2 * math.log(2) / NORMAL_IQR
"""Of the Laplace distribution with the same inter-quartile range."""


@dataclass(frozen=True, eq=False)
class FixedTokenizer(HubMixin, ByRows, files="neuromill.tokenizers.sharing"):
    """Amplitude levels of single samples; implements ``RowTokenizer``. Decodes to physical units."""

    config: FixedTokenizerConfig

    @cached_property
    def digest(self) -> str:
        """SHA-256 over code version and configuration."""
        return tokenizer_digest(self.config, {}, FIXED_CODE_VERSION)

    @property
    def sfreq(self) -> float:
        """Rate in Hz of the rows it takes."""
        return self.config.sfreq

    @property
    def hop_samples(self) -> int:
        """One frame per sample."""
        return self.config.hop_samples

    @property
    def n_quantizers(self) -> int:
        """One code per frame."""
        return self.config.n_quantizers

    @property
    def codebook_size(self) -> int:
        """Codes are below this."""
        return self.config.codebook_size

    @property
    def n_parameters(self) -> int:
        """Nothing is learned."""
        return 0

    def state(self) -> Mapping[str, Tensor]:
        """No weights."""
        return {}

    def encode(self, signal: Tensor) -> Encoded:
        """Codes of float32 [row, time]: integers [row, 1, time], and the scale [row], NaN for non-finite rows."""
        finite = torch.isfinite(signal).all(dim=-1)
        rows = torch.where(finite[:, None], signal.float(), 0.0)
        scale = self._scale(rows)
        scaled = rows / torch.where(scale > 0, scale, 1.0)[:, None]
        codes = torch.bucketize(scaled, self._edges, right=True, out_int32=True)
        return Encoded(codes[:, None], torch.where(finite, scale, torch.nan))

    def decode(self, encoded: Encoded, n_times: int) -> Tensor:
        """Return float32 [row, n_times] in physical units: the middle of each sample's level."""
        return self._levels[encoded.codes[:, 0, :n_times].long()] * encoded.scale[:, None]

    def round_trip(self, windows: Tensor) -> RoundTrip:
        """Encode and decode float32 [row, time] or [window, channel, time]; the target is the signal over its scale."""
        rows = windows.flatten(0, -2)
        encoded = self.encode(rows)
        alive = encoded.scale > 0
        target = rows[alive] / encoded.scale[alive, None]
        ones = torch.ones_like(encoded.scale[alive])
        codes = encoded.codes[alive]
        return RoundTrip(target, self.decode(Encoded(codes, ones), rows.shape[-1]), codes)

    def _scale(self, rows: Tensor) -> Tensor:
        """Largest absolute value (mu-law) or inter-quartile range in standard deviations (quantile): [row]."""
        if isinstance(self.config, MuLawConfig):
            return rows.abs().amax(dim=-1)
        return robust_deviation(rows)

    @cached_property
    def _levels(self) -> Tensor:
        """Middle of each level in units of the scale: float32 [code], ascending."""
        if isinstance(self.config, MuLawConfig):
            return _expand(torch.linspace(-1, 1, self.config.n_codes, dtype=torch.float64), self.config.mu).float()
        shares = (torch.arange(self.config.n_codes, dtype=torch.float64) + 0.5) / self.config.n_codes
        return _quantiles(shares, self.config).float()

    @cached_property
    def _edges(self) -> Tensor:
        """Borders between neighbouring levels: float32 [code - 1]."""
        n = self.config.n_codes
        if isinstance(self.config, MuLawConfig):
            middles = (torch.arange(1, n, dtype=torch.float64) - 0.5) * (2 / (n - 1)) - 1
            return _expand(middles, self.config.mu).float()
        return _quantiles(torch.arange(1, n, dtype=torch.float64) / n, self.config).float()


def robust_deviation(rows: Tensor) -> Tensor:
    """Inter-quartile range over that of the standard normal distribution: float32 [...] of [..., time]."""
    ordered = rows.sort(dim=-1).values
    low, high = (_interpolated(ordered, q) for q in (LOWER, UPPER))
    return (high - low) / NORMAL_IQR


def _interpolated(ordered: Tensor, q: float) -> Tensor:
    position = q * (ordered.shape[-1] - 1)
    below = int(position)
    low, high = ordered[..., below], ordered[..., min(below + 1, ordered.shape[-1] - 1)]
    return low + (high - low) * (position - below)


def _expand(y: Tensor, mu: float) -> Tensor:
    """Inverse of mu-law companding: [-1, 1] to [-1, 1]."""
    return y.sign() * torch.expm1(y.abs() * math.log1p(mu)) / mu


def _quantiles(shares: Tensor, config: QuantileConfig) -> Tensor:
    """Quantiles of the reference distribution in robust standard deviations."""
    if config.reference == "normal":
        return math.sqrt(2) * torch.erfinv(2 * shares - 1)
    tails = 2 * torch.minimum(shares, 1 - shares)
    return (shares - 0.5).sign() * -tails.log() / LAPLACE_RATE
