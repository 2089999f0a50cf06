"""O'Doherty-Sabes: made files of the published layout; no real one is at hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.readers.mat_trees import MatRecording, observed_intervals
from neuromill.readers.odoherty_mat import open_odoherty
from neuromill.records import (
    ColumnIs,
    CovariateLayout,
    FailureCode,
    RecordingError,
    SpikeLayout,
    UnitsLayout,
)
from support.mat import write_odoherty

HASH, SORTED, AREA_S1 = np.array([99.5, 100.25, 101.0]), np.array([100.5, 100.75]), np.array([102.0])
CELLS = {(0, 0): HASH, (0, 1): SORTED, (2, 0): AREA_S1}
CARD = SpikeLayout(
    format="odoherty",
    covariates=(
        CovariateLayout(
            path="finger_pos", name="finger_vel", axes=("x", "y"), columns=(1, 2), unit="m", factor=-0.01,
            derivative="after",
        ),
    ),
    need_covariates=True,
)  # fmt: skip


def opened(path: Path, layout: SpikeLayout = CARD) -> MatRecording:
    return open_odoherty(path, path.name, layout)


def code_of(path: Path, layout: SpikeLayout = CARD) -> FailureCode:
    with pytest.raises(RecordingError) as caught:
        opened(path, layout)
    return caught.value.code


def test_units_stay_apart_and_the_hash_of_a_silent_channel_is_a_row(tmp_path: Path) -> None:
    with opened(write_odoherty(tmp_path / "a.mat", CELLS)) as recording:
        units = recording.units
        assert units.names == ("M1_001_0", "M1_001_1", "M1_002_0", "S1_001_0")
        assert units.is_sorted == (False, True, False, False)
        assert (units.areas, units.arrays) == (("M1", "M1", "M1", "S1"),) * 2
        assert units.electrodes == ("M1 001", "M1 001", "M1 002", "S1 001")
        assert set(units.bads) == {""}
        found = [recording.spike_times(unit).tolist() for unit in range(4)]
    assert found == [HASH.tolist(), SORTED.tolist(), [], AREA_S1.tolist()]  # 99.5 s is before the clock begins


@pytest.mark.parametrize("marked_empty", [True, False])
def test_an_empty_cell_is_no_unit_with_two_spikes(tmp_path: Path, *, marked_empty: bool) -> None:
    """MATLAB stores an empty array as its dimensions [0, 0]; read as times they are two spikes at 0 s."""
    path = write_odoherty(tmp_path / "a.mat", CELLS, start=0.0, marked_empty=marked_empty)
    with opened(path) as recording:
        assert recording.units.names[2] == "M1_002_0"
        assert recording.spike_times(2).size == 0


def test_a_unit_with_two_spikes_or_one_is_kept(tmp_path: Path) -> None:
    cells = {(0, 0): np.array([[100.5], [101.5]]), (1, 0): np.array([[101.0]]), (1, 1): np.array([[101.0, 102.0]])}
    with opened(write_odoherty(tmp_path / "a.mat", cells)) as recording:
        assert [recording.spike_times(i).tolist() for i in (0, 1, 2)] == [[100.5, 101.5], [101.0], [101.0, 102.0]]


def test_a_malformed_cell_is_masked_with_its_reason(tmp_path: Path) -> None:
    cells = CELLS | {(1, 0): np.ones((2, 2)), (1, 1): np.array([100.0, np.nan])}
    with opened(write_odoherty(tmp_path / "a.mat", cells)) as recording:
        bads = dict(zip(recording.units.names, recording.units.bads, strict=True))
        assert {name: bad for name, bad in bads.items() if bad} == {"M1_002_0": "malformed", "M1_002_1": "non_finite"}
        assert recording.spike_times(recording.units.names.index("M1_002_0")).size == 0
        assert any("unit 0 of M1 002" in note for note in recording.facts.notes)


def test_spikes_out_of_order_are_sorted_and_told(tmp_path: Path) -> None:
    with opened(write_odoherty(tmp_path / "a.mat", {(0, 0): HASH[::-1]})) as recording:
        assert recording.spike_times(0).tolist() == HASH.tolist()
        assert any("sorted" in note for note in recording.facts.notes)


def test_finger_position_becomes_metres_to_the_right_and_up(tmp_path: Path) -> None:
    with opened(write_odoherty(tmp_path / "a.mat", CELLS)) as recording:
        (series,) = recording.covariates
    time = np.linspace(0, 1, 1000)
    assert (series.names, series.unit, series.derivative) == (("finger_vel_x", "finger_vel_y"), "m", "after")
    np.testing.assert_allclose(series.values, np.stack([time, 0.5 * time**2], axis=1), rtol=1e-12)
    np.testing.assert_allclose(series.stamps, 100 + np.arange(1000) / 250, rtol=1e-12)


def test_1000_samples_at_250_hz_are_4_seconds(tmp_path: Path) -> None:
    with opened(write_odoherty(tmp_path / "a.mat", CELLS)) as recording:
        ((start, stop),) = recording.observation.intervals
    assert start == 100
    assert stop - start == pytest.approx(4.0, abs=1e-9)


def test_auto_takes_every_series_with_its_published_unit(tmp_path: Path) -> None:
    with opened(write_odoherty(tmp_path / "a.mat", CELLS), SpikeLayout(format="odoherty")) as recording:
        found = {series.names: series.unit for series in recording.covariates}
    assert found == {
        ("finger_pos_0", "finger_pos_1", "finger_pos_2"): "cm",
        ("cursor_pos_0", "cursor_pos_1"): "",
        ("target_pos_0", "target_pos_1"): "mm",
    }


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (ColumnIs(column="area", values=("M1",)), ("M1_001_0", "M1_001_1", "M1_002_0")),
        (ColumnIs(column="is_sorted", values=(False,)), ("M1_001_0", "M1_002_0", "S1_001_0")),
        (ColumnIs(column="is_sorted", values=(True,)), ("M1_001_1",)),
    ],
)
def test_a_card_keeps_units_by_condition(tmp_path: Path, keep: ColumnIs, names: tuple[str, ...]) -> None:
    layout = SpikeLayout(format="odoherty", units=UnitsLayout(keep=(keep,)))
    with opened(write_odoherty(tmp_path / "a.mat", CELLS), layout) as recording:
        assert recording.units.names == names


def test_a_condition_on_a_column_that_is_not_there_is_missing(tmp_path: Path) -> None:
    layout = SpikeLayout(format="odoherty", units=UnitsLayout(keep=(ColumnIs(column="depth", values=(1.0,)),)))
    assert code_of(write_odoherty(tmp_path / "a.mat", CELLS), layout) is FailureCode.MISSING_FACT


CLOCK = 100 + np.arange(1000)[None] / 250
BACK = np.concatenate([CLOCK[:, :500], CLOCK[:, :500]], axis=1)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cells": {}}, FailureCode.NO_SPIKES),
        ({"without": ("spikes",)}, FailureCode.NO_SPIKES),
        ({"cells": {(0, 0): np.ones((2, 2))}}, FailureCode.NO_USABLE_CHANNELS),
        ({"t": BACK}, FailureCode.BAD_TIMESTAMPS),
        ({"t": np.where(CLOCK > 102, np.nan, CLOCK)}, FailureCode.BAD_TIMESTAMPS),
        ({"t": np.empty((1, 0))}, FailureCode.BAD_TIMESTAMPS),
        ({"without": ("t",)}, FailureCode.UNREADABLE),
        ({"finger_pos": np.ones((3, 999))}, FailureCode.UNREADABLE),
        ({"without": ("finger_pos",)}, FailureCode.NO_COVARIATES),
        ({"channels": ("M1 001", "M1 001", "M1 002")}, FailureCode.UNREADABLE),
    ],
)
def test_bad_files_have_codes(tmp_path: Path, changes: dict, code: FailureCode) -> None:
    assert code_of(write_odoherty(tmp_path / "a.mat", **({"cells": CELLS} | changes))) is code


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file", b"\x89HDF\r\n\x1a\n"])
def test_what_is_no_hdf5_is_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    assert code_of(tmp_path / "a.mat") is FailureCode.UNREADABLE


def test_a_file_cut_off_is_truncated(tmp_path: Path) -> None:
    whole = write_odoherty(tmp_path / "a.mat", CELLS).read_bytes()
    (tmp_path / "b.mat").write_bytes(whole[: len(whole) // 2])
    assert code_of(tmp_path / "b.mat") is FailureCode.TRUNCATED


def test_repeated_stamps_are_merged_or_refused(tmp_path: Path) -> None:
    repeated = CLOCK.copy()
    repeated[0, 10] = repeated[0, 9]
    path = write_odoherty(tmp_path / "a.mat", CELLS, t=repeated)
    with opened(path) as recording:
        assert len(recording.covariates[0].stamps) == 999
        assert any("1 repeated" in note for note in recording.facts.notes)
    strict = CARD.covariates[0].model_copy(update={"repeats": "refuse"})
    assert code_of(path, CARD.model_copy(update={"covariates": (strict,)})) is FailureCode.BAD_TIMESTAMPS


def test_held_samples_keep_their_change_points(tmp_path: Path) -> None:
    layout = SpikeLayout(format="odoherty", covariates=(CovariateLayout(path="target_pos", samples="held"),))
    with opened(write_odoherty(tmp_path / "a.mat", CELLS), layout) as recording:
        (series,) = recording.covariates
    assert series.values[:, 0].tolist() == [1.0, 2.0, 2.0]
    np.testing.assert_allclose(series.stamps, [100, 102, 103.996])


def test_a_column_that_is_not_there_is_missing(tmp_path: Path) -> None:
    layout = SpikeLayout(format="odoherty", covariates=(CovariateLayout(path="cursor_pos", columns=(0, 2)),))
    assert code_of(write_odoherty(tmp_path / "a.mat", CELLS), layout) is FailureCode.MISSING_FACT


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=5),
    st.floats(0.001, 0.1),
    st.lists(st.integers(10, 1000), min_size=4, max_size=4),
)
def test_observed_time_is_the_number_of_samples_times_their_step(
    lengths: list[int], step: float, gaps: list[int]
) -> None:
    """Stretches of regular samples with long gaps between them; the majority of steps is the regular one."""
    lengths = [length + 20 for length in lengths]
    ticks, position = [], 0
    for length, gap in zip(lengths, [*gaps, 0], strict=False):
        ticks.append(position + np.arange(length))
        position += length + gap
    intervals = observed_intervals(np.concatenate(ticks) * step)
    assert len(intervals) == len(lengths)
    np.testing.assert_allclose((intervals[:, 1] - intervals[:, 0]) / step, lengths, rtol=1e-6)
