"""The cards of EEG and intracranial EEG, against the real listings that are at hand."""

import json
from pathlib import Path

import pytest

from neuromill.catalog.cards import Access, Card, load_cards
from neuromill.catalog.discovery import Discovery, discover
from neuromill.catalog.splits import check_expected, check_split
from neuromill.records import DatasetVersion, FailureCode, Manifest, SourceFile
from neuromill.stages.orphans import recordings_without_data
from support.paths import PROJECT
from support.snapshots import listing_manifest, reader_of

CARDS = {card.id: card for card in load_cards([PROJECT / "catalogs"])}
WHOLE = ("ds002778", "ds003029", "ds003645", "ds004194", "ds004504", "ds005555")  # listings with every subject
PART = ("ds003498", "ds004362", "ds004408")  # listings with six subjects
FORMATS = {
    "ds002778": "bdf", "ds003029": "brainvision", "ds003498": "brainvision", "ds003645": "eeglab",
    "ds004194": "brainvision", "ds004362": "eeglab", "ds004408": "brainvision", "ds004504": "eeglab", "ds005555": "edf",
}  # fmt: skip
UNSEEN = ("ds003688", "ds003775", "ds004584", "ds005505", "chbmit", "eegmat", "tuab", "tueg", "tuev")


def discovered(data: Path, name: str) -> tuple[Card, Manifest, Discovery]:
    card, folder = CARDS[name], data / "openneuro" / name
    manifest = listing_manifest(folder, card.version)
    return card, manifest, discover(manifest, card.recordings, reader_of(folder))


@pytest.mark.data
@pytest.mark.parametrize("name", [*WHOLE, *PART])
def test_the_rules_find_recordings_in_the_real_listing(data: Path, name: str) -> None:
    card, manifest, found = discovered(data, name)
    assert found.recordings
    assert {r.format for r in found.recordings} == {FORMATS[name]}
    assert {r.datatype for r in found.recordings} == {card.modality}
    assert recordings_without_data(manifest, card.recordings, found) == ()  # no sidecar is alone
    assert {problem.code for problem in found.problems} <= {FailureCode.UNREACHABLE_UPSTREAM}
    assert check_split(found.recordings, card) == ()
    assert {card.split_of(r) for r in found.recordings} == {"train", "validation"}


@pytest.mark.data
@pytest.mark.parametrize("name", WHOLE)
def test_facts_agree_with_the_whole_listing(data: Path, name: str) -> None:
    card, _, found = discovered(data, name)
    assert check_expected(found.recordings, card) == ()
    for fact in (card.expected.subjects, card.expected.recordings, card.expected.bytes):
        assert fact is not None
        assert fact.verified


@pytest.mark.data
@pytest.mark.parametrize("name", PART)
def test_facts_of_a_part_are_not_called_verified(data: Path, name: str) -> None:
    """Channels and rates of the sidecars at hand agree; what needs all subjects is a number somebody published."""
    card, _, found = discovered(data, name)
    different = {difference.fact for difference in check_expected(found.recordings, card)}
    assert different <= {"subjects", "recordings"}
    assert len({r.entities.subject for r in found.recordings}) == 6
    assert not any(fact["verified"] for fact in card.expected.model_dump().values() if fact)


@pytest.mark.data
@pytest.mark.parametrize("name", [*WHOLE, *PART])
def test_the_version_is_the_one_of_the_snapshot(data: Path, name: str) -> None:
    description = json.loads((data / "openneuro" / name / "dataset_description.json").read_text(encoding="utf-8-sig"))
    assert description["DatasetDOI"].endswith(f".v{CARDS[name].version}")
    assert description["License"] == CARDS[name].licence


@pytest.mark.parametrize("name", UNSEEN)
def test_what_nobody_counted_says_so(name: str) -> None:
    card = CARDS[name]
    facts = [fact for fact in card.expected.model_dump().values() if fact]
    assert facts
    assert not any(fact["verified"] for fact in facts)
    assert "public knowledge" in card.notes


@pytest.mark.parametrize("name", ["tueg", "tuab", "tuev"])
def test_what_needs_an_agreement_says_which_and_where_to_put_it(name: str) -> None:
    card = CARDS[name]
    assert card.access is Access.AGREEMENT
    assert card.agreement
    assert card.archive == "local"
    assert card.folder is not None


def listed(name: str, *paths: str) -> dict[str, tuple[str, ...]]:
    """Entities and split by path of what a card takes of these files."""
    card = CARDS[name]
    manifest = Manifest(DatasetVersion(name, card.version), tuple(SourceFile(path, 1) for path in sorted(paths)))
    found = discover(manifest, card.recordings, lambda _: b"")
    return {
        r.path: (r.datatype, r.entities.subject, r.entities.session, r.entities.run, card.split_of(r))
        for r in found.recordings
    }


def test_tueg_takes_three_montages() -> None:
    folder = "edf/000/aaaaaaaa/s001_2015"
    others = [
        f"{folder}/04_tcp_le_a/aaaaaaaa_s001_t003.edf",
        f"{folder}/01_tcp_ar/aaaaaaaa_s001_t000.csv",
        "AAREADME.txt",
    ]
    taken = {
        f"{folder}/01_tcp_ar/aaaaaaaa_s001_t000.edf": ("eeg", "aaaaaaaa", "s001", "t000", "train"),
        f"{folder}/02_tcp_le/aaaaaaaa_s001_t001.edf": ("eeg", "aaaaaaaa", "s001", "t001", "train"),
        "edf/001/aaaaaabz/s002_2016/03_tcp_ar_a/aaaaaabz_s002_t000.edf": (
            "eeg", "aaaaaabz", "s002", "t000", "validation",
        ),
    }  # fmt: skip
    assert listed("tueg", *taken, *others) == taken


def test_tuab_keeps_the_label_and_the_half() -> None:
    card = CARDS["tuab"]
    paths = [
        "edf/train/abnormal/01_tcp_ar/aaaaaaaq_s004_t000.edf", "edf/eval/normal/01_tcp_ar/aaaaabdo_s003_t000.edf",
    ]  # fmt: skip
    manifest = Manifest(DatasetVersion("tuab", card.version), tuple(SourceFile(path, 1) for path in sorted(paths)))
    found = {r.path: r for r in discover(manifest, card.recordings, lambda _: b"").recordings}
    labels = [(found[p].entities.task, card.split_of(found[p])) for p in paths]
    assert labels == [("abnormal", "train"), ("normal", "test")]


def test_tuev_has_two_ways_to_name_files() -> None:
    assert listed("tuev", "edf/train/aaaaaaar/aaaaaaar_00000001.edf", "edf/eval/000/bckg_000_a_.edf") == {
        "edf/train/aaaaaaar/aaaaaaar_00000001.edf": ("eeg", "aaaaaaar", "", "", "train"),
        "edf/eval/000/bckg_000_a_.edf": ("eeg", "000", "", "", "test"),
    }


def test_physionet_sets() -> None:
    assert listed("eegmat", "Subject00_1.edf", "Subject35_2.edf", "subject-info.csv") == {
        "Subject00_1.edf": ("eeg", "00", "", "1", "train"), "Subject35_2.edf": ("eeg", "35", "", "2", "test"),
    }  # fmt: skip
    assert listed("chbmit", "chb01/chb01_03.edf", "chb21/chb21_01.edf", "chb24/chb24_01.edf", "chb01/x.seizures") == {
        "chb01/chb01_03.edf": ("eeg", "01", "", "", "train"),
        "chb21/chb21_01.edf": ("eeg", "21", "", "", "train"),  # the girl of case 01
        "chb24/chb24_01.edf": ("eeg", "24", "", "", "test"),
    }
