"""Pieces that need no server: failures, names of runs, tables, settings, the engine of a flow."""

import logging
import pickle
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from neuromill.records import ConfigError, FailureCode, PartId, RecordingError
from neuromill.stages.outcomes import ShardResult, Stage, StageResult
from neuromill_flows.failures import TooManyFailedError, check_share, is_infrastructure
from neuromill_flows.parameters import Engine, EngineChoice, Options, Request, Selection, TaskRunnerChoice
from neuromill_flows.reporting import LogReport, run_name, summary_markdown
from neuromill_flows.running import dask_cluster, task_runner


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(28, "no space left on device"), True),
        (BrokenProcessPool(), True),
        (OperationalError("select 1", {}, Exception("database is locked")), True),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (ConfigError("wrong"), False),
        (RecordingError(FailureCode.TRUNCATED, "short"), False),
        (TooManyFailedError("ingest shard 1/1", ShardResult(0, 4), 0.5), False),
        (ZeroDivisionError(), False),
    ],
)
def test_infrastructure_is_what_trying_again_may_mend(error: Exception, again: bool) -> None:  # noqa: FBT001
    assert is_infrastructure(error) is again


@pytest.mark.parametrize(
    ("done", "failed", "limit", "raises"),
    [
        (0, 0, 0.5, False),
        (0, 1, 0.5, False),
        (0, 1, 0.0, False),
        (2, 2, 0.5, False),
        (1, 2, 0.5, True),
        (9, 2, 0.0, True),
    ],
)
def test_share(done: int, failed: int, limit: float, raises: bool) -> None:  # noqa: FBT001
    result = ShardResult(done, failed)
    if raises:
        with pytest.raises(TooManyFailedError, match=f"{failed} of {done + failed} recordings failed"):
            check_share("shard", result, limit)
    else:
        assert check_share("shard", result, limit) is result


def test_the_error_survives_the_trip_from_a_worker() -> None:
    error = TooManyFailedError("shard", ShardResult(1, 2, 3), 0.5)
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.result, back.limit) == (str(error), error.result, error.limit)


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"pipeline": "meg-xl"}, "ingest meg-xl"),
        ({"pipeline": "/lab/meg-small.yaml"}, "ingest meg-small"),
        ({"pipeline": "demo", "selection": Selection(where="run = '1'")}, "ingest demo where run = '1'"),
        ({"pipeline": "demo", "selection": {"data": "/lab/bids", "where": ""}}, "ingest demo from /lab/bids"),
        ({"pipeline": "demo", "selection": Selection(part=PartId(2, 8))}, "ingest demo part 2/8"),
        ({"pipeline": "demo", "until": "prepare"}, "ingest demo until prepare"),
    ],
)
def test_run_name(parameters: dict[str, object], name: str) -> None:
    assert run_name("ingest", parameters) == name


def test_summary_names_the_shards_that_failed() -> None:
    result = StageResult(Stage.INGEST, "abcd", 5, 1, 2, 2, 3.25, 2048)
    text = summary_markdown([result], ["ingest shard 1/2: 2 of 2 recordings failed"])
    assert "| ingest | `abcd` | 5 | 1 | 2 | 2 | 2.0 KiB | 3.2 |  |" in text
    assert "- ingest shard 1/2: 2 of 2 recordings failed" in text


def test_the_log_of_a_shard_is_about_ten_lines(caplog: pytest.LogCaptureFixture) -> None:
    report = LogReport(logging.getLogger("shard"))
    with caplog.at_level(logging.INFO):
        report.begin("ingest shard 1/1", 256, "recordings")
        for _ in range(256):
            report.advance()
        report.end()
    assert 3 <= len(caplog.records) <= 12


def test_a_request_carries_over_to_settings_and_selection(tmp_path: Path) -> None:
    engine = Engine(kind=EngineChoice.DASK, workers=3, threads_per_worker=2, address="tcp://127.0.0.1:1")
    request = Request(engine=engine, options=Options(home=tmp_path), selection=Selection(where="a", part=PartId(1, 2)))
    settings = request.to_settings()
    assert settings.home == tmp_path
    assert settings.engine.model_dump(mode="json") == {
        "kind": "dask", "workers": 3, "threads_per_worker": 2, "dask_address": "tcp://127.0.0.1:1",
        "recording_seconds": 86400.0,
    }  # fmt: skip
    chosen = request.selection.to_stages()
    assert (chosen.where, chosen.data, chosen.part) == ("a", None, PartId(1, 2))


def test_a_request_survives_json() -> None:
    request = Request(selection=Selection(where="x", data=Path("/lab"), part=PartId(1, 2)))
    assert Request.model_validate_json(request.model_dump_json()) == request


def test_dask_workers_that_carry_task_runs_loop_their_recordings() -> None:
    request = Request(engine=Engine(task_runner=TaskRunnerChoice.DASK, address="tcp://127.0.0.1:1"))
    with dask_cluster(request) as ready:
        assert ready.engine.kind is EngineChoice.SERIAL
    assert task_runner(request).address == "tcp://127.0.0.1:1"


def test_an_address_is_used_as_it_is() -> None:
    request = Request(engine=Engine(kind=EngineChoice.DASK, address="tcp://127.0.0.1:1"))
    with dask_cluster(request) as ready:
        assert ready == request
