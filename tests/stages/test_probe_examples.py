"""Windows of events: none that holds something of another class, against looking at every sample."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from neuromill.stages.probe_examples import (
    NO_CLASS,
    NOT_INSIDE,
    OTHER_CLASS,
    TOLD_TWICE,
    TWO_LABELS,
    Event,
    WindowGrid,
    event_windows,
)

GRID = WindowGrid(sfreq=10.0, n_rows=200, length=20)


def windows(*events: Event, grid: WindowGrid = GRID) -> tuple[list[tuple[int, str]], dict[str, int]]:
    counter: Counter[str] = Counter()
    return event_windows(events, grid, counter), dict(+counter)


def test_a_window_ends_where_the_next_event_begins() -> None:
    """2 s of windows for events every 2 s: each is whole; with 2.1 s the next one begins in it."""
    events = [Event(2.0 * k, 0.0, "ab"[k % 2]) for k in range(5)]
    assert windows(*events) == ([(20 * k, "ab"[k % 2]) for k in range(5)], {})
    longer = WindowGrid(sfreq=10.0, n_rows=200, length=21)
    assert windows(*events, grid=longer) == ([(80, "a")], {OTHER_CLASS: 4})


def test_an_event_that_still_lasts() -> None:
    assert windows(Event(0.0, 5.0, "a"), Event(3.0, 0.0, "b")) == ([(0, "a")], {OTHER_CLASS: 1})
    assert windows(Event(0.0, 3.0, "a"), Event(3.0, 0.0, "b")) == ([(0, "a"), (30, "b")], {})


def test_two_labels_at_one_onset_are_no_examples() -> None:
    """Also where the window begins after both."""
    for offset in (0.0, 1.0):
        grid = WindowGrid(10.0, 200, 20, offset)
        start = round(10 * (8 + offset))
        assert windows(Event(1, 0, "a"), Event(1, 0, "b"), Event(8, 0, "a"), grid=grid) == (
            [(start, "a")], {TWO_LABELS: 2},
        )  # fmt: skip


def test_an_event_that_is_told_twice_is_one_example() -> None:
    assert windows(Event(1, 0, "a"), Event(1, 2, "a")) == ([(10, "a")], {TOLD_TWICE: 1})


def test_what_is_of_no_class_is_in_nobodys_way() -> None:
    found = windows(Event(1, 0, "a"), Event(2, 5, ""), Event(18.1, 0, "a"))
    assert found == ([(10, "a")], {NO_CLASS: 1, NOT_INSIDE: 1})
    assert windows() == ([], {})


TENTHS = st.integers(0, 99).map(lambda k: k / 10)
EVENTS = st.lists(st.builds(Event, TENTHS, TENTHS.map(lambda s: s / 3.3), st.sampled_from(["a", "b", ""])), max_size=12)


@given(events=EVENTS, length=st.integers(1, 30), offset=st.integers(-20, 20))
def test_no_sample_of_a_window_is_of_another_class(events: list[Event], length: int, offset: int) -> None:
    events = sorted(events, key=lambda one: one.onset)
    grid = WindowGrid(10.0, 100, length, offset / 10)
    counter: Counter[str] = Counter()
    found = event_windows(events, grid, counter)
    going_on = {label: np.zeros(200, np.bool_) for label in "ab"}
    for event in events:
        if event.label:
            first = round(10 * event.onset)
            going_on[event.label][first : max(first + 1, round(10 * (event.onset + event.duration)))] = True
    expected = set()
    for event in events:
        start = round(10 * event.onset + offset)
        inside = event.label and start in range(101 - length)
        same = any(one.onset == event.onset and one.label not in ("", event.label) for one in events)
        if inside and not same and not going_on["b" if event.label == "a" else "a"][start : start + length].any():
            expected.add((start, event.label))
    assert set(found) == expected
    assert len(found) == len(expected)
    assert len(found) + sum(counter.values()) == len(events)
