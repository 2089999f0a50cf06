import pytest
from pydantic import ValidationError

from neuromill.catalog.rules import RecordingRules, glob_match
from neuromill.records import Entities

PATH = "sub-01/ses-a/meg/sub-01_task-noise_meg.fif"


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.fif", "a/b/c.fif", True),  # no slash: the name alone
        ("*.fif", "a/b/c.fif.gz", False),
        ("a/*.fif", "a/b/c.fif", False),  # a star stays in one folder
        ("a/*/c.fif", "a/b/c.fif", True),
        ("**/c.fif", "c.fif", True),
        ("**/c.fif", "a/b/c.fif", True),
        ("a/**/c.fif", "a/c.fif", True),
        ("a/**", "a/b/c.fif", True),
        ("a/?/c.fif", "a/b/c.fif", True),
        ("a/?/c.fif", "a/bb/c.fif", False),
        ("a+(b).fif", "a+(b).fif", True),  # no regular expression
        ("a.fif", "axfif", False),
        ("*.FIF", "c.fif", False),
    ],
)
def test_glob(pattern: str, path: str, *, expected: bool) -> None:
    assert glob_match(pattern, path) is expected


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
