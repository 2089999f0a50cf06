"""The demo is able to fail, and says where."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from neuromill.records import ConfigError, NeuroMillError
from neuromill.stages import demonstration
from neuromill.stages.demonstration import Demonstration, Measured, demonstrate, loss_problems, roads, workspace_at
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.pipeline import load_pipeline
from neuromill.stages.report import Silent
from neuromill.stages.settings import Settings
from neuromill.stages.shipped import find_pipeline


def result(stage: Stage, *, failed: int = 0, note: str = "") -> StageResult:
    return StageResult(stage, "0123456789abcdef", 3, 0, 3 - failed, failed, 1.0, 10, note)


def shown(problems: tuple[str, ...] = (), failed: int = 0) -> Demonstration:
    results, nowhere = (result(Stage.INGEST, failed=failed),), Path("nowhere")
    return Demonstration("eeg", results, (nowhere, nowhere), 3, 1.0, 1, 1, 1, Measured((), {}, problems), nowhere)


@pytest.mark.parametrize("road", roads().values(), ids=lambda road: road.name)
def test_a_road_that_ends_early_says_where(road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = (result(Stage.INGEST, failed=3, note="nothing is left for prepare: all 3 recordings failed"),)
    monkeypatch.setattr(demonstration, "refresh", lambda *_: SimpleNamespace(size=1))
    monkeypatch.setattr(demonstration, "run_pipeline", lambda *_, **__: ended)
    pipeline = load_pipeline(find_pipeline(road.pipeline))
    with (
        workspace_at(Settings.at(tmp_path)) as workspace,
        pytest.raises(NeuroMillError, match=f"{road.name}.*ended with ingest: nothing is left for prepare"),
    ):
        demonstrate(road, workspace, pipeline, Silent())


def test_pipelines_about_other_data_are_refused(tmp_path: Path) -> None:
    pipeline = load_pipeline(find_pipeline("demo"))
    with workspace_at(Settings.at(tmp_path)) as workspace, pytest.raises(ConfigError, match="its own dataset"):
        demonstrate(roads()["eeg"], workspace, pipeline, Silent())


def test_addresses_are_those_of_the_road(tmp_path: Path) -> None:
    with workspace_at(Settings.at(tmp_path), dandi_url="http://127.0.0.1:9/api") as workspace:
        assert workspace.settings.endpoints.dandi_url == "http://127.0.0.1:9/api"
        assert workspace.home == tmp_path


def test_what_did_not_work_is_an_error() -> None:
    shown().check()
    with pytest.raises(NeuroMillError, match="a recording failed; the loss"):
        shown(("the loss",), failed=1).check()


@pytest.mark.parametrize(("first", "last", "problems"), [(2.0, 1.0, 0), (1.0, 1.0, 1), (1.0, float("nan"), 1)])
def test_a_loss_that_does_not_go_down_is_a_problem(first: float, last: float, problems: int) -> None:
    assert len(loss_problems({"first_loss": first, "last_loss": last})) == problems
