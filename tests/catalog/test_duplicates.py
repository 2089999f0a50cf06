from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from neuromill.catalog.duplicates import (
    DuplicateTable,
    drop_duplicates,
    duplicates_of,
    find_duplicates,
    load_duplicates,
    require_disjoint,
)
from neuromill.records import ConfigError, Digest, Entities, Recording, RecordingId, SourceFile
from support.paths import PROJECT

TABLE = load_duplicates(PROJECT / "catalogs" / "duplicates.yaml")


def recording(
    dataset: str, subject: str, session: str = "", content: str = "", task: str = "", name: str = ""
) -> Recording:
    path = name or f"sub-{subject}_ses-{session or 'x'}.nwb"
    digest = Digest.of(content.encode()) if content else None
    return Recording(
        RecordingId(dataset, "1", path.removesuffix(".nwb")), path,
        (SourceFile(path, 7, digest), SourceFile("events.tsv", 7, Digest.of(b"the same for all"))),
        Entities(subject=subject, session=session, task=task),
    )  # fmt: skip


def dropped(*recordings: Recording) -> dict[str, list[str]]:
    return {str(d.dropped): [str(k) for k in d.kept] for d in find_duplicates(recordings, TABLE)}


PERICH = recording("000688", "C", "CO-20131003")
PERICH_RT = recording("000688", "C", "RT-20131003")
MILLER = recording("cvdncjt7n", "Chewie", "20131003")
GALLEGO = recording("gallego-xd2547dkt", "Chewie", "2013-10-03")


def test_one_session_in_three_releases_counts_once() -> None:
    found = find_duplicates([GALLEGO, MILLER, PERICH], TABLE)
    assert {(str(d.dropped), d.why, d.session) for d in found} == {
        (str(MILLER.id), "identity", "Chewie 20131003"),
        (str(GALLEGO.id), "identity", "Chewie 20131003"),
    }
    assert {kept for d in found for kept in d.kept} == {PERICH.id}
    assert drop_duplicates([GALLEGO, MILLER, PERICH], TABLE)[0] == (PERICH,)


def test_two_tasks_of_one_day_are_two_sessions_and_both_stand_for_a_file_that_tells_no_task() -> None:
    assert dropped(PERICH, PERICH_RT) == {}
    assert dropped(MILLER, PERICH_RT, PERICH) == {str(MILLER.id): [str(PERICH.id), str(PERICH_RT.id)]}
    centre_out = recording("cvdncjt7n", "Chewie", "20131003", task="CO")
    assert dropped(centre_out, PERICH_RT) == {}
    assert dropped(centre_out, PERICH) == {str(centre_out.id): [str(PERICH.id)]}


@pytest.mark.parametrize(
    "other",
    [
        recording("cvdncjt7n", "Chewie", "20131004"),
        recording("cvdncjt7n", "Mihili", "20131003"),
        recording("cvdncjt7n", "Jango", "20131003"),
        recording("000999", "C", "20131003"),  # not in the table: C is somebody else there
        recording("cvdncjt7n", "Chewie"),
    ],
)
def test_another_day_animal_or_dataset_is_no_duplicate(other: Recording) -> None:
    assert dropped(PERICH, other) == {}


def test_equal_bytes_are_a_duplicate_whatever_the_names_say() -> None:
    one, two = recording("b", "01", content="x"), recording("a", "x7", content="x", name="other.nwb")
    assert dropped(one, two) == {str(one.id): [str(two.id)]}
    same = recording("a", "x8", content="x", name="third.nwb")
    assert dropped(two, same) == {str(same.id): [str(two.id)]}


def test_shared_sidecars_and_unknown_bytes_are_no_evidence() -> None:
    assert dropped(recording("a", "01"), recording("b", "02")) == {}


@pytest.mark.parametrize(
    ("trained", "held", "what"),
    [
        (PERICH, MILLER, "Chewie on 20131003"),
        (recording("000070", "Jenkins", "20090912"), recording("000128", "Jenkins", "full"), "tells no date"),
        (recording("3854034", "indy", "20160627"), recording("000129", "Indy"), "tells no date"),
        (recording("a", "01", content="x"), recording("b", "02", content="x"), "bytes are equal"),
    ],
)
def test_a_session_in_training_must_not_be_held_out_elsewhere(trained: Recording, held: Recording, what: str) -> None:
    for training, held_out in ((trained, held), (held, trained)):
        with pytest.raises(ConfigError, match=what):
            require_disjoint([training], [held_out], TABLE)


@pytest.mark.parametrize(
    ("trained", "held"),
    [
        (PERICH, recording("000688", "C", "RT-20131004")),
        (PERICH, recording("cvdncjt7n", "Chewie", "20131004")),
        (recording("000128", "Jenkins", "full"), recording("000140", "Jenkins", "small")),  # sessions by their names
        (recording("000954", "H", "19250101T111740"), recording("000954", "H2", "19250101T111740")),
        (recording("a", "01"), recording("b", "01")),
    ],
)
def test_what_is_not_known_to_be_shared_may_be_apart(trained: Recording, held: Recording) -> None:
    require_disjoint([trained], [held], TABLE)


rows = st.builds(
    recording,
    st.sampled_from(["000688", "cvdncjt7n", "xd2547dkt", "other"]),
    st.sampled_from(["C", "Chewie", "M", "Mihili"]),
    st.sampled_from(["", "CO-20131003", "20131003", "RT-20131003"]),
    st.sampled_from(["", "x", "y"]),
)


@given(st.lists(rows, max_size=8, unique_by=lambda r: r.id), st.randoms())
def test_dropping_is_independent_of_order_and_once_is_enough(recordings: list[Recording], random) -> None:
    kept, found = drop_duplicates(recordings, TABLE)
    shuffled = list(recordings)
    random.shuffle(shuffled)
    assert set(drop_duplicates(shuffled, TABLE)[1]) == set(found)
    assert set(found) <= set(find_duplicates(recordings, TABLE))
    assert drop_duplicates(kept, TABLE) == (kept, ())
    ids = {r.id for r in kept}
    assert all(ids.issuperset(d.kept) and d.dropped not in ids for d in found)


def test_the_table_of_a_folder_is_found_and_none_is_empty(tmp_path: Path) -> None:
    assert duplicates_of([tmp_path, PROJECT / "catalogs"]) == TABLE
    assert duplicates_of([tmp_path]) == DuplicateTable()


@pytest.mark.parametrize(
    "document",
    [
        "releases: {",
        "[]",
        yaml.safe_dump({"releases": [{"name": "a", "datasets": []}]}),
        yaml.safe_dump({"animals": [{"name": "Chewie", "labels": {"perich": ["C"]}}]}),
        yaml.safe_dump({"colour": "red"}),
    ],
)
def test_a_wrong_table_is_an_error_that_names_the_file(tmp_path: Path, document: str) -> None:
    (tmp_path / "duplicates.yaml").write_text(document)
    with pytest.raises(ConfigError) as caught:
        load_duplicates(tmp_path / "duplicates.yaml")
    assert "duplicates.yaml" in caught.value.where
