"""Which windows make up which batch of which epoch and rank. Pure.

Batch k of rank r is a function of (seed, epoch, r, k) and of the windows: it does not depend on what was drawn
before, so a run continues in mid epoch by starting to count at k.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.training.task import Drawing
    from neuromill.training.windows import BatchShape


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Indices of windows, and the shape they are padded to."""

    windows: tuple[int, ...]
    shape: BatchShape


@dataclass(frozen=True, slots=True)
class Sampling:
    """How windows are drawn.

    Attributes
    ----------
    shapes
        Shape of the batch each window may be part of.
    seed
        Of the order of windows and batches.
    shuffle
        False for validation: the order of the windows, every window exactly once over all ranks.
    """

    shapes: Sequence[BatchShape]
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True

    @classmethod
    def of(cls, shapes: Sequence[BatchShape], drawing: Drawing) -> Self:
        """Draw windows of these shapes."""
        return cls(shapes, drawing.batch_size, drawing.seed, drawing.rank, drawing.world_size, shuffle=drawing.shuffle)

    def epoch(self, epoch: int) -> tuple[BatchPlan, ...]:
        """Batches of this rank in one epoch.

        In training every rank gets the same number: where the batches cannot be shared out evenly, the first
        ones of the epoch's random order are drawn once more at its end.
        """
        batches = self._all_batches(epoch)
        if self.shuffle:
            batches = list(islice(cycle(batches), self.n_batches() * self.world_size))
        return tuple(batches[self.rank :: self.world_size])

    def n_batches(self) -> int:
        """Batches per epoch and rank, the same in all training epochs."""
        sizes = [-(-len(members) // self.batch_size) for members in self._groups().values()]
        return -(-sum(sizes) // self.world_size)

    def _groups(self) -> dict[BatchShape, list[int]]:
        groups: dict[BatchShape, list[int]] = defaultdict(list)
        for index, shape in enumerate(self.shapes):
            groups[shape].append(index)
        return dict(sorted(groups.items()))

    def _all_batches(self, epoch: int) -> list[BatchPlan]:
        rng = np.random.default_rng([self.seed, epoch])
        batches = []
        for shape, members in self._groups().items():
            order = rng.permutation(members).tolist() if self.shuffle else members
            cuts = range(0, len(order), self.batch_size)
            batches += [BatchPlan(tuple(order[cut : cut + self.batch_size]), shape) for cut in cuts]
        if self.shuffle:
            return [batches[i] for i in rng.permutation(len(batches))]
        return batches
