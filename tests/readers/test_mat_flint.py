"""Flint: made files of the published layout; no real one is at hand."""

from pathlib import Path

import numpy as np
import pytest

from neuromill.readers.flint_mat import open_flint
from neuromill.readers.mat_trees import MatRecording
from neuromill.records import CovariateLayout, FailureCode, RecordingError, SpikeLayout, UnitsLayout
from support.mat import FlintTrial, write_flint, write_odoherty

CARD = SpikeLayout(
    format="flint",
    covariates=(CovariateLayout(path="HandVel", name="hand_vel", axes=("x", "y"), columns=(0, 1)),),
    need_covariates=True,
    restarts="blocks",
    block_gap_seconds=45,
)


def trial(start: float, *spikes: list[float], n: int = 200, **more) -> FlintTrial:
    return FlintTrial(start + np.arange(n) / 100, [np.array(times, dtype=float) for times in spikes], **more)


FIRST = [trial(10, [10.5, 11], [11.5]), trial(12, [12.25], [])]
SECOND = [trial(3, [3.5], [4.0], [4.5])]


def opened(path: Path, layout: SpikeLayout = CARD) -> MatRecording:
    return open_flint(path, path.name, layout)


def code_of(path: Path, layout: SpikeLayout = CARD) -> FailureCode:
    with pytest.raises(RecordingError) as caught:
        opened(path, layout)
    return caught.value.code


def with_(**changes: object) -> SpikeLayout:
    return CARD.model_copy(update=changes)


def test_trials_of_a_recording_are_one_clock(tmp_path: Path) -> None:
    with opened(write_flint(tmp_path / "a.mat", FIRST), with_(restarts="refuse")) as recording:
        assert recording.units.names == ("n001", "n002")
        assert recording.units.is_sorted == (True, True)
        assert [recording.spike_times(unit).tolist() for unit in (0, 1)] == [[10.5, 11, 12.25], [11.5]]
        np.testing.assert_allclose(recording.observation.intervals, [[10, 14]])
        assert recording.observation.joins == ()
        assert recording.trials.starts.tolist() == [10, 12]
        (series,) = recording.covariates
    assert series.names == ("hand_vel_x", "hand_vel_y")
    np.testing.assert_allclose(series.values, np.stack([np.sin(series.stamps), np.cos(series.stamps)], axis=1))
    assert len(series.stamps) == 400


def test_trials_with_a_gap_between_them_are_two_intervals(tmp_path: Path) -> None:
    with opened(write_flint(tmp_path / "a.mat", [trial(10, [10.5]), trial(15, [15.5])])) as recording:
        np.testing.assert_allclose(recording.observation.intervals, [[10, 12], [15, 17]])


def test_recordings_of_a_day_are_blocks_and_the_note_says_that_rows_are_other_neurons(tmp_path: Path) -> None:
    with opened(write_flint(tmp_path / "a.mat", FIRST, SECOND)) as recording:
        (join,) = recording.observation.joins
        second = 13.99 + 45
        assert 14 < join < second
        np.testing.assert_allclose(recording.observation.intervals, [[10, 14], [second, second + 2]])
        assert recording.units.names == ("n001", "n002", "n003")
        np.testing.assert_allclose(recording.spike_times(0), [10.5, 11, 12.25, second + 0.5])
        np.testing.assert_allclose(recording.spike_times(2), [second + 1.5])
        assert recording.trials.columns["recording"].tolist() == [1, 1, 2]
        assert any("another neuron" in note for note in recording.facts.notes)


def test_several_recordings_are_refused_unless_the_card_says_what_to_do(tmp_path: Path) -> None:
    path = write_flint(tmp_path / "a.mat", FIRST, SECOND)
    assert code_of(path, with_(restarts="refuse")) is FailureCode.BAD_TIMESTAMPS
    with opened(path, with_(restarts="refuse", units=UnitsLayout(path="Subject(2)"))) as recording:
        assert recording.spike_times(2).tolist() == [4.5]
        assert recording.observation.joins == ()


@pytest.mark.parametrize("place", ["Subject(3)", "Subject(0)", "Neuron"])
def test_a_recording_that_is_not_there_is_missing(tmp_path: Path, place: str) -> None:
    path = write_flint(tmp_path / "a.mat", FIRST, SECOND)
    assert code_of(path, with_(units=UnitsLayout(path=place))) is FailureCode.MISSING_FACT


def test_a_spike_on_the_border_of_two_trials_counts_once(tmp_path: Path) -> None:
    with opened(write_flint(tmp_path / "a.mat", [trial(10, [11, 12]), trial(12, [12, 13])])) as recording:
        assert recording.spike_times(0).tolist() == [11, 12, 13]
        assert any("occur twice" in note for note in recording.facts.notes)


def test_a_neuron_with_nan_is_masked(tmp_path: Path) -> None:
    with opened(write_flint(tmp_path / "a.mat", [trial(10, [11, np.nan], [12])])) as recording:
        assert recording.units.bads == ("non_finite", "")
        assert recording.spike_times(0).size == 0


@pytest.mark.parametrize(
    ("recordings", "code"),
    [
        ([[trial(10, [], [])]], FailureCode.NO_SPIKES),
        ([[trial(10, [], n=0)]], FailureCode.NO_SPIKES),
        ([[trial(10, [np.nan])]], FailureCode.NO_USABLE_CHANNELS),
        ([[trial(10, [11]), trial(5, [6])]], FailureCode.BAD_TIMESTAMPS),
        ([[trial(10, [11]), trial(12, [12.5], [13])]], FailureCode.UNREADABLE),
        ([[trial(10, [11], velocity=np.ones((5, 3)))]], FailureCode.UNREADABLE),
        ([[trial(10, [11], velocity=np.empty((0, 0)))]], FailureCode.NO_COVARIATES),
    ],
)
def test_bad_files_have_codes(tmp_path: Path, recordings: list, code: FailureCode) -> None:
    assert code_of(write_flint(tmp_path / "a.mat", *recordings)) is code


def test_a_file_of_another_kind_is_told_apart(tmp_path: Path) -> None:
    odoherty = write_odoherty(tmp_path / "a.mat", {(0, 0): np.array([100.5])})
    whole = write_flint(tmp_path / "b.mat", FIRST).read_bytes()
    for name, content, code in (
        ("cut.mat", whole[: len(whole) // 2], FailureCode.TRUNCATED),
        ("text.mat", b"no MATLAB file at all, but long enough to hold a header " * 10, FailureCode.UNREADABLE),
        ("empty.mat", b"", FailureCode.UNREADABLE),
    ):
        (tmp_path / name).write_bytes(content)
        assert code_of(tmp_path / name) is code, name
    assert code_of(odoherty) in (FailureCode.UNSUPPORTED_FORMAT, FailureCode.UNREADABLE)


def test_a_file_without_the_struct_array_is_unreadable(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"Subject": np.ones(3)})
    savemat(tmp_path / "b.mat", {"something": np.ones(3)})
    assert {code_of(tmp_path / "a.mat"), code_of(tmp_path / "b.mat")} == {FailureCode.UNREADABLE}
