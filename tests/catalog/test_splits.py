import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.catalog.cards import Card, load_card
from neuromill.catalog.splits import check_expected, check_split, find_leaks
from neuromill.records import Entities, Recording, RecordingId
from support.paths import PROJECT


def recording(subject: str, run: str, dataset: str = "ds1", seconds: float | None = 340.45) -> Recording:
    name = f"sub-{subject}_run-{run}_meg"
    entities = Entities(subject=subject, run=run)
    return Recording(RecordingId(dataset, "1", name), f"{name}.fif", (), entities, duration_seconds=seconds)


SMN4LANG = load_card(PROJECT / "catalogs" / "openneuro" / "ds004078.yaml").model_dump()


def card(**splits: object) -> Card:
    return Card.model_validate(SMN4LANG | {"id": "ds1", "splits": splits})


EVERYBODY = [recording(subject, str(run)) for subject in ("01", "02") for run in (1, 2)]


def test_a_split_by_subject_is_clean() -> None:
    assert check_split(EVERYBODY, card(validation={"subject": ["02"]})) == ()


def test_a_split_by_run_leaks_the_subjects_unless_the_card_says_that_runs_are_the_unit() -> None:
    leaks = check_split(EVERYBODY, card(validation={"run": ["2"]}))
    assert [(leak.entity, leak.label) for leak in leaks] == [("subject", "01"), ("subject", "02")]
    assert "subject '01' is in training (1 recordings)" in str(leaks[0])
    assert check_split(EVERYBODY, card(validation={"run": ["2"]}, disjoint=["run"])) == ()


def test_training_on_the_validation_part_is_found() -> None:
    """What MEG-XL's published configuration does: validation is declared, and everything is trained on."""
    held_out = [r for r in EVERYBODY if r.entities.run == "2"]
    leaks = find_leaks(EVERYBODY, held_out, disjoint=("run",))
    assert [(leak.entity, leak.label) for leak in leaks] == [
        ("recording", "sub-01_run-2_meg"), ("recording", "sub-02_run-2_meg"), ("run", "2"),
    ]  # fmt: skip


def test_empty_room_and_absent_labels_are_nobody() -> None:
    rows = [recording("emptyroom", "1"), recording("emptyroom", "2"), recording("", "1"), recording("", "2")]
    assert check_split(rows, card(validation={"run": ["2"]})) == ()


def test_the_same_label_in_two_datasets_is_two_people() -> None:
    assert find_leaks([recording("01", "1")], [recording("01", "1", dataset="ds2")], ("subject", "run")) == ()


labels = st.sampled_from(["1", "2", "3"])


@given(st.lists(st.tuples(labels, labels), unique=True), st.sets(labels, min_size=1))
def test_a_split_by_the_disjoint_entity_never_leaks(pairs: list[tuple[str, str]], held_out: set[str]) -> None:
    rows = [recording(*pair) for pair in pairs]
    assert check_split(rows, card(validation={"subject": sorted(held_out)})) == ()


@given(st.lists(st.tuples(labels, labels), unique=True), labels)
def test_a_split_by_run_leaks_exactly_the_subjects_on_both_sides(pairs: list[tuple[str, str]], run: str) -> None:
    leaks = check_split([recording(*pair) for pair in pairs], card(validation={"run": [run]}))
    both = {s for s, r in pairs if r == run} & {s for s, r in pairs if r != run}
    assert {leak.label for leak in leaks} == both


def full_dataset(seconds: float | None = 340.45) -> list[Recording]:
    return [recording(f"{s:02}", str(run), seconds=seconds) for s in range(1, 13) for run in range(1, 61)]


def test_expected_facts() -> None:
    assert check_expected(full_dataset(), card()) == ()
    assert check_expected(full_dataset(seconds=None), card()) == ()  # nobody measured the hours
    found = {d.fact: d.found for d in check_expected(full_dataset(seconds=300)[60:], card())}
    assert found == {"subjects": 11, "recordings": 660, "hours": pytest.approx(55)}
