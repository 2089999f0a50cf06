"""``kill -9`` in the middle of the stages of spikes, fetched whole or in part, then a plain rerun."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from neuromill.catalog.work import Counts, Scope
from neuromill.stages.outcomes import Stage
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.store.verify import verify_store
from neuromill.synthetic.dandi_archive import Request, Response
from support.dandi_road import (
    DANDISET,
    VERSION,
    SpoiltArchive,
    asking,
    assert_true,
    prepared,
    write_card,
    write_session,
)
from support.spike_roads import TINY_SPIKES, tiny_spike_pipeline
from support.stages import leftovers, run, tree_digests

pytestmark = pytest.mark.slow

N = 10
TRIALS = 3
SUBJECTS = "ABCDEFGHIJ"
SEEDS = {subject: seed for seed, subject in enumerate(SUBJECTS)}
EVERYTHING = Selection()
STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)
PIPELINE = tiny_spike_pipeline(datasets=(DANDISET,))
CASES = [
    (stage, fetch) for stage in STAGES for fetch in ("whole", "stream") if stage is Stage.INGEST or fetch == "whole"
]


@dataclass
class SlowArchive(SpoiltArchive):
    """Takes its time over content, so that a kill finds an ingest in the middle."""

    seconds: float = 0.0

    def respond(self, request: Request) -> Response:
        if not request.path.startswith("/api/"):
            time.sleep(self.seconds)
        return super().respond(request)


@dataclass
class Served:
    """The archive, a pipeline file, and the bytes that nobody disturbed."""

    archive: SlowArchive
    file: Path
    stores: dict[str, str]
    identities: dict[Stage, str]
    half_done: list[bool] = field(default_factory=list)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("spike-kill")
    files = {
        f"sub-{subject}/sub-{subject}_ses-1_behavior+ecephys.nwb": write_session(
            folder / f"{subject}.nwb", seed, 1 << 20
        )
        for subject, seed in SEEDS.items()
    }
    file = folder / "tiny-spikes.yaml"
    file.write_text(yaml.safe_dump(TINY_SPIKES | {"datasets": [DANDISET]}))
    with SlowArchive({DANDISET: {VERSION: files}}) as archive:
        write_card(folder / "home")
        with asking(archive, folder / "home") as workspace:
            results = run(workspace, PIPELINE, EVERYTHING, *STAGES)
            assert all(result.done == N for result in results.values())
        stores = tree_digests(folder / "home" / "stores")
        yield Served(archive, file, stores, {stage: result.identity for stage, result in results.items()})


@pytest.mark.parametrize("trial", range(TRIALS))
@pytest.mark.parametrize(("stage", "fetch"), CASES)
def test_a_killed_run_goes_on_where_it_was(
    served: Served, tmp_path: Path, stage: Stage, fetch: str, trial: int
) -> None:
    home, rng = tmp_path / "home", random.Random(f"{stage}-{fetch}-{trial}")
    write_card(home, fetch=fetch)
    before = STAGES[: STAGES.index(stage)]
    served.archive.seconds = 0.0
    with asking(served.archive, home) as workspace:
        run(workspace, PIPELINE, EVERYTHING, *before)
    served.archive.seconds = 0.05

    process = _start(served, home, stage)
    try:
        _wait_until(lambda: _progress(home, stage), rng.randrange(1, N - 2), process)
        time.sleep(rng.uniform(0, 0.1))
    finally:
        _kill(process)
    served.archive.seconds = 0.0

    with asking(served.archive, home) as workspace:
        scope = Scope(stage=stage.value, identity=served.identities[stage])
        found = workspace.ledger.counts(scope)
        assert found.found == found.done + found.failed + found.waiting  # running is waiting, too
        assert found.found in (0, N)
        served.half_done.append(found.done < N)
        if stage is Stage.PREPARE:
            assert_true(_published(prepared(workspace, served.identities[stage])), SEEDS)
        result = run_stage(workspace, PIPELINE, EVERYTHING, stage)
        assert (result.found, result.already_done + result.done, result.failed) == (N, N, 0)
        assert workspace.ledger.counts(scope) == Counts(found=N, done=N, failed=0, waiting=0, running=0)
        rest = STAGES[STAGES.index(stage) + 1 :]
        assert all(one.done == N for one in run(workspace, PIPELINE, EVERYTHING, *rest).values())
        assert {one.note for one in run(workspace, PIPELINE, EVERYTHING, *STAGES).values()} == {"nothing to do"}
        assert tree_digests(home / "stores") == served.stores
        for identity in (Stage.PREPARE, Stage.TOKENIZE):
            assert verify_store(workspace.store(_version(), identity, served.identities[identity])) == ()
    assert leftovers(home) == []
    assert list((home / "locks").iterdir()) == []
    assert [path.name for path in (home / "cache" / "raw" / "partial").iterdir()] == []


def test_the_kills_landed_in_the_middle_of_work(served: Served) -> None:
    """Without this the test above could pass because every kill came too early or too late."""
    if len(served.half_done) < TRIALS * len(CASES):
        pytest.skip("run together with the kills")
    assert sum(served.half_done) >= len(served.half_done) // 2


def _version():
    from neuromill.records import DatasetVersion

    return DatasetVersion(DANDISET, VERSION)


def _published(store: Path) -> dict:
    """Counts of every group that bears its final name, before any index is written."""
    from neuromill.store.reader import StoreReader

    names = [path.name.removesuffix(".zarr") for path in store.glob("[!.]*.zarr")] if store.is_dir() else []
    if not names:
        return {}
    with StoreReader.of_groups(store, tuple(names)) as reader:
        return {name: reader.read(name, "counts") for name in names}


def _start(served: Served, home: Path, stage: Stage) -> "subprocess.Popen[bytes]":
    """The command a user types, in a session of its own."""
    how = ["--home", str(home), "--engine", "processes", "--workers", "2"]
    command = [sys.executable, "-m", "neuromill.cli.main", stage.value, str(served.file), *how]
    own = {"NEUROMILL_ENDPOINTS__DANDI_URL": served.archive.url, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        start_new_session=True,
        env=os.environ | own,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _progress(home: Path, stage: Stage) -> int:
    """How many recordings a stage has brought to their place."""
    if stage is Stage.INGEST:
        held = home / "cache" / "raw" / "sha256"
        return sum(path.is_file() for path in held.rglob("*")) if held.is_dir() else 0
    return len(list(home.glob(f"stores/*/{stage.value}/*/[!.]*.zarr")))


def _wait_until(progress, n: int, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if progress() >= n:
            return
        time.sleep(0.002)
    assert process.poll() is not None, "no work in two minutes"
    assert process.returncode == 0, f"the command ended with {process.returncode}"


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Everything of the session at once, as a machine does that is switched off."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    end = time.monotonic() + 30
    while time.monotonic() < end and any(_members(process.pid)):
        time.sleep(0.02)
    assert not list(_members(process.pid)), "workers outlive their parent"


def _members(session: int) -> Iterator[psutil.Process]:
    """Living processes of a session."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
