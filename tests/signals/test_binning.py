from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.signals.binning import (
    MAX_BINS,
    BinGrid,
    count_session,
    count_spikes,
    grid_over,
    rebin_session,
    segments,
)

MICRO = Fraction(1, 10**6)
SECOND = BinGrid(0.0, 50, 0.02)


def bins_of(times: list[float], grid: BinGrid = SECOND) -> list[int]:
    """Bins of spikes, one entry per spike."""
    return np.repeat(np.arange(grid.n_bins), count_spikes(np.array(times), grid).counts).tolist()


def exact_bin(microseconds: int, grid: BinGrid) -> int:
    """Bin of a time that is a decimal of six digits, in rational arithmetic."""
    start, width = Fraction(grid.origin) * MICRO, Fraction(grid.width) * MICRO
    return (microseconds * MICRO - start) // width


@pytest.mark.parametrize(
    ("time", "where"),
    [
        (0.0, 0),
        (0.019999, 0),
        (0.02, 1),
        (0.58, 29),  # 0.58 / 0.02 is 28.999999999999996
        (0.579999, 28),
        (0.98, 49),
        (29 * 0.02, 29),
        (0.1 + 0.2, 15),  # 0.30000000000000004
        (0.3 - 5e-10, 15),  # what float arithmetic makes of an edge
    ],
)
def test_edges_are_decimals(time: float, where: int) -> None:
    assert bins_of([time]) == [where]


def test_every_edge_begins_its_bin() -> None:
    grid = BinGrid(17.123456, 100_000, 0.02)
    edges = grid.edges()
    counted = count_spikes(edges, grid)
    assert (counted.counts == 1).all()
    assert (counted.n_before, counted.n_after) == (0, 1)  # the end of the last bin is in none
    assert grid.stop_seconds == edges[-1] == 2017.123456


@given(
    st.integers(-(10**6), 10**10),
    st.integers(1, 10**6),
    st.lists(st.integers(-(10**7), 10**8), max_size=50),
)
def test_decimal_times_fall_as_in_exact_arithmetic(start: int, width: int, offsets: list[int]) -> None:
    grid = BinGrid(start / 10**6, 500, width / 10**6)
    ticks = sorted(start + offset for offset in offsets)
    counted = count_spikes(np.array(ticks, np.float64) / 10**6, grid)
    where = [exact_bin(t, grid) for t in ticks]
    expected = np.bincount([w for w in where if 0 <= w < 500], minlength=500)
    np.testing.assert_array_equal(counted.counts, expected)
    assert counted.n_before == sum(w < 0 for w in where)
    assert counted.n_after == sum(w >= 500 for w in where)


@given(st.lists(st.floats(-1, 1.1), min_size=1, max_size=50))
def test_any_double_is_at_most_a_nanosecond_early(times: list[float]) -> None:
    times.sort()
    inside = [t for t in times if 0 <= t < 0.9999999]
    for time, where in zip(inside, bins_of(inside), strict=True):
        assert Fraction(time) >= where * Fraction(2, 100) - Fraction(11, 10**10)
        assert Fraction(time) < (where + 1) * Fraction(2, 100)


@pytest.mark.parametrize(("time", "where"), [(2102.6999995, 105134), (2102.7, 105135), (2102.6999999999, 105135)])
def test_half_a_microsecond_is_not_rounded_away(time: float, where: int) -> None:
    assert bins_of([time], BinGrid(0.0, 200_000, 0.02)) == [where]


def test_seconds_since_1970_have_edges_too() -> None:
    grid = BinGrid(1_700_000_000.5, 10_000, 0.02)
    counted = count_spikes(np.array([1_700_000_000.5 + i * 0.02 for i in range(10_000)]), grid)
    assert (counted.counts == 1).all()


def test_spikes_outside_are_counted_and_in_no_bin() -> None:
    counted = count_spikes(np.array([-1e-3, -1e-6, 0.0, 0.5, 0.999999, 1.0, 7.0]), SECOND)
    assert counted.counts.sum() == 3
    assert (counted.n_before, counted.n_after, counted.n_saturated) == (2, 2, 0)


@pytest.mark.parametrize(("n", "value", "n_saturated"), [(255, 255, 0), (256, 255, 1), (70_000, 255, 1)])
def test_counts_never_wrap(n: int, value: int, n_saturated: int) -> None:
    counted = count_spikes(np.full(n, 0.5), SECOND)
    assert (counted.counts[25], counted.n_saturated) == (value, n_saturated)


def test_no_spikes_are_zeros() -> None:
    counted = count_spikes(np.empty(0), SECOND)
    assert counted.counts.dtype == np.uint8
    assert counted.counts.tolist() == [0] * 50


@pytest.mark.parametrize("times", [[0.2, 0.1], [0.1, np.nan, 0.2], [np.nan], [0.1, np.inf], [-np.inf, 0.1], [1e300]])
def test_times_that_are_no_clock_are_refused(times: list[float]) -> None:
    with pytest.raises(RecordingError) as error:
        count_spikes(np.array(times), SECOND)
    assert error.value.code is FailureCode.BAD_TIMESTAMPS


@pytest.mark.parametrize("n_units", [1, 63, 64, 65, 130])
def test_a_session_is_its_units_side_by_side(n_units: int) -> None:
    rng = np.random.default_rng(n_units)
    times = [np.sort(rng.uniform(-0.1, 1.1, rng.integers(0, 300))) for _ in range(n_units)]
    session = count_session(iter(times), n_units, SECOND)
    for unit, own in enumerate(times):
        one = count_spikes(own, SECOND)
        np.testing.assert_array_equal(session.counts[:, unit], one.counts)
        lost = session.n_before[unit], session.n_after[unit], session.n_saturated[unit]
        assert lost == (one.n_before, one.n_after, one.n_saturated)
    assert session.counts.flags.c_contiguous


def test_a_session_of_other_length_is_refused() -> None:
    with pytest.raises(ValueError, match="1 units, 2"):
        count_session([np.zeros(1)], 2, SECOND)


@pytest.mark.parametrize("width", [0.0, -0.02, np.nan, 1e-7, 1 / 60, 0.0200005])
def test_a_width_is_a_whole_number_of_microseconds(width: float) -> None:
    with pytest.raises(ConfigError, match="whole number of microseconds"):
        BinGrid(0.0, 1, width)


@pytest.mark.parametrize(
    ("intervals", "start", "n_bins"),
    [
        ([[0.0, 1.0]], 0.0, 50),
        ([[0.0, 1.019999]], 0.0, 50),  # the incomplete last bin is none
        ([[0.0, 0.58]], 0.0, 29),
        ([[12.3456781, 13.3456781]], 12.345678, 50),
        ([[-1.0, 0.5], [2.0, 3.0]], -1.0, 200),
    ],
)
def test_the_grid_spans_what_was_observed(intervals: list[list[float]], start: float, n_bins: int) -> None:
    assert grid_over(np.array(intervals), 0.02) == BinGrid(start, n_bins, 0.02)


@pytest.mark.parametrize(
    ("intervals", "code"),
    [
        (np.empty((0, 2)), FailureCode.TOO_SHORT),
        ([[0.0, 0.019]], FailureCode.TOO_SHORT),
        ([[1.0, 0.0]], FailureCode.BAD_TIMESTAMPS),
        ([[0.0, np.nan]], FailureCode.BAD_TIMESTAMPS),
        ([[0.0, np.inf]], FailureCode.BAD_TIMESTAMPS),
        ([[0.0, (MAX_BINS + 1) * 0.02]], FailureCode.TOO_LARGE),
    ],
)
def test_intervals_that_make_no_recording(intervals: list[list[float]], code: FailureCode) -> None:
    with pytest.raises(RecordingError) as error:
        grid_over(np.array(intervals), 0.02)
    assert error.value.code is code


@pytest.mark.parametrize(("edge", "offset"), [("start", 0.0), ("end", 0.02)])
def test_counts_as_wide_as_bins_are_taken_as_they_are(edge: str, offset: float) -> None:
    counts = np.random.default_rng(0).poisson(2.0, (50, 7)).astype(np.int32)
    trembling = np.arange(50) * 0.02 + offset + np.random.default_rng(1).uniform(-0.004, 0.004, 50)
    np.testing.assert_array_equal(rebin_session(trembling, counts, 0.02, edge, SECOND).counts, counts)


@given(st.integers(1, 3), st.integers(1, 4), st.sampled_from(["start", "end"]), st.integers(0, 10**6))
def test_a_raster_is_summed_per_bin(n_units: int, ratio: int, edge: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    width = 0.02 / (5 * ratio)
    rows = rng.integers(0, 60, (7 * 5 * ratio, n_units))
    stamps = (np.arange(len(rows)) + (edge == "end")) * width
    made = rebin_session(stamps, rows, width, edge, BinGrid(0.0, 7, 0.02))
    sums = rows.reshape(7, -1, n_units).sum(axis=1)
    np.testing.assert_array_equal(made.counts, np.minimum(sums, 255))
    np.testing.assert_array_equal(made.n_saturated, (sums > 255).sum(axis=0))


def test_rows_outside_and_missing_rows() -> None:
    stamps = np.array([-0.02, 0.0, 0.02, 0.08, 0.1])  # two rows are missing, one is before, one after
    counts = np.array([[9], [1], [2], [3], [8]], np.uint8)
    made = rebin_session(stamps, counts, 0.02, "start", BinGrid(0.0, 5, 0.02))
    assert made.counts[:, 0].tolist() == [1, 2, 0, 0, 3]
    assert (made.n_before[0], made.n_after[0]) == (9, 8)


def test_long_rasters_are_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(0, 3, (1000, 3))
    stamps = np.arange(1000) / 1000
    whole = rebin_session(stamps, rows, 0.001, "start", SECOND).counts
    monkeypatch.setattr("neuromill.signals.binning.REBIN_BYTES", 8 * 3 * 33)  # 33 rows: bins would be parted
    np.testing.assert_array_equal(rebin_session(stamps, rows, 0.001, "start", SECOND).counts, whole)


@pytest.mark.parametrize("width", [0.03, 0.015, 0.04, 0.0, -0.02, np.nan])
def test_rows_that_fit_no_bin_are_refused(width: float) -> None:
    with pytest.raises(RecordingError) as error:
        rebin_session(np.array([0.0]), np.ones((1, 1), np.int64), width, "start", SECOND)
    assert error.value.code is FailureCode.UNSUPPORTED_FORMAT


def test_negative_counts_are_refused() -> None:
    with pytest.raises(RecordingError, match="negative"):
        rebin_session(np.array([0.0, 0.02]), np.array([[1], [-1]]), 0.02, "start", SECOND)


@pytest.mark.parametrize(
    ("intervals", "joins", "expected"),
    [
        ([[0.0, 0.2]], (), "0000000000"),
        ([[0.0, 0.1], [0.14, 0.2]], (), "00000--111"),
        ([[0.0, 0.09], [0.1, 0.2]], (), "0000-11111"),  # a bin that an interval cuts
        ([[0.0, 0.09], [0.09, 0.2]], (), "0000000000"),  # they touch: nothing is missing
        ([[0.0, 0.09], [0.09, 0.2]], (0.09,), "0000-11111"),  # a join within a bin
        ([[0.0, 0.2]], (0.1,), "0000011111"),  # a join on an edge
        ([[0.0, 0.2]], (0.1, 0.04), "0011122222"),
        ([[0.0, 0.2]], (0.0, 0.2, 0.3, -1.0), "0000000000"),
        ([[0.0, 0.05], [0.061, 0.079], [0.08, 0.2]], (), "00--111111"),  # one interval holds no whole bin
        ([[-0.05, 0.05], [0.1, 0.3]], (), "00---11111"),
    ],
)
def test_segments_are_runs_of_whole_bins(intervals: list[list[float]], joins: tuple[float, ...], expected: str) -> None:
    made = segments(BinGrid(0.0, 10, 0.02), np.array(intervals), joins)
    assert made.dtype == np.int32
    assert "".join("-" if s < 0 else str(s) for s in made) == expected


def test_nothing_observed_is_no_segment() -> None:
    assert segments(SECOND, np.empty((0, 2))).tolist() == [-1] * 50


@pytest.mark.data
def test_a_real_session_is_counted_as_decimals_say(data: Path) -> None:
    with h5py.File(data / "nwb" / "mc_maze_trial748.nwb") as file:
        times, ends = file["units/spike_times"][:], file["units/spike_times_index"][:]
    units = [np.sort(own) for own in np.split(times, ends[:-1])]
    grid = grid_over(np.array([[2282.6, 2285.83]]), 0.02)
    session = count_session(units, len(units), grid)
    for unit, own in enumerate(units):
        since = [Decimal(f"{t:.6f}") - Decimal("2282.6") for t in own.tolist()]
        exact = [int(t // Decimal("0.02")) for t in since if t >= 0]
        wanted = np.bincount([b for b in exact if b < grid.n_bins], minlength=grid.n_bins)
        np.testing.assert_array_equal(session.counts[:, unit], wanted)
    assert session.counts.sum() > 1000


def test_spikes_beyond_what_int32_numbers() -> None:
    """Bins of a microsecond: 2**31 of them are 36 minutes."""
    times = np.array([-4e9, -2147.483647, -1e-6, 0.0, 5e-6, 1e-5, 2147.483646, 2147.483649, 4e9])
    found = count_spikes(times, BinGrid(0.0, 10, 1e-6))
    assert found.counts.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert (found.n_before, found.n_after) == (3, 4)
