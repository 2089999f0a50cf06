"""Blocks of signal on their way: the recording continued beyond its edges, and a buffer that slides over it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Read = Callable[[int, int], NDArray[np.float64]]


def extended(read: Read, n_times: int, start: int, stop: int, length: int) -> Iterator[NDArray[np.float64]]:
    """Pieces float64 [channel, time <= length] of the samples ``start`` to ``stop``, beyond the recording too.

    Beyond its edges a recording goes on as MNE's ``reflect_limited`` padding has it: turned about its first (last)
    sample, and zeros where there is nothing left to turn.
    """
    last = n_times - 1
    for low, high, kind in (
        (start, -last, "zeros"),
        (-last, 0, "left"),
        (0, n_times, "inside"),
        (n_times, n_times + last, "right"),
        (n_times + last, stop, "zeros"),
    ):
        for begin in range(max(low, start), min(high, stop), length):
            end = min(begin + length, high, stop)
            yield _piece(read, last, kind, begin, end)


def _piece(read: Read, last: int, kind: str, begin: int, end: int) -> NDArray[np.float64]:
    if kind == "inside":
        return read(begin, end)
    if kind == "left":
        return 2 * read(0, 1) - read(1 - end, 1 - begin)[:, ::-1]
    if kind == "right":
        return 2 * read(last, last + 1) - read(2 * last - end + 1, 2 * last - begin + 1)[:, ::-1]
    return np.zeros((len(read(0, 1)), end - begin))


class SlidingBuffer:
    """Hands out overlapping spans of a stream of pieces, in ascending order, and forgets what lies behind."""

    def __init__(self, pieces: Iterator[NDArray[np.float64]], start: int) -> None:
        self._pieces = pieces
        self._held: deque[NDArray[np.float64]] = deque()
        self._start = self._stop = start

    def take(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return samples ``start`` to ``stop``, float64 [channel, time]; later calls ask for no smaller ``start``."""
        while self._held and self._start + self._held[0].shape[1] <= start:
            self._start += self._held.popleft().shape[1]
        while self._stop < stop:
            piece = next(self._pieces)
            self._stop += piece.shape[1]
            if self._stop <= start and not self._held:
                self._start = self._stop
            else:
                self._held.append(piece)
        return np.concatenate(list(self._parts(start, stop)), axis=1)

    def _parts(self, start: int, stop: int) -> Iterator[NDArray[np.float64]]:
        begin = self._start
        for piece in self._held:
            if begin >= stop:
                return
            yield piece[:, max(start - begin, 0) : stop - begin]
            begin += piece.shape[1]
