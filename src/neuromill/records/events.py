"""Events and annotations on the clock of the recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Onsets [n] and durations [n], float64 seconds since the first sample, with descriptions; sorted by onset."""

    onsets: NDArray[np.float64]
    durations: NDArray[np.float64]
    descriptions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.descriptions)
