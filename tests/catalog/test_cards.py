import json
from pathlib import Path

import pytest
import yaml

from neuromill.catalog.cards import FETCHED, Card, card_schema, load_card, load_cards, require_obtainable
from neuromill.records import ConfigError, Entities, Recording, RecordingId
from neuromill.sources.opening import ARCHIVES
from support.paths import PROJECT

CATALOGS = PROJECT / "catalogs"
MINIMAL = {
    "id": "ds1", "title": "t", "archive": "openneuro", "version": "1", "modality": "meg", "device": "d",
    "licence": "CC0", "citation": "c",
}  # fmt: skip

SPIKES = {"modality": "spikes", "recordings": {"layout": "dandi"}}


def write(folder: Path, text: str, name: str = "card.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def card_with(**more: object) -> Card:
    return Card.model_validate(MINIMAL | more)


def recording(subject: str = "", run: str = "") -> Recording:
    name = f"sub-{subject}_run-{run}_meg"
    return Recording(RecordingId("ds1", "1", name), f"{name}.fif", (), Entities(subject=subject, run=run))


def test_a_minimal_card_has_safe_defaults(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, yaml.safe_dump(MINIMAL)))
    assert (card.access, card.recordings.layout, card.splits.disjoint) == ("open", "bids", ("subject",))
    assert str(card.dataset_version) == "ds1@1"
    assert card.split_of(recording("01")) == "train"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"colour": "red"}, "colour"),
        ({"recordings": {"datatype": ["meg"]}}, "recordings.datatype"),
        ({"expected": {"hours": {"value": 1, "verified": "perhaps"}}}, "expected.hours.verified"),
        ({"expected": {"hours": 12}}, "expected.hours"),
        ({"version": 1.0}, "version"),
        ({"id": "../ds1"}, "id"),
        ({"id": "a/b"}, "id"),
        ({"archive": "ftp"}, "archive"),
        ({"access": "maybe"}, "access"),
        ({"line_freq": -50}, "line_freq"),
        ({"splits": {"validation": {"run": [56]}}}, "splits.validation.run.0"),
        ({"splits": {"validation": {"sub": ["01"]}}}, "splits.validation"),
        ({"splits": {"validation": {"run": ["1"]}, "disjoint": []}}, "splits"),
        ({"splits": {"disjoint": ["participant"]}}, "splits.disjoint"),
        ({"splits": {"time_blocks": {"test": [0.9, 0.8]}}}, "splits.time_blocks"),
        ({"fetch": "torrent"}, "fetch"),
        ({"fetch": "stream"}, "(card)"),
        ({"spikes": {}}, "(card)"),
        ({"modality": "spikes"}, "(card)"),
        ({"recordings": {"layout": "dandi"}}, "(card)"),
        ({"recordings": {"datatypes": ["spikes"]}}, "recordings"),
        ({"recordings": {"path_pattern": "{subject}.edf"}}, "recordings"),
        ({"recordings": {"layout": "plain", "path_pattern": "{sub}.edf"}}, "recordings.path_pattern"),
        (SPIKES | {"spikes": {"format": "plexon"}}, "spikes.format"),
        (SPIKES | {"access": "agreement"}, "(card)"),
        ({"access": "application", "agreement": "a form"}, "(card)"),
        ({"access": "agreement", "url": "https://x.org"}, "(card)"),
        ({"url": "x.org"}, "url"),
        ({"url": "https://x.org and more"}, "url"),
        ({"archive": "local"}, "(card)"),
        ({"archive": "dandi", "folder": "/data"}, "(card)"),
        ({"archive": "zenodo", "folder": "data"}, "(card)"),
        ({"expected": {"classes": {"value": 2.5}}}, "expected.classes.value"),
    ],
)
def test_a_wrong_card_names_file_and_key(tmp_path: Path, change: dict, key: str) -> None:
    path = write(tmp_path, yaml.safe_dump(MINIMAL | change))
    with pytest.raises(ConfigError) as caught:
        load_card(path)
    assert caught.value.where == f"{path}: {key}"
    assert caught.value.next_step
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"archive": "zenodo"}, "no part of a file is read from zenodo"),
        ({"archive": "dandi", "spikes": {"format": "flint"}}, "flint is read whole"),
        ({"archive": "local", "folder": "/data", "spikes": {"format": "odoherty"}}, "odoherty is read whole"),
        ({"archive": "dandi"}, ""),
        ({"archive": "dandi", "spikes": {}}, ""),
        ({"archive": "local", "folder": "/data", "spikes": {"format": "nwb"}}, ""),
    ],
)
def test_only_nwb_of_an_archive_that_serves_parts_is_streamed(tmp_path: Path, change: dict, words: str) -> None:
    path = write(tmp_path, yaml.safe_dump(MINIMAL | SPIKES | {"fetch": "stream"} | change))
    if not words:
        assert load_card(path).fetch == "stream"
        return
    with pytest.raises(ConfigError, match=f"`fetch: stream` goes with .*{words}; take it out"):
        load_card(path)


@pytest.mark.parametrize("key", sorted(MINIMAL))
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, yaml.safe_dump({k: v for k, v in MINIMAL.items() if k != key}))
    with pytest.raises(ConfigError, match=f"key '{key}' is missing"):
        load_card(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a list",
        "just text",
        "id: [unclosed",
        "id: a\nid: b",
        "id: !!python/object/apply:os.system ['true']",
        "a: &x [*x]\n? {b: c}\n: d",
        "\x00",
    ],
)
def test_what_is_no_safe_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_card(path)
    assert str(path) in caught.value.where


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_card(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"title: caf\xe9")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_card(tmp_path / "latin.yaml")
    write(tmp_path, "#" * 1_000_001, "large.yaml")
    with pytest.raises(ConfigError, match="too large"):
        load_card(tmp_path / "large.yaml")


def test_cards_of_folders(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write(tmp_path / "b", yaml.safe_dump(MINIMAL | {"id": "b"}))
    write(tmp_path, yaml.safe_dump(MINIMAL | {"id": "c"}))
    write(tmp_path, "not a card", ".hidden.yaml")
    assert [card.id for card in load_cards([tmp_path, tmp_path / "b"])] == ["b", "c"]
    write(tmp_path, yaml.safe_dump(MINIMAL | {"id": "b"}), "again.yaml")
    with pytest.raises(ConfigError, match="two cards have the id b") as caught:
        load_cards([tmp_path])
    assert "again.yaml" in caught.value.where
    with pytest.raises(ConfigError, match="no folder"):
        load_cards([tmp_path / "absent"])


def test_archives_without_a_source_are_those_with_folders() -> None:
    assert {*FETCHED, "local"} == set(ARCHIVES)


def test_what_is_here_or_can_be_fetched_is_obtainable(tmp_path: Path) -> None:
    require_obtainable(card_with())
    require_obtainable(card_with(archive="dandi", access="agreement", agreement="a form", url="https://x.org"))
    require_obtainable(card_with(archive="figshare", folder=str(tmp_path)))


@pytest.mark.parametrize(
    ("change", "what", "where", "step"),
    [
        ({"archive": "local", "folder": "/no/x"}, "the folder of ds1 is not there", "/no/x", "at /no/x"),
        ({"archive": "osf"}, "nothing fetches from osf yet", "ds1", "name their `folder`"),
        ({"archive": "osf", "url": "https://o.org", "folder": "/no/x"}, "from osf yet", "https://o.org", "at /no/x"),
        (
            {"archive": "local", "folder": "/no/x", "access": "agreement", "agreement": "a form", "url": "https://o.org"},
            "by agreement, and is not here: a form", "https://o.org", "at /no/x",
        ),
        ({"no_reader": "a format of 1987"}, "no reader opens the files of ds1: a format of 1987", "ds1", "convert"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_says_what_to_do(change: dict, what: str, where: str, step: str) -> None:
    with pytest.raises(ConfigError) as refused:
        require_obtainable(card_with(**change))
    assert what in refused.value.what
    assert refused.value.where == where
    assert step in refused.value.next_step


def test_test_wins_over_validation() -> None:
    card = card_with(splits={"validation": {"subject": ["01", "02"]}, "test": {"subject": ["02"], "run": ["1"]}})
    splits = [card.split_of(recording(*case)) for case in (("01", "1"), ("02", "1"), ("02", "2"), ("03", "1"))]
    assert splits == ["validation", "test", "validation", "train"]


def test_a_star_in_a_label_stands_for_any_text() -> None:
    card = card_with(splits={"test": {"subject": ["*-held-out-calib", "x"]}})
    splits = [card.split_of(recording(subject)) for subject in ("H-held-out-calib", "H-held-in-calib", "x", "xx", "")]
    assert splits == ["test", "train", "test", "train", "train"]


def test_time_blocks_leave_a_recording_in_training() -> None:
    card = card_with(splits={"test": {"subject": ["02"]}, "time_blocks": {"validation": [0.8, 1.0]}})
    assert [card.split_of(recording(subject)) for subject in ("01", "02")] == ["train", "test"]


@pytest.mark.parametrize("archive", ["dandi", "zenodo", "crcns"])
def test_a_card_of_spikes_has_a_layout_that_reads_the_standard(archive: str) -> None:
    card = card_with(archive=archive, **SPIKES, spikes={})
    assert card.spikes is not None
    assert (card.spikes.format, card.spikes.covariates, card.fetch) == ("nwb", "auto", "whole")
    assert card_with(archive=archive, **SPIKES).spikes is None


def test_the_table_of_duplicates_is_no_card(tmp_path: Path) -> None:
    write(tmp_path, yaml.safe_dump(MINIMAL))
    write(tmp_path, "releases: []\n", "duplicates.yaml")
    assert [card.id for card in load_cards([tmp_path])] == ["ds1"]


def test_the_schema_is_json_and_closed() -> None:
    schema = json.loads(json.dumps(card_schema()))
    assert schema["additionalProperties"] is False
    assert {"id", "version", "licence"} <= set(schema["required"])


@pytest.mark.parametrize("page", ["cards.md", "eeg.md"])
def test_cards_in_the_documentation_are_cards(page: str, tmp_path: Path) -> None:
    blocks = (PROJECT / "docs" / page).read_text(encoding="utf-8").split("```yaml\n")[1:]
    cards = [text for block in blocks if (text := block.split("```")[0]).startswith("id:")]
    assert len(cards) == 1
    assert load_card(write(tmp_path, cards[0])).citation


def test_the_cards_of_this_project() -> None:
    cards = {card.id: card for card in load_cards([CATALOGS])}
    smn = cards["ds004078"]
    assert (smn.version, smn.line_freq, smn.licence, smn.archive) == ("1.0.4", 60, "CC0", "openneuro")
    facts = {name: fact["value"] for name, fact in smn.expected.model_dump().items() if fact and name != "channels"}
    assert facts == {"subjects": 12, "recordings": 720, "hours": 68.09, "n_channels": 306, "sfreq": 1000}
    assert {name: fact.value for name, fact in smn.expected.channels.items()} == {"grad": 204, "mag": 102}
    subjects = [f"{number:02}" for number in range(1, 13)]
    assert [s for s in subjects if smn.split_of(recording(s, "1")) != "train"] == ["06"]
    assert cards["ds999001"].split_of(recording("02", "1")) == "validation"


def test_what_is_called_verified_was_counted() -> None:
    """In a listing that is among the test data, or because the program makes it."""
    verified = {
        card.id: tuple(name for name, fact in card.expected if name != "channels" and fact and fact.verified)
        for card in load_cards([CATALOGS]) if not card.synthetic
    }  # fmt: skip
    listed = dict.fromkeys(
        ("ds002778", "ds003029", "ds003645", "ds004194", "ds004504", "ds005555"), ("subjects", "recordings", "bytes")
    )
    assert {name: facts for name, facts in verified.items() if facts} == listed | {
        "ds004078": ("subjects", "recordings", "hours", "n_channels", "sfreq")
    }


def test_a_key_given_twice_is_refused_even_where_the_rest_is_right(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'device' occurs twice"):
        load_card(write(tmp_path, yaml.safe_dump(MINIMAL) + "device: another\n"))
