"""Row tokenizers on segments: forward passes of one fixed shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from neuromill.tokenizers.protocol import CodeBlock, Encoded, as_codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuromill.records import ChannelTable
    from neuromill.tokenizers.protocol import Read, RowTokenizer


class ByRows:
    """What ``Tokenizer`` asks of a ``RowTokenizer``: its channels do not see each other, and any length will do."""

    @property
    def window_samples(self) -> int | None:
        """None: any length."""
        return None

    @property
    def is_joint(self) -> bool:
        """No."""
        return False

    def require(self, channels: ChannelTable, n_times: int, read: Read) -> None:
        """Any channels will do."""

    def encode_segments(
        self,
        signal: NDArray[np.float32],
        channels: ChannelTable | None,  # noqa: ARG002
        rows_per_forward: int,
    ) -> CodeBlock:
        """Encode float32 [segment, channel, time], every channel of every segment for itself."""
        return encode_by_rows(cast("RowTokenizer", self), signal, rows_per_forward)

    def decode_segments(
        self,
        block: CodeBlock,
        channels: ChannelTable | None,  # noqa: ARG002
        n_times: int,
        rows_per_forward: int,
    ) -> NDArray[np.float32]:
        """Return float32 [segment, channel, n_times] in the tokenizer's own domain."""
        return decode_by_rows(cast("RowTokenizer", self), block, n_times, rows_per_forward)


def encode_rows(tokenizer: RowTokenizer, rows: torch.Tensor, rows_per_forward: int) -> Encoded:
    """Encode float32 [row, time] in forward passes of one fixed shape; row i does not depend on the others."""
    parts = []
    for start in range(0, len(rows), rows_per_forward):
        batch = rows[start : start + rows_per_forward]
        filled = torch.zeros(rows_per_forward, rows.shape[1])
        filled[: len(batch)] = batch
        encoded = tokenizer.encode(filled)
        parts.append((encoded.codes[: len(batch)], encoded.scale[: len(batch)]))
    codes, scales = zip(*parts, strict=True)
    return Encoded(torch.cat(codes), torch.cat(scales))


def encode_by_rows(tokenizer: RowTokenizer, signal: NDArray[np.float32], rows_per_forward: int) -> CodeBlock:
    """Encode float32 [segment, channel, time], every channel of every segment for itself."""
    segments, channels, n_times = signal.shape
    rows = torch.from_numpy(np.ascontiguousarray(signal.reshape(segments * channels, n_times)))
    encoded = encode_rows(tokenizer, rows, rows_per_forward)
    codes = encoded.codes.cpu().numpy().reshape(segments, channels, *encoded.codes.shape[1:])
    scale = encoded.scale.cpu().numpy().reshape(segments, channels)
    return CodeBlock(as_codes(codes.transpose(0, 3, 2, 1), tokenizer.codebook_size), scale)


def decode_by_rows(
    tokenizer: RowTokenizer, block: CodeBlock, n_times: int, rows_per_forward: int
) -> NDArray[np.float32]:
    """Decode [segment, frame, quantizer, channel] to float32 [segment, channel, n_times]."""
    segments, _, quantizers, channels = block.codes.shape
    rows = block.codes.transpose(0, 3, 2, 1).reshape(segments * channels, quantizers, -1).astype(np.int64)
    codes, scale = torch.from_numpy(rows), torch.from_numpy(block.scale.reshape(-1).copy())
    parts = [
        tokenizer.decode(Encoded(codes[i : i + rows_per_forward], scale[i : i + rows_per_forward]), n_times).cpu()
        for i in range(0, len(codes), rows_per_forward)
    ]
    return np.asarray(torch.cat(parts).numpy().reshape(segments, channels, n_times), np.float32)
