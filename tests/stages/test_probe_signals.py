"""What a model is given by a probe: refused where it is known to be another thing, told where nothing is known."""

import pytest

from neuromill.models.eegssm_config import ModelInput
from neuromill.records import ConfigError
from neuromill.stages.probe_signals import ProbeInput, probe_input

KNOWN = ModelInput(200.0, 1e-4)


def test_the_unit_is_that_of_the_model() -> None:
    assert probe_input(ModelInput(200.0, 1e-6), {"a": 200.0}, None) == ProbeInput(1e-6)
    assert probe_input(KNOWN, {"a": 200.0, "b": 200.0}, 1e-4) == ProbeInput(1e-4)


@pytest.mark.parametrize(
    ("known", "unit", "used", "told"),
    [
        (ModelInput(), None, 1e-4, "its rate nor its unit: it was given 250 Hz in units of 100 uV"),
        (ModelInput(), 1e-6, 1e-6, "in units of 1 uV"),
        (ModelInput(unit_volts=1e-5), None, 1e-5, "its rate: it was given 250 Hz"),
        (ModelInput(sfreq=250), None, 1e-4, "its unit: "),
    ],
)
def test_what_the_model_does_not_know_is_told(known: ModelInput, unit: float | None, used: float, told: str) -> None:
    given = probe_input(known, {"a": 250.0}, unit)
    assert given.unit_volts == used
    (note,) = given.notes
    assert told in note


@pytest.mark.parametrize(
    ("known", "rates", "unit", "told"),
    [
        (KNOWN, {"a": 200.0, "b": 500.0}, None, r"500 Hz beside a model trained at 200 Hz \[b\]"),
        (KNOWN, {"a": 200.0}, 1e-6, r"units of 1 uV for a model trained on one in units of 100 uV \[unit_volts\]"),
        (ModelInput(), {"a": 200.0, "b": 500.0}, None, r"500 Hz beside others at 200 Hz \[b\]"),
        (ModelInput(200.0, "segment"), {"a": 200.0}, None, "segments that its tokenizer scaled"),
        (ModelInput(200.0, "segment"), {"a": 200.0}, 1e-4, "segments that its tokenizer scaled"),
    ],
)
def test_what_the_model_was_not_trained_on_is_refused(
    known: ModelInput, rates: dict[str, float], unit: float | None, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        probe_input(known, rates, unit)
