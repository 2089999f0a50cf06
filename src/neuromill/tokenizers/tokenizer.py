"""The RVQ tokenizer: normalisation and codec together, frozen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from neuromill.records import canonical_json
from neuromill.tokenizers.normalization import normalize_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from neuromill.tokenizers.biocodec import BioCodec
    from neuromill.tokenizers.config import TokenizerConfig
    from neuromill.tokenizers.protocol import Encoded

CODE_VERSION = "1"
"""Raised whenever the same weights and signal would give other codes."""


@dataclass(frozen=True, eq=False)
class RvqTokenizer:
    """A fitted BioCodec with its normalisation; implements ``Tokenizer``.

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

    def encode(self, signal: Tensor) -> Encoded:
        """Normalise and encode float32 [row, time] in physical units."""
        return self.codec.encode(self.normalize(signal))

    def decode(self, encoded: Encoded, n_times: int) -> Tensor:
        """Return float32 [row, n_times] in the normalised domain."""
        return self.codec.decode(encoded.codes, encoded.scale, n_times)

    def normalize(self, signal: Tensor) -> Tensor:
        """Return what the codec sees (before its RMS step): float32 [row, time]."""
        return normalize_blocks(signal.to(self.device), self.config.normalization)


def tokenizer_digest(config: TokenizerConfig, state: Mapping[str, Tensor]) -> str:
    """SHA-256 hex of code version, whole configuration, and every tensor's name, dtype, shape and bytes."""
    hasher = hashlib.sha256(canonical_json({"code": CODE_VERSION, "config": config.model_dump(mode="json")}))
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        hasher.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]))
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()
