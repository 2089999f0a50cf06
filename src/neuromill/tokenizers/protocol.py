"""What every tokenizer offers, whatever it is inside. Light: torch is imported for type checking only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from neuromill.records import ChannelTable
    from neuromill.tokenizers.config import TokenizerConfig
    from neuromill.tokenizers.fixed_config import FixedTokenizerConfig
    from neuromill.tokenizers.tfdual_config import TfDualTokenizerConfig

    AnyTokenizerConfig = TokenizerConfig | TfDualTokenizerConfig | FixedTokenizerConfig
    Codes = NDArray[np.uint8] | NDArray[np.uint16]
    Read = Callable[[int, int], NDArray[np.float32]]

MAX_UINT8_CODEBOOK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Codes of some rows.

    Attributes
    ----------
    codes
        Integers [row, quantizer, frame].
    scale
        float32 [row]: what the decoded row is multiplied with.
    """

    codes: Tensor
    scale: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class CodeBlock:
    """Codes of some segments of one length.

    Attributes
    ----------
    codes
        [segment, frame, quantizer, channel]; uint8 where the codebook has at most 256 entries, uint16 otherwise.
    scale
        float32 [segment, channel]: what the decoded channel is multiplied with; NaN where the channel has no values and
        its codes mean nothing.
    """

    codes: Codes
    scale: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RoundTrip:
    """Rows with a signal, encoded and decoded: what a tokenizer is judged by.

    Attributes
    ----------
    target
        float32 [row, time]: what the tokenizer tries to give back, in its own domain.
    output
        float32 [row, time]: what it gives back.
    codes
        Integers [row, quantizer, frame].
    """

    target: Tensor
    output: Tensor
    codes: Tensor


@runtime_checkable
class Tokenizer(Protocol):
    """Frozen: no method changes it. Segments never see each other; whether channels do is the tokenizer's affair."""

    @property
    def config(self) -> AnyTokenizerConfig:
        """Everything but the weights."""

    @property
    def digest(self) -> str:
        """SHA-256 of configuration and weights, hex."""

    @property
    def sfreq(self) -> float:
        """Rate in Hz of the signals it takes."""

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""

    @property
    def window_samples(self) -> int | None:
        """Length of the segments it must be given (the last one of a recording may be shorter); None: any."""

    @property
    def is_joint(self) -> bool:
        """Whether the codes of a channel depend on the other channels of its segment."""

    @property
    def n_quantizers(self) -> int:
        """Codes per frame."""

    @property
    def codebook_size(self) -> int:
        """Codes are below this."""

    @property
    def n_parameters(self) -> int:
        """Learned numbers, codebooks aside."""

    def state(self) -> Mapping[str, Tensor]:
        """Weights by name; empty for a tokenizer by rule."""

    def require(self, channels: ChannelTable, n_times: int, read: Read) -> None:
        """Raise RecordingError where a recording is none that this tokenizer can encode.

        ``read(start, stop)`` gives float32 [time, channel] in physical units.
        """

    def encode_segments(
        self, signal: NDArray[np.float32], channels: ChannelTable | None, rows_per_forward: int
    ) -> CodeBlock:
        """Encode float32 [segment, channel, time] in physical units.

        Parameters
        ----------
        signal
            Segments of one length. A channel with a non-finite sample in a segment counts as missing there.
        channels
            Columns of the recording; tokenizers whose channels do not see each other take None.
        rows_per_forward
            Rows (channels of segments) per forward pass: the shape of a pass is fixed, so that codes depend on
            nothing else that is encoded beside a segment.
        """

    def decode_segments(
        self, block: CodeBlock, channels: ChannelTable | None, n_times: int, rows_per_forward: int
    ) -> NDArray[np.float32]:
        """Return float32 [segment, channel, n_times] in the tokenizer's own domain (see ``RoundTrip.target``)."""

    def round_trip(self, windows: Tensor) -> RoundTrip:
        """Encode and decode held-out windows as a fit draws them: float32 [row, time] or [window, channel, time]."""


@runtime_checkable
class RowTokenizer(Tokenizer, Protocol):
    """A tokenizer whose rows are channels of one segment each, which never see each other."""

    def encode(self, signal: Tensor) -> Encoded:
        """Normalise and encode float32 [row, time] in physical units; rows with non-finite samples become silence."""

    def decode(self, encoded: Encoded, n_times: int) -> Tensor:
        """Return float32 [row, n_times] in the tokenizer's own domain."""


def as_codes(codes: NDArray[np.integer], codebook_size: int) -> Codes:
    """Return codes in the smallest type that holds the codebook, contiguous and in the same shape.

    That is uint8 up to 256 codes and uint16 above.
    """
    if codebook_size <= MAX_UINT8_CODEBOOK:
        return np.ascontiguousarray(codes, dtype=np.uint8)
    return np.ascontiguousarray(codes, dtype=np.uint16)
