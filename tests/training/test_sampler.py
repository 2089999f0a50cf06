"""Sampling: every window once, the same number of batches for every rank, no memory of what was drawn before."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from neuromill.training.sampler import Sampling
from neuromill.training.windows import BatchShape

shapes = st.lists(st.sampled_from([BatchShape(306, 50), BatchShape(306, 20), BatchShape(157, 50)]), min_size=1)
sizes = st.integers(1, 7)
worlds = st.integers(1, 5)


def ranks(shapes: list[BatchShape], size: int, world: int, *, shuffle: bool = True) -> list[Sampling]:
    return [Sampling(shapes, size, 3, rank, world, shuffle=shuffle) for rank in range(world)]


@given(shapes, sizes, st.integers(0, 5))
def test_one_rank_sees_every_window_once(shapes: list[BatchShape], size: int, epoch: int) -> None:
    batches = Sampling(shapes, size, 3).epoch(epoch)
    assert sorted(w for b in batches for w in b.windows) == list(range(len(shapes)))
    assert all(shapes[w] == b.shape for b in batches for w in b.windows)
    assert all(1 <= len(b.windows) <= size for b in batches)


@given(shapes, sizes, worlds, st.integers(0, 5))
def test_ranks_share_an_epoch_evenly(shapes: list[BatchShape], size: int, world: int, epoch: int) -> None:
    per_rank = [s.epoch(epoch) for s in ranks(shapes, size, world)]
    assert {len(batches) for batches in per_rank} == {ranks(shapes, size, world)[0].n_batches()}
    seen = Counter(b.windows for batches in per_rank for b in batches)
    assert sorted({w for windows in seen for w in windows}) == list(range(len(shapes)))
    assert sum(seen.values()) - len(seen) < world  # drawn twice: fewer batches than ranks
    single = {b.windows for b in Sampling(shapes, size, 3).epoch(epoch)}
    assert set(seen) == single  # the batches do not depend on the number of ranks


@given(shapes, sizes, worlds)
def test_held_out_windows_are_counted_once_over_all_ranks(shapes: list[BatchShape], size: int, world: int) -> None:
    seen = [w for s in ranks(shapes, size, world, shuffle=False) for b in s.epoch(0) for w in b.windows]
    assert sorted(seen) == list(range(len(shapes)))


@given(shapes, sizes)
def test_drawing_again_or_another_epoch_first_changes_nothing(shapes: list[BatchShape], size: int) -> None:
    sampling = Sampling(shapes, size, 3)
    first = sampling.epoch(4)
    sampling.epoch(5)
    assert sampling.epoch(4) == first == Sampling(tuple(shapes), size, 3).epoch(4)


def test_epochs_and_seeds_differ() -> None:
    many = [BatchShape(306, 50)] * 50
    orders = {Sampling(many, 1, seed).epoch(epoch) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4
