"""Splits and data that must be refused before anything is trained."""

import pytest

from neuromill.records import ConfigError
from neuromill.training.tokens import check_leakage, check_tokens
from support.tokens import recording


def test_a_subject_on_both_sides_is_named() -> None:
    train = [recording("a", 9, 1, subject="01"), recording("b", 9, 1, subject="02")]
    held_out = [recording("c", 9, 1, subject="02"), recording("d", 9, 1, subject="03")]
    with pytest.raises(ConfigError, match="demo/02") as error:
        check_leakage(train, held_out)
    assert "demo/03" not in str(error.value)


def test_same_label_in_another_dataset_is_another_person() -> None:
    check_leakage([recording("a", 9, 1, subject="01")], [recording("b", 9, 1, subject="01", dataset="other")])


def test_unknown_subjects_may_be_the_same_person() -> None:
    from dataclasses import replace

    unknown = [replace(recording(name, 9, 1), subject="") for name in "ab"]
    with pytest.raises(ConfigError, match="unknown subject"):
        check_leakage(unknown[:1], unknown[1:])


def test_long_lists_are_cut() -> None:
    many = [recording(f"r{i}", 9, 1, subject=f"{i:02}") for i in range(14)]
    with pytest.raises(ConfigError, match=r"14 subjects .* and 4 more"):
        check_leakage(many, many)


@pytest.mark.parametrize(
    ("names", "levels", "message"),
    [([], 6, "no recording"), (["a", "a"], 6, "twice"), (["a"], 4, "tokens have 6 levels, the model expects 4")],
)
def test_unusable_tokens_are_refused(names: list[str], levels: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_tokens([recording(name, 9, 1) for name in names], levels)
