"""Engines: same outcomes and same bytes from each; a worker that dies takes only its own item with it."""

import faulthandler
import multiprocessing
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
from neuromill.stages.time_limit import limited
from support.engine_work import POISON, die_on_poison, hang_on_poison, hang_or_die, report_back, work_items
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


def test_an_item_that_hangs_fails_alone_and_its_worker_is_gone() -> None:
    items = work_items(6)
    with open_engine(PROCESSES.model_copy(update={"recording_seconds": 4.0})) as engine:
        outcomes = list(engine.run(hang_on_poison, items))
    assert sorted(o.item.recording.id.name for o in outcomes) == [i.recording.id.name for i in items]
    (late,) = [outcome for outcome in outcomes if not outcome.done]
    assert (late.item.recording.id.name, late.code) == (POISON, FailureCode.INTERRUPTED)
    assert late.message.startswith("not done within 4 s, so its worker was ended; it was in engine_work.py:")
    assert late.message.endswith(" hang_on_poison")
    assert "NEUROMILL_ENGINE__RECORDING_SECONDS" in late.next_step
    assert not any(_is_worker(pid) for pid in {o.bytes_out for o in outcomes if o.done} if psutil.pid_exists(pid))
    assert multiprocessing.active_children() == []


@pytest.mark.slow  # five pools
def test_hanging_and_dying_items_are_told_apart() -> None:
    items = work_items(8)
    with open_engine(PROCESSES.model_copy(update={"recording_seconds": 4.0})) as engine:
        outcomes = list(engine.run(hang_or_die, items))
    failed = {o.item.recording.id.name: o.message for o in outcomes if not o.done}
    assert sorted(o.item.recording.id.name for o in outcomes) == [i.recording.id.name for i in items]
    assert set(failed) == {"sub-001_meg", "sub-002_meg", POISON}
    assert failed[POISON] == "the worker process died on this recording"
    assert all("not done within 4 s" in failed[name] for name in ("sub-001_meg", "sub-002_meg"))


def test_without_a_limit_nothing_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faulthandler, "dump_traceback_later", None)  # calling it would fail
    with limited(report_back, 0) as work:
        assert all(work(item).done for item in work_items(2))
        assert work.late(work_items(1)[0]) is None


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


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_tokenizer(tmp_path_factory.mktemp("published") / "tokenizer")


@pytest.fixture(scope="module")
def serial(walked: Road, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Road:
    return one_after_the_other(walked, tokenizer, tmp_path_factory.mktemp("serial"), SERIAL)


def one_after_the_other(walked: Road, tokenizer: Path, home: Path, settings: EngineSettings) -> Road:
    """The stages over recordings in a home of their own, each with an engine of its own; none fails."""
    pipeline = tiny_pipeline(pretrained={"source": str(tokenizer)})
    with workspace_at(home, settings) as workspace:
        results = run(workspace, pipeline, walked.selection, *RECORDING_STAGES)
        assert all(row.state is WorkState.DONE for row in workspace.ledger.rows())
    return Road(home, walked.data, pipeline, results)


def assert_same_bytes(made: Road, serial: Road) -> None:
    for stage in RECORDING_STAGES:
        assert (made.results[stage].identity, made.results[stage].done) == (serial.results[stage].identity, 4)
    assert tree_digests(made.home / "stores") == tree_digests(serial.home / "stores")


def test_processes_make_the_same_bytes(walked: Road, tokenizer: Path, serial: Road, tmp_path: Path) -> None:
    assert_same_bytes(one_after_the_other(walked, tokenizer, tmp_path, PROCESSES), serial)


@DASK_NOISE
def test_dask_makes_the_same_bytes(walked: Road, tokenizer: Path, serial: Road, tmp_path: Path) -> None:
    """On one cluster, named by its address, as a lab's is: its workers import the libraries once, not per stage."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        settings = EngineSettings(kind=EngineKind.DASK, workers=2, dask_address=cluster.scheduler_address)
        assert_same_bytes(one_after_the_other(walked, tokenizer, tmp_path, settings), serial)


def test_the_serial_engine_is_this_process() -> None:
    assert [o.bytes_out for o in SerialEngine().run(report_back, work_items(2))] == [os.getpid()] * 2


def test_a_pool_starts_with_the_first_item() -> None:
    engine = ProcessEngine(2)
    assert engine._pool is None
    engine.close()
