"""The channel table: what the columns of a signal are and where the sensors sit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from neuromill.records.failures import FailureCode, RecordingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ChannelTable:
    """Channels of a recording, in file order. All columns have the length of ``names``.

    Attributes
    ----------
    names
        Channel names, unique.
    types
        MNE's channel types: ``mag, grad, ref_meg, eeg, eog, ecg, emg, stim, misc, seeg, ecog, dbs``.
    coils
        Name of the coil definition without its FIFF prefix (``VV_PLANAR_T1``), "" for channels without coil.
    units
        Unit of the values: ``T``, ``T/m``, ``V``, "" for none.
    positions
        [channel, 3] float64, metres, device frame; NaN where unknown (never zeros for "unknown").
    orientations
        [channel, 3] float64 unit vectors: x axis of planar gradiometers, coil normal otherwise; NaN where unknown.
    bads
        Reason why a channel is bad ("marked", "flat", "non_finite", ...), "" for a good one.
    """

    names: tuple[str, ...]
    types: tuple[str, ...]
    coils: tuple[str, ...]
    units: tuple[str, ...]
    positions: NDArray[np.float64]
    orientations: NDArray[np.float64]
    bads: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.names)
        lengths = {len(self.types), len(self.coils), len(self.units), len(self.bads)}
        if lengths != {n} or self.positions.shape != (n, 3) or self.orientations.shape != (n, 3):
            raise ValueError("columns of a channel table differ in length")

    def __len__(self) -> int:
        return len(self.names)

    def require_unique_names(self, where: str = "") -> Self:
        """Return self, or raise ``duplicate_channels``."""
        twice = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if twice:
            raise RecordingError(
                FailureCode.DUPLICATE_CHANNELS,
                f"channel names occur more than once: {', '.join(twice[:5])}",
                where=where,
                next_step="rename the channels in the source; which is which cannot be guessed",
            )
        return self

    def pick(self, indices: Sequence[int]) -> ChannelTable:
        """Rows ``indices``, in that order."""
        rows = list(indices)
        return ChannelTable(
            names=tuple(self.names[i] for i in rows),
            types=tuple(self.types[i] for i in rows),
            coils=tuple(self.coils[i] for i in rows),
            units=tuple(self.units[i] for i in rows),
            positions=self.positions[rows],
            orientations=self.orientations[rows],
            bads=tuple(self.bads[i] for i in rows),
        )

    def with_bads(self, reasons: Mapping[int, str]) -> ChannelTable:
        """Return a copy in which the channels at these indices are bad for the reason given; earlier reasons stay."""
        bads = tuple(bad or reasons.get(i, "") for i, bad in enumerate(self.bads))
        return ChannelTable(self.names, self.types, self.coils, self.units, self.positions, self.orientations, bads)
