"""Which chunks, in which order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from neuromill.models.ndt3_config import Ndt3Config
from neuromill.records import ConfigError
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.training.chunks import RANDOM_TRAIN_SHARE, ChunkSampling, split_chunks
from neuromill.training.ndt3_config import Ndt3TrainConfig
from neuromill.training.spike_source import Span, SpikeTokenRecording

CONFIG = Ndt3TrainConfig()
RANDOM = Ndt3TrainConfig(model=Ndt3Config(parity=True), split="random_chunks")


def recording(n_chunks: int, *spans: Span, name: str = "a", start: int = 0) -> SpikeTokenRecording:
    starts = start + 10 * np.arange(n_chunks)
    return SpikeTokenRecording(
        name, "demo", 0.02, ("x",), np.array([32], np.uint8), starts, np.full(n_chunks, 10), tuple(spans)
    )


def test_a_chunk_belongs_to_a_split_only_as_a_whole() -> None:
    one = recording(10, Span("train", 0, 45), Span("validation", 50, 69), Span("train", 80, 100))
    assert one.chunks_of("train").tolist() == [0, 1, 2, 3, 8, 9]
    assert one.chunks_of("validation").tolist() == [5]
    assert one.chunks_of("test").tolist() == []
    shifted = recording(3, Span("train", 0, 20), start=7)
    assert shifted.chunks_of("train").tolist() == [0]


def test_splits_of_several_recordings() -> None:
    sessions = [recording(3, Span("train", 0, 30)), recording(2, Span("validation", 0, 20), name="b")]
    split = split_chunks(sessions, CONFIG)
    assert split.train.tolist() == [[0, 0], [0, 1], [0, 2]]
    assert split.validation.tolist() == [[1, 0], [1, 1]]
    with pytest.raises(ConfigError, match="no chunk lies wholly within the train split"):
        split_chunks(sessions[1:], CONFIG)


def test_random_chunks_are_for_parity_only() -> None:
    with pytest.raises(ValidationError, match=r"needs model\.parity"):
        Ndt3TrainConfig(split="random_chunks")
    one = recording(100, Span("train", 0, 500), Span("validation", 500, 900), Span("test", 900, 1000))
    split = split_chunks([one], RANDOM)
    assert (len(split.train), len(split.validation)) == (72, 18)
    assert sorted([*split.train[:, 1], *split.validation[:, 1]]) == list(range(90))  # never the test span
    again = split_chunks([one], RANDOM.model_copy(update={"seed": 1}))
    assert not np.array_equal(split.train, again.train)


def test_numbers_of_the_published_run() -> None:
    """NDT3 spec, golden numbers: 200 h in chunks of 2 s, four fifths for training, 16,384 chunks a step."""
    chunk_bins = Ndt3TokenizerConfig().chunk_bins
    n_chunks = round(200 * 3600 / (chunk_bins * 0.02))
    starts = chunk_bins * np.arange(n_chunks)
    one = SpikeTokenRecording(
        "all", "demo", 0.02, ("x",), np.array([32], np.uint8), starts, np.full(n_chunks, chunk_bins),
        (Span("train", 0, n_chunks * chunk_bins),),
    )  # fmt: skip
    split = split_chunks([one], RANDOM)
    assert (n_chunks, len(split.train), len(split.validation)) == (360_000, 288_000, 72_000)
    assert RANDOM_TRAIN_SHARE == 0.8
    assert round(len(split.train) / 16_384, 2) == 17.58
    epoch = ChunkSampling(split.train, batch_size=16_384, seed=0)
    assert epoch.n_batches() == 18
    assert len(epoch.epoch(0)[-1]) == 288_000 - 17 * 16_384


def sampling(sizes: list[int], **changes: object) -> ChunkSampling:
    chunks = np.array([(r, c) for r, size in enumerate(sizes) for c in range(size)])
    return ChunkSampling(**({"chunks": chunks, "batch_size": 3, "seed": 1, "block_chunks": 4} | changes))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_chunk_is_drawn(sizes: list[int], batch: int, buffer: int, world: int, shuffle: bool) -> None:  # noqa: FBT001
    ranks = [
        sampling(sizes, batch_size=batch, buffer_blocks=buffer, rank=r, world_size=world, shuffle=shuffle)
        for r in range(world)
    ]
    drawn = [one.epoch(2) for one in ranks]
    flat = np.concatenate([plan for plans in drawn for plan in plans])
    assert set(flat) == set(range(sum(sizes)))
    if shuffle:
        assert {len(plans) for plans in drawn} == {ranks[0].n_batches()}
    else:
        assert flat.tolist() == list(range(sum(sizes)))


def test_an_epoch_is_a_function_of_its_number() -> None:
    one = sampling([50])
    first, again, other = (np.concatenate(one.epoch(epoch)).tolist() for epoch in (0, 0, 1))
    assert first == again != other
    assert sorted(first) == sorted(other)


def test_blocks_are_neighbours_within_a_recording_and_the_buffer_bounds_how_many_are_open() -> None:
    one = sampling([10, 6], buffer_blocks=2)
    assert [tuple(block) for block in one.blocks] == [(0, 0, 4), (0, 4, 8), (0, 8, 10), (1, 0, 4), (1, 4, 6)]
    order = np.concatenate(one.epoch(0))
    opened = [len(set(one.block_of[order[: k + 1]])) for k in range(len(order))]
    closed = [len(set(one.block_of) - set(one.block_of[order[k:]])) for k in range(len(order))]
    assert max(a - b for a, b in zip(opened, closed, strict=True)) == 2
    assert len(set(one.block_of[order[:6]])) > 1  # mixed, not one after the other
