"""What a card can say about an NWB file, on files small enough to know every number of."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.readers.nwb_series import axis_names
from neuromill.readers.nwb_units import Ragged, sorted_flag
from neuromill.readers.trees import open_hdf5
from neuromill.records import RecordingError, SpikeLayout
from support.nwb import ELECTRODES, Nodes, open_nodes, write_hdf5

RNG = np.random.default_rng(0)
TRAINS = [np.sort(RNG.uniform(0, 10, n)) for n in (5, 0, 300, 40)]
STAMPS = np.arange(0, 10, 0.01)
POSITION = np.stack([np.sin(STAMPS), np.cos(STAMPS)], axis=1)


def code_of(nodes: Nodes, folder: Path, **layout: Any) -> str:
    with pytest.raises(RecordingError) as caught:
        open_nodes(nodes, folder, layout)
    assert caught.value.what
    return str(caught.value.code)


def test_a_file_of_everything(tmp_path: Path) -> None:
    nodes = Nodes().units(TRAINS).series("hand", POSITION, STAMPS)
    nodes.electrodes([2, 0, 1, 1], group_name=["A", "B", "C"], location=["M1", "unknown", "PMd"])
    with open_nodes(nodes, tmp_path) as recording:
        assert recording.units.arrays == ("C", "A", "B", "B")
        assert recording.units.areas == ("PMd", "M1", "", "")
        assert recording.units.electrodes == ("2", "0", "1", "1")
        assert recording.units.is_sorted == (None,) * 4
        for unit, train in enumerate(TRAINS):
            np.testing.assert_array_equal(recording.spike_times(unit), train)
        (hand,) = recording.covariates
        assert hand.names == ("hand_x", "hand_y")
        np.testing.assert_array_equal(hand.values, POSITION)
        last = max(train[-1] for train in TRAINS if train.size)
        np.testing.assert_array_equal(recording.observation.intervals, [[0, max(last, STAMPS[-1])]])
        assert recording.observation.joins == ()


HAND_STAMPS = "processing/behavior/hand/timestamps"
BROKEN = {
    "index goes back": ({"units/spike_times_index": np.array([5, 3, 305, 345])}, "unreadable"),
    "index beyond the end": ({"units/spike_times_index": np.array([5, 5, 305, 346])}, "truncated"),
    "no index": ({"units/spike_times_index": None}, "unreadable"),
    "text in place of times": ({"units/spike_times": np.array(["a", "b"], dtype=object)}, "unreadable"),
    "other number of ids": ({"units/id": np.arange(3)}, "unreadable"),
    "no spike times": ({"units/spike_times": None}, "no_spikes"),
    "electrode beyond the table": ({"units/electrodes": np.array([0, 1, 2, 3])}, "truncated"),
    "text in place of stamps": ({HAND_STAMPS: np.full(1000, "a", dtype=object)}, "unreadable"),
    "stamps that are not finite": ({HAND_STAMPS: np.full(1000, np.nan)}, "bad_timestamps"),
    "trials without an end": ({"intervals/trials/stop_time": None}, "missing_fact"),
    "fewer stops than starts": ({"intervals/trials/stop_time": np.array([1.0])}, "truncated"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_has_its_code(name: str, tmp_path: Path) -> None:
    nodes = Nodes().units(TRAINS).series("hand", POSITION, STAMPS).trials([1.0, 3.0], [2.0, 4.0])
    nodes.electrodes([0, 1, 0, 1], group_name=["A", "B"])
    changes, code = BROKEN[name]
    for path, value in changes.items():
        nodes.without(path)
        nodes.arrays |= {} if value is None else {path: value}
    assert code_of(nodes, tmp_path) == code


def test_versions(tmp_path: Path) -> None:
    for version, code in ((None, "missing_fact"), ("1.0.6", "unsupported_format"), ("3.0", "unsupported_format")):
        nodes = Nodes(attrs={"": {} if version is None else {"nwb_version": version}}).units(TRAINS)
        assert code_of(nodes, tmp_path) == code


def test_no_units_and_none_that_is_good(tmp_path: Path) -> None:
    assert code_of(Nodes().units([]), tmp_path) == "no_spikes"
    assert code_of(Nodes().units([[], []]), tmp_path) == "no_spikes"
    assert code_of(Nodes().units([[np.nan], [-5.0]]), tmp_path) == "no_usable_channels"
    with open_nodes(Nodes().units([[], []], obs_intervals=[[[0, 9]], [[0, 9]]]), tmp_path) as silent:
        assert silent.units.bads == ("", "")


def test_times_before_zero_are_good_where_the_recording_began_before_zero(tmp_path: Path) -> None:
    trains = [[-4.0, 1.0], [-6.0, 1.0]]
    with open_nodes(Nodes().units(trains, obs_intervals=[[[-5, 2]], [[-5, 2]]]), tmp_path) as recording:
        assert recording.units.bads == ("", "before_start")


def test_observed_intervals_are_united_and_a_difference_is_told(tmp_path: Path) -> None:
    intervals = [[[0, 2], [4, 6]], [[1, 3], [4, 6]], [[8, 8], [4, 6]], [[4, 6]]]
    with open_nodes(Nodes().units(TRAINS, obs_intervals=intervals), tmp_path) as recording:
        np.testing.assert_array_equal(recording.observation.intervals, [[0, 3], [4, 6]])
        assert any("different times" in note for note in recording.facts.notes)
        assert any("1 observed intervals are empty" in note for note in recording.facts.notes)


def test_a_stray_spike_makes_no_month_of_silence(tmp_path: Path) -> None:
    trains = [*TRAINS, [3.0, 6e5]]
    with open_nodes(Nodes().units(trains).series("cursor", POSITION, STAMPS), tmp_path) as recording:
        np.testing.assert_array_equal(recording.observation.intervals, [[0, STAMPS[-1]]])
        assert any("stray times at 600000 s (1)" in note for note in recording.facts.notes)
        np.testing.assert_array_equal(recording.spike_times(4), [3.0, 6e5])


def test_a_long_silence_of_all_is_a_pause_and_a_short_one_is_not(tmp_path: Path) -> None:
    early, late = np.arange(1.0, 50.0), np.arange(5000.0, 5060.0)
    trains = [np.concatenate([early, late]), np.concatenate([early, [600.0]])]
    with open_nodes(Nodes().units(trains), tmp_path) as recording:
        np.testing.assert_array_equal(recording.observation.intervals, [[0, 600], [5000, 5059]])
        assert any("1 silences of more than 600 s" in note for note in recording.facts.notes)
    moving = Nodes().units(trains).series("cursor", np.arange(60.0), np.arange(60) * 100.0)
    with open_nodes(moving, tmp_path) as recording:
        np.testing.assert_array_equal(recording.observation.intervals, [[0, 5900]])


def test_a_rest_of_a_held_value_is_no_silence(tmp_path: Path) -> None:
    nodes = Nodes().units([[1.0, 2.0]]).series("lever", np.repeat([0.0, 1.0, 0.0], [10, 2000, 10]), np.arange(2020.0))
    layout = {"covariates": [{"path": "processing/behavior/lever", "samples": "held"}]}
    with open_nodes(nodes, tmp_path, layout) as recording:
        np.testing.assert_array_equal(recording.observation.intervals, [[0, 2019]])


@pytest.mark.parametrize("interval", [[np.nan, np.nan], [-np.inf, 5.0], [3.0, 3.0]])
def test_intervals_that_say_nothing_are_told(interval: list[float], tmp_path: Path) -> None:
    nodes = Nodes().units([[2.0, 7.0], [4.0]], obs_intervals=[[interval], [interval]])
    with open_nodes(nodes, tmp_path) as recording:
        np.testing.assert_array_equal(recording.observation.intervals, [[2, 7]])
        assert any("1 observed intervals are empty" in note for note in recording.facts.notes)


def test_rows_that_are_not_there_and_a_conversion_of_zero_are_told(tmp_path: Path) -> None:
    nodes = Nodes().units(TRAINS).series("cursor", POSITION, STAMPS, conversion=0.0)
    with open_nodes(nodes, tmp_path, {"units": {"drop_rows": [1, 4, 9]}}) as recording:
        assert len(recording.units) == len(TRAINS) - 1
        assert "rows 4, 9 that the card drops are not among the 4 units" in recording.facts.notes
        assert any("cursor is 0: all its values become the same" in note for note in recording.facts.notes)


def test_clocks_of_a_series(tmp_path: Path) -> None:
    path, data = "processing/behavior/v", POSITION[:100]
    cases = [("auto", 50.0, 0.02), ("rate", 50.0, 0.02), ("period", 0.02, 0.02)]
    for clock, rate, step in cases:
        nodes = Nodes().units(TRAINS).series("v", data, rate=(3.0, rate))
        with open_nodes(nodes, tmp_path, {"covariates": [{"path": path, "clock": clock}]}) as recording:
            np.testing.assert_allclose(recording.covariates[0].stamps, 3 + step * np.arange(100), rtol=1e-12)
    nodes = Nodes().units(TRAINS).series("v", data, rate=(3.0, 50.0))
    assert code_of(nodes, tmp_path, covariates=[{"path": path, "clock": "period"}]) == "bad_timestamps"
    assert code_of(nodes, tmp_path, covariates=[{"path": path, "clock": "timestamps"}]) == "missing_fact"
    with open_nodes(Nodes().units(TRAINS).series("v", data, rate=(3.0, 0.02)), tmp_path) as recording:
        assert any("clock: period" in note for note in recording.facts.notes)


def test_values_names_and_units_of_a_declared_series(tmp_path: Path) -> None:
    nodes = Nodes().units(TRAINS).series("v", POSITION, STAMPS, conversion=0.5, offset=1.0, unit="cm")
    one = {"path": "/processing/behavior/v", "name": "finger", "axes": ["up"], "columns": [1], "factor": -2.0,
           "unit": "m", "derivative": "after", "bin_edge": "end"}  # fmt: skip
    with open_nodes(nodes, tmp_path, {"covariates": [one]}) as recording:
        (finger,) = recording.covariates
        assert (finger.names, finger.unit, finger.derivative, finger.bin_edge) == (("finger_up",), "m", "after", "end")
        np.testing.assert_allclose(finger.values[:, 0], (POSITION[:, 1] * 0.5 + 1) * -2)
    assert code_of(nodes, tmp_path, covariates=[{"path": "processing/behavior/v", "columns": [2]}]) == "missing_fact"
    assert (
        code_of(nodes, tmp_path, covariates=[{"path": "processing/behavior/v", "axes": ["a", "b", "c"]}])
        == "missing_fact"
    )
    with open_nodes(nodes, tmp_path, {"covariates": [{"path": "processing/behavior/w"}]}) as recording:
        assert recording.facts.notes[0] == "no behaviour at processing/behavior/w"


def test_axes_chosen_by_the_names_of_the_file(tmp_path: Path) -> None:
    data = np.arange(3000.0).reshape(1000, 3)
    nodes = Nodes().units(TRAINS).series("k", data, STAMPS, description="tx, ty, grasp")
    for axes, columns in (["grasp", "tx"], [2, 0]), (["ty", "grasp", "tx"], [1, 2, 0]):
        one = {"path": "processing/behavior/k", "axes": axes}
        with open_nodes(nodes, tmp_path, {"covariates": [one]}) as recording:
            assert recording.covariates[0].names == tuple(f"k_{axis}" for axis in axes)
            np.testing.assert_array_equal(recording.covariates[0].values, data[:, columns])


AXES = [
    ({"comments": "columns=[x,y]"}, 2, ("x", "y")),
    ({"comments": "columns=['a', 'b', 'c']"}, 3, ("a", "b", "c")),
    ({"comments": "no comments", "description": "tx, ty, tz, rx, g1, g2, g3"}, 7,
     ("tx", "ty", "tz", "rx", "g1", "g2", "g3")),
    ({"description": "x and y of the LED; scale (pixels per cm) not documented"}, 2, ("x", "y")),
    ({"description": "hand, of the monkey, in a long sentence that is not a list of names"}, 3, ("x", "y", "z")),
    ({"comments": "columns=[x,y]"}, 4, ("0", "1", "2", "3")),
    ({}, 1, ("0",)),
]  # fmt: skip


@pytest.mark.parametrize(("attributes", "n", "names"), AXES)
def test_axis_names(attributes: dict[str, str], n: int, names: tuple[str, ...]) -> None:
    assert axis_names(attributes, n) == names


def test_containers(tmp_path: Path) -> None:
    emg = "acquisition/emg"
    nodes = Nodes().units(TRAINS).series(f"{emg}/biceps", POSITION[:, 0], STAMPS)
    nodes.series(f"{emg}/triceps", POSITION[:, 1], STAMPS)
    with open_nodes(nodes, tmp_path, {"covariates": [{"path": emg, "bin_edge": "end"}]}) as recording:
        (one,) = recording.covariates
        assert one.names == ("emg_biceps", "emg_triceps")
        np.testing.assert_array_equal(one.values, POSITION)
    nodes.series(f"{emg}/late", POSITION[:50, 1], STAMPS[:50])
    with open_nodes(nodes, tmp_path, {"covariates": [{"path": emg}]}) as recording:
        assert sorted(name for one in recording.covariates for name in one.names) == [
            "emg_biceps",
            "emg_late",
            "emg_triceps",
        ]


def test_auto_takes_numbers_and_says_what_it_leaves(tmp_path: Path) -> None:
    nodes = Nodes().units(TRAINS).series("Position/pos", POSITION, STAMPS)
    nodes.series("Velocity/pos", POSITION, STAMPS).series("video", np.zeros((3, 2, 2)), [0, 1, 2])
    nodes.series("text", np.array(["a", "b"], dtype=object), [0, 1]).series("empty", np.empty((0, 2)), [])
    nodes.series("licks", np.array([1, -1]), [1, 2], neurodata_type="IntervalSeries")
    nodes.arrays["processing/behavior/steps/data"] = np.arange(3)
    nodes.attrs["processing/behavior/steps"] = {"neurodata_type": "DynamicTable"}
    with open_nodes(nodes, tmp_path) as recording:
        names = [one.names for one in recording.covariates]
        assert names == [("Position_pos_x", "Position_pos_y"), ("Velocity_pos_x", "Velocity_pos_y")]
        left = [note for note in recording.facts.notes if "is not taken" in note]
        assert [note.split()[0].rsplit("/", 1)[-1] for note in left] == ["empty", "licks", "text", "video"]


def test_held_samples_become_change_points(tmp_path: Path) -> None:
    values = np.repeat(np.arange(100.0), 10)[:, None]
    one = {"path": "processing/behavior/h", "samples": "held"}
    with open_nodes(Nodes().units(TRAINS).series("h", values, STAMPS), tmp_path, {"covariates": [one]}) as recording:
        np.testing.assert_array_equal(recording.covariates[0].stamps, STAMPS[[*range(0, 1000, 10), 999]])


def test_masks(tmp_path: Path) -> None:
    mask = np.arange(1000) % 3 > 0
    nodes = Nodes().units(TRAINS).series("v", POSITION, STAMPS)
    own = nodes.series("acquisition/own", mask, STAMPS + 0.5)
    borrowed = own.series("acquisition/eval_mask", mask)
    layout = {"masks": [{"path": "acquisition/own"}, {"path": "acquisition/eval_mask"}]}
    with open_nodes(borrowed, tmp_path, layout) as recording:
        first, second = recording.masks
        np.testing.assert_array_equal(first.values, mask)
        np.testing.assert_array_equal(first.stamps, STAMPS + 0.5)
        np.testing.assert_array_equal(second.stamps, STAMPS)
    assert code_of(nodes, tmp_path, masks=[{"path": "acquisition/none"}]) == "missing_fact"
    assert code_of(nodes, tmp_path, covariates=(), masks=[{"path": "acquisition/eval_mask"}]) == "missing_fact"


def test_a_mask_whose_stamps_repeat_is_false_where_any_is(tmp_path: Path) -> None:
    nodes = Nodes().units(TRAINS).series("acquisition/m", np.array([1, 1, 0, 1]), [0, 1, 1, 2])
    with open_nodes(nodes, tmp_path, {"masks": [{"path": "acquisition/m"}]}) as recording:
        assert recording.masks[0].values.tolist() == [True, False, True]


def test_trials(tmp_path: Path) -> None:
    nodes = Nodes().units(TRAINS).trials(
        [4.0, 0.0, 1.5, np.nan, 6.0, 8.0], [5.0, 2.0, 3.0, 1.0, 7.0, 7.5],
        result=["R", "R", "F", "R", "R", "R"], drop=[False, False, False, False, True, False], angle=range(6),
    )  # fmt: skip
    nodes.ragged("intervals/trials/cues", [[1.0]] * 6)
    trials = {"success": {"column": "result", "values": ["R"]}, "discard": {"column": "drop", "values": [True]}}
    with open_nodes(nodes, tmp_path, {"trials": trials}) as recording:
        table, notes = recording.trials, recording.facts.notes
        assert table.starts.tolist() == [0.0, 1.5, 4.0, 6.0]
        assert table.stops.tolist() == [2.0, 3.0, 5.0, 7.0]
        assert table.success.tolist() == [True, False, True, False]
        assert list(table.columns) == ["angle", "drop", "result"]
        assert table.columns["result"] == ("R", "F", "R", "R")
        assert table.columns["angle"].tolist() == [1, 2, 0, 4]
        assert any("2 of 6 trials are left out" in note for note in notes)
        assert any("1 of 4 trials begin before" in note for note in notes)
        assert any("not in the order of time" in note for note in notes)
    with open_nodes(nodes, tmp_path, {"trials": {"columns": ["angle", "cues"]}}) as recording:
        assert list(recording.trials.columns) == ["angle"]
        assert "trials have no simple column cues" in recording.facts.notes
    with open_nodes(nodes, tmp_path, {"trials": None}) as recording:
        assert len(recording.trials) == 0
    wrong = {"success": {"column": "nothing", "values": ["R"]}}
    assert code_of(nodes, tmp_path, trials=wrong) == "missing_fact"


def test_sorted_flags(tmp_path: Path) -> None:
    nodes = Nodes().units(TRAINS, quality=np.array(["good", "MUA", "odd", "good"], dtype=object))
    with open_nodes(nodes, tmp_path, {"units": {"sorted_column": "quality", "area": "M1"}}) as recording:
        assert recording.units.is_sorted == (True, False, None, True)
        assert recording.units.areas == ("M1",) * 4
    assert [sorted_flag(value) for value in (True, 0, 1.0, "SU", "?", None)] == [True, False, True, True, None, None]


def test_repeated_ids_give_way_to_row_numbers(tmp_path: Path) -> None:
    nodes = Nodes().units(TRAINS)
    nodes.arrays["units/id"] = np.array([1, 2, 2, 3])
    with open_nodes(nodes, tmp_path) as recording:
        assert recording.units.names == ("0", "1", "2", "3")
        assert recording.facts.notes[0].startswith("unit ids repeat")


def test_units_of_several_electrodes(tmp_path: Path) -> None:
    nodes = Nodes().units(TRAINS).electrodes([0], group_name=["A", "B"])
    nodes.ragged("units/electrodes", [[1, 0], [0], [], [1]])
    nodes.attrs["units/electrodes"] = {"table": ELECTRODES}
    with open_nodes(nodes, tmp_path) as recording:
        assert recording.units.electrodes == ("1,0", "0", "", "1")
        assert recording.units.arrays == ("B", "A", "", "B")


def test_spikes_and_behaviour_that_do_not_meet(tmp_path: Path) -> None:
    late = Nodes().units(TRAINS).series("v", POSITION, STAMPS + 11)
    assert code_of(late, tmp_path) == "bad_timestamps"
    with open_nodes(late.series("w", POSITION[:9], STAMPS[:9]), tmp_path) as one_does:
        assert len(one_does.covariates) == 2
    elsewhere = Nodes().units(TRAINS, obs_intervals=[[[50, 60]]] * 4)
    assert code_of(elsewhere, tmp_path) == "bad_timestamps"


@given(st.lists(st.lists(st.floats(0, 100), max_size=9), min_size=1, max_size=9), st.integers(1, 9), st.randoms())
def test_ragged_rows_are_the_same_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]], block_rows: int, random: Any
) -> None:
    path = tmp_path_factory.mktemp("ragged") / "a.h5"
    tree = open_hdf5(write_hdf5(Nodes().ragged("c", rows), path, chunks=True), "a.h5")
    ragged = Ragged(tree, "c")
    ragged._block_rows = block_rows
    for i in random.sample(range(len(rows)), len(rows)):
        np.testing.assert_array_equal(ragged.row(i), rows[i])
    tree.close()


def test_defaults_of_the_layout_keep_its_identity() -> None:
    assert SpikeLayout().digest == SpikeLayout.model_validate({"masks": []}).digest
    one = SpikeLayout.model_validate({"masks": [{"path": "m"}]})
    assert one.digest == SpikeLayout.model_validate({"masks": [{"path": "m", "clock": "auto"}]}).digest
    with pytest.raises(ValueError, match="2 dimensions"):
        SpikeLayout.model_validate({"covariates": [{"path": "p", "axes": ["a", "b"], "columns": [0]}]})


def test_hdf5_of_the_test_is_hdf5(tmp_path: Path) -> None:
    with h5py.File(write_hdf5(Nodes().units(TRAINS), tmp_path / "a.nwb")) as file:
        assert file["units/spike_times"].shape == (345,)
