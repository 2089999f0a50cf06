import pytest
from pydantic import ValidationError

from neuromill.signals.spike_steps import SmoothCovariates


@pytest.mark.parametrize(
    ("seconds", "direction", "reach"),
    [
        (0.3, "causal", (14, 0)),
        (0.3, "centred", (7, 7)),  # the published 15 bins, 140 ms ahead
        (0.2, "centred", (5, 5)),  # an even length grows by one bin
        (0.001, "causal", (0, 0)),
        (0.001, "centred", (0, 0)),
    ],
)
def test_how_far_a_boxcar_looks(seconds: float, direction: str, reach: tuple[int, int]) -> None:
    assert SmoothCovariates(seconds=seconds, direction=direction).reach(0.02) == reach


@pytest.mark.parametrize("settings", [{"seconds": 0.3}, {"seconds": 0.0, "direction": "causal"}])
def test_the_direction_is_said_and_the_length_positive(settings: dict) -> None:
    with pytest.raises(ValidationError):
        SmoothCovariates(**settings)
