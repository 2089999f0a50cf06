"""Window plans: a pure function of seed and step."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import ConfigError
from neuromill.tokenizers.windows import JointPlan, WindowPlan

PLAN = WindowPlan((1000, 100, 3000), ((0, 2, 5), (1,), (3, 4)), window_samples=450, rows=10, rows_per_window=4, seed=3)


@given(step=st.integers(0, 10_000), rows=st.integers(1, 50))
def test_picks_are_inside_and_add_up(step, rows):
    plan = WindowPlan(PLAN.n_times, PLAN.channels, 450, rows, 4, 3)
    picks = plan.batch(step)
    assert sum(len(p.channels) for p in picks) == rows
    for pick in picks:
        assert 0 <= pick.start <= plan.n_times[pick.recording] - 450
        assert set(pick.channels) <= set(plan.channels[pick.recording])
        assert list(pick.channels) == sorted(set(pick.channels))
        assert pick.recording != 1  # shorter than a window


def test_same_seed_and_step_same_picks():
    assert PLAN.batch(7) == PLAN.batch(7)
    assert PLAN.batch(7) != PLAN.batch(8)
    assert PLAN.batch(7) != WindowPlan(PLAN.n_times, PLAN.channels, 450, 10, 4, 4).batch(7)


def test_long_recordings_come_more_often():
    counts = Counter(pick.recording for step in range(300) for pick in PLAN.batch(step))
    assert counts[2] / counts[0] == pytest.approx(2551 / 551, rel=0.25)


def test_last_window_can_be_picked():
    plan = WindowPlan((10,), ((0,),), window_samples=9, rows=64, rows_per_window=1)
    assert {pick.start for pick in plan.batch(0)} == {0, 1}


@pytest.mark.parametrize(("n_times", "channels"), [((10,), ((0,),)), ((), ()), ((900,), ((),))])
def test_nothing_long_enough(n_times, channels):
    with pytest.raises(ConfigError, match="no recording is as long"):
        WindowPlan(n_times, channels, 450, 4).batch(0)


def test_joint_windows_hold_one_size_and_only_what_can_be_read():
    groups = (((0, 1, 2),), ((0, -1), (2, 3)), ((-1, -1),), ((0, 1),))
    plan = JointPlan(n_times=(1000, 500, 900, 99), groups=groups, window_samples=100, windows=6, seed=3)
    batches = [plan.batch(step) for step in range(60)]
    assert batches[7] == plan.batch(7)
    assert all(len(batch) == 6 and len({len(pick.group) for pick in batch}) == 1 for batch in batches)
    picks = [pick for batch in batches for pick in batch]
    assert {(pick.recording, pick.group) for pick in picks} == {(0, (0, 1, 2)), (1, (0, -1)), (1, (2, 3))}
    assert all(0 <= pick.start <= plan.n_times[pick.recording] - 100 for pick in picks)


def test_joint_windows_of_nothing():
    with pytest.raises(ConfigError, match="as long as a window"):
        JointPlan(n_times=(50,), groups=(((0, 1),),), window_samples=100, windows=2).batch(0)
