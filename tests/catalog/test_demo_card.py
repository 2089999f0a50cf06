"""The card of the demo against the snapshot that the demo writes."""

from pathlib import Path

import pytest

from neuromill.catalog.cards import load_card
from neuromill.catalog.discovery import discover
from neuromill.catalog.splits import check_expected, check_split
from neuromill.synthetic.snapshot import SnapshotSpec, write_snapshot
from support.paths import PROJECT
from support.snapshots import folder_manifest, reader_of


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic dataset as files (the bucket has one folder per object version)."""
    import subprocess

    folder = tmp_path_factory.mktemp("demo")
    place = write_snapshot(folder / "upstream", SnapshotSpec(seconds=5.0))
    repository = folder / "upstream" / "git" / f"{place.dataset}.git"
    subprocess.run(
        ["git", "clone", "-q", "-b", place.version, repository, folder / "checkout"], check=True, capture_output=True
    )
    return folder / "checkout"


def test_the_demo_has_what_its_card_says() -> None:
    spec = SnapshotSpec()
    card = load_card(PROJECT / "catalogs" / "openneuro" / f"{spec.dataset}.yaml")
    assert (card.version, card.line_freq) == (spec.version, spec.line_freq)
    assert card.expected.sfreq is not None
    assert card.expected.sfreq.value == spec.sfreq


def test_its_split_keeps_the_subjects_apart(checkout: Path) -> None:
    spec = SnapshotSpec()
    card = load_card(PROJECT / "catalogs" / "openneuro" / f"{spec.dataset}.yaml")
    found = discover(folder_manifest(checkout), card.recordings, reader_of(checkout))
    assert check_expected(found.recordings, card) == ()
    assert check_split(found.recordings, card) == ()
    assert [card.split_of(r) for r in found.recordings] == ["train", "train", "validation", "validation"]
