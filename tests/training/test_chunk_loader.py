"""Batches of chunks: the same whoever reads them, cropped where they are too wide."""

import threading
from dataclasses import fields

import numpy as np
import pytest
import torch

from neuromill.models.ndt3_batch import Chunk, collate
from neuromill.records import SpikeTokens
from neuromill.training.chunk_loader import ChunkBatch, ChunkLoader
from neuromill.training.chunks import ChunkSampling
from neuromill.training.spike_source import MemorySpikeTokens, some_chunks
from support.spike_tokens import CHUNK_BINS, spike_source

SOURCE = spike_source("a", "b", n_units=40)
N = [one.n_chunks for one in SOURCE.recordings]


def loader(
    source: MemorySpikeTokens = SOURCE, *, threads: int = 2, budget: int = 4096, **changes: object
) -> ChunkLoader:
    chunks = np.array([(r, c) for r, n in enumerate(N) for c in range(n)])
    settings = {"chunks": chunks, "batch_size": 7, "seed": 3, "block_chunks": 8, "buffer_blocks": 3} | changes
    return ChunkLoader(source, ChunkSampling(**settings), token_budget=budget, threads=threads)


def same(left: ChunkBatch, right: ChunkBatch) -> bool:
    pairs = zip((*left.tokens, left.recordings), (*right.tokens, right.recordings), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_some_chunks_are_those_of_the_whole() -> None:
    whole = SOURCE.tokens[0]
    part = some_chunks(whole, 3, 6)
    for inside, outside in ((0, 3), (2, 5)):
        left, right = some_chunks(part, inside, inside + 1), some_chunks(whole, outside, outside + 1)
        for field in fields(SpikeTokens):
            np.testing.assert_array_equal(getattr(left, field.name), getattr(right, field.name))
    assert part.chunk_tokens[0] == 0
    assert part.chunk_contents[0].tolist() == [0, 0, 0, 0]


def test_validation_gives_every_chunk_once_in_order() -> None:
    batches = list(loader(shuffle=False).epoch(0))
    assert torch.cat([batch.recordings for batch in batches]).tolist() == [0] * N[0] + [1] * N[1]
    expected = collate([Chunk.of(SOURCE.tokens[0], c, SOURCE.recordings[0].patch_channels) for c in range(7)])
    assert all(torch.equal(a, b) for a, b in zip(batches[0].tokens, expected, strict=True))


@pytest.mark.parametrize("threads", [1, 3])
def test_an_epoch_entered_in_the_middle_goes_on_the_same(threads: int) -> None:
    whole = list(loader().epoch(1))
    rest = list(loader(threads=threads).epoch(1, 3, 4))
    assert len(rest) == 4
    assert all(same(a, b) for a, b in zip(whole[3:7], rest, strict=True))
    assert not same(next(loader().epoch(2)), whole[0])


def test_wide_chunks_are_cropped_at_random_in_training_and_from_the_start_in_validation() -> None:
    # 2 patches, 1 return, twice 2 covariates: 7 per bin; 2 constraints at the start
    train = [next(loader(budget=2 + 7 * 12, batch_size=20).epoch(epoch)) for epoch in (0, 0, 1)]
    assert set(train[0].tokens.n_bins.tolist()) == {12}
    assert same(train[0], train[1])
    held_out = next(loader(budget=2 + 7 * 12, shuffle=False).epoch(0))
    whole = SOURCE.tokens[0]
    first = some_chunks(whole, 0, 1)
    np.testing.assert_array_equal(held_out.tokens.patches[: 12 * 2].numpy(), first.patches[: 12 * 2])
    firsts = {int(chunk.tokens.patches[0].sum()) for chunk in train}
    assert CHUNK_BINS > 12
    assert len(firsts) > 1


def test_each_block_is_read_once_and_ahead() -> None:
    class Counting(MemorySpikeTokens):
        def read_chunks(self, recording: int, first: int, stop: int) -> SpikeTokens:
            with lock:
                reads.append((recording, first, stop))
            return super().read_chunks(recording, first, stop)

    reads: list[tuple[int, int, int]] = []
    lock = threading.Lock()
    one = loader(Counting(SOURCE.recordings, SOURCE.tokens))
    batches = one.epoch(0)
    next(batches)
    assert len(reads) < len(one.sampling.blocks)
    list(batches)
    assert sorted(reads) == sorted(map(tuple, one.sampling.blocks))


def test_a_reader_that_fails_is_heard() -> None:
    class Broken(MemorySpikeTokens):
        def read_chunks(self, recording: int, first: int, stop: int) -> SpikeTokens:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(loader(Broken(SOURCE.recordings, SOURCE.tokens)).epoch(0))
