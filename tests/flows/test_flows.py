"""The flows against a server: states, artifacts, retries, windows. What the stages do is tested elsewhere."""

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort
from prefect.states import State

from neuromill.records import ConfigError
from neuromill.stages.outcomes import Stage
from neuromill_flows import flows, running
from neuromill_flows.failures import StageFailedError
from neuromill_flows.parameters import Engine, Selection
from support.fake_work import FakeWork

pytestmark = [pytest.mark.prefect, pytest.mark.usefixtures("prefect_server")]


def flow_run(state: State) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id)


def newest_artifact(key: str) -> str:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), sort=ArtifactSort.CREATED_DESC
        )
    return str(found[0].data)


def test_a_stage_maps_its_shards_and_shows_plan_and_result(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWork(n_shards=3, per_shard=4).install(monkeypatch)
    state = flows.prepare("meg-xl", Selection(where="subject = '01'"), Engine(shards_at_once=2), return_state=True)
    assert state.is_completed()
    result = state.result()
    assert (result.stage, result.found, result.done, result.failed, result.bytes_out) == (
        Stage.PREPARE,
        12,
        12,
        0,
        3000,
    )
    assert sorted(fake.ran) == [(Stage.PREPARE, 1), (Stage.PREPARE, 2), (Stage.PREPARE, 3)]
    assert fake.finished == [Stage.PREPARE]
    assert flow_run(state).name == "prepare meg-xl where subject = '01'"
    assert "| 12 | 0 | 0 | 12 | 12.0 KiB | 3 |" in newest_artifact("prepare-plan")
    assert "| prepare | `0123456789abcdef` | 12 | 0 | 12 | 0 |" in newest_artifact("prepare-summary")


def test_the_pipeline_runs_every_stage_as_a_flow_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWork(n_shards=1).install(monkeypatch)
    state = flows.pipeline("demo", until=flows.LastStage.TOKENIZE, return_state=True)
    assert [result.stage for result in state.result()] == ["ingest", "prepare", "fit", "tokenize"]
    assert [stage for stage, _ in fake.ran] == ["ingest", "prepare", "fit", "tokenize"]
    assert flow_run(state).name == "pipeline demo until tokenize"
    assert newest_artifact("pipeline-summary").count("0123456789abcdef") == 4


def test_a_bad_recording_does_not_fail_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeWork(failing=1).install(monkeypatch)
    state = flows.ingest(return_state=True)
    assert state.is_completed()
    assert state.result().failed == 3


def test_too_many_failures_fail_the_stage_after_every_shard_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWork(failing=3).install(monkeypatch)
    state = flows.ingest(return_state=True)
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), StageFailedError)
    assert len(fake.ran) == 3  # once each: a share of failed recordings is not retried
    assert fake.finished == [Stage.INGEST]  # what was published is in the index all the same
    summary = newest_artifact("ingest-summary")
    assert "3 of 4 recordings failed, the limit is 50%" in summary
    assert "| 12 | 0 | 3 | 9 |" in summary


def test_the_limit_is_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeWork(failing=3, max_failed_share=0.8).install(monkeypatch)
    assert flows.ingest(return_state=True).is_completed()


def test_the_stages_after_a_failed_one_do_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWork(n_shards=1, failing=4).install(monkeypatch)
    assert flows.pipeline(return_state=True).is_failed()
    assert {stage for stage, _ in fake.ran} == {Stage.INGEST}


@pytest.mark.parametrize(
    ("trouble", "attempts", "ends"),
    [
        pytest.param(ConnectionResetError("reset by peer"), 2, "COMPLETED", id="infrastructure is tried again"),
        pytest.param(ConfigError("wrong key"), 1, "FAILED", id="a wrong configuration is not"),
        pytest.param(ZeroDivisionError("bug"), 1, "FAILED", id="a defect is not"),
    ],
)
def test_retries(monkeypatch: pytest.MonkeyPatch, trouble: Exception, attempts: int, ends: str) -> None:
    monkeypatch.setattr(running.shard_task, "retry_delay_seconds", 0)
    fake = FakeWork(n_shards=1, troubles=[trouble]).install(monkeypatch)
    state = flows.ingest(return_state=True)
    assert len(fake.requests) == attempts
    assert state.type == ends


def test_more_shards_than_fit_a_flow_run_become_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "MAX_SHARDS_PER_FLOW_RUN", 2)
    fake = FakeWork(n_shards=5, per_shard=1).install(monkeypatch)
    state = flows.tokenize("demo", return_state=True)
    assert state.result().done == 5
    assert sorted(fake.ran) == [(Stage.TOKENIZE, number) for number in range(1, 6)]
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(limit=20, sort=FlowRunSort.START_TIME_DESC)
    names = {run.name for run in runs}
    assert {"tokenize window 1/3", "tokenize window 2/3", "tokenize window 3/3"} <= names


def test_nothing_to_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWork(n_shards=0).install(monkeypatch)
    result = flows.prepare()
    assert result.nothing_to_do
    assert result.note == "nothing to do"
    assert fake.ran == []


def test_results_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(each.persist_result is False for each in flows.FLOWS.values())
    assert running.shard_task.persist_result is False
    assert running.whole_task.persist_result is False
