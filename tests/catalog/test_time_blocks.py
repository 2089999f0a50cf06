from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from neuromill.catalog.cards import Splits
from neuromill.catalog.splits import SplitSpan, TimeBlocks, block_spans
from neuromill.records import ConfigError


def spans(n_bins: int, seconds: float = 0.02, **blocks: object) -> list[tuple[str, int, int]]:
    found = block_spans(TimeBlocks.model_validate(blocks), n_bins, seconds)
    return [(span.split, span.start, span.stop) for span in found]


def test_training_gives_up_the_guard_and_validation_gives_it_up_to_test() -> None:
    found = spans(10_000, validation=[0.7, 0.85], test=[0.85, 1.0])
    assert found == [("train", 0, 6950), ("validation", 7000, 8450), ("test", 8500, 10_000)]


def test_a_block_in_the_middle_leaves_training_on_both_sides() -> None:
    assert spans(1000, 0.1, test=[0.4, 0.6]) == [("train", 0, 390), ("test", 400, 600), ("train", 610, 1000)]


def test_no_guard_is_a_partition() -> None:
    found = spans(100, validation=[0.0, 0.25], test=[0.5, 0.75], guard_seconds=0)
    assert found == [("validation", 0, 25), ("train", 25, 50), ("test", 50, 75), ("train", 75, 100)]


def test_a_guard_of_whole_bins_is_not_rounded_up_by_binary_fractions() -> None:
    assert spans(100, 0.1, test=[0.5, 1.0], guard_seconds=1.1)[0] == ("train", 0, 39)
    assert spans(100, 0.1, test=[0.5, 1.0], guard_seconds=1.15)[0] == ("train", 0, 38)


def test_a_stretch_shorter_than_its_guards_is_in_no_split() -> None:
    assert spans(100, validation=[0.3, 0.4], test=[0.4, 1.0]) == [("test", 40, 100)]
    assert spans(1000, validation=[0.0, 0.1], test=[0.11, 0.5])[0] == ("validation", 0, 60)  # across ten bins of train
    assert spans(0, test=[0.5, 1.0]) == []


@pytest.mark.parametrize(
    "blocks",
    [
        {},
        {"validation": [0.5, 0.5]},
        {"validation": [0.6, 0.5]},
        {"validation": [0.5, 1.1]},
        {"validation": [-0.1, 0.5]},
        {"validation": [0.5, 0.8], "test": [0.7, 1.0]},
        {"validation": [0.0, 0.5], "test": [0.5, 1.0]},
        {"test": [0.0, 1.0]},
        {"validation": [0.5]},
        {"test": [0.5, 1.0], "guard_seconds": -1},
        {"test": [0.5, 1.0], "guard_seconds": float("inf")},
        {"test": [0.5, float("nan")]},
        {"train": [0.0, 0.5], "test": [0.5, 1.0]},
    ],
)
def test_wrong_blocks_are_refused(blocks: dict) -> None:
    with pytest.raises(ValidationError):
        Splits.model_validate({"time_blocks": blocks})


@pytest.mark.parametrize(("n_bins", "seconds"), [(-1, 0.02), (10, 0.0), (10, float("nan"))])
def test_a_recording_that_cannot_be_is_refused(n_bins: int, seconds: float) -> None:
    with pytest.raises(ConfigError):
        spans(n_bins, seconds, test=[0.5, 1.0])


fractions = st.lists(st.integers(0, 40), min_size=4, max_size=4, unique=True).map(lambda f: [x / 40 for x in sorted(f)])


orders = st.sampled_from([("validation", "test"), ("test", "validation")])


@given(fractions, orders, st.integers(0, 3000), st.sampled_from([0.02, 0.1, 0.005]), st.floats(0, 3))
def test_spans_are_disjoint_ordered_and_a_guard_apart(
    f: list[float], names: tuple[str, str], n_bins: int, seconds: float, guard: float
) -> None:
    blocks = TimeBlocks.model_validate({names[0]: f[:2], names[1]: f[2:], "guard_seconds": guard})
    found = block_spans(blocks, n_bins, seconds)
    assert all(0 <= span.start < span.stop <= n_bins for span in found)
    for before, after in pairwise(found):
        assert before.stop <= after.start
        assert before.split == after.split or (after.start - before.stop) * seconds >= guard - 1e-5
    (held,) = [span for span in found if span.split == "test"] or [None]
    begin, end = blocks.test or (0, 0)
    assert held in (None, SplitSpan("test", round(begin * n_bins), round(end * n_bins)))
