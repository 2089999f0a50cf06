"""The flows over the real stages and a small synthetic snapshot; the same stages without a server."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from neuromill.stages import running as stages_running
from neuromill.stages.engines import SerialEngine
from neuromill.stages.outcomes import Outcome, Stage, WorkItem
from neuromill.stages.report import Silent
from neuromill.synthetic.snapshot import SnapshotSpec, write_snapshot
from neuromill_flows import flows, running, work
from neuromill_flows.parameters import Engine, EngineChoice, Options, Request, TaskRunnerChoice

Work = Callable[[WorkItem], Outcome]
SERIAL = Engine(kind=EngineChoice.SERIAL)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = write_snapshot(tmp_path_factory.mktemp("snapshot"), SnapshotSpec(subjects=1, runs=2, seconds=6.0))
    return {"NEUROMILL_ENDPOINTS__GIT_URL": place.git_url, "NEUROMILL_ENDPOINTS__BUCKET_URL": place.bucket_url}


@pytest.fixture
def options(tmp_path: Path, snapshot: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Options:
    for name, value in snapshot.items():
        monkeypatch.setenv(name, value)
    return Options(home=tmp_path / "home")


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_ingest_and_prepare_as_flows(options: Options) -> None:
    first = flows.pipeline("demo", engine=SERIAL, until=flows.LastStage.PREPARE, options=options)
    assert [(r.stage, r.found, r.done, r.failed) for r in first] == [(Stage.INGEST, 2, 2, 0), (Stage.PREPARE, 2, 2, 0)]
    stores = sorted(path.name for path in options.home.glob("stores/*/prepare/*/*.zarr"))
    assert len(stores) == 2
    again = flows.pipeline("demo", engine=SERIAL, until=flows.LastStage.PREPARE, options=options)
    assert all(result.nothing_to_do and result.already_done == 2 for result in again)


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_an_attempt_that_breaks_off_gives_its_recordings_back(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.shard_task, "retry_delay_seconds", 0)
    troubles: list[Exception] = [ConnectionResetError("reset by peer")]

    class Flaky(SerialEngine):
        def run(self, do: Work, items: Sequence[WorkItem]) -> Iterator[Outcome]:
            yield do(items[0])
            if troubles:
                raise troubles.pop()
            yield from super().run(do, items[1:])

    monkeypatch.setattr(stages_running, "open_engine", lambda _settings: nullcontext(Flaky()))
    result = flows.ingest("demo", engine=SERIAL, options=options)
    assert not troubles
    assert flows.ingest("demo", engine=SERIAL, options=options).already_done == 2
    assert result.failed == 0


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_with_and_without_prefect_the_bytes_are_the_same(options: Options, tmp_path: Path) -> None:
    flows.pipeline("demo", engine=SERIAL, until=flows.LastStage.PREPARE, options=options)
    plain = Options(home=tmp_path / "plain")
    results = work.run_all(Request(pipeline="demo", engine=SERIAL, options=plain), Stage.PREPARE, Silent())
    assert [result.done for result in results] == [2, 2]
    assert files_below(options.home / "stores") == files_below(plain.home / "stores")


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(Engine(kind=EngineChoice.PROCESSES, workers=2), id="processes"),
        pytest.param(Engine(kind=EngineChoice.DASK, workers=2), id="dask engine"),
        pytest.param(Engine(task_runner=TaskRunnerChoice.DASK, shards_at_once=2), id="DaskTaskRunner"),
    ],
)
def test_every_engine_publishes_the_same_bytes(options: Options, tmp_path: Path, engine: Engine) -> None:
    flows.pipeline("demo", engine=engine, until=flows.LastStage.PREPARE, options=options)
    plain = Options(home=tmp_path / "plain")
    work.run_all(Request(pipeline="demo", engine=SERIAL, options=plain), Stage.PREPARE, Silent())
    published = files_below(options.home / "stores")
    assert len(published) > 2
    assert published == files_below(plain.home / "stores")
