"""How often each code occurs in a recording: from the table its group keeps, or counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuromill.store.contents import IndexedRecording
    from neuromill.store.reader import StoreReader

LARGEST_TABLE = 0.01
"""Share of the bytes of the codes that a table may have and be kept.

One hour of 19 channels, coded once a second with two codebooks of 4096, has 274 kB of codes and a table of 66 kB: the
codes are counted. One hour of 306 channels with six levels of 256 has 27 MB of codes and a table of 12 kB: it is kept.
"""
BLOCK_CODES = 2**22


def is_worth_keeping(table_bytes: int, codes_bytes: int) -> bool:
    """Whether a group keeps the table, or its readers count."""
    return table_bytes <= LARGEST_TABLE * codes_bytes


def codebook_usage(reader: StoreReader, recording: str) -> NDArray[np.int64]:
    """How often each code occurs in the channels that are not bad, where they had a signal.

    Returns
    -------
    NDArray
        int64 [quantizer, code].
    """
    one = reader.recording(recording)
    if "codebook_usage" in one.arrays:
        return np.asarray(reader.read(recording, "codebook_usage"), np.int64)
    counted, segments = _counted(reader, one), reader.read(recording, "segment_n_frames")
    coded = np.repeat(counted, segments, axis=0)
    n_quantizers, size = int(one.attributes["n_quantizers"]), int(one.attributes["codebook_size"])
    usage = np.zeros((n_quantizers, size), np.int64)
    step = max(1, BLOCK_CODES // (n_quantizers * one.n_channels))
    for start in range(0, one.n_rows, step):
        stop = min(start + step, one.n_rows)
        codes = reader.read(recording, "codes", start, stop)
        for level in range(n_quantizers):
            usage[level] += np.bincount(codes[:, level][coded[start:stop]], minlength=size)
    return usage


def _counted(reader: StoreReader, one: IndexedRecording) -> NDArray[np.bool_]:
    """Bool [segment, channel]."""
    bads = one.attributes["bads"]
    good = np.array([name not in bads for name in one.attributes["channel_names"]])
    return np.asarray(np.isfinite(reader.read(one.name, "scale")) & good, np.bool_)
