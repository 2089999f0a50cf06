"""Bad channels, found while the signal streams by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import FailureCode, RecordingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neuromill.records import ChannelTable
    from neuromill.records.rejection import Rejection

# A channel whose values spread over less than this part of their size is flat: one step of a 24-bit converter
# that uses its whole range is 6e-8 of it.
FLAT_SPREAD = 1e-8
# In SI units; beyond it a value is no measurement, and filtering it could leave float32's range (3e38).
LARGEST = 1e30
NON_FINITE = "non_finite"
FLAT = "flat"


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What a run of a chain found.

    Attributes
    ----------
    bads
        Index of an output channel -> ``non_finite`` or ``flat``; give it to ``ChannelTable.with_bads``.
    n_times
        Output samples made.
    n_non_finite
        Index of an output channel -> how many of its samples were NaN, infinite or beyond ``LARGEST`` (zeros were
        filtered instead).
    rejection
        Windows of channels that a ``reject`` step marked; None without one.
    typical_volts
        Amplitude that an ``expect_amplitude`` step measured; None without one.
    """

    bads: Mapping[int, str]
    n_times: int
    n_non_finite: Mapping[int, int]
    rejection: Rejection | None = None
    typical_volts: float | None = None


class QualityWatch:
    """Looks at every sample of the picked channels once and keeps their extremes."""

    def __init__(self, n_channels: int) -> None:
        self._seen = 0
        self._non_finite = np.zeros(n_channels, dtype=np.int64)
        self._low = np.full(n_channels, np.inf)
        self._high = np.full(n_channels, -np.inf)

    def clean(self, block: NDArray[np.float64], start: int) -> NDArray[np.float64]:
        """Return ``block``, float64 [channel, time], with zeros for NaN, infinity and what is beyond ``LARGEST``.

        ``start`` is the number of its first sample in the recording: only samples that are new since the last call are
        noted.
        """
        finite = np.abs(block) <= LARGEST
        if not finite.all():
            block = np.where(finite, block, 0.0)
        stop = start + block.shape[1]
        if start <= self._seen < stop:
            new = slice(self._seen - start, None)
            self._non_finite += np.count_nonzero(~finite[:, new], axis=1)
            np.minimum(self._low, block[:, new].min(axis=1), out=self._low)
            np.maximum(self._high, block[:, new].max(axis=1), out=self._high)
            self._seen = stop
        return block

    def found(self) -> dict[int, str]:
        """Bad channels so far: index -> ``non_finite`` or ``flat``."""
        size = np.maximum(np.abs(self._low), np.abs(self._high))
        flat = self._high - self._low <= FLAT_SPREAD * size
        bads = {int(i): FLAT for i in np.flatnonzero(flat)}
        return bads | {int(i): NON_FINITE for i in np.flatnonzero(self._non_finite)}

    def report(
        self, channels: ChannelTable, n_times: int, where: str = "", known: Mapping[int, str] | None = None
    ) -> ChainReport:
        """Say which output channels are bad; ``known`` is what was found in what they are made of.

        Raises
        ------
        RecordingError
            ``no_usable_channels``: none is left that is neither found bad here nor marked before.
        """
        bads = dict(known or {}) | self.found()
        counts = {int(i): int(self._non_finite[i]) for i in np.flatnonzero(self._non_finite)}
        require_good(channels.with_bads(bads), where)
        return ChainReport(bads, n_times, counts)


def require_good(channels: ChannelTable, where: str = "") -> None:
    """Raise ``no_usable_channels`` where every channel is bad, with the reasons and how often each occurs."""
    if any(not bad for bad in channels.bads):
        return
    reasons = ", ".join(f"{channels.bads.count(bad)} {bad}" for bad in sorted(set(channels.bads)))
    raise RecordingError(
        FailureCode.NO_USABLE_CHANNELS,
        f"no good channel is left ({reasons or 'none was picked'})",
        where=where,
        next_step="check the recording, or the picks of the pipeline",
    )
