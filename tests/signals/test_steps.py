import pytest
from pydantic import TypeAdapter, ValidationError

from neuromill.signals.steps import Filter, NotchFilter, Pick, Resample, Step, code_versions
from support.signals import channel_table

STEPS = TypeAdapter(list[Step])
TABLE = channel_table(
    6,
    types=("mag", "grad", "ref_meg", "eeg", "stim", "mag"),
    names=("M1", "G1", "R1", "E1", "STI", "M2"),
    bads=("", "", "", "", "", "marked"),
)


def test_steps_are_read_by_their_name():
    steps = STEPS.validate_python(
        [
            {"step": "pick", "picks": ["meg"]},
            {"step": "notch_filter"},
            {"step": "filter", "l_freq": 0.1, "h_freq": 40},
            {"step": "resample", "sfreq": 50},
        ]
    )
    assert steps == [Pick(), NotchFilter(), Filter(l_freq=0.1, h_freq=40.0), Resample(sfreq=50.0)]
    assert STEPS.validate_json(STEPS.dump_json(steps)) == steps
    assert set(code_versions(steps)) == {"chain", "pick", "notch_filter", "filter", "resample"}


@pytest.mark.parametrize(
    "step",
    [
        {"step": "fliter", "l_freq": 1, "h_freq": 40},
        {"step": "filter", "l_freq": 1, "h_freq": 40, "l_feq": 2},
        {"step": "filter", "l_freq": None, "h_freq": None},
        {"step": "filter", "l_freq": 40, "h_freq": 1},
        {"step": "filter", "l_freq": 0, "h_freq": 1},
        {"step": "filter", "l_freq": 1, "h_freq": 40, "phase": "minimum"},
        {"step": "resample", "sfreq": 0},
        {"step": "resample", "sfreq": float("inf")},
        {"step": "filter", "l_freq": 1, "h_freq": float("inf")},
        {"step": "pick", "picks": []},
        {"step": "notch_filter", "freqs": [-50]},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(step):
    with pytest.raises(ValidationError):
        STEPS.validate_python([step])


@pytest.mark.parametrize(
    ("pick", "indices"),
    [
        (Pick(), (0, 1, 5)),
        (Pick(picks=("data",)), (0, 1, 3, 5)),
        (Pick(picks=("mag",)), (0, 5)),
        (Pick(picks=("ref_meg", "E1")), (2, 3)),
        (Pick(picks=("M2", "M1")), (0, 5)),
        (Pick(exclude="bads"), (0, 1)),
        (Pick(exclude=("M1",)), (1, 5)),
        (Pick(picks=("nothing",)), ()),
    ],
    ids=str,
)
def test_pick(pick, indices):
    assert pick.indices(TABLE) == indices


def test_names_that_the_recording_lacks():
    assert Pick(picks=("meg", "M1", "M99")).missing(TABLE) == ("M99",)
    assert Pick(picks=("seeg",)).missing(TABLE) == ("seeg",)
