"""Usage statistics and the gate that keeps dead codebooks from being published."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.tokenizers.config import GateConfig
from neuromill.tokenizers.gate import check_gate
from neuromill.tokenizers.usage import Usage

GATE = GateConfig(min_perplexity_share=0.1, min_used_share=0.5, max_dominant_share=0.5, min_frames=100)


@given(st.lists(st.integers(0, 7), min_size=1, max_size=60))
def test_counts_and_perplexity(values):
    codes = np.array(values, dtype=np.uint8).reshape(1, 1, -1)
    usage = Usage.of(codes, 8)
    shares = np.array([values.count(i) for i in range(8)]) / len(values)
    entropy = -sum(p * np.log(p) for p in shares if p)
    assert usage.n_frames == len(values)
    np.testing.assert_allclose(usage.perplexity, [np.exp(entropy)])
    np.testing.assert_allclose(usage.used_share, [len(set(values)) / 8])
    np.testing.assert_allclose(usage.dominant_share, [shares.max()])


def test_levels_are_counted_apart_and_usages_add_up():
    codes = np.random.default_rng(0).integers(0, 8, (5, 3, 11)).astype(np.uint8)
    parts = Usage.of(codes[:2], 8) + Usage.of(codes[2:], 8)
    assert np.array_equal(parts.counts, Usage.of(codes, 8).counts)
    assert np.array_equal(parts.counts[1], np.bincount(codes[:, 1].ravel(), minlength=8))
    assert Usage.of(codes, 8).n_frames == 55


def test_nothing_seen():
    empty = Usage.empty(2, 8)
    assert empty.perplexity.tolist() == [1, 1]
    assert empty.used_share.tolist() == [0, 0]
    assert {p.measure for p in check_gate(empty, GATE)} >= {"frames", "used_share"}


def level(kind, n=1600, k=16):
    return {
        "even": np.full(k, n // k),
        "dead": np.r_[n, np.zeros(k - 1)],
        "half dominant": np.r_[n * 0.6, np.full(k - 1, n * 0.4 / (k - 1))],
        "few": np.r_[np.full(4, n // 4), np.zeros(k - 4)],
    }[kind].astype(np.int64)


@pytest.mark.parametrize(
    ("kind", "measures"),
    [
        ("even", set()),
        ("dead", {"perplexity", "used_share", "dominant_share"}),
        ("half dominant", {"dominant_share"}),
        ("few", {"used_share"}),
    ],
)
def test_gate(kind, measures):
    problems = check_gate(Usage(np.stack([level("even"), level(kind)])), GATE)
    assert {p.measure for p in problems} == measures
    assert all(p.level == 1 for p in problems)


def test_problems_say_what_where_and_how_much():
    (problem,) = check_gate(Usage(np.stack([level("half dominant")])), GATE)
    assert str(problem) == "level 0: dominant_share 0.604 is above 0.5"


@pytest.mark.parametrize(("correlation", "n_problems"), [(0.9, 0), (0.5, 0), (0.4, 1), (None, 1), (float("nan"), 1)])
def test_correlation_bound(correlation, n_problems):
    gate = GATE.model_copy(update={"min_correlation": 0.5})
    assert len(check_gate(Usage(np.stack([level("even")])), gate, correlation=correlation)) == n_problems


def test_too_few_frames_are_no_verdict():
    (problem,) = check_gate(Usage(np.stack([level("even", n=64)])), GATE)
    assert str(problem) == "tokenizer: frames 64 is below 100"
