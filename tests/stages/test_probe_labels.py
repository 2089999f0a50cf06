"""Labels of a task: rows that contradict each other, spellings, and what is said of them."""

import pytest
from pydantic import ValidationError

from neuromill.records import ConfigError
from neuromill.stages.probe_labels import class_names, participant_labels
from neuromill.training.probe_config import LabelConfig

SUBJECTS = ("01", "02")


def labels_of(
    *rows: str, header: str = "participant_id\tgroup", subjects: tuple[str, ...] = SUBJECTS
) -> dict[str, str]:
    return participant_labels("\n".join([header, *rows, ""]).encode(), "group", subjects, "lab")


def config(*classes: str, ignore_case: bool = False) -> LabelConfig:
    return LabelConfig(source="participants", column="group", classes=classes, ignore_case=ignore_case)


def test_rows_of_a_subject_may_repeat_what_they_say() -> None:
    found = labels_of("sub-01\tcontrol", "sub-01\tn/a", "01\tcontrol", "sub-02\tn/a", "sub-03\tpatient")
    assert found == {"01": "control", "02": "", "03": "patient"}


def test_rows_that_contradict_each_other_are_named() -> None:
    rows = ("sub-01\tcontrol", "sub-02\tpatient", "01\tpatient", "sub-03\ta", "sub-03\tb")
    with pytest.raises(ConfigError, match=r"differ in 'group': sub-01 \(control, patient\) \[lab/participants.tsv\]"):
        labels_of(*rows)
    assert labels_of(*rows, subjects=("02",))["02"] == "patient"  # nobody asks for the others
    many = [f"sub-{number}\t{label}" for number in range(10, 17) for label in "ab"]
    with pytest.raises(ConfigError, match=r"sub-14 \(a, b\) and 2 more"):
        labels_of(*many, subjects=tuple(str(number) for number in range(10, 17)))


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("subject\tgroup", "has no column 'participant_id' .*columns: subject, group"),
        ("participant_id\tsex", "has no column 'group' .*columns: participant_id, sex"),
        ("subject\tsex", "has no column 'participant_id' and no column 'group' "),
    ],
)
def test_the_column_that_is_missing_is_named(header: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        labels_of("sub-01\tcontrol", header=header)


def test_a_table_without_rows() -> None:
    with pytest.raises(ConfigError, match="no row in it"):
        labels_of()


@pytest.mark.parametrize(
    ("found", "labels", "names"),
    [
        (["a", "b", ""], config(), {"a": "a", "b": "b", "": ""}),
        (["a", "b", "c"], config("b", "a"), {"a": "a", "b": "b", "c": "", "": ""}),
        (["C", "c", "d"], config("C", "c"), {"C": "C", "c": "c", "d": "", "": ""}),
        (["C", "c", "d"], config("d", "e"), {"C": "", "c": "", "d": "d", "e": "e", "": ""}),
        (["C", "c", " c", "d"], config(ignore_case=True), {"C": " c", "c": " c", " c": " c", "d": "d", "": ""}),
        (["C", "d"], config("c", "d", ignore_case=True), {"C": "c", "c": "c", "d": "d", "": ""}),
    ],
)
def test_names_of_classes(found: list[str], labels: LabelConfig, names: dict[str, str]) -> None:
    assert class_names(found, labels) == names


@pytest.mark.parametrize(
    ("found", "labels"),
    [
        (["Control", "control", "patient"], config()),
        (["Control", "patient"], config("control", "patient")),
        (["left  hand", "Left hand"], config()),
        (["C", "c", "c "], config("C", "c")),
    ],
)
def test_spellings_that_only_the_task_can_tell_apart_are_refused(found: list[str], labels: LabelConfig) -> None:
    with pytest.raises(ConfigError, match=r"differ in capitals or spaces alone: .*ignore_case"):
        class_names(found, labels)


def test_classes_that_are_one() -> None:
    with pytest.raises(ValidationError, match="more than capitals"):
        config("Left", "left", ignore_case=True)
