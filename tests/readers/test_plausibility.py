"""Values that cannot be in their unit."""

import numpy as np
import pytest

from neuromill.readers.plausibility import check_plausible, typical_std
from neuromill.records import ChannelTable, FailureCode, RecordingError


def table(kind: str, n: int, bads: tuple[str, ...] = ()) -> ChannelTable:
    unknown = np.full((n, 3), np.nan)
    names = tuple(f"c{i}" for i in range(n))
    return ChannelTable(names, (kind,) * n, ("",) * n, ("V",) * n, unknown, unknown, bads or ("",) * n)


def noise(scale: float, n: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, (n, 1000))


@pytest.mark.parametrize(
    ("kind", "scale", "fine"),
    [
        ("eeg", 30e-6, True), ("eeg", 30.0, False), ("eeg", 30e-12, False), ("ecog", 2e-3, True), ("seeg", 40.0, False),
        ("mag", 1e-12, True), ("mag", 1.0, False), ("mag", 1e-18, False), ("grad", 5e-11, True), ("grad", 5.0, False),
        ("misc", 30.0, True), ("stim", 30.0, True),
    ],
)  # fmt: skip
def test_bounds(kind: str, scale: float, *, fine: bool) -> None:
    if fine:
        check_plausible(noise(scale), table(kind, 5), "x")
        return
    with pytest.raises(RecordingError) as caught:
        check_plausible(noise(scale), table(kind, 5), "x")
    assert caught.value.code is FailureCode.UNIT_CONFLICT


def test_an_offset_is_no_spread() -> None:
    check_plausible(noise(30e-6) + 5.0, table("eeg", 5), "x")


def test_one_wild_channel_among_many_is_not_about_units() -> None:
    block = noise(30e-6)
    block[2] *= 1e9
    check_plausible(block, table("eeg", 5), "x")


def test_bad_channels_are_not_asked() -> None:
    check_plausible(noise(30.0), table("eeg", 5, ("marked",) * 5), "x")


@pytest.mark.parametrize("block", [np.zeros((3, 100)), np.full((3, 100), np.nan), np.ones((3, 1)), np.empty((0, 9))])
def test_nothing_to_judge_by(block: np.ndarray) -> None:
    assert typical_std(block) is None


def test_typical_is_the_median_of_the_living() -> None:
    block = noise(1.0, 4) * np.array([[1.0], [0.0], [3.0], [np.nan]])
    assert typical_std(block) == pytest.approx(2.0, rel=0.1)
