"""Spans of samples, and the plans that cut long things into them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, order=True)
class TimeSpan:
    """Samples ``start`` to ``stop`` (exclusive) of one recording."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a span: {self.start}..{self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start


def cut(n_samples: int, length: int) -> Iterator[TimeSpan]:
    """Cut ``n_samples`` into consecutive spans of ``length``; the last one may be shorter, none is dropped."""
    for start in range(0, n_samples, length):
        yield TimeSpan(start, min(start + length, n_samples))


@dataclass(frozen=True, slots=True)
class PartId:
    """Part ``index`` (1-based) of ``count``: how ``--part i/N`` shares work without a queue."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"part {self.index}/{self.count} does not exist")

    def owns(self, position: int) -> bool:
        """Whether the item at ``position`` of the sorted work list belongs to this part."""
        return position % self.count == self.index - 1
