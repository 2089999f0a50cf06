"""Values that cannot be in their unit."""

from types import SimpleNamespace

import numpy as np
import pytest

from neuromill.readers.plausibility import check_plausible, spreads
from neuromill.records import ChannelTable, FailureCode, RecordingError

SECOND = 100
N_SECONDS = 60


def table(kind: str, n: int, bads: tuple[str, ...] = ()) -> ChannelTable:
    unknown = np.full((n, 3), np.nan)
    names = tuple(f"c{i}" for i in range(n))
    return ChannelTable(names, (kind,) * n, ("",) * n, ("V",) * n, unknown, unknown, bads or ("",) * n)


def noise(scale: float, n: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, (n, N_SECONDS * SECOND))


def check(block: np.ndarray, kind: str = "eeg", bads: tuple[str, ...] = ()) -> dict[int, str]:
    signal = SimpleNamespace(
        channels=table(kind, len(block), bads),
        sfreq=float(SECOND),
        n_times=block.shape[1],
        read=lambda start, stop, picks: block[picks, start:stop],
    )
    return check_plausible(signal, "x")  # type: ignore[arg-type]


def refused(block: np.ndarray, kind: str = "eeg") -> RecordingError:
    with pytest.raises(RecordingError) as caught:
        check(block, kind)
    assert caught.value.code is FailureCode.UNIT_CONFLICT
    return caught.value


@pytest.mark.parametrize(
    ("kind", "scale", "fine"),
    [
        ("eeg", 30e-6, True), ("eeg", 30.0, False), ("eeg", 30e-12, False), ("ecog", 2e-3, True), ("seeg", 40.0, False),
        ("mag", 1e-12, True), ("mag", 1.0, False), ("mag", 1e-18, False), ("grad", 5e-11, True), ("grad", 5.0, False),
        ("mag", 1.5e-13 * 1e6, False), ("grad", 3e-12 * 1e6, False), ("misc", 30.0, True), ("stim", 30.0, True),
    ],
)  # fmt: skip
def test_bounds(kind: str, scale: float, *, fine: bool) -> None:
    if fine:
        assert check(noise(scale), kind) == {}
    else:
        refused(noise(scale), kind)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 19])
def test_a_factor_of_a_million_passes_in_no_number_of_channels(n: int, factor: float) -> None:
    """A single one, or a quarter of them, is bad; more are the recording's unit."""
    for k in range(1, n + 1):
        block = noise(12e-6, n)
        block[:k] *= factor
        if 2 * k < n and k <= max(1, n / 4):
            assert check(block) == dict.fromkeys(range(k), "implausible"), k
        else:
            assert f"{k} of {n} eeg channels" in refused(block).what, k


def test_an_offset_is_no_spread() -> None:
    assert check(noise(30e-6) + 5.0) == {}


def test_bad_channels_are_not_asked() -> None:
    assert check(noise(30.0), bads=("marked",) * 5) == {}


def test_a_movement_is_no_unit() -> None:
    """One jump in the first seconds, or an electrode that is plugged in late."""
    block = noise(30e-6)
    block[1, 500:] += 0.5
    block[2, : 12 * SECOND] *= 1e-4
    assert check(block) == {}


def test_what_is_flat_says_nothing_until_it_lives() -> None:
    block = noise(30e-6)
    block[0] = 3e-5
    block[1, : 12 * SECOND] = 0
    block[1] *= 1e6
    assert check(block) == {1: "implausible"}
    assert check(np.zeros((3, 2000))) == {}


@pytest.mark.parametrize(
    "block", [np.zeros((3, 100)), np.full((3, 100), np.nan), np.ones((3, 1)), np.full((2, 50), 0.3)]
)
def test_nothing_to_judge_by(block: np.ndarray) -> None:
    assert np.isnan(spreads(block)).all()
    assert check(block) == {}


def test_spread_of_the_living() -> None:
    block = noise(1.0, 4) * np.array([[1.0], [0.0], [3.0], [np.nan]])
    np.testing.assert_allclose(spreads(block), [1.0, np.nan, 3.0, np.nan], rtol=0.05)
