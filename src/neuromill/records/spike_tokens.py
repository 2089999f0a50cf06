"""Tokens of spikes and behaviour in the order a model reads them: what the tokenizer makes and the store keeps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TokenKind(IntEnum):
    """What a token is; the numbers are those of the published task order (NDT3 spec 5.4)."""

    SPIKE = 0
    COVARIATE = 1
    CONSTRAINT = 2
    RETURN = 3


@dataclass(frozen=True, slots=True, eq=False)
class SpikeTokens:
    """Tokens of consecutive chunks of one recording, flat, each chunk sorted by (bin, slot).

    The content of a token lies in the array of its kind, in the same order.

    Attributes
    ----------
    slots, bins, kinds
        uint8, uint16, uint8 [token]: row of the slot table, bin within the chunk, ``TokenKind``.
    patches
        uint8 [spike token, 32] counts; padded channels are 0.
    covariates, covariate_valid
        float32 and bool [covariate token]: value divided by the scale of its dimension and clipped to [-1, 1], and
        whether it counts in the loss. Where it does not, the value is 0.
    constraints
        float16 [constraint token, 3].
    returns
        uint8 [return token, 2]: return-to-go and reward, both shifted by one; 0 is the dummy.
    chunk_tokens
        int64 [chunk + 1]: chunk c has the tokens ``chunk_tokens[c]:chunk_tokens[c + 1]``.
    chunk_contents
        int64 [chunk + 1, 4]: the same offsets into the content arrays, one column per ``TokenKind``.
    chunk_start_bins, chunk_n_bins
        int64 and uint16 [chunk]: first bin in the recording, and number of bins.
    """

    slots: NDArray[np.uint8]
    bins: NDArray[np.uint16]
    kinds: NDArray[np.uint8]
    patches: NDArray[np.uint8]
    covariates: NDArray[np.float32]
    covariate_valid: NDArray[np.bool_]
    constraints: NDArray[np.float16]
    returns: NDArray[np.uint8]
    chunk_tokens: NDArray[np.int64]
    chunk_contents: NDArray[np.int64]
    chunk_start_bins: NDArray[np.int64]
    chunk_n_bins: NDArray[np.uint16]

    @property
    def n_chunks(self) -> int:
        """Number of chunks."""
        return len(self.chunk_start_bins)
