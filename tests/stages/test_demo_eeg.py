"""The EEG road of the demo: registered, planned without work, and walked to its model."""

from pathlib import Path

import pytest

from neuromill.stages.demo_eeg import EegRoad
from neuromill.stages.demonstration import demonstrate, roads
from neuromill.stages.pipeline import load_pipeline
from neuromill.stages.report import Silent
from neuromill.stages.running import PIPELINE_STAGES
from neuromill.stages.settings import Settings
from neuromill.stages.shipped import find_pipeline
from neuromill.synthetic.eeg_snapshot import EegSnapshotSpec
from support.command import neuromill
from support.stages import SERIAL


def test_it_is_a_road_of_the_demo_on_its_own_data(tmp_path: Path) -> None:
    road = roads()["eeg"]
    pipeline = load_pipeline(find_pipeline(road.pipeline))
    assert pipeline.datasets == (road.dataset,) == (EegSnapshotSpec().dataset,)
    ended = neuromill("demo", "eeg", "--dry-run", "--home", tmp_path / "home")
    assert ended.code == 0
    assert "3 EEG recordings" in ended.out
    assert not (tmp_path / "home").exists()


def test_its_steps_come_in_the_order_of_codebrain() -> None:
    own, model = (load_pipeline(find_pipeline(name)).prepare.steps for name in ("demo-eeg", "codebrain"))
    assert [step.step for step in own] == [step.step for step in model]
    assert own[0] == model[0]
    changed = {step.step for step, other in zip(own, model, strict=True) if step != other}
    assert changed == {"crop", "reject"}  # the lengths only


@pytest.mark.slow
def test_it_is_walked_to_a_model_and_shows_what_came_out(tmp_path: Path) -> None:
    road = EegRoad()
    pipeline = load_pipeline(find_pipeline(road.pipeline), ["train.max_steps=20", "train.validate_every_steps=20"])
    with road.archive(Settings.at(tmp_path / "home", engine=SERIAL)) as workspace:
        shown = demonstrate(road, workspace, pipeline, Silent())
        shown.check()
        again = demonstrate(road, workspace, pipeline, Silent())
        workspace.close()
    assert [result.stage for result in shown.results] == list(PIPELINE_STAGES)
    assert sum(result.done for result in again.results) == 0
    facts = shown.measured.facts
    assert min(facts["perplexity"]) > 12.8
    assert max(facts["dominant_share"]) < 0.5
    assert facts["correlation"] > 0.4
    assert facts["last_loss"] < facts["first_loss"]
    assert len(facts["validation_accuracy"]) == 2
    assert 0 < facts["rejection"]["share"] < 0.2
    compared = facts["comparison"]["tokenizers"]
    assert [one["kind"] for one in compared] == ["tfdual", "mu_law", "quantile"]
    assert facts["comparison"]["split"] == "validation"
    assert facts["comparison"]["n_left_out"] > 0  # channels of windows that preparation rejected
    assert not any(one["fitted_on_these_recordings"] for one in compared)
    assert {key: value for key, value in again.measured.facts.items() if key != "comparison"} == {
        key: value for key, value in facts.items() if key != "comparison"
    }
