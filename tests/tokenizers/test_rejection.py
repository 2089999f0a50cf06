"""What preparation rejected is not drawn: starts, rows and windows against a sample-by-sample oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import ConfigError
from neuromill.tokenizers.rejection import Rejection
from neuromill.tokenizers.windows import JointPlan, WindowPlan

MARKS = np.array([[0, 1, 0], [1, 1, 1], [0, 0, 1], [0, 0, 0]], bool)
REJECTION = Rejection(MARKS, 100)
N_TIMES = 350  # the last window is shorter
ROWS = [(2, 547, (3, 4)), (2, 2441, (3, 4)), (2, 1864, (3,))]
JOINT = [(1, 44, (2, 3)), (1, 383, (2, 3)), (1, 279, (0, -1))]


def rejected_samples(marks, window, n_times):
    """Oracle: bool [time, channel]."""
    return np.repeat(marks, window, axis=0)[:n_times]


@st.composite
def cases(draw):
    window, n_times, length = draw(st.integers(1, 9)), draw(st.integers(1, 40)), draw(st.integers(1, 12))
    n_windows, n_channels = -(-n_times // window), draw(st.integers(1, 3))
    flat = draw(st.lists(st.booleans(), min_size=n_windows * n_channels, max_size=n_windows * n_channels))
    return np.array(flat).reshape(n_windows, n_channels), window, n_times, length


@given(case=cases())
def test_allowed_starts_are_those_of_the_samples(case):
    marks, window, n_times, length = case
    samples = rejected_samples(marks, window, n_times)
    channels = tuple(range(marks.shape[1]))[:2]
    expected = [
        start for start in range(n_times - length + 1)
        if not samples[start : start + length][:, channels].any(axis=0).all()
    ]  # fmt: skip
    rejection = Rejection(marks, window)
    found = rejection.stretches(channels, n_times, length)
    assert [found.start(i) for i in range(found.n_starts)] == expected
    for start in expected:
        kept = rejection.kept(np.array([start]), length)[0]
        assert np.array_equal(kept, ~samples[start : start + length].any(axis=0))
        assert np.array_equal(rejection.samples(start, length), samples[start : start + length])


def test_no_rejected_row_is_picked_and_every_other_can_be():
    plan = WindowPlan((N_TIMES,), ((0, 1, 2),), window_samples=50, rows=8, rows_per_window=2, rejections=(REJECTION,))
    picks = [pick for step in range(200) for pick in plan.batch(step)]
    samples = rejected_samples(MARKS, 100, N_TIMES)
    assert not any(samples[p.start : p.start + 50][:, p.channels].any() for p in picks)
    assert sum(len(pick.channels) for pick in picks) == 200 * 8
    assert {channel for pick in picks for channel in pick.channels if pick.start < 100} == {0, 2}
    assert {channel for pick in picks for channel in pick.channels if 200 <= pick.start <= 250} == {0, 1}
    assert max(pick.start for pick in picks) == N_TIMES - 50
    assert plan.batch(3) == plan.batch(3)


def test_joint_windows_keep_a_channel_of_their_group():
    groups = (((0, 1, 2), (1, -1)),)
    plan = JointPlan((N_TIMES,), groups, window_samples=50, windows=4, rejections=(REJECTION,))
    picks = [pick for step in range(200) for pick in plan.batch(step)]
    kept = ~rejected_samples(MARKS, 100, N_TIMES)
    for pick in picks:
        members = [channel for channel in pick.group if channel >= 0]
        assert kept[pick.start : pick.start + 50][:, members].all(axis=0).any()
    assert {pick.group for pick in picks} == {(0, 1, 2), (1, -1)}
    assert min(pick.start for pick in picks if pick.group == (1, -1)) >= 200


def test_everything_rejected():
    all_of_it = (Rejection(np.ones((4, 3), bool), 100),)
    rows = WindowPlan((N_TIMES,), ((0, 1, 2),), window_samples=50, rows=4, rejections=all_of_it)
    joint = JointPlan((N_TIMES,), (((0, 1),),), window_samples=50, windows=1, rejections=all_of_it)
    for plan in (rows, joint):
        assert plan.is_empty
        with pytest.raises(ConfigError, match="preparation did not reject"):
            plan.batch(0)


def test_without_rejections_picks_are_those_of_earlier_fits():
    """Written down before plans knew of rejections."""
    rows = WindowPlan((1000, 100, 3000), ((0, 2, 5), (1,), (3, 4)), 450, rows=5, rows_per_window=4, seed=3)
    groups = (((0, 1, 2),), ((0, -1), (2, 3)), ((-1, -1),), ((0, 1),))
    joint = JointPlan((1000, 500, 900, 99), groups, window_samples=100, windows=3, seed=3)
    for nothing in ((), (None,) * 4):
        plan = WindowPlan(rows.n_times, rows.channels, 450, 5, 4, 3, nothing[:3])
        assert [(p.recording, p.start, p.channels) for p in plan.batch(7)] == ROWS
        plan = JointPlan(joint.n_times, groups, 100, 3, 3, nothing)
        assert [(p.recording, p.start, p.group) for p in plan.batch(7)] == JOINT
