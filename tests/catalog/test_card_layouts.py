"""The layouts of the cards read files that are laid out as the datasets are described.

Real files are at hand of 000140 only; the others are made, after what is published about them.
"""

from pathlib import Path

import numpy as np
import pytest

from neuromill.catalog.cards import load_cards
from neuromill.readers.spike_protocol import SpikeRecording
from neuromill.readers.spikes import open_spikes
from neuromill.records import Recording, RecordingId, SourceFile, SpikeLayout
from support.mat import FlintTrial, write_flint, write_odoherty
from support.nwb import Nodes, open_nodes
from support.paths import PROJECT

CARDS = {card.id: card for card in load_cards([PROJECT / "catalogs"])}


def layout_of(name: str) -> SpikeLayout:
    layout = CARDS[name].spikes
    assert layout is not None
    return layout


def opened(path: Path, name: str) -> SpikeRecording:
    member = SourceFile(path.name, path.stat().st_size)
    recording = Recording(RecordingId(name, "1", "r"), path.name, (member,))
    return open_spikes(recording, path.parent, layout_of(name))


def trains(n_units: int, start: float, stop: float) -> list[np.ndarray]:
    return [np.linspace(start + 0.01 * unit, stop - 0.1, 20) for unit in range(n_units)]


def test_perich_miller(tmp_path: Path) -> None:
    stamps = np.arange(1000) / 100
    stamps[500] = stamps[499]
    nodes = Nodes().units(trains(3, 0, 10)).electrodes([0, 1, 1], group_name=["M1", "PMd"], location=["x", "y"])
    nodes.series("Velocity/cursor_vel", np.ones((1000, 2)), stamps, unit="cm/s")
    nodes.series("Position/cursor_pos", np.ones((1000, 2)), stamps, unit="cm")
    nodes.trials([1.0, 5.0], [4.0, 9.0], result=["R", "A"])
    with open_nodes(nodes, tmp_path, layout_of("000688")) as recording:
        assert recording.units.areas == recording.units.arrays == ("M1", "PMd", "PMd")
        (series,) = recording.covariates
        assert (series.names, series.unit, series.derivative) == (("cursor_vel_x", "cursor_vel_y"), "cm/s", "")
        assert len(series.stamps) == 999
        assert recording.trials.success.tolist() == [True, False]


def test_churchland_with_a_clock_that_was_reset(tmp_path: Path) -> None:
    once = np.concatenate([np.arange(1000, 3000), np.arange(4000, 6000)]) / 1000
    times = np.concatenate([once, once])
    trial_starts, trial_stops = [1.0, 4.0, 1.0, 4.0], [3.0, 6.0, 3.0, 6.0]
    unit = np.concatenate([np.linspace(1.1, 5.9, 30)] * 2)
    nodes = Nodes().units([unit, unit, unit + 0.001], obs_intervals=[np.stack([trial_starts, trial_stops], axis=1)] * 3)
    nodes.series("Position/Hand", np.stack([times, -times], axis=1), times)
    nodes.series("Position/Eye", np.stack([times, -times], axis=1), times)
    nodes.trials(
        trial_starts, trial_stops, task_success=[True, True, False, True], discard_trial=[False, True, False, False]
    )
    with open_nodes(nodes, tmp_path, layout_of("000070")) as recording:
        assert recording.units.names == ("0", "2")  # the row of index 1 is corrupt
        assert recording.units.is_sorted == (False, False)
        assert recording.trials.success.tolist() == [True, False, False, True]
        (series,) = recording.covariates
        assert (series.names, series.derivative) == (("hand_vel_x", "hand_vel_y"), "before")
        assert (np.diff(series.stamps) > 0).all()
        assert len(recording.observation.joins) == 1
        assert np.diff(recording.spike_times(0)).max() > layout_of("000070").block_gap_seconds


def test_even_chen_holds_its_hand(tmp_path: Path) -> None:
    stamps = np.arange(3000) / 1000
    hand = np.repeat(np.arange(300.0), 10)[:, None] * np.array([1.0, 2.0, 3.0])
    hand[1000:1500] = np.nan
    nodes = Nodes().units(trains(2, 0, 3)).series("Position/Hand", hand, stamps)
    with open_nodes(nodes, tmp_path, layout_of("000121")) as recording:
        (series,) = recording.covariates
    assert (series.names, series.derivative) == (("hand_vel_x", "hand_vel_y", "hand_vel_z"), "after")
    assert len(series.stamps) < 400
    assert np.isnan(series.values).any()


@pytest.mark.parametrize(("name", "series"), [("000128", "hand_vel"), ("000129", "finger_vel"), ("000127", "hand_vel")])
def test_a_benchmark_set_keeps_held_in_units(tmp_path: Path, name: str, series: str) -> None:
    stamps = np.concatenate([np.arange(700), np.arange(1000, 1700)]) / 1000
    nodes = Nodes().units(trains(3, 0, 1.7), heldout=[False, True, False])
    for each in ("hand_vel", "finger_vel", "cursor_pos"):
        nodes.series(each, np.ones((1400, 2)), stamps, comments="columns=[x,y]")
    with open_nodes(nodes, tmp_path, layout_of(name)) as recording:
        assert recording.units.names == ("0", "2")
        assert [one.names for one in recording.covariates] == [(f"{series}_x", f"{series}_y")]


@pytest.mark.data
def test_the_real_test_file_of_maze_small(data: Path) -> None:
    path = next((data / "dandi" / "000140").rglob("*.nwb"))
    with opened(path, "000140") as recording:
        expected = CARDS["000140"].expected.n_channels
        assert expected is not None
        assert len(recording.units) == expected.value == 107
        # The file's references count from 0 for each of its two arrays of 96, so none leads to an electrode of M1.
        assert set(recording.units.areas) == {"PMd"}
        assert set(recording.units.is_sorted) == {True}
        assert recording.covariates == ()
        assert len(recording.trials) == 100


def test_falcon_h1_has_a_period_where_the_rate_is(tmp_path: Path) -> None:
    nodes = Nodes().units(trains(2, 0, 10))
    nodes.series("acquisition/OpenLoopKinematics", np.ones((500, 7)), rate=(0.0, 0.02))
    nodes.series(
        "acquisition/OpenLoopKinematicsVelocity",
        np.ones((500, 7)),
        rate=(0.0, 0.02),
        description="tx,ty,tz,rx,g1,g2,g3",
    )
    nodes.series("acquisition/eval_mask", np.arange(500) > 100, rate=(0.0, 0.02))
    with open_nodes(nodes, tmp_path, layout_of("000954")) as recording:
        (series,), (mask,) = recording.covariates, recording.masks
    assert series.names == tuple(f"kin_vel_{axis}" for axis in ("tx", "ty", "tz", "rx", "g1", "g2", "g3"))
    assert series.bin_edge == "end"
    np.testing.assert_allclose(series.stamps, np.arange(500) * 0.02)
    np.testing.assert_array_equal(mask.stamps, series.stamps)
    assert mask.values.sum() == 399


@pytest.mark.parametrize(
    ("name", "container", "dimensions", "edge"),
    [
        ("000941", "preprocessed_emg", [f"muscle{i}" for i in range(16)], "end"),
        ("000953", "finger_vel", ["index", "mrs"], "start"),
    ],
)
def test_falcon_monkeys_have_containers(
    tmp_path: Path, name: str, container: str, dimensions: list[str], edge: str
) -> None:
    stamps = np.arange(500) * 0.02
    nodes = Nodes().units(trains(2, 0, 10))
    for each in dimensions:
        nodes.series(f"acquisition/{container}/{each}", np.ones(500), stamps)
    nodes.series("acquisition/eval_mask", np.ones(500, dtype=bool), stamps)
    with open_nodes(nodes, tmp_path, layout_of(name)) as recording:
        names = [one for series in recording.covariates for one in series.names]
        assert {series.bin_edge for series in recording.covariates} == {edge}
        assert len(recording.masks) == 1
    prefix = layout_of(name).covariates[0].name
    assert sorted(names) == sorted(f"{prefix}_{each}" for each in dimensions)


def test_odoherty(tmp_path: Path) -> None:
    path = write_odoherty(tmp_path / "indy_20160407_02.mat", {(0, 0): np.array([100.5]), (0, 1): np.array([101.0])})
    with opened(path, "3854034") as recording:
        assert recording.units.names == ("M1_001_0", "M1_001_1", "M1_002_0", "S1_001_0")
        assert [one.names for one in recording.covariates] == [("finger_vel_x", "finger_vel_y")]
        assert recording.covariates[0].values[-1].tolist() == pytest.approx([1.0, 0.5])  # 100 cm and 50 cm away


def test_flint(tmp_path: Path) -> None:
    trial = FlintTrial(np.arange(200) / 100, [np.array([0.5]), np.array([1.5])])
    with opened(write_flint(tmp_path / "Flint_2012_e2.mat", [trial], [trial]), "Flint_2012") as recording:
        assert recording.units.names == ("n001", "n002")
        assert len(recording.observation.joins) == 1
        assert [one.names for one in recording.covariates] == [("hand_vel_x", "hand_vel_y")]
