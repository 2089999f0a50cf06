"""The cards of EEG and intracranial EEG, against the real listings that are at hand."""

import json
import shutil
from pathlib import Path

import pytest

from neuromill.catalog.cards import Access, Card, load_cards
from neuromill.catalog.discovery import Discovery, discover
from neuromill.catalog.rules import RecordingRules
from neuromill.catalog.splits import check_expected, check_split
from neuromill.records import ConfigError, DatasetVersion, FailureCode, Manifest, SourceFile
from neuromill.stages.choosing import choose
from neuromill.stages.orphans import recordings_without_data
from neuromill.stages.outcomes import Stage
from neuromill.stages.refreshing import refresh
from neuromill.stages.selection import Selection
from support.command import neuromill
from support.paths import PROJECT
from support.snapshots import listing_manifest, made_manifest, reader_of
from support.stages import run, tiny_pipeline, workspace_at

CARDS = {card.id: card for card in load_cards([PROJECT / "catalogs"])}
WHOLE = ("ds002778", "ds003029", "ds003645", "ds004194", "ds004504", "ds005555")  # listings with every subject
PART = ("ds003498", "ds004362", "ds004408")  # listings with six subjects
FORMATS = {
    "ds002778": "bdf", "ds003029": "brainvision", "ds003498": "brainvision", "ds003645": "eeglab",
    "ds004194": "brainvision", "ds004362": "eeglab", "ds004408": "brainvision", "ds004504": "eeglab", "ds005555": "edf",
}  # fmt: skip

# What nobody counted: subjects, recordings, n_channels, sfreq, classes as they were published, None where nothing was.
UNSEEN: dict[str, tuple[float | None, ...]] = {
    "ds003688": (51, None, None, None, None),
    "ds003775": (111, 153, 64, 1024, None),
    "ds004584": (149, 149, None, 500, None),
    "ds005505": (136, None, None, 500, None),
    "bcic2020-t3": (15, 45, 64, 256, 5),
    "chbmit": (24, 686, 23, 256, 2),
    "eegmat": (36, 72, 20, 500, 2),
    "faced": (123, 123, 32, None, 9),
    "isruc-s1": (100, 100, 6, 200, 5),
    "isruc-s3": (10, 10, 6, 200, 5),
    "seed-v": (16, 48, 62, 1000, 5),
    "shu-mi": (25, 125, 32, 250, 2),
    "tuab": (2329, 2993, None, None, 2),
    "tueg": (14987, None, None, None, None),
    "tuev": (370, 518, None, None, 6),
}
FACTS = ("subjects", "recordings", "n_channels", "sfreq", "classes")
DOWNSTREAM = {  # the sets that CodeBrain is tested on
    "FACED": "faced", "SEED-V": "seed-v", "ISRUC-S1": "isruc-s1", "ISRUC-S3": "isruc-s3", "SHU-MI": "shu-mi",
    "BCIC2020-T3": "bcic2020-t3", "Mental Arithmetic": "eegmat", "CHB-MIT": "chbmit", "TUEV": "tuev", "TUAB": "tuab",
}  # fmt: skip
BY_AGREEMENT = ("tueg", "tuab", "tuev", "faced", "seed-v")
UNREAD = ("bcic2020-t3", "seed-v")


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


def test_every_card_of_eeg_has_its_row() -> None:
    cards = {name for name, card in CARDS.items() if card.modality in ("eeg", "ieeg") and not card.synthetic}
    assert cards == {*WHOLE, *PART, *UNSEEN}
    assert set(DOWNSTREAM.values()) <= cards


@pytest.mark.data
def test_every_listing_of_eeg_has_a_card(data: Path) -> None:
    """A snapshot with a folder ``eeg`` or ``ieeg`` in it, whatever else it has."""
    found = set()
    for listing in (data / "openneuro").glob("*/listing.tsv"):
        folders = {part for line in listing.read_text().splitlines() for part in line.split("\t")[0].split("/")[:-1]}
        if folders & {"eeg", "ieeg"}:
            name = listing.parent.name
            found.add(name)
            assert name in CARDS, f"no card for {name}"
            assert (CARDS[name].archive, CARDS[name].modality in folders) == ("openneuro", True)
    assert found == {*WHOLE, *PART}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_nobody_counted_says_so(name: str) -> None:
    card = CARDS[name]
    facts = [getattr(card.expected, fact) for fact in FACTS]
    assert tuple(fact.value if fact else None for fact in facts) == UNSEEN[name]
    assert not any(fact["verified"] for fact in card.expected.model_dump().values() if fact)
    assert "public knowledge" in card.notes


@pytest.mark.parametrize("name", DOWNSTREAM.values())
def test_a_downstream_set_says_where_it_is_and_where_to_put_it(name: str) -> None:
    card = CARDS[name]
    assert card.url.startswith("https://")
    assert card.folder == Path("~/neuromill-data", name)
    assert card.expected.classes is not None
    assert card.splits.test
    assert card.splits.disjoint == ("subject",)


@pytest.mark.parametrize("name", BY_AGREEMENT)
def test_what_needs_an_agreement_is_refused_with_its_address(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    card = CARDS[name]
    assert card.access is not Access.OPEN
    refused = neuromill("catalog", "refresh", name, "--home", tmp_path / "home")
    assert (refused.code, refused.out) == (2, "")
    assert card.url in refused.err
    if name not in UNREAD:
        assert card.agreement in refused.err
        assert f"at {card.folder}" in refused.err
    shown = " ".join(neuromill("catalog", "show", name, "--home", tmp_path / "home").out.split())
    assert card.url in shown


@pytest.mark.parametrize("name", UNREAD)
def test_what_no_reader_opens_is_refused_even_where_it_lies(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "neuromill-data" / name).mkdir(parents=True)
    refused = neuromill("catalog", "refresh", name, "--home", tmp_path / "home")
    assert refused.code == 2
    assert f"no reader opens the files of {name}: {CARDS[name].no_reader}" in refused.err
    assert "convert them" in refused.err
    assert not listed(name, "x/Training set/Data_Sample01.mat", "x/1_1_20180804.cnt")


@pytest.mark.parametrize(
    ("name", "archive"), [("eegmat", "physionet"), ("chbmit", "physionet"), ("isruc-s3", "website")]
)
def test_what_nothing_fetches_says_where_to_get_it(
    name: str, archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with workspace_at(tmp_path / "home") as workspace, pytest.raises(ConfigError) as refused:
        refresh(workspace, workspace.dataset(name))
    assert f"nothing fetches from {archive} yet" in refused.value.what
    assert refused.value.where == CARDS[name].url
    assert f"at ~/neuromill-data/{name}" in refused.value.next_step


@pytest.mark.data
@pytest.mark.parametrize(("name", "file"), [("eegmat", "Subject35_2.edf"), ("isruc-s3", "10/10.rec")])
def test_files_in_the_folder_of_a_card_go_in(
    data: Path, name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real EDF under the names of the sets, read through the card as it is shipped."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "neuromill-data" / name / file
    path.parent.mkdir(parents=True)
    shutil.copy(data / "bids/eeg-arithmetic/sub-00/eeg/sub-00_task-arithmetic_eeg.edf", path)
    with workspace_at(tmp_path / "home") as workspace:
        pipeline = tiny_pipeline(datasets=(name,))
        results = run(workspace, pipeline, Selection(), Stage.INGEST)
        assert (results[Stage.INGEST].done, results[Stage.INGEST].failed) == (1, 0)
        chosen = choose(workspace, pipeline, Selection())
    (recording,) = chosen.recordings
    assert (recording.format, recording.datatype, chosen.split_of(recording)) == ("edf", "eeg", "test")
    assert recording.line_freq == CARDS[name].line_freq


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


def test_sleep_of_isruc() -> None:
    assert listed("isruc-s1", "1/1.rec", "100/100.rec", "1/1_1.txt", "1/1_1.xlsx", "85/85.rec", "85/85.edf") == {
        "1/1.rec": ("eeg", "1", "", "", "train"),
        "100/100.rec": ("eeg", "100", "", "", "test"),
        "85/85.rec": ("eeg", "85", "", "", "validation"),
    }


def test_faced_takes_raw_recordings_only() -> None:
    assert listed(
        "faced", "Data/sub000/data.bdf", "Data/sub000/evt.bdf", "Data/sub099/data.bdf", "Data/sub100/data.bdf",
        "Data/sub122/data.bdf", "Processed_data/sub000.pkl", "Data/sub000/After_remarks.mat",
    ) == {
        "Data/sub000/data.bdf": ("eeg", "000", "", "", "train"),
        "Data/sub099/data.bdf": ("eeg", "099", "", "", "validation"),
        "Data/sub100/data.bdf": ("eeg", "100", "", "", "test"),
        "Data/sub122/data.bdf": ("eeg", "122", "", "", "test"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parts"), [("faced", (80, 20, 23)), ("shu-mi", (15, 5, 5)), ("isruc-s1", (80, 10, 10))]
)
def test_splits_have_as_many_people_as_published(name: str, parts: tuple[int, ...]) -> None:
    paths = {
        "faced": [f"sub{i:03}/data.bdf" for i in range(123)],
        "shu-mi": [f"sub-{i:03}_ses-01_task_motorimagery_eeg.edf" for i in range(1, 26)],
        "isruc-s1": [f"{i}/{i}.rec" for i in range(1, 101)],
    }
    splits = [row[-1] for row in listed(name, *paths[name]).values()]
    assert tuple(splits.count(split) for split in ("train", "validation", "test")) == parts


def test_arrays_of_shu_are_told() -> None:
    paths = ["sub-001_ses-01_task_motorimagery_eeg.edf", "sub-025_ses-05_task_motorimagery_eeg.mat"]
    assert listed("shu-mi", *paths) == {paths[0]: ("eeg", "001", "01", "", "train")}
    found = discover(made_manifest(paths), CARDS["shu-mi"].recordings, lambda _: b"")
    assert [(left.path, left.reason) for left in found.left_out] == [(paths[1], "no reader opens .mat")]


def test_a_rec_file_is_edf_only_where_a_pattern_says_so() -> None:
    """TUEV has tables of that name beside its recordings."""
    path = "edf/train/aaaaaaar/aaaaaaar_00000001.rec"
    assert listed("tuev", path) == {}
    plain = RecordingRules(layout="plain")
    assert discover(made_manifest([path]), plain, lambda _: b"").recordings == ()
