import pytest
from pydantic import ValidationError

from neuromill.catalog.rules import RecordingRules
from neuromill.records import Entities

PATH = "sub-01/ses-a/meg/sub-01_task-noise_meg.fif"


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({}, ""),
        ({"datatypes": ["eeg"]}, "datatype"),
        ({"entities": {"task": ["noise"]}}, ""),
        ({"entities": {"task": ["noise"], "run": ["1"]}}, "entities are not"),
        ({"exclude_entities": {"task": ["noise"]}}, "entities are excluded"),
        ({"exclude_entities": {"subject": ["02"], "task": ["rest"]}}, ""),
        ({"include": ["sub-01/**"]}, ""),
        ({"include": ["sub-02/**"]}, "no include"),
        ({"include": ["sub-01/**"], "exclude": ["*noise*"]}, "excluded by *noise*"),
    ],
)
def test_refusal(rules: dict, reason: str) -> None:
    said = RecordingRules.model_validate(rules).refusal(PATH, "meg", Entities(subject="01", session="a", task="noise"))
    assert said.startswith(reason) if reason else said == ""


@pytest.mark.parametrize("selection", [{"sub": ["01"]}, {"subject": []}, {"run": [1]}])
def test_a_selection_has_long_names_and_text_labels(selection: dict) -> None:
    with pytest.raises(ValidationError):
        RecordingRules.model_validate({"entities": selection})
