"""Which channels are of another order of magnitude than the others, and how many are one fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records.amplitudes import Amplitude, apart, is_one_fault

BOUNDS = (2.0, 500.0)


def steady(*levels: float) -> list[Amplitude]:
    return [Amplitude(level, level, level) for level in levels]


@given(
    st.lists(st.floats(7, 20), min_size=2, max_size=30),
    st.sampled_from([1e-6, 1e-2, 1e2, 1e6]),
    st.data(),
)
def test_a_factor_is_found_in_any_channels_but_all(levels: list[float], factor: float, data: st.DataObject) -> None:
    wrong = data.draw(st.sets(st.integers(0, len(levels) - 1), max_size=len(levels) - 1))
    scaled = [level * factor if i in wrong else level for i, level in enumerate(levels)]
    assert set(apart(steady(*scaled), BOUNDS, 10)) == wrong


def test_most_of_the_time_counts() -> None:
    others = steady(10, 10, 10, 10)
    assert apart([*others, Amplitude(10, 2000, 2000)], BOUNDS, 10) == ()
    assert apart([*others, Amplitude(0, 0, 10)], BOUNDS, 10) == ()
    assert apart([*others, Amplitude(101, 200, 300)], BOUNDS, 10) == (4,)
    assert apart([], BOUNDS, 10) == ()


def test_without_any_within_the_bounds_all_are_the_others() -> None:
    assert apart(steady(0.1, 0.1, 0.1, 1e-3), BOUNDS, 10) == (3,)


@pytest.mark.parametrize(("n", "single"), [(1, 0), (2, 0), (3, 1), (4, 1), (7, 1), (8, 2), (19, 4), (20, 5), (64, 16)])
def test_up_to_a_quarter_are_single_electrodes(n: int, single: int) -> None:
    assert [k for k in range(n + 1) if not is_one_fault(k, n)] == list(range(single + 1))
    assert not is_one_fault(0, 0)
