"""Engines: same outcomes and same bytes from each; a worker that dies takes only its own item with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from neuromill.catalog.work import WorkState
from neuromill.records import FailureCode
from neuromill.stages.engines import ProcessEngine, SerialEngine, open_engine
from neuromill.stages.outcomes import Stage
from neuromill.stages.settings import EngineKind, EngineSettings
from support.engine_work import POISON, die_on_poison, report_back, work_items
from support.paths import PROJECT
from support.stages import SERIAL, Road, run, save_tiny_tokenizer, tiny_pipeline, tree_digests, workspace_at

PROCESSES = EngineSettings(kind=EngineKind.PROCESSES, workers=2)
DASK = EngineSettings(kind=EngineKind.DASK, workers=2)
ENGINES = pytest.mark.parametrize("settings", [SERIAL, PROCESSES, DASK], ids=lambda settings: settings.kind.value)
# distributed leaves sockets and loops to the garbage collector when a cluster of subprocesses closes
RECORDING_STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)
DASK_NOISE = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@ENGINES
@DASK_NOISE
def test_every_item_comes_back_once(settings: EngineSettings) -> None:
    items = work_items(7)
    with open_engine(settings) as engine:
        outcomes = list(engine.run(report_back, items))
        assert list(engine.run(report_back, [])) == []
    assert sorted(o.item.recording.id.name for o in outcomes) == [i.recording.id.name for i in items]
    assert all(outcome.done for outcome in outcomes)
    elsewhere = {outcome.bytes_out for outcome in outcomes} - {os.getpid()}
    assert bool(elsewhere) == (settings.kind is not EngineKind.SERIAL)
    if elsewhere:
        assert {outcome.facts["threads"] for outcome in outcomes} == {"1"}
        assert not any(psutil.pid_exists(pid) and _is_worker(pid) for pid in elsewhere)  # gone with the block


def _is_worker(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "settings",
    [pytest.param(PROCESSES, id="processes"), pytest.param(DASK, id="dask", marks=pytest.mark.slow)],  # 4 new workers
)
@DASK_NOISE
def test_an_item_that_kills_its_worker_fails_alone(settings: EngineSettings) -> None:
    items = work_items(8)
    with open_engine(settings) as engine:
        outcomes = list(engine.run(die_on_poison, items))
    assert sorted(o.item.recording.id.name for o in outcomes) == [i.recording.id.name for i in items]
    assert {o.item.recording.id.name: o.code for o in outcomes if not o.done} == {POISON: FailureCode.INTERRUPTED}
    assert next(o for o in outcomes if not o.done).next_step


def test_an_engine_works_on_after_a_worker_died() -> None:
    with open_engine(PROCESSES) as engine:
        assert sum(outcome.done for outcome in engine.run(die_on_poison, work_items(4))) == 3
        assert all(outcome.done for outcome in engine.run(report_back, work_items(3)))


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "tests")}
    module = "support.engine_work"
    with subprocess.Popen([sys.executable, "-m", module, str(tmp_path)], env=environment) as parent:
        workers = _eventually(lambda: found if len(found := list(tmp_path.iterdir())) == 2 else None)
        parent.send_signal(signal.SIGKILL)
    processes = [psutil.Process(int(path.name)) for path in workers if psutil.pid_exists(int(path.name))]
    _, alive = psutil.wait_procs(processes, timeout=20)
    for process in alive:
        process.kill()
    assert alive == []


def _eventually(look, seconds: float = 60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := look()) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("nothing happened")


@pytest.mark.parametrize("settings", [PROCESSES, DASK], ids=lambda settings: settings.kind.value)
@DASK_NOISE
def test_every_engine_makes_the_same_bytes(walked: Road, tmp_path: Path, settings: EngineSettings) -> None:
    pipeline = tiny_pipeline(pretrained={"source": str(save_tiny_tokenizer(tmp_path / "tokenizer"))})
    with workspace_at(tmp_path / "serial") as workspace:
        expected = run(workspace, pipeline, walked.selection, *RECORDING_STAGES)
    with workspace_at(tmp_path / "home", settings) as workspace:
        results = run(workspace, pipeline, walked.selection, *RECORDING_STAGES)
        assert all(row.state is WorkState.DONE for row in workspace.ledger.rows())
    for stage in RECORDING_STAGES:
        assert (results[stage].identity, results[stage].done) == (expected[stage].identity, 4)
    assert tree_digests(tmp_path / "home" / "stores") == tree_digests(tmp_path / "serial" / "stores")


def test_the_serial_engine_is_this_process() -> None:
    assert [o.bytes_out for o in SerialEngine().run(report_back, work_items(2))] == [os.getpid()] * 2


def test_a_pool_starts_with_the_first_item() -> None:
    engine = ProcessEngine(2)
    assert engine._pool is None
    engine.close()
