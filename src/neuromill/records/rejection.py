"""Windows of channels that preparation found unfit for use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neuromill.records.channels import ChannelTable

KEPT = 0
"""The reason of a window that nothing is wrong with."""


@dataclass(frozen=True, slots=True, eq=False)
class Rejection:
    """Which windows of which channels are not fit for use, and why; the signal itself is whole.

    Attributes
    ----------
    reasons
        uint8 [window, channel], numbers of ``legend``; 0 is kept.
    window_samples
        Output samples in a window: window k is samples k * window_samples to (k + 1) * window_samples, the last may
        be shorter.
    legend
        Name of each number.
    """

    reasons: NDArray[np.uint8]
    window_samples: int
    legend: tuple[str, ...]

    def statistics(self, channels: ChannelTable) -> dict[str, Any]:
        """Count for the index and for people, as JSON values.

        ``windows_kept_whole`` counts windows in which every channel is kept: what remains under the published rule,
        by which one channel takes its whole window away.
        """
        rejected = self.reasons != KEPT
        share = rejected.mean(axis=0) if len(rejected) else np.zeros(len(channels))
        return {
            "n_windows": len(self.reasons),
            "n_channels": len(channels),
            "window_samples": self.window_samples,
            "by_reason": {
                name: int(np.count_nonzero(self.reasons == number))
                for number, name in enumerate(self.legend)
                if number != KEPT
            },
            "share_rejected": float(rejected.mean()) if rejected.size else 0.0,
            "windows_kept_whole": int(np.count_nonzero(~rejected.any(axis=1))),
            "windows_lost_whole": int(np.count_nonzero(rejected.all(axis=1))),
            "share_by_channel": {name: float(part) for name, part in zip(channels.names, share, strict=True)},
        }
