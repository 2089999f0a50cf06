"""Clocks that were reset within a file: cut at the resets, laid one after the other, nothing moved within a block."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuromill.records import RecordingError
from support.nwb import Nodes, open_nodes

BLOCKS = {"restarts": "blocks", "block_gap_seconds": 30.0}
FIRST, SECOND = np.arange(0, 100, 0.1), np.arange(5, 65, 0.1)
STAMPS = np.concatenate([FIRST, SECOND])
TRAINS = [
    np.array([1.0, 50.0, 99.0, 5.5, 60.0]),
    np.array([2.0, 3.0, 1.0, 10.0]),
    np.array([]),
    np.array([10.0, 20.0, 30.0]),  # silent after the reset, or before it: nobody can say
    np.array([10.0, 5.0, 20.0, 4.0]),
    np.array([1.0, np.nan, 0.0]),
]
OBSERVED = np.array([[0, 40], [50, 99], [6, 64]])
# The second block begins with its earliest time of all, a spike at 1.0, 30 s after the last of the first at 99.9.
SHIFT = 99.9 + 30.0 - 1.0


def nodes(**columns: Any) -> Nodes:
    made = Nodes().units(TRAINS, **columns).series("hand", STAMPS[:, None] ** 2, STAMPS)
    made.series("acquisition/mask", STAMPS > 20, STAMPS)
    return made.trials([0, 50, 6, 40], [40, 99, 40, 64], go_time=[20, 60, 20, 50], angle=[1, 2, 3, 4])


def test_blocks_lie_one_after_the_other(tmp_path: Path) -> None:
    layout = BLOCKS | {"masks": [{"path": "acquisition/mask"}]}
    with open_nodes(nodes(obs_intervals=[OBSERVED] * 6), tmp_path, layout) as recording:
        assert recording.observation.joins == pytest.approx((99.9 + 15,))
        np.testing.assert_allclose(
            recording.observation.intervals, [[0, 40], [50, 99], [6 + SHIFT, 64 + SHIFT]], rtol=0, atol=1e-9
        )
        (hand,) = recording.covariates
        np.testing.assert_allclose(hand.stamps, [*FIRST, *(SECOND + SHIFT)], rtol=0, atol=1e-9)
        np.testing.assert_array_equal(hand.values[:, 0], STAMPS**2)
        np.testing.assert_array_equal(recording.masks[0].stamps, hand.stamps)
        np.testing.assert_array_equal(recording.masks[0].values, STAMPS > 20)
        np.testing.assert_allclose(recording.spike_times(0), [1, 50, 99, 5.5 + SHIFT, 60 + SHIFT], rtol=0, atol=1e-9)
        np.testing.assert_allclose(recording.spike_times(1), [2, 3, 1 + SHIFT, 10 + SHIFT], rtol=0, atol=1e-9)
        assert any("reset once: 2 blocks" in note for note in recording.facts.notes)


def test_units_that_disagree_are_masked_and_silent_ones_are_not(tmp_path: Path) -> None:
    with open_nodes(nodes(), tmp_path, BLOCKS) as recording:
        assert recording.units.bads == ("", "", "", "blocks_disagree", "blocks_disagree", "non_finite")
        assert [len(recording.spike_times(unit)) for unit in range(6)] == [5, 4, 0, 0, 0, 0]
        assert "units masked: 2 blocks_disagree, 1 non_finite" in recording.facts.notes


def test_trials_and_their_times_move_with_their_block(tmp_path: Path) -> None:
    with open_nodes(nodes(), tmp_path, BLOCKS) as recording:
        np.testing.assert_allclose(recording.trials.starts, [0, 50, 6 + SHIFT, 40 + SHIFT], rtol=0, atol=1e-9)
        go = recording.trials.columns["go_time"]
        np.testing.assert_allclose(go, [20, 60, 20 + SHIFT, 50 + SHIFT], rtol=0, atol=1e-9)
        np.testing.assert_array_equal(recording.trials.columns["angle"], [1, 2, 3, 4])


def test_without_observed_intervals_the_blocks_are_what_was_observed(tmp_path: Path) -> None:
    for columns in ({}, {"obs_intervals": [OBSERVED] * 5 + [OBSERVED[:1]]}):
        with open_nodes(nodes(**columns), tmp_path, BLOCKS) as recording:
            np.testing.assert_allclose(
                recording.observation.intervals, [[0, 99.9], [129.9, 64.9 + SHIFT]], rtol=0, atol=1e-9
            )


def test_resets_are_refused_unless_declared(tmp_path: Path) -> None:
    for layout in ({}, {"covariates": []}):
        with pytest.raises(RecordingError) as caught:
            open_nodes(nodes().without("units/id"), tmp_path, layout)
        assert caught.value.code == "bad_timestamps"


def test_clocks_that_disagree_are_refused(tmp_path: Path) -> None:
    made = nodes()
    made.series("other", FIRST[:, None], FIRST)
    with pytest.raises(RecordingError, match=r"hand 2, .*other 1, trials 2") as caught:
        open_nodes(made, tmp_path, BLOCKS)
    assert caught.value.code == "bad_timestamps"


def test_without_behaviour_and_trials_most_units_decide(tmp_path: Path) -> None:
    trains = [TRAINS[0], TRAINS[1], TRAINS[3], TRAINS[0] + 0.25]
    with open_nodes(Nodes().units(trains), tmp_path, BLOCKS) as recording:
        assert recording.units.bads == ("", "", "blocks_disagree", "")
        assert recording.observation.joins == pytest.approx((99.25 + 15,))


def test_a_clock_that_was_never_reset_stays_as_it_is(tmp_path: Path) -> None:
    made = Nodes().units([[3.0, 1.0, 2.0], [1.0]]).series("hand", FIRST[:, None], FIRST)
    with open_nodes(made, tmp_path, BLOCKS) as recording:
        assert recording.spike_times(0).tolist() == [1, 2, 3]
        assert recording.observation.joins == ()
        assert recording.units.bads == ("", "")
