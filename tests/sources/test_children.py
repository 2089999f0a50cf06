"""A git that is given up is gone; one that outlives a killed process holds the mirror's lock on."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from neuromill.records import ConfigError, RecordingError
from neuromill.sources import children
from neuromill.sources.children import Children, run_child
from neuromill.sources.git import GitMirror
from support.slowgit import gone, is_alive, slow_git, started

URL = "file:///nowhere/x.git"
TAG = "refs/tags/1.0.0"
FETCH = f"""
from pathlib import Path
from neuromill.sources.git import GitMirror
GitMirror(Path({{folder!r}}), {URL!r}).update(["{TAG}"])
"""


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    real = shutil.which("git")
    assert real
    monkeypatch.setenv("PATH", str(slow_git(tmp_path / "slow", real)), prepend=os.pathsep)
    return tmp_path / "slow"


def test_what_a_program_says_comes_back() -> None:
    program = "import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write('e'); sys.exit(3)"
    done = run_child([sys.executable, "-c", program], feed=b"x" * 200_000, env={})
    assert (done.returncode, done.stdout, done.stderr) == (3, b"x" * 200_000, b"e")


def test_a_fetch_that_is_given_up_leaves_no_program_and_no_lock(tmp_path: Path, hanging: Path) -> None:
    mirror, question, raised = GitMirror(tmp_path / "m.git", URL), Children(), []

    def fetch() -> None:
        with question.asked(), pytest.raises(RecordingError) as caught:
            mirror.update([TAG])
        raised.append(caught.value)

    thread = threading.Thread(target=fetch)
    thread.start()
    git, helper = started(hanging)
    question.end()
    assert not is_alive(git)
    assert gone(helper)
    thread.join(60)
    assert len(raised) == 1
    assert not (tmp_path / "m.lock").exists()
    with question.asked(), pytest.raises(RecordingError, match="given up"):
        mirror.refs()


def test_a_program_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "SECONDS_TO_END", 0.1)
    monkeypatch.setenv("PATH", str(slow_git(tmp_path, "/bin/false", stubborn=True)), prepend=os.pathsep)
    question = Children()

    def ask() -> None:
        with question.asked():
            run_child(["git", "fetch"], feed=b"", env=os.environ)

    thread = threading.Thread(target=ask)
    thread.start()
    git, helper = started(tmp_path)
    question.end()
    thread.join(60)
    assert not is_alive(git)
    assert gone(helper)


def test_a_git_whose_process_is_killed_holds_the_lock_until_it_ends(tmp_path: Path, hanging: Path) -> None:
    folder = tmp_path / "m.git"
    with subprocess.Popen([sys.executable, "-c", FETCH.format(folder=str(folder))]) as parent:
        git, helper = started(hanging)
        parent.kill()
    try:
        with (tmp_path / "m.lock").open("rb") as lock:
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.killpg(git, signal.SIGKILL)
            assert gone(git)
            assert gone(helper)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        for pid in (git, helper):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_no_git_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="git is not installed"):
        GitMirror(tmp_path / "m.git", URL).refs()
