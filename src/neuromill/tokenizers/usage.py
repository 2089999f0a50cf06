"""How a tokenizer's codebooks are used: counts, perplexity, dominance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from neuromill.records import Digest

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """``counts`` int64 [quantizer, code]: how often each code occurred on each level. Usages add up."""

    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, n_quantizers: int, codebook_size: int) -> Self:
        """Nothing seen yet."""
        return cls(np.zeros((n_quantizers, codebook_size), np.int64))

    @classmethod
    def of(cls, codes: NDArray[np.integer[Any]], codebook_size: int) -> Self:
        """Count codes, integers [row, quantizer, frame] below ``codebook_size``."""
        levels = np.moveaxis(np.asarray(codes), 1, 0).reshape(codes.shape[1], -1)
        return cls(np.stack([np.bincount(level, minlength=codebook_size) for level in levels]).astype(np.int64))

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.counts + other.counts)

    @property
    def n_frames(self) -> int:
        """Codes per level."""
        return int(self.counts[0].sum())

    @property
    def shares(self) -> NDArray[np.float64]:
        """float64 [quantizer, code]; each level sums to one (to zero when nothing was seen)."""
        return np.asarray(self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1), dtype=np.float64)

    @property
    def perplexity(self) -> NDArray[np.float64]:
        """float64 [quantizer]: two to the entropy in bits; between 1 (one code) and the codebook size (all alike)."""
        shares = self.shares
        bits = -np.sum(shares * np.log2(np.where(shares > 0, shares, 1.0)), axis=1)
        return np.asarray(2.0**bits, dtype=np.float64)

    @property
    def used_share(self) -> NDArray[np.float64]:
        """float64 [quantizer]: share of rows that occurred."""
        return np.asarray((self.counts > 0).mean(axis=1), dtype=np.float64)

    @property
    def used_codes(self) -> NDArray[np.int64]:
        """int64 [quantizer]: how many rows occurred."""
        return np.asarray((self.counts > 0).sum(axis=1), dtype=np.int64)

    @property
    def dominant_share(self) -> NDArray[np.float64]:
        """float64 [quantizer]: share of the commonest code."""
        return np.asarray(self.shares.max(axis=1), dtype=np.float64)

    def summary(self) -> dict[str, Any]:
        """JSON values: codes per level, then one list entry per level."""
        return {
            "n_frames": self.n_frames,
            "perplexity": [round(float(v), 3) for v in self.perplexity],
            "used_share": [round(float(v), 4) for v in self.used_share],
            "dominant_share": [round(float(v), 4) for v in self.dominant_share],
        }


class Sequences:
    """Counts the different code sequences of rows, level by level: a tokenizer may use many codes always alike."""

    def __init__(self, n_quantizers: int) -> None:
        self._seen: list[set[str]] = [set() for _ in range(n_quantizers)]

    def add(self, codes: NDArray[np.integer[Any]]) -> None:
        """Take codes, integers [row, quantizer, frame]."""
        for level, seen in enumerate(self._seen):
            seen.update(Digest.of(np.ascontiguousarray(row).tobytes()).hex for row in codes[:, level])

    @property
    def distinct(self) -> tuple[int, ...]:
        """Different sequences per level."""
        return tuple(len(seen) for seen in self._seen)
