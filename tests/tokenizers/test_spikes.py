"""Tokens of spikes and behaviour: golden numbers of the published layout, and the way back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromill.records import FailureCode, RecordingError, SpikeTokens, TokenKind
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.tokenizers.spike_vocabulary import VOCABULARY
from neuromill.tokenizers.spikes import Patches, chunks_of, return_to_go, untokenize
from support.spike_sessions import Session, make_session

PUBLISHED = Ndt3TokenizerConfig(parity=True)


def count_of(tokens: SpikeTokens) -> dict[TokenKind, int]:
    return {kind: int((tokens.kinds == kind).sum()) for kind in TokenKind}


def test_golden_chunk_of_96_channels_and_two_covariates() -> None:
    tokens, patch_channels = make_session().tokens()
    assert count_of(tokens) == {
        TokenKind.SPIKE: 300,
        TokenKind.COVARIATE: 200,
        TokenKind.CONSTRAINT: 2,
        TokenKind.RETURN: 1,
    }
    assert tokens.slots[:13].tolist() == [1, 2, 18, 19, 20, 28, 29, 30, 18, 19, 20, 29, 30]
    assert tokens.bins[:13].tolist() == [0] * 8 + [1] * 5
    assert patch_channels.tolist() == [32, 32, 32]
    assert tokens.returns.tolist() == [[0, 0]]
    assert not tokens.constraints.any()


@pytest.mark.parametrize(
    ("units", "n_covariates", "dense_return", "n_tokens"),
    [
        ((96,), 2, False, 503),
        ((96, 96), 3, False, 904),
        ((96, 96), 8, True, 1508),
        ((256,), 15, True, 2415),
        ((320,), 16, False, 2617),
    ],
)
def test_golden_lengths(*, units: tuple[int, ...], n_covariates: int, dense_return: bool, n_tokens: int) -> None:
    rewards = np.zeros(100, np.int64) if dense_return else None
    tokens, _ = make_session(units=units, n_covariates=n_covariates).tokens(rewards=rewards)
    assert len(tokens.slots) == n_tokens


@pytest.mark.parametrize(
    ("units", "channels"),
    [((96, 96), [32] * 6), ((94, 96), [32, 32, 30, 32, 32, 32]), ((137,), [32, 32, 32, 32, 9]), ((320,), [32] * 10)],
)
def test_golden_patches(units: tuple[int, ...], channels: list[int]) -> None:
    assert Patches.of(make_session(units=units).arrays).channels.tolist() == channels


def test_arrays_are_padded_apart_and_keep_the_order_of_the_file() -> None:
    patches = Patches.of(["b", "a", "b"])
    assert patches.columns[:, :3].tolist() == [[0, 2, 3], [1, 3, 3]]
    filled = patches.fill(np.array([[5, 6, 7]], np.uint8))
    assert filled[0, :, :2].tolist() == [[5, 7], [6, 0]]
    assert filled.sum() == 18


@pytest.mark.parametrize(
    ("session", "code", "says"),
    [
        (make_session(units=(321,)), FailureCode.TOO_LARGE, "fill 11 patches"),
        (make_session(units=(1,) * 11), FailureCode.TOO_LARGE, "11 units on 11 arrays"),
        (make_session(n_covariates=18), FailureCode.TOO_LARGE, "18 covariates"),
        (make_session(units=()), FailureCode.NO_USABLE_CHANNELS, "no unit"),
        (make_session(n_times=4), FailureCode.TOO_SHORT, "too_short"),
        (replace(make_session(), segment=np.full(100, -1, np.int32)), FailureCode.TOO_SHORT, "no bin was observed"),
        (replace(make_session(), counts=np.zeros((100, 96), np.uint8)), FailureCode.NO_SPIKES, "no_spikes"),
        (replace(make_session(), values=np.ones((100, 2), np.float32)), FailureCode.NO_COVARIATES, "constant"),
        (replace(make_session(), scale=np.zeros(2, np.float32)), FailureCode.NON_FINITE, "scale"),
    ],
)
def test_what_cannot_become_tokens_says_why(session: Session, code: FailureCode, says: str) -> None:
    with pytest.raises(RecordingError, match=says) as caught:
        session.tokens()
    assert caught.value.code is code


def check_layout(tokens: SpikeTokens) -> None:
    """Order, offsets and dtypes that the docstring of SpikeTokens promises."""
    assert tokens.chunk_tokens[-1] == len(tokens.slots)
    for chunk in range(tokens.n_chunks):
        part = slice(*tokens.chunk_tokens[chunk : chunk + 2])
        keys = 48 * tokens.bins[part].astype(int) + tokens.slots[part]
        assert (np.diff(keys) > 0).all()
        counts = np.bincount(tokens.kinds[part], minlength=4)
        assert np.diff(tokens.chunk_contents, axis=0)[chunk].tolist() == counts.tolist()
    contents = (tokens.patches, tokens.covariates, tokens.constraints, tokens.returns)
    assert tokens.chunk_contents[-1].tolist() == [len(content) for content in contents]
    dtypes = [array.dtype.name for array in (tokens.slots, tokens.bins, tokens.kinds, *contents)]
    assert dtypes == ["uint8", "uint16", "uint8", "uint8", "float32", "float16", "uint8"]
    assert [a.dtype.name for a in (tokens.chunk_tokens, tokens.chunk_contents, tokens.chunk_start_bins)] == [
        "int64"
    ] * 3
    assert tokens.chunk_n_bins.dtype == np.uint16


@settings(max_examples=60, deadline=None)
@given(
    units=st.lists(st.integers(1, 70), min_size=1, max_size=3),
    n_covariates=st.integers(0, 4),
    lengths=st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=5),
    parity=st.booleans(),
    dense=st.booleans(),
    seed=st.integers(0, 99),
)
def test_tokens_give_back_counts_and_covariates(
    *, units: list[int], n_covariates: int, lengths: list[tuple[int, bool]], parity: bool, dense: bool, seed: int
) -> None:
    segment = np.repeat([i if seen else -1 for i, (_, seen) in enumerate(lengths)], [n for n, _ in lengths])
    rng = np.random.default_rng(seed)
    session = make_session(len(segment), tuple(units), n_covariates, seed)
    valid = rng.random(session.valid.shape) < 0.8
    values = np.where(rng.random(valid.shape) < 0.1, np.nan, session.values).astype(np.float32)
    session = replace(session, segment=segment.astype(np.int32), valid=valid, values=values)
    config = Ndt3TokenizerConfig(chunk_bins=12, parity=parity, sanity_rule=False)
    plan = chunks_of(config, session.counts, session.values, session.scale, session.segment)
    if not len(plan):
        with pytest.raises(RecordingError):
            session.tokens(config)
        return
    tokens, _ = session.tokens(config, rewards=rng.integers(0, 2, len(segment)) if dense else None, chunks=plan)
    check_layout(tokens)
    back = untokenize(tokens, session.arrays, len(segment), n_covariates)
    inside = np.isin(np.arange(len(segment)), plan.rows())
    expected = np.where(valid & inside[:, None], np.clip(values / np.float32(2), -1, 1), np.nan)
    np.testing.assert_array_equal(back.covered, inside)
    np.testing.assert_array_equal(back.counts, np.where(inside[:, None], session.counts, 0))
    np.testing.assert_array_equal(back.covariates, expected)


def test_covariates_that_do_not_count_are_zero() -> None:
    session = make_session(n_times=10)
    session.values[3, 1] = np.nan
    session.valid[4, 0] = False
    tokens, _ = session.tokens()
    valid = tokens.covariate_valid.reshape(10, 2)
    assert np.argwhere(~valid).tolist() == [[3, 1], [4, 0]]
    assert not tokens.covariates.reshape(10, 2)[~valid].any()
    assert np.abs(tokens.covariates).max() <= 1


def test_covariates_outside_successful_trials_count_unless_asked() -> None:
    session, trials = make_session(n_times=10), np.arange(10) < 6
    everywhere, _ = session.tokens(trials=trials)
    inside, _ = session.tokens(Ndt3TokenizerConfig(covariates_in="trials"), trials=trials)
    assert everywhere.covariate_valid.all()
    assert inside.covariate_valid.reshape(10, 2).all(axis=1).tolist() == trials.tolist()
    with pytest.raises(RecordingError, match="has no trials"):
        session.tokens(Ndt3TokenizerConfig(covariates_in="trials"))


@pytest.mark.parametrize("chunk_bins", [50, 100])
def test_published_dummy_of_chunks_without_covariates(chunk_bins: int) -> None:
    session = make_session(n_times=200, n_covariates=0)
    tokens, _ = session.tokens(Ndt3TokenizerConfig(parity=True, chunk_bins=chunk_bins))
    check_layout(tokens)
    assert tokens.covariates.tolist() == [0.0] * tokens.n_chunks
    assert tokens.covariate_valid.all()
    last = tokens.chunk_tokens[1:] - 1
    assert set(tokens.slots[last].tolist()) == {VOCABULARY.covariate}
    assert set(tokens.bins[last].tolist()) == {100}
    ours, _ = session.tokens(Ndt3TokenizerConfig(chunk_bins=chunk_bins))
    assert not len(ours.covariates)


def test_published_chunks_run_over_gaps() -> None:
    segment = np.where(np.arange(250) < 130, 0, np.where(np.arange(250) < 140, -1, 1)).astype(np.int32)
    session = replace(make_session(n_times=250), segment=segment)
    assert session.tokens(PUBLISHED)[0].chunk_start_bins.tolist() == [0, 100]
    assert session.tokens()[0].chunk_start_bins.tolist() == [0, 100, 140, 240]
    assert session.tokens()[0].chunk_n_bins.tolist() == [100, 30, 100, 10]


def test_constraints_are_emitted_where_they_change() -> None:
    session = make_session(n_times=20)
    constraints = np.zeros((20, 3, 2))
    constraints[5:, 0, 1] = 0.5
    constraints[12:15, 2, 0] = 1
    tokens, _ = session.tokens(Ndt3TokenizerConfig(chunk_bins=10), constraints=constraints)
    check_layout(tokens)
    of_constraints = tokens.kinds == TokenKind.CONSTRAINT
    assert tokens.bins[of_constraints].tolist() == [0, 0, 5, 5, 0, 0, 2, 2, 5, 5]
    assert tokens.slots[of_constraints].tolist() == [1, 2] * 5
    assert tokens.constraints[[3, 5, 6, 8]].tolist() == [[0.5, 0, 0], [0.5, 0, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_constraints_are_shares(bad: float) -> None:
    with pytest.raises(RecordingError, match="between 0 and 1"):
        make_session(n_times=20).tokens(constraints=np.full((20, 3, 2), bad))


def test_golden_return_to_go() -> None:
    rewards = np.zeros(1000, np.int64)
    rewards[600] = 1
    assert np.flatnonzero(return_to_go(rewards)).tolist() == list(range(101, 601))
    assert return_to_go(rewards).max() == 1


@given(st.lists(st.integers(0, 1), max_size=40), st.integers(1, 50))
def test_return_to_go_is_the_sum_over_the_horizon(rewards: list[int], horizon: int) -> None:
    direct = [sum(rewards[t : t + horizon]) for t in range(len(rewards))]
    assert return_to_go(np.array(rewards, np.int64), horizon).tolist() == direct


def test_dense_returns_are_shifted_by_one_and_stay_in_their_tables() -> None:
    rewards = np.ones(100, np.int64)
    tokens, _ = make_session().tokens(rewards=rewards)
    assert len(tokens.returns) == 100
    assert tokens.returns[:, 1].tolist() == [2] * 100
    assert tokens.returns[:, 0].tolist() == [50] * 51 + list(range(50, 1, -1))
