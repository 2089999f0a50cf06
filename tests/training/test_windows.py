"""Window plans."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import ConfigError
from neuromill.training.config import WindowConfig
from neuromill.training.windows import batch_shapes, plan_windows
from support.tokens import recording

CASES = [  # frames, segment, settings, spans
    (100, None, {"window_frames": 40}, [(0, 40), (40, 80), (80, 100)]),
    (80, None, {"window_frames": 40}, [(0, 40), (40, 80)]),
    (81, None, {"window_frames": 40}, [(0, 40), (40, 80)]),  # one frame cannot be predicted from anything
    (82, None, {"window_frames": 40}, [(0, 40), (40, 80), (80, 82)]),
    (100, None, {"window_frames": 40, "min_frames": 40}, [(0, 40), (40, 80)]),
    (100, None, {"window_frames": 40, "stride_frames": 20}, [(0, 40), (20, 60), (40, 80), (60, 100)]),
    (30, None, {"window_frames": 40}, [(0, 30)]),
    (100, 50, {"window_frames": 40}, [(0, 40), (40, 50), (50, 90), (90, 100)]),
    (100, 50, {"window_frames": 40, "align_to_segments": False}, [(0, 40), (40, 80), (80, 100)]),
    (130, 25, {"window_frames": 50}, [(0, 50), (50, 100), (100, 130)]),
    (40, 50, {"window_frames": 25}, [(0, 25), (25, 40)]),
]


@pytest.mark.parametrize(("n_frames", "segment", "settings", "spans"), CASES)
def test_plans(n_frames: int, segment: int | None, settings: dict[str, int], spans: list[tuple[int, int]]) -> None:
    windows = plan_windows([recording("a", n_frames, 2, segment_frames=segment)], WindowConfig(**settings))
    assert [(w.start, w.stop) for w in windows] == spans


@given(
    n_frames=st.integers(2, 2000),
    length=st.integers(2, 400),
    segment=st.none() | st.integers(2, 400),
)
def test_without_overlap_every_frame_is_in_one_window_but_for_rests_of_one(
    n_frames: int, length: int, segment: int | None
) -> None:
    one = recording("a", n_frames, 1, segment_frames=segment)
    if segment is not None and segment < min(length, n_frames) and length % segment:
        with pytest.raises(ConfigError, match="do not fit segments"):
            plan_windows([one], WindowConfig(window_frames=length))
        return
    windows = plan_windows([one], WindowConfig(window_frames=length))
    assert all(a.stop <= b.start for a, b in pairwise(windows))
    assert all(2 <= len(w) <= length for w in windows)
    pieces = 1 if segment is None else -(-n_frames // segment)
    assert n_frames - sum(map(len, windows)) <= pieces
    if segment is not None and length <= segment:
        assert all(w.start // segment == (w.stop - 1) // segment for w in windows)


def test_nothing_long_enough() -> None:
    with pytest.raises(ConfigError, match="no recording has 20 frames"):
        plan_windows([recording("a", 12, 2)], WindowConfig(min_frames=20))


def test_similar_windows_share_a_shape_no_larger_than_the_largest() -> None:
    recordings = [recording(n, 130, c) for n, c in (("ctf", 273), ("ctf2", 275), ("fif", 306), ("kit", 157))]
    windows = plan_windows(recordings, WindowConfig(window_frames=100))
    shapes = batch_shapes(windows, recordings, 100)
    assert [(s.n_channels, s.n_frames) for s in shapes] == [
        (275, 100), (275, 30), (275, 100), (275, 30), (306, 100), (306, 30), (157, 100), (157, 30),
    ]  # fmt: skip
