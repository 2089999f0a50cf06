"""The RVQ tokenizer: normalisation and codec together, frozen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from neuromill.hub.mixin import HubMixin
from neuromill.records import canonical_json
from neuromill.tokenizers.normalization import normalize_blocks
from neuromill.tokenizers.protocol import RoundTrip
from neuromill.tokenizers.rows import ByRows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from neuromill.records import Config
    from neuromill.tokenizers.biocodec import BioCodec
    from neuromill.tokenizers.config import TokenizerConfig
    from neuromill.tokenizers.protocol import Encoded

CODE_VERSION = "1"
"""Raised whenever the same weights and signal would give other codes."""


@dataclass(frozen=True, eq=False)
class RvqTokenizer(HubMixin, ByRows, files="neuromill.tokenizers.sharing"):
    """A fitted BioCodec with its normalisation; implements ``RowTokenizer``.

    The codec must not be trained further behind its back: the digest is computed once.
    """

    config: TokenizerConfig
    codec: BioCodec = field(repr=False)

    def __post_init__(self) -> None:
        self.codec.eval().requires_grad_(requires_grad=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over code version, configuration and weights."""
        return tokenizer_digest(self.config, self.codec.state_dict())

    @property
    def sfreq(self) -> float:
        """Rate in Hz of the rows it takes."""
        return self.config.normalization.sfreq

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""
        return self.config.network.hop_samples

    @property
    def n_quantizers(self) -> int:
        """Codes per frame."""
        return self.config.network.n_quantizers

    @property
    def codebook_size(self) -> int:
        """Codes are below this."""
        return self.config.network.codebook_size

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.codec.parameters()).device

    @property
    def n_parameters(self) -> int:
        """Learned numbers, codebooks aside."""
        return sum(p.numel() for p in self.codec.parameters())

    def state(self) -> Mapping[str, Tensor]:
        """Weights and codebooks by published name."""
        return self.codec.state_dict()

    def round_trip(self, windows: Tensor) -> RoundTrip:
        """Encode and decode float32 [row, time]; the target is the normalised row."""
        target = self.normalize(windows)
        encoded = self.codec.encode(target)
        output = self.decode(encoded, windows.shape[-1])
        alive = target.std(dim=-1, unbiased=False) > 0
        return RoundTrip(target[alive], output[alive], encoded.codes[alive])

    def encode(self, signal: Tensor) -> Encoded:
        """Normalise and encode float32 [row, time] in physical units."""
        return self.codec.encode(self.normalize(signal))

    def decode(self, encoded: Encoded, n_times: int) -> Tensor:
        """Return float32 [row, n_times] in the normalised domain."""
        return self.codec.decode(encoded.codes, encoded.scale, n_times)

    def normalize(self, signal: Tensor) -> Tensor:
        """Return what the codec sees (before its RMS step): float32 [row, time]."""
        return normalize_blocks(signal.to(self.device), self.config.normalization)


def tokenizer_digest(config: Config, state: Mapping[str, Tensor], code_version: str = CODE_VERSION) -> str:
    """SHA-256 hex of code version, whole configuration, and every tensor's name, dtype, shape and bytes."""
    hasher = hashlib.sha256(canonical_json({"code": code_version, "config": config.model_dump(mode="json")}))
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        hasher.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]))
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()
