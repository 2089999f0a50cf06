"""What every tokenizer offers, whatever it is inside. Light: torch is imported for type checking only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from neuromill.tokenizers.config import TokenizerConfig


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Codes of some rows.

    Attributes
    ----------
    codes
        uint8 [row, quantizer, frame].
    scale
        float32 [row]: what the decoded row is multiplied with.
    """

    codes: Tensor
    scale: Tensor


@runtime_checkable
class Tokenizer(Protocol):
    """Frozen: no method changes it. Rows are channels of one segment each; they never see each other."""

    @property
    def config(self) -> TokenizerConfig:
        """Everything but the weights."""

    @property
    def digest(self) -> str:
        """SHA-256 of configuration and weights, hex."""

    @property
    def sfreq(self) -> float:
        """Rate in Hz of the rows it takes."""

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""

    @property
    def n_quantizers(self) -> int:
        """Codes per frame."""

    @property
    def codebook_size(self) -> int:
        """Codes are below this."""

    def encode(self, signal: Tensor) -> Encoded:
        """Normalise and encode float32 [row, time] in physical units; rows with non-finite samples become silence."""

    def decode(self, encoded: Encoded, n_times: int) -> Tensor:
        """Return float32 [row, n_times] in the normalised domain (block scales are not kept)."""
