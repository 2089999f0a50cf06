"""The gate in plain numbers, and distinct sequences."""

import numpy as np
import pytest

from neuromill.tokenizers.config import GateConfig
from neuromill.tokenizers.gate import judge
from neuromill.tokenizers.metrics import Quality
from neuromill.tokenizers.usage import Sequences, Usage

OPEN = GateConfig(min_perplexity_share=0, min_used_share=0, max_dominant_share=1, min_frames=1)
COUNTS = np.array([[40, 40, 10, 10] + [0] * 60])


def quality(distinct=(5,), n_rows=100):
    return Quality(0.9, 10.0, 0.1, 1.0, Usage(COUNTS), n_rows, distinct)


@pytest.mark.parametrize(
    ("bound", "passes", "fails"),
    [
        ("min_codes", 4, 5),
        ("min_perplexity", 3.2, 3.4),
        ("min_distinct_sequences", 5, 6),
        ("min_distinct_share", 0.05, 0.06),
        ("max_dominant_share", 0.4, 0.39),
    ],
)
def test_each_bound(bound, passes, fails):
    assert judge(quality(), OPEN.model_copy(update={bound: passes})) == ()
    (problem,) = judge(quality(), OPEN.model_copy(update={bound: fails}))
    assert bound.split("_", 1)[1] == problem.measure
    assert problem.level == 0


def test_new_bounds_are_off_and_unnamed_by_default():
    assert GateConfig().non_defaults() == {}
    assert judge(quality(distinct=(1,)), OPEN) == ()


def test_sequences_are_counted_per_level_over_batches():
    sequences = Sequences(2)
    codes = np.array([[[0, 1], [3, 3]], [[1, 0], [3, 3]]])
    sequences.add(codes)
    sequences.add(codes[:1])
    assert sequences.distinct == (2, 1)
