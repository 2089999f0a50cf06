"""``kill -9`` in the middle of prepare and of tokenize, then a plain rerun: as if nothing had happened."""

import os
import random
import shutil
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
from neuromill.stages.pipeline import Pipeline, load_pipeline
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.store.verify import verify_store
from support.stages import TINY, leftovers, run, save_tiny_tokenizer, tree_digests, workspace_at, write_bids

N = 12
TRIALS = 10  # of each stage
KILLED_OUTRIGHT = ("group", "parent")
MODES = (*KILLED_OUTRIGHT, "worker")
pytestmark = pytest.mark.slow


@dataclass
class Undisturbed:
    """The state before each stage, and the bytes that each makes when nobody disturbs it."""

    folder: Path
    data: Path
    file: Path
    pipeline: Pipeline
    identities: dict[Stage, str]
    bytes_of: dict[Stage, dict[str, str]]
    half_done: dict[tuple[Stage, str], list[bool]] = field(default_factory=dict)

    def before(self, stage: Stage) -> Path:
        return self.folder / f"before-{stage.value}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("kill")
    data = write_bids(folder / "lab", subjects=[f"{n:02d}" for n in range(1, N + 1)], seconds=20.0, sfreq=500.0)
    tokenizer = save_tiny_tokenizer(folder / "tokenizer")
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY | {"pretrained": {"source": str(tokenizer)}}))
    pipeline, home, selection = load_pipeline(file), folder / "home", Selection(data=data)
    made = Undisturbed(folder, data, file, pipeline, {}, {})
    with workspace_at(home) as workspace:
        run(workspace, pipeline, selection, Stage.INGEST)
    for stage in (Stage.PREPARE, Stage.TOKENIZE):
        shutil.copytree(home, made.before(stage), symlinks=True)
        with workspace_at(home) as workspace:
            result = run_stage(workspace, pipeline, selection, stage)
        assert result.done == N
        made.identities[stage] = result.identity
        made.bytes_of[stage] = tree_digests(_store(made, home, stage))
    return made


def _store(made: Undisturbed, home: Path, stage: Stage) -> Path:
    return home / "stores" / "lab@local" / stage.value / made.identities[stage]


@pytest.mark.parametrize("trial", range(TRIALS))
@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.TOKENIZE])
def test_a_killed_run_goes_on_where_it_was(undisturbed: Undisturbed, tmp_path: Path, stage: Stage, trial: int) -> None:
    home, rng, mode = tmp_path / "home", random.Random(f"{stage}-{trial}"), MODES[trial % len(MODES)]
    shutil.copytree(undisturbed.before(stage), home, symlinks=True)
    store, selection = _store(undisturbed, home, stage), Selection(data=undisturbed.data)

    with _started(undisturbed, home, stage) as process:
        _wait_until(store, rng.randrange(N - 2))
        time.sleep(rng.uniform(0, 0.05))
        _kill(process, mode, rng)
    undisturbed.half_done.setdefault((stage, mode), []).append(_is_half_done(home, store))

    with workspace_at(home) as workspace:
        scope = Scope(stage=stage.value, identity=undisturbed.identities[stage])
        found = workspace.ledger.counts(scope)  # its counts add up at any time: checked when they are made
        assert found.found in (0, N)
        result = run_stage(workspace, undisturbed.pipeline, selection, stage)
        assert (result.found, result.already_done + result.done, result.failed) == (N, N, 0)
        assert workspace.ledger.counts(scope) == Counts(found=N, done=N, failed=0, waiting=0, running=0)
        assert tree_digests(store) == undisturbed.bytes_of[stage]
        assert verify_store(store) == ()
        assert leftovers(home) == []
        assert list((home / "locks").iterdir()) == []
        assert run_stage(workspace, undisturbed.pipeline, selection, stage).note == "nothing to do"


def test_the_kills_landed_in_the_middle_of_work(undisturbed: Undisturbed) -> None:
    """Without this the test above could pass because every kill came too early or too late."""
    outright = [
        half for (_, mode), trials in undisturbed.half_done.items() if mode in KILLED_OUTRIGHT for half in trials
    ]
    if len(outright) < TRIALS:
        pytest.skip("run together with the kills")
    assert sum(outright) >= len(outright) // 2


class _started:  # noqa: N801
    """The command a user types, in a session of its own; nothing of it is alive when the block ends."""

    def __init__(self, made: Undisturbed, home: Path, stage: Stage) -> None:
        where = ["--data", str(made.data), "--home", str(home)]
        how = ["--engine", "processes", "--workers", "2"]
        command = [sys.executable, "-m", "neuromill.cli.main", stage.value, str(made.file), *where, *how]
        self._process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> "subprocess.Popen[bytes]":
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.wait(timeout=120)
        end = time.monotonic() + 30
        while time.monotonic() < end and any(_members(self._process.pid)):
            time.sleep(0.02)
        assert not list(_members(self._process.pid)), "workers outlive their parent"


def _members(session: int) -> Iterator[psutil.Process]:
    """Living processes of a session."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue


def _wait_until(store: Path, n_published: int) -> None:
    """Wait until so many groups are published and the next is being written."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        names = [path.name for path in store.iterdir()] if store.is_dir() else []
        if sum(name.endswith(".zarr") and not name.startswith(".") for name in names) >= n_published and names:
            return
        time.sleep(0.002)
    raise AssertionError("no work in two minutes")


def _kill(process: "subprocess.Popen[bytes]", mode: str, rng: random.Random) -> None:
    if mode == "group":
        os.killpg(process.pid, signal.SIGKILL)
    elif mode == "parent":
        process.kill()
    else:
        workers = [one for one in _members(process.pid) if "spawn_main" in " ".join(one.cmdline())]
        if workers:
            rng.choice(workers).kill()


def _is_half_done(home: Path, store: Path) -> bool:
    published = len(list(store.glob("*.zarr")))
    return published < N or bool(leftovers(home))
