"""Per-channel scaling: physical = stored * scale + offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.store.layout import INT16_FILL, INT16_STEP, SignalEncoding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neuromill.store.spool import Spool

NON_FINITE, FLAT = "non_finite", "flat"
UNUSABLE = frozenset({NON_FINITE, FLAT})
INT16_LIMIT = 2**15 - 1
FILLS: Mapping[str, float | str] = {"float16": "NaN", "float32": "NaN", "int16": INT16_FILL}


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Per channel: mean, root mean square around it (both float64), and why it is unusable, by index."""

    mean: NDArray[np.float64]
    rms: NDArray[np.float64]
    reasons: Mapping[int, str]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Bool [channel]: whether the values are finite and vary."""
        return np.array([i not in self.reasons for i in range(len(self.mean))])


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """float32 scale and offset per channel; both NaN for channels whose physical values are to read as NaN."""

    encoding: SignalEncoding
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]

    def n_clipped(self, spool: Spool) -> int:
        """Count values that int16 cannot hold (beyond 32.767 standard deviations); 0 for the floats."""
        if self.encoding != "int16":
            return 0
        return sum(int(np.nansum(np.abs(self.steps(block)) > INT16_LIMIT)) for block in spool.blocks())

    def steps(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (value - offset) / scale of a block, float32 [time, channel]; NaN for unusable channels."""
        with np.errstate(invalid="ignore"):
            return np.asarray((block - self.offset) / self.scale, np.float32)


def measure(spool: Spool) -> Statistics:
    """Two passes in float64 over the spooled values [time, channel].

    The mean first, then the deviations from it: one pass of sums of squares loses all digits of a small signal on a
    large offset.
    """
    with np.errstate(invalid="ignore"):
        mean = sum(block.sum(axis=0, dtype=np.float64) for block in spool.blocks()) / spool.n_rows
        squares = sum(((block - mean) ** 2).sum(axis=0) for block in spool.blocks())
        low = np.min([block.min(axis=0) for block in spool.blocks()], axis=0)
        high = np.max([block.max(axis=0) for block in spool.blocks()], axis=0)
    rms = np.sqrt(np.asarray(squares) / spool.n_rows)
    finite = np.isfinite(low) & np.isfinite(high) & np.isfinite(rms)
    flat = finite & ((low == high) | (rms * INT16_STEP < np.finfo(np.float32).tiny))
    reasons = {i: FLAT if flat[i] else NON_FINITE for i in np.flatnonzero(flat | ~finite).tolist()}
    return Statistics(np.asarray(mean), rms, reasons)


def scaling_of(statistics: Statistics, usable: NDArray[np.bool_], encoding: SignalEncoding) -> Scaling:
    """Scale and offset of each channel, NaN where ``usable``, bool [channel], is False; float32 keeps the values."""
    step = {"float16": 1.0, "int16": INT16_STEP}.get(encoding)
    scale = np.ones_like(statistics.rms) if step is None else statistics.rms * step
    offset = np.zeros_like(scale) if step is None else statistics.mean
    return Scaling(
        encoding,
        np.where(usable, scale, np.nan).astype(np.float32),
        np.where(usable, offset, np.nan).astype(np.float32),
    )


def encode_block(block: NDArray[np.float32], scaling: Scaling) -> NDArray[Any]:
    """Return a block, float32 [time, channel], as it is stored; unusable channels hold the fill value.

    The dtype is that of the encoding: float16, float32 or int16.
    """
    steps = scaling.steps(block)
    if scaling.encoding != "int16":
        return steps.astype(scaling.encoding)
    rounded = np.clip(np.rint(steps), -INT16_LIMIT, INT16_LIMIT)
    return np.where(np.isnan(rounded), INT16_FILL, rounded).astype(np.int16)
