"""A lab's own folder with a card of its own: pinned facts, and a subject held out."""

from pathlib import Path

import pytest

from neuromill.catalog.cards import load_card
from neuromill.records import ConfigError
from neuromill.stages.choosing import choose
from neuromill.stages.outcomes import Stage
from neuromill.stages.selection import Selection
from support.stages import run, tiny_pipeline, workspace_at, write_bids

CARD = """
id: lab2026
title: Our own recordings
archive: local
folder: {folder}
version: "1"
modality: meg
device: Elekta
licence: not to be shared
citation: ours
splits:
  validation: {{subject: ["02"]}}
"""


def test_a_local_card_holds_out_a_subject(tmp_path: Path) -> None:
    folder = write_bids(tmp_path / "recordings")
    with workspace_at(tmp_path / "home") as workspace:
        own = workspace.home / "catalogs"
        own.mkdir(parents=True)
        (own / "lab.yaml").write_text(CARD.format(folder=folder))
        pipeline = tiny_pipeline(datasets=("lab2026",))
        results = run(workspace, pipeline, Selection(), Stage.INGEST, Stage.PREPARE)
        assert results[Stage.PREPARE].done == 2
        chosen = choose(workspace, pipeline, Selection())
        assert [(str(r.id), chosen.split_of(r)) for r in chosen.recordings] == [
            ("lab2026@1/sub-01_task-rest_run-01_meg", "train"),
            ("lab2026@1/sub-02_task-rest_run-01_meg", "validation"),
        ]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("archive: local\nfolder: recordings", "must be absolute"),
        ("archive: openneuro\nfolder: /x", "goes with `archive: local`"),
        ("archive: local", "goes with `archive: local`"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path, change: str, why: str) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(CARD.replace("archive: local\nfolder: {folder}", change).format())
    with pytest.raises(ConfigError, match=why):
        load_card(path)


def test_the_line_frequency_of_the_card_is_part_of_the_input(tmp_path: Path) -> None:
    """Sidecars and files that say nothing leave it to the card, and a notch filter uses it."""
    folder = write_bids(tmp_path / "recordings")
    digests = []
    for line_freq in (50, 60):
        with workspace_at(tmp_path / f"home{line_freq}") as workspace:
            own = workspace.home / "catalogs"
            own.mkdir(parents=True)
            (own / "lab.yaml").write_text(CARD.format(folder=folder) + f"line_freq: {line_freq}\n")
            recordings = choose(workspace, tiny_pipeline(datasets=("lab2026",)), Selection()).recordings
            assert {r.line_freq for r in recordings} == {line_freq}
            digests.append({r.input_digest for r in recordings})
    assert digests[0].isdisjoint(digests[1])
