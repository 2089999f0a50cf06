"""Where a recording is cut, and what is left out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.tokenizers.spike_chunks import ChunkPlan, plan_chunks

OURS = Ndt3TokenizerConfig(chunk_bins=10)
PUBLISHED = Ndt3TokenizerConfig(chunk_bins=10, parity=True)


def plan(config: Ndt3TokenizerConfig, segment: list[int], counts=None, values=None) -> ChunkPlan:
    n_times = len(segment)
    counts = np.ones((n_times, 2), np.uint8) if counts is None else counts
    values = np.random.default_rng(0).normal(size=(n_times, 1)).astype(np.float32) if values is None else values
    return plan_chunks(config, counts, values, np.array(segment, np.int32))


@pytest.mark.parametrize(
    ("config", "segment", "chunks", "left_out"),
    [
        (OURS, [0] * 20, [(0, 10), (10, 10)], {}),
        (OURS, [0] * 25, [(0, 10), (10, 10), (20, 5)], {}),
        (OURS, [0] * 24, [(0, 10), (10, 10)], {"too_short": 1}),
        (OURS, [0] * 12 + [1] * 13, [(0, 10), (12, 10)], {"too_short": 2}),
        (OURS, [0] * 7 + [-1] * 30 + [1] * 15, [(0, 7), (37, 10), (47, 5)], {}),
        (OURS, [-1] * 30, [], {}),
        (OURS, [], [], {}),
        (OURS.model_copy(update={"min_chunk_bins": 2}), [0] * 12, [(0, 10), (10, 2)], {}),
        (PUBLISHED, [0] * 7 + [-1] * 3 + [1] * 15, [(0, 10), (10, 10)], {"too_short": 1}),
        (PUBLISHED, [0] * 20, [(0, 10), (10, 10)], {}),
        (PUBLISHED, [0] * 7, [(0, 7)], {}),
        (PUBLISHED, [0] * 4, [], {"too_short": 1}),
        (PUBLISHED, [], [], {}),
    ],
)
def test_cuts(config: Ndt3TokenizerConfig, segment: list[int], chunks: list[tuple[int, int]], left_out: dict) -> None:
    made = plan(config, segment)
    assert list(zip(made.starts.tolist(), made.n_bins.tolist(), strict=True)) == chunks
    assert made.left_out == left_out


@given(
    lengths=st.lists(st.tuples(st.integers(1, 37), st.booleans()), max_size=8),
    chunk_bins=st.integers(5, 12),
    min_bins=st.integers(1, 5),
)
def test_chunks_hold_every_observed_bin_once_but_short_rests(
    lengths: list[tuple[int, bool]], chunk_bins: int, min_bins: int
) -> None:
    segment = np.repeat([i if seen else -1 for i, (_, seen) in enumerate(lengths)], [n for n, _ in lengths])
    config = Ndt3TokenizerConfig(chunk_bins=chunk_bins, min_chunk_bins=min_bins, sanity_rule=False)
    made = plan(config, segment.tolist())
    rows = made.rows()
    assert len(np.unique(rows)) == len(rows)
    for start, n_bins in zip(made.starts, made.n_bins, strict=True):
        assert min_bins <= n_bins <= chunk_bins
        assert len(set(segment[start : start + n_bins].tolist())) == 1
    rests = [n % chunk_bins for n, seen in lengths if seen and 0 < n % chunk_bins < min_bins]
    assert (segment >= 0).sum() - len(rows) == sum(rests)
    assert sum(made.left_out.values()) == len(rests)


def test_sanity_rule_counts_reasons() -> None:
    rng = np.random.default_rng(0)
    counts, values = np.ones((60, 2), np.uint8), rng.normal(size=(60, 2)).astype(np.float32)
    counts[10:20] = 0  # silent
    values[20:30] = 0.5  # every covariate constant
    values[30:40, 0] = 0.5  # one of two
    values[40:50] = np.nan  # not observed: says nothing
    counts[50:60], values[50:60] = 0, 0  # the first reason counts
    made = plan(OURS, [0] * 60, counts, values)
    assert made.starts.tolist() == [0, 30, 40]
    assert made.left_out == {"no_spikes": 2, "constant_covariates": 1}
    lenient = plan(OURS.model_copy(update={"sanity_rule": False}), [0] * 60, counts, values)
    assert (len(lenient), lenient.left_out) == (6, {})


def test_constant_means_a_std_of_1e_8() -> None:
    for amplitude, kept in ((0.9e-8, 0), (1.1e-8, 1)):
        values = np.resize(np.array([amplitude, -amplitude], np.float32), (10, 1))
        assert len(plan(OURS, [0] * 10, values=values)) == kept


def test_without_covariates_nothing_is_constant() -> None:
    assert len(plan(OURS, [0] * 10, values=np.zeros((10, 0), np.float32))) == 1
