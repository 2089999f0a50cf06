"""Real and damaged NWB files end as the table of expected outcomes says; pynwb is the oracle for the numbers."""

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neuromill.readers.spikes import open_spikes
from neuromill.records import CovariateLayout, RecordingError, SpikeLayout, UnitsLayout
from support.nwb import recording_at
from support.outcomes import TOKENS, Expected, expected_outcomes

pytestmark = pytest.mark.data

ROWS = [row for row in expected_outcomes() if row.modality == "spikes"]
GOOD = [row.path for row in ROWS if row.outcome == TOKENS]
SMALL = "dandi/000140/sub-Jenkins/sub-Jenkins_ses-small_desc-test_ecephys.nwb"
# pynwb cannot open this one: it wants a start time. It masks nothing and sorts nothing, so damaged units differ.
NOT_FOR_PYNWB = "malformed/nwb/nwb_no_session_start.nwb"


def opened(data: Path, path: str, **layout: Any):
    return open_spikes(recording_at(path, data), data, SpikeLayout(**layout))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path.rsplit("/", 1)[-1])
def test_opens_or_fails_as_the_table_says(row: Expected, data: Path) -> None:
    if row.outcome == TOKENS:
        with opened(data, row.path) as recording:
            assert len(recording.units) > 0
            assert sum(len(recording.spike_times(unit)) for unit in range(len(recording.units))) > 0
        return
    with pytest.raises(RecordingError) as caught:
        opened(data, row.path)
    assert caught.value.code == row.outcome
    assert caught.value.where == row.path
    assert caught.value.next_step


@pytest.mark.parametrize("path", [path for path in GOOD if path != NOT_FOR_PYNWB])
@pytest.mark.filterwarnings("ignore")  # pynwb warns of cached schemas and of odd files; what it reads is the oracle
def test_spikes_and_behaviour_equal_those_of_pynwb(path: str, data: Path) -> None:
    from pynwb import NWBHDF5IO

    with (
        warnings.catch_warnings(),
        NWBHDF5IO(data / path, "r", load_namespaces=False) as io,
        opened(data, path) as recording,
    ):
        file = io.read()
        assert recording.units.names == tuple(str(i) for i in file.units.id[:])
        for unit, bad in enumerate(recording.units.bads):
            expected = np.sort(file.units.get_unit_spike_times(unit))
            np.testing.assert_array_equal(recording.spike_times(unit), [] if bad else expected)
        behaviour = file.processing.get("behavior")
        for one in recording.covariates:
            name = one.names[0].rpartition("_")[0]
            series = behaviour["Position"][name] if name == "position" else behaviour[name]
            stamps, first = np.unique(series.timestamps[:], return_index=True)
            np.testing.assert_array_equal(one.stamps, stamps)
            single = np.diff([*first, len(series.timestamps)]) == 1
            values = (series.data[:] * series.conversion + series.offset)[first]
            np.testing.assert_array_equal(one.values[single], values[single])


def test_facts_of_the_small_maze_file(data: Path) -> None:
    with opened(data, SMALL) as recording, h5py.File(data / SMALL) as file:
        table = file["general/extracellular_ephys/electrodes"]
        rows = file["units/electrodes"][:]
        assert recording.units.arrays == tuple(table["group_name"].asstr()[:][rows].tolist())
        assert recording.units.areas == tuple(table["location"].asstr()[:][rows].tolist())
        assert recording.units.electrodes == tuple(map(str, table["id"][:][rows].tolist()))
        # The file's own defect: for the units of the second array, rows of the electrodes start again at 0.
        assert np.flatnonzero(np.diff(rows) < 0).tolist() == [51]
        assert set(recording.units.arrays) == {"electrode_group_PMd"}
        assert recording.facts.subject == "Jenkins"
        assert recording.facts.device == "Blackrock Microsystems"
        assert recording.covariates == ()
        assert recording.binned is None
        np.testing.assert_array_equal(recording.observation.intervals, file["units/obs_intervals"][:100])
        assert len(recording.trials) == 100
        assert set(recording.trials.columns["split"]) == {"test"}
        assert recording.trials.success.all()
        everything = np.concatenate([recording.spike_times(i) for i in range(len(recording.units))])
        np.testing.assert_array_equal(everything, file["units/spike_times"][:])


def test_repeated_stamps_of_the_rat_are_merged_to_their_mean_and_told(data: Path) -> None:
    path = "nwb/rat_linear_track.nwb"
    with opened(data, path) as recording, h5py.File(data / path) as file:
        series = file["processing/behavior/Position/position"]
        stamps, values = series["timestamps"][:], series["data"][:]
        (at,) = np.flatnonzero(np.diff(stamps) == 0)
        (position,) = recording.covariates
        assert position.names == ("position_x", "position_y")
        assert position.unit == "pixels"
        assert len(position.stamps) == len(stamps) - 1
        np.testing.assert_array_equal(position.values[at], values[at : at + 2].mean(axis=0))
        assert any("1 repeated time stamps" in note for note in recording.facts.notes)
    with pytest.raises(RecordingError) as caught:
        opened(
            data, path, covariates=(CovariateLayout(path="processing/behavior/Position/position", repeats="refuse"),)
        )
    assert caught.value.code == "bad_timestamps"


MASKED = [("nwb_spikes_nan", "non_finite", 9), ("nwb_spikes_negative", "before_start", 1), ("nwb_units_empty", "", 20)]


@pytest.mark.parametrize(("case", "reason", "n"), MASKED)
def test_damaged_units_are_masked_and_the_others_whole(case: str, reason: str, n: int, data: Path) -> None:
    with opened(data, f"malformed/nwb/{case}.nwb") as recording, opened(data, "malformed/nwb/nwb_ok.nwb") as good:
        assert recording.units.bads.count(reason) == n
        for unit, bad in enumerate(recording.units.bads):
            mine = recording.spike_times(unit)
            if bad:
                assert mine.size == 0
            elif reason:
                np.testing.assert_array_equal(mine, good.spike_times(unit))


def test_an_unsorted_unit_is_sorted_and_noted(data: Path) -> None:
    case = "malformed/nwb/nwb_spikes_unsorted.nwb"
    with opened(data, case) as recording, opened(data, "malformed/nwb/nwb_ok.nwb") as good:
        for unit in range(len(good.units)):
            np.testing.assert_array_equal(recording.spike_times(unit), good.spike_times(unit))
        assert any("sorted" in note for note in recording.facts.notes)
        assert good.facts.notes == ()


def test_nan_in_behaviour_stays_where_it_is(data: Path) -> None:
    case = "malformed/nwb/nwb_behaviour_nan.nwb"
    with opened(data, case) as recording, h5py.File(data / case) as file:
        raw = file["processing/behavior/hand_vel/data"][:]
        (velocity,) = [one for one in recording.covariates if one.names[0] == "hand_vel_x"]
        assert np.isnan(raw).sum() > 200
        np.testing.assert_array_equal(velocity.values, raw * 0.001)


def test_a_series_without_unit_says_so(data: Path) -> None:
    with opened(data, "malformed/nwb/nwb_conversion_missing.nwb") as recording:
        assert [one.unit for one in recording.covariates] == ["m", ""]
        assert any("unit of processing/behavior/hand_vel is not known" in note for note in recording.facts.notes)


def test_without_observed_intervals_the_span_runs_from_zero_to_the_last_spike(data: Path) -> None:
    path = "dandi/000207/sub-4/sub-4_ses-4_ecephys+image.nwb"
    with opened(data, path) as recording, h5py.File(data / path) as file:
        np.testing.assert_array_equal(recording.observation.intervals, [[0.0, file["units/spike_times"][:].max()]])


def test_damaged_behaviour_that_is_not_taken_does_no_harm(data: Path) -> None:
    for case in ("nwb_timestamps_backwards", "nwb_no_time_base", "nwb_behaviour_length_mismatch"):
        with opened(data, f"malformed/nwb/{case}.nwb", covariates=()) as recording:
            assert recording.covariates == ()


def test_need_of_covariates(data: Path) -> None:
    with pytest.raises(RecordingError) as caught:
        opened(data, SMALL, need_covariates=True)
    assert caught.value.code == "no_covariates"


def test_conditions_and_columns_of_the_card(data: Path) -> None:
    wanted = (13.0, 15.0, 39.0)
    keep = ({"column": "electrodes.id", "values": wanted}, {"column": "heldout", "values": (False,)})
    layout = UnitsLayout(keep=keep, drop_rows=(11,), is_sorted=True, area="motor cortex")
    with opened(data, SMALL, units=layout) as recording, opened(data, SMALL) as whole:
        kept = [i for i, name in enumerate(whole.units.electrodes) if float(name) in wanted and i != 11]
        assert len(kept) == 7
        assert recording.units.names == tuple(whole.units.names[i] for i in kept)
        assert set(recording.units.is_sorted) == {True}
        assert set(recording.units.areas) == {"motor cortex"}
        for mine, its in enumerate(kept):
            np.testing.assert_array_equal(recording.spike_times(mine), whole.spike_times(its))
    for keep in ({"column": "colour", "values": ("red",)},), ({"column": "heldout", "values": ("yes",)},):
        with pytest.raises(RecordingError) as caught:
            opened(data, SMALL, units=UnitsLayout(keep=keep))
        assert caught.value.code == ("missing_fact" if keep[0]["column"] == "colour" else "no_spikes")


def test_git_annex_pointers_and_absent_files_are_missing(tmp_path: Path) -> None:
    pointer = tmp_path / "a.nwb"
    pointer.write_text("/annex/objects/SHA256E-s1--00.nwb\n")
    recording = recording_at("a.nwb", tmp_path)
    with pytest.raises(RecordingError) as caught:
        open_spikes(recording, tmp_path, SpikeLayout())
    assert caught.value.code == "missing_member"
    pointer.unlink()
    with pytest.raises(RecordingError) as caught:
        open_spikes(recording, tmp_path, SpikeLayout())
    assert caught.value.code == "missing_member"


def test_reading_after_closing_is_an_error(data: Path) -> None:
    recording = opened(data, "malformed/nwb/nwb_ok.nwb")
    recording.close()
    with pytest.raises(ValueError, match="closed"):
        recording.spike_times(0)
