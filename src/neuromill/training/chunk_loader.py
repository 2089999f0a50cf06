"""Batches of spike tokens: threads read blocks of chunks ahead of the model and put batches together."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from neuromill.models.ndt3_batch import Chunk, collate, crop_to_budget
from neuromill.training.spike_source import some_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray
    from torch import Tensor

    from neuromill.models.ndt3_batch import SpikeTokenBatch
    from neuromill.records import SpikeTokens
    from neuromill.training.chunks import ChunkSampling
    from neuromill.training.spike_source import SpikeTokenSource

BATCHES_PER_THREAD = 2
CROP = 0x63726F70


@dataclass(frozen=True, slots=True, eq=False)
class ChunkBatch:
    """Chunks for the model, and where they come from: ``recordings`` int64 [chunk] number those of the source."""

    tokens: SpikeTokenBatch
    recordings: Tensor

    def to(self, device: torch.device) -> ChunkBatch:
        """Return the batch on ``device``."""
        return replace(self, tokens=self.tokens.to(device), recordings=self.recordings.to(device))


class ChunkLoader:
    """Deterministic batches of chunks; a :class:`neuromill.training.task.Loader`.

    Chunks above the token budget are cropped: at random in training, from their first bin otherwise.
    """

    def __init__(
        self, source: SpikeTokenSource, sampling: ChunkSampling, *, token_budget: int = 4096, threads: int = 2
    ) -> None:
        self.source, self.sampling, self.token_budget, self.threads = source, sampling, token_budget, threads

    def __len__(self) -> int:
        """Batches per epoch and rank."""
        return self.sampling.n_batches()

    def epoch(self, epoch: int, first_batch: int = 0, limit: int | None = None) -> Iterator[ChunkBatch]:
        """Batches ``first_batch`` and following of an epoch, at most ``limit``."""
        stop = None if limit is None else first_batch + limit
        plans = self.sampling.epoch(epoch)[first_batch:stop]
        last_use = {int(block): number for number, plan in enumerate(plans) for block in self.sampling.block_of[plan]}
        blocks: dict[int, Future[SpikeTokens]] = {}
        waiting: deque[Future[ChunkBatch]] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="chunks")
        try:
            for number, plan in enumerate(plans):
                needed = {int(block) for block in self.sampling.block_of[plan]}
                for block in sorted(needed - blocks.keys()):
                    blocks[block] = pool.submit(self._read, block)
                # Reads are queued before the batch that waits for them, so a pool of one thread gets through.
                waiting.append(pool.submit(self._batch, plan, epoch, {block: blocks[block] for block in needed}))
                for block in needed:
                    if last_use[block] == number:
                        del blocks[block]
                if len(waiting) > BATCHES_PER_THREAD * self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, block: int) -> SpikeTokens:
        return self.source.read_chunks(*self.sampling.blocks[block])

    def _batch(self, plan: NDArray[np.int64], epoch: int, blocks: dict[int, Future[SpikeTokens]]) -> ChunkBatch:
        chunks = [self._chunk(int(index), epoch, blocks) for index in plan]
        return ChunkBatch(collate(chunks), torch.from_numpy(self.sampling.chunks[plan, 0]))

    def _chunk(self, index: int, epoch: int, blocks: dict[int, Future[SpikeTokens]]) -> Chunk:
        number = int(self.sampling.block_of[index])
        block, (recording, chunk) = self.sampling.blocks[number], self.sampling.chunks[index]
        inside = int(chunk) - block.first
        tokens = some_chunks(blocks[number].result(), inside, inside + 1)
        whole = Chunk(tokens, self.source.recordings[recording].patch_channels)
        return crop_to_budget(whole, self._draw(epoch, index), budget=self.token_budget)

    def _draw(self, epoch: int, index: int) -> Callable[[int], int] | None:
        if not self.sampling.shuffle:
            return None
        return lambda n: int(np.random.default_rng([self.sampling.seed, epoch, index, CROP]).integers(n))
