"""Bad input ends in one line: what, where, next action; never in a traceback."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuromill.stages import running
from support.command import Ended, neuromill
from support.stages import tree_digests

from .conftest import BAD, Walked

CONFIG, FAILED, DAMAGED, INTERRUPTED = 2, 3, 4, 130


def assert_refused(ended: Ended, code: int, *fragments: str) -> None:
    assert ended.code == code, ended
    assert ended.out == ""
    assert ended.err.startswith("neuromill: ")
    assert ended.err.count("\n") == 1
    assert ended.err.endswith("\n")
    assert " -> " in ended.err  # what to do now
    assert "Traceback" not in ended.err
    for fragment in fragments:
        assert fragment in ended.err


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("{a: [", ["not a YAML file", "line 1"]),
        ("- pick\n", ["a YAML mapping"]),
        ("", ["a YAML mapping"]),
        ("name: 2001-99-99\n", ["not a YAML file"]),
        ("name: x\nprepare: {steps: []}\ncolour: red\n", ["colour", "no such key", "docs/pipelines.md"]),
        ("name: x\nprepare: {steps: [{step: sharpen}]}\n", ["prepare.steps.0", "sharpen"]),
        ("name: x\nprepare: {steps: [{step: resample, sfreq: -1}]}\n", ["prepare.steps.0.resample.sfreq"]),
        ("name: x\nprepare: {steps: []}\n", ["names no datasets", "--data"]),
        ("name: x\ndatasets: [ds000000]\nprepare: {steps: []}\n", ["no card", "ds000000", "ds004078"]),
    ],
)
def test_pipeline_files(text: str, fragments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert_refused(neuromill("plan", file, "--home", tmp_path / "home"), CONFIG, *fragments)


def test_a_pipeline_that_is_binary_missing_or_a_folder(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\x89PNG\xff")
    assert_refused(neuromill("plan", file), CONFIG, "not a YAML file", str(file))
    for name in ("nosuch", tmp_path, tmp_path / "nosuch.yaml"):
        assert_refused(neuromill("plan", name), CONFIG, str(name), " meg-xl,")


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("nonsense", "a.b=value"),
        ("=1", "a.b=value"),
        (".=1", "no such key"),
        ("fitt.lr=1", "fitt"),
        ("name.x=1", "not a section"),
        ("fit.lr={", "not YAML"),
        ("name=2001-99-99", "not YAML"),
        ("fit.lr=fast", "fit.lr"),
        ("prepare.steps.sharpen.x=1", "'sharpen'"),
        ("prepare.steps.99.x=1", "'99'"),
        ("prepare.steps.filter=1", "prepare.steps.1"),
        ("prepare.steps.filter.l_freq=30", "l_freq must lie below h_freq"),
    ],
)
def test_overrides(override: str, fragment: str, walked: Walked) -> None:
    assert_refused(neuromill("plan", *walked.chosen, "--set", override), CONFIG, fragment)


@pytest.mark.parametrize(
    "clause",
    [
        "nonsense =",
        "no_such_column = 1",
        "1=1; DROP TABLE recordings",
        "subject IN (SELECT content FROM read_text('/etc/passwd'))",
        "1=1) OR (SELECT 1 FROM read_csv('/etc/passwd'",
        "subject = 'a\x1b[2J\nb",
    ],
)
def test_conditions(clause: str, walked: Walked) -> None:
    before = tree_digests(walked.data)
    assert_refused(neuromill("plan", *walked.chosen, "--where", clause), CONFIG, "columns are")
    assert tree_digests(walked.data) == before


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1; SELECT 2", "SELECT * FROM read_csv('/etc/passwd')", "1=1; COPY recordings TO 'x'", "", "SELECT FROM"],
)
def test_queries(sql: str, walked: Walked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(neuromill("catalog", "query", sql, "--home", walked.home), CONFIG, "the table is recordings")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["3/2", "0/2", "-1/2", "x", "1/2/3", "2", "1/0"])
def test_parts(part: str, walked: Walked) -> None:
    assert_refused(neuromill("plan", *walked.chosen, f"--part={part}"), CONFIG, part)


def test_folders_of_recordings(walked: Walked, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "...").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "rest_meg.fif").symlink_to("nowhere.fif")
    refusals = {
        "missing": "no such folder",
        "file": "no such folder",
        "empty": "no recording",
        "...": "no name",
        "notes": "rest_meg.fif: a link that leaves the folder or leads nowhere",
    }
    for name, fragment in refusals.items():
        ended = neuromill("run", walked.pipeline, "--data", tmp_path / name, "--home", tmp_path / "home")
        assert_refused(ended, CONFIG, fragment)


def test_a_condition_that_nothing_meets(walked: Walked) -> None:
    ended = neuromill("run", *walked.chosen, "--where", "subject = '99'")
    assert_refused(ended, CONFIG, "no recording is chosen", "subject = '99'", "catalog query")


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["catalog", "show", "ds000000"], ["no card has this id [ds000000]", "ds004078"]),
        (["catalog", "refresh", "ds000000"], ["no card has this id [ds000000]"]),
        (["explain", "nobody"], ["no such recording [nobody]", "neuromill status"]),
        (["explain", "sub-01"], ["did you mean lab@local/sub-01_task-rest_run-01_meg"]),
        (["retry", "nobody"], ["no such recording [nobody]"]),
        (["retry", "--code", "tired"], ["tired", "too_short"]),
        (["tokenizer", "show", "nosuch"], ["no tokenizer folder [nosuch]"]),
        (["tokenizer", "show", "**"], ["no tokenizer folder [**]"]),
        (["tokenizer", "show", ""], ["config.json"]),
        (["import", "nosuch.ckpt", "--to", "nosuch"], ["nosuch.ckpt"]),
        (["shards", "inspect", "nosuch.zarr"], ["no such group [nosuch.zarr]"]),
        (["shards", "verify", "nosuch"], ["no store is here [nosuch]"]),
        (["frobnicate"], ["Unknown command", "neuromill --help"]),
        (["catalog", "frobnicate"], ["Unknown command", "neuromill catalog --help"]),
        (["plan"], ["PIPELINE", "neuromill plan --help"]),
        (["plan", "demo", "--frobnicate"], ["--frobnicate", "neuromill plan --help"]),
        (["run", "demo", "--until", "tea"], ['"tea"', "ingest"]),
        (["run", "demo", "--workers", "-1"], ["-1"]),
        (["run", "demo", "--workers", "many"], ["many"]),
        (["run", "demo", "--engine", "steam"], ["steam", "processes"]),
        (["demo", "--where", "subject = '01'"], ["--where"]),
    ],
)
def test_names_verbs_and_options(arguments: list[str], fragments: list[str], walked: Walked) -> None:
    home = [] if arguments[-1] in {"frobnicate", "plan"} else ["--home", str(walked.home)]
    assert_refused(neuromill(*arguments, *home), CONFIG, *fragments)


@pytest.mark.parametrize(
    ("name", "value", "fragment"),
    [
        ("NEUROMILL_ENGINE__KIND", "steam", "engine.kind"),
        ("NEUROMILL_ENGINE__WORKERS", "-2", "engine.workers"),
        ("NEUROMILL_CATALOGS", "not json", "catalogs"),
        ("NEUROMILL_LEDGER_URL", "nonsense", "not a database URL"),
        ("NEUROMILL_LOG", "loud", "NEUROMILL_LOG"),
    ],
)
def test_variables(name: str, value: str, fragment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(name, value)
    assert_refused(neuromill("status", "--home", tmp_path), CONFIG, fragment)


def test_a_home_that_cannot_be(walked: Walked, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file" / "home"):
        assert_refused(neuromill("status", "--home", home), CONFIG, "no such home", str(home))
        run = neuromill("run", walked.pipeline, "--data", walked.data, "--home", home)
        assert_refused(run, 1, str(tmp_path / "file"))


def test_every_recording_fails(walked: Walked, tmp_path: Path) -> None:
    home, strict = ("--home", tmp_path / "home"), ("--set", "prepare.min_seconds=1000", "--engine", "serial", "--json")
    ended = neuromill("run", walked.pipeline, "--data", walked.data, *home, *strict)
    assert ended.code == FAILED
    assert [(row["stage"], row["failed"], row["note"]) for row in ended.document] == [
        ("ingest", 0, ""), ("prepare", 3, "nothing is left for fit"),
    ]  # fmt: skip


def test_a_stage_before_its_input(walked: Walked, tmp_path: Path) -> None:
    here = (walked.pipeline, "--data", walked.data, "--home", tmp_path / "home")
    for verb, words in [("tokenizer fit", "prepare"), ("tokenize", "tokenizer fit"), ("train", "tokenizer fit")]:
        assert_refused(neuromill(*verb.split(), *here), CONFIG, words)


def test_a_recording_that_fails_is_exit_code_3_and_told(walked: Walked) -> None:
    assert walked.run.code == FAILED
    ended = neuromill("prepare", *walked.chosen, "--engine", "serial")
    assert ended.code == FAILED
    assert "neuromill explain RECORDING" in ended.out
    assert BAD in neuromill("status", "--failures", "--home", walked.home).out


def test_a_damaged_store_is_exit_code_4(walked: Walked, tmp_path: Path) -> None:
    shutil.copytree(walked.home / "stores", tmp_path / "stores")
    store = next((tmp_path / "stores").glob("*/tokenize/*"))
    shard = next(file for file in sorted(store.glob("*/codes/c/**/*")) if file.is_file())
    shard.write_bytes(b"\0" + shard.read_bytes()[1:])
    for arguments in (["--home", tmp_path], [store]):
        ended = neuromill("shards", "verify", *arguments)
        assert ended.code == DAMAGED
        assert shard.relative_to(store).as_posix() in ended.out
        problems = neuromill("shards", "verify", *arguments, "--json").document["problems"]
        assert [(p["file"], p["kind"]) for p in problems] == [(shard.relative_to(store).as_posix(), "wrong_digest")]
    group = next(store.glob("*.zarr"))
    (group / "zarr.json").write_text("{")
    assert_refused(neuromill("shards", "inspect", group), DAMAGED, "zarr.json")
    assert neuromill("shards", "verify", "--home", tmp_path).code == DAMAGED


def test_interrupted(walked: Walked, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "run_stage", stop)
    ended = neuromill("ingest", *walked.chosen)
    assert (ended.code, ended.out) == (INTERRUPTED, "")
    assert ended.err == "neuromill: interrupted; run the same command again and it goes on where it stopped\n"


def test_a_reader_that_goes_away(walked: Walked) -> None:
    """``neuromill ... | head``: silence, not a traceback."""
    command = [sys.executable, "-m", "neuromill.cli.main", "status", "--json", "--home", str(walked.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, b"")


def test_names_that_the_output_cannot_write(walked: Walked) -> None:
    command = [sys.executable, "-m", "neuromill.cli.main", "explain", "M\u00fcller\udcff", "--home", str(walked.home)]
    ended = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"}, check=False)
    assert ended.returncode == CONFIG
    assert rb"M\xfcller\udcff" in ended.stderr
    assert b"Traceback" not in ended.stderr


# Loaded by every interpreter that has the folder of this file on its path: a worker stops in the middle of its imports.
HELD_IMPORTS = """
import os, sys, time
from collections.abc import Iterator
from pathlib import Path

class Held:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "neuromill.stages.engines":
            sys.meta_path.remove(cls)
            here = Path(__file__).parent
            (here / f"worker-{os.getpid()}").touch()
            while not (here / "released").exists():
                time.sleep(0.01)

if "--multiprocessing-fork" in sys.orig_argv:
    sys.meta_path.insert(0, Held)
"""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_a_terminal_is_quiet_and_the_next_run_goes_on(walked: Walked, tmp_path: Path) -> None:
    """A terminal sends the signal to the whole group: also to workers that are still importing."""
    command = [sys.executable, "-m", "neuromill.cli.main", "prepare", str(walked.pipeline), "--data", str(walked.data)]
    command += ["--home", str(tmp_path / "home"), "--workers", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    held = tmp_path / "held"
    held.mkdir()
    (held / "sitecustomize.py").write_text(HELD_IMPORTS)
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(held)}, **pipes) as process:
        begun = process.stderr.readline()
        while len(list(held.glob("worker-*"))) < 2 and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        (held / "released").touch()
        err = process.stderr.read()
    assert (process.returncode, begun) == (INTERRUPTED, "prepare: 3 recordings\n")
    assert err == "neuromill: interrupted; run the same command again and it goes on where it stopped\n"
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == FAILED  # one recording is too short
    assert "prepare: done. 2 done, 1 failed." in again.stderr
