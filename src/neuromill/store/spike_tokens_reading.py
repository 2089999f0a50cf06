"""Read runs of chunks of spike tokens: the offsets, then one range of bytes per array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.records import SpikeTokens
from neuromill.store.spike_writer import CONTENT_ARRAYS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuromill.store.reader import StoreReader

EMPTY: dict[str, tuple[tuple[int, ...], str]] = {
    "patches": ((0, 32), "uint8"),
    "covariates": ((0,), "float32"),
    "covariate_valid": ((0,), "bool"),
    "constraints": ((0, 3), "float16"),
    "returns": ((0, 2), "uint8"),
}


def read_chunks(reader: StoreReader, recording: str, first: int, stop: int) -> SpikeTokens:
    """Read the chunks ``first`` to ``stop`` of a recording with at most twelve reads, however many there are.

    Returns
    -------
    SpikeTokens
        Offsets count from the first token that was read; ``chunk_start_bins`` are those of the recording.

    Raises
    ------
    IndexError
        If the chunks are not all in the recording.
    """
    tokens = reader.read(recording, "chunk_tokens", first, stop + 1)
    contents = reader.read(recording, "chunk_contents", first, stop + 1)
    a, b = int(tokens[0]), int(tokens[-1])
    found: dict[str, Any] = {name: reader.read(recording, name, a, b) for name in ("slots", "bins", "kinds")}
    for name, kind in CONTENT_ARRAYS.items():
        found[name] = _contents(reader, recording, name, contents[:, kind])
    return SpikeTokens(
        **found,
        chunk_tokens=tokens - tokens[0],
        chunk_contents=contents - contents[0],
        chunk_start_bins=reader.read(recording, "chunk_start_bins", first, stop),
        chunk_n_bins=reader.read(recording, "chunk_n_bins", first, stop),
    )


def read_tokens(reader: StoreReader, recording: str) -> SpikeTokens:
    """Read all chunks of a recording."""
    n_chunks = reader.recording(recording).arrays["chunk_start_bins"].shape[0]
    return read_chunks(reader, recording, 0, n_chunks)


def _contents(reader: StoreReader, recording: str, name: str, offsets: NDArray[np.int64]) -> NDArray[Any]:
    a, b = int(offsets[0]), int(offsets[-1])
    if a == b:  # also where the recording has none and hence no such array
        return np.empty(*EMPTY[name])
    return reader.read(recording, name, a, b)
