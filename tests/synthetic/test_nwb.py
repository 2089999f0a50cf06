"""Synthetic sessions: valid NWB, the same bytes from the same fields, and units that are tuned."""

import numpy as np
import pytest

from neuromill.synthetic.nwb import SessionsSpec, session_files, session_path
from neuromill.synthetic.reaching import BEHAVIOUR_SFREQ, LEAD_SECONDS, Tuning, fire, reach, tune

SMALL = SessionsSpec(subjects=2, units_per_array=3, seconds=20.0)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return session_files(SMALL)


def test_same_fields_same_bytes(files):
    assert session_files(SMALL) == files
    assert session_files(SMALL.model_copy(update={"seed": 1})) != files


def test_a_subject_more_leaves_the_others_as_they_are(files):
    more = session_files(SMALL.model_copy(update={"subjects": 3}))
    assert files.items() <= more.items()


def test_pynwb_reads_and_validates_it(files, tmp_path):
    import pynwb

    path = tmp_path / "session.nwb"
    path.write_bytes(files[session_path(0)])
    assert pynwb.validate(path=path) == []
    with pynwb.NWBHDF5IO(path, "r") as io:
        session = io.read()
        assert len(session.units) == 2 * SMALL.units_per_array
        assert list(session.units["electrodes"][4]["group_name"]) == ["PMd"]
        velocity = session.processing["behavior"]["Velocity"]["cursor_vel"]
        assert velocity.data.shape == (round(SMALL.seconds * BEHAVIOUR_SFREQ), 2)
        assert velocity.unit == "cm/s"
        assert set(session.trials["result"][:]) <= {"R", "F"}
        assert session.subject.subject_id == "A"


def test_reaches_go_from_target_to_target():
    reaches = reach(np.random.default_rng(0), 30.0)
    speed = np.hypot(*reaches.velocity.T)
    at_rest = speed[(reaches.starts * BEHAVIOUR_SFREQ).astype(int) - 5]
    assert at_rest.max() < 0.5 < speed.max()
    assert np.allclose(np.cumsum(reaches.velocity, axis=0)[-1] / BEHAVIOUR_SFREQ, reaches.position[-1], atol=0.2)


def test_units_fire_for_their_direction_ahead_of_the_movement():
    rng = np.random.default_rng(0)
    reaches = reach(rng, 300.0)
    train = fire(rng, reaches, Tuning(np.array([20.0]), np.array([0.9]), np.array([0.0])))[0]
    counts = np.bincount((train * BEHAVIOUR_SFREQ).astype(int), minlength=len(reaches.velocity))
    lags = range(-30, 31)
    x = reaches.velocity[100:-100, 0]
    link = [np.corrcoef(counts[100 + lag : len(counts) - 100 + lag], x)[0, 1] for lag in lags]
    # 0.1: with ~20 spikes per second in bins of 10 ms, tuning explains a few per cent of the variance of a single bin.
    assert max(link) > 0.1
    assert lags[int(np.argmax(link))] / BEHAVIOUR_SFREQ == pytest.approx(-LEAD_SECONDS, abs=0.05)


def test_spike_times_ascend_and_lie_within():
    rng = np.random.default_rng(3)
    for train in fire(rng, reach(rng, 20.0), tune(rng, 5)):
        assert np.all(np.diff(train) >= 0)
        assert train.min() >= 0
        assert train.max() < 20.0
