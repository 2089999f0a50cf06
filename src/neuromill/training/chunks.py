"""Which chunks of spike tokens are trained on, and in which order they are read. Pure.

Chunks are read in blocks of neighbours and mixed in a buffer of blocks, never one by one at random places. Batch k of
rank r is a function of (seed, epoch, r, k) and of the chunks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from neuromill.models.ndt3_batch import smallest_budget
from neuromill.records import ConfigError
from neuromill.training.spike_source import TRAIN, VALIDATION
from neuromill.training.task import TEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neuromill.training.ndt3_config import Ndt3TrainConfig
    from neuromill.training.spike_source import SpikeTokenRecording

    Chunks = NDArray[np.int64]

RANDOM_TRAIN_SHARE = 0.8


class ChunkSplit(NamedTuple):
    """Chunks to learn from and held-out ones: int64 [chunk, 2] of recording and chunk, ascending.

    Those of ``test`` are scored once, by the finished model.
    """

    train: Chunks
    validation: Chunks
    test: Chunks


class Block(NamedTuple):
    """Neighbouring chunks ``first`` to ``stop`` of a recording, to be read at once."""

    recording: int
    first: int
    stop: int


def split_chunks(recordings: Sequence[SpikeTokenRecording], config: Ndt3TrainConfig) -> ChunkSplit:
    """Chunks of the splits that the recordings say, or (parity) a random draw over those of train and validation.

    Raises
    ------
    ConfigError
        Nothing is left to learn from.
    """
    parts = (TRAIN, VALIDATION, TEST)
    train, validation, test = (_listed([one.chunks_of(part) for one in recordings]) for part in parts)
    if config.split == "random_chunks":
        train, validation = _drawn(np.concatenate((train, validation)), config.seed)
    if not len(train):
        raise ConfigError(
            "no chunk lies wholly within the train split",
            next_step="give the training blocks or sessions more time in the card's `splits`",
        )
    return ChunkSplit(train, validation, test)


def check_budget(recordings: Sequence[SpikeTokenRecording], token_budget: int) -> None:
    """Refuse a budget of tokens that does not hold one bin of every recording.

    Raises
    ------
    ConfigError
        Names the smallest budget.
    """
    smallest = max(smallest_budget(len(one.patch_channels), len(one.covariates)) for one in recordings)
    if token_budget < smallest:
        raise ConfigError(
            f"a bin of these recordings may have {smallest} tokens, token_budget is {token_budget}",
            where="train.token_budget",
            next_step=f"set train.token_budget to {smallest} or more",
        )


def _listed(chunks: Sequence[Chunks]) -> Chunks:
    numbers = np.repeat(np.arange(len(chunks)), [len(one) for one in chunks])
    return np.stack((numbers, np.concatenate(chunks) if chunks else numbers), axis=1)


def _drawn(chunks: Chunks, seed: int) -> tuple[Chunks, Chunks]:
    chunks = np.unique(chunks, axis=0)
    is_train = np.zeros(len(chunks), np.bool_)
    is_train[
        np.random.default_rng([seed, 0x73706C69]).permutation(len(chunks))[: round(RANDOM_TRAIN_SHARE * len(chunks))]
    ] = True
    return chunks[is_train], chunks[~is_train]


@dataclass(frozen=True, eq=False)
class ChunkSampling:
    """How chunks are drawn.

    Attributes
    ----------
    chunks
        int64 [chunk, 2], ascending.
    block_chunks, buffer_blocks
        Chunks per block, and blocks that are mixed.
    shuffle
        False for validation: the order of the chunks, every chunk exactly once over all ranks.
    """

    chunks: Chunks
    batch_size: int
    seed: int
    block_chunks: int = 64
    buffer_blocks: int = 64
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True

    @cached_property
    def block_of(self) -> NDArray[np.int64]:
        """Block of each chunk: int64 [chunk]."""
        keys = np.stack((self.chunks[:, 0], self.chunks[:, 1] // self.block_chunks), axis=1)
        new = np.any(np.diff(keys, axis=0, prepend=-1) != 0, axis=1)
        return np.asarray(np.cumsum(new) - 1)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """What is read for the chunks of each block."""
        firsts = np.flatnonzero(np.diff(self.block_of, prepend=-1))
        lasts = np.append(firsts[1:], len(self.chunks)) - 1
        return tuple(
            Block(int(self.chunks[first, 0]), int(self.chunks[first, 1]), int(self.chunks[last, 1]) + 1)
            for first, last in zip(firsts, lasts, strict=True)
        )

    def n_batches(self) -> int:
        """Batches per epoch; of this rank in training, of the largest share in validation."""
        return -(-self._n_all() // self.world_size)

    def epoch(self, epoch: int) -> tuple[NDArray[np.int64], ...]:
        """Batches of this rank: int64 [batch] each, indices into ``chunks``.

        A rank gets neighbouring batches of the epoch's order, so that it reads each block once. In training every
        rank gets the same number: the first batches of the epoch are drawn once more at its end.
        """
        order = self._shuffled(epoch) if self.shuffle else np.arange(len(self.chunks))
        share = self.n_batches()
        numbers = range(self.rank * share, (self.rank + 1) * share)
        total = self._n_all()
        wanted = [number % total for number in numbers if self.shuffle or number < total]
        return tuple(order[number * self.batch_size : (number + 1) * self.batch_size] for number in wanted)

    def first_chunks(self, limit: int | None) -> Chunks:
        """Chunks of the first ``limit`` batches of every rank in epoch 0, all together: int64 [chunk, 2]."""
        ranks = (replace(self, rank=rank) for rank in range(self.world_size))
        plans = [plan for one in ranks for plan in one.epoch(0)[:limit]]
        return self.chunks[np.concatenate(plans)] if plans else self.chunks[:0]

    def _n_all(self) -> int:
        return -(-len(self.chunks) // self.batch_size)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, epoch])
        place = np.empty(len(self.blocks), np.int64)  # of each block in the epoch's order
        place[rng.permutation(len(self.blocks))] = np.arange(len(self.blocks))
        group = place[self.block_of] // self.buffer_blocks
        return np.lexsort((rng.random(len(self.chunks)), group))
