"""What a pipeline of spikes is about: the card as it is now, and no session on both sides."""

from dataclasses import replace

import pytest

from neuromill.catalog.cards import Card
from neuromill.catalog.duplicates import load_duplicates
from neuromill.records import ConfigError, Digest, Entities, Recording, RecordingId, SourceFile
from neuromill.stages.choosing import Chosen
from neuromill.stages.datasets import Dataset
from neuromill.stages.outcomes import Stage
from neuromill.stages.running import plan_stage, run_stage
from neuromill.stages.selection import Selection
from support.paths import PROJECT
from support.spike_roads import tiny_spike_pipeline
from support.stages import workspace_at

TABLE = load_duplicates(PROJECT / "catalogs" / "duplicates.yaml")
CARD = """
id: maze
title: one trial
archive: local
folder: {folder}
version: local
modality: spikes
device: arrays
licence: own
citation: none
recordings: {{layout: plain, datatypes: [spikes], include: [mc_maze_trial748.nwb]}}
spikes:
  covariates:
    - {{path: processing/behavior/{series}, factor: {factor}}}
"""


@pytest.mark.data
def test_a_layout_that_is_changed_in_the_card_is_followed_without_a_refresh(data, tmp_path):
    cards = tmp_path / "home" / "catalogs"
    cards.mkdir(parents=True)
    pipeline = tiny_spike_pipeline(datasets=["maze"])
    with workspace_at(tmp_path / "home") as workspace:
        for series, factor in (("hand_vel", 1.0), ("hand_pos", -100.0)):
            text = CARD.format(folder=data / "nwb", series=series, factor=factor)
            (cards / "maze.yaml").write_text(text)
            assert len(plan_stage(workspace, pipeline, Selection(), Stage.PREPARE).todo) == 1
            assert run_stage(workspace, pipeline, Selection(), Stage.PREPARE).done == 1
        assert run_stage(workspace, pipeline, Selection(), Stage.PREPARE).note == "nothing to do"


@pytest.mark.data
def test_smoothing_over_the_guard_between_blocks_is_refused_before_any_work(data, tmp_path):
    cards = tmp_path / "home" / "catalogs"
    cards.mkdir(parents=True)
    text = CARD.format(folder=data / "nwb", series="hand_vel", factor=1.0)
    (cards / "maze.yaml").write_text(text + "splits: {time_blocks: {validation: [0.8, 1.0]}}\n")
    smooth = {"steps": [{"step": "smooth", "seconds": 5.0, "direction": "centred"}]}
    with workspace_at(tmp_path / "home") as workspace, pytest.raises(ConfigError, match="guard"):
        plan_stage(workspace, tiny_spike_pipeline(datasets=["maze"], prepare=smooth), Selection(), Stage.PREPARE)


def recording(dataset: str, subject: str, content: str) -> Recording:
    file = SourceFile(f"sub-{subject}.nwb", 7, Digest.of(content.encode()))
    return Recording(RecordingId(dataset, "1", f"sub-{subject}"), file.path, (file,), Entities(subject=subject))


def dataset(name: str, **splits: object) -> Dataset:
    return Dataset(
        Card.model_validate(
            {
                "id": name, "title": name, "archive": "dandi", "version": "1", "modality": "spikes", "device": "",
                "licence": "", "citation": "", "recordings": {"layout": "dandi"}, "splits": splits,
            }
        )
    )  # fmt: skip


@pytest.mark.parametrize("blocks", [{"validation": [0.8, 1.0]}, None])
def test_blocks_of_time_hold_their_sessions_out_of_other_datasets(blocks):
    """Jenkins' sessions of 000128 tell no date, so any of 000070 may be the same."""
    maze, nlb = dataset("000070"), dataset("000128", **({"time_blocks": blocks} if blocks else {}))
    mine = recording("000070", "Jenkins", "a")
    other = recording("000128", "Jenkins", "b")
    chosen = Chosen((maze, nlb), (mine, other), (mine, other), (), TABLE)
    if blocks is None:
        chosen.require_no_leaks()
        return
    with pytest.raises(ConfigError, match="Jenkins"):
        chosen.require_no_leaks()
    replace(chosen, selected=(other,)).require_no_leaks()
