"""An archive that does not answer: told on the way, given up in the end; anything else is as if asked directly."""

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuromill.records import FailureCode, RecordingError
from neuromill.stages import asking
from neuromill.stages.asking import answer_within, telling
from support.command import neuromill
from support.slowgit import gone, is_alive, slow_git, started


@pytest.fixture
def mute() -> Iterator[str]:
    """Address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_answer_and_an_error_come_through() -> None:
    assert answer_within(60, lambda: 7, "there") == 7
    with pytest.raises(KeyError, match="no"):
        answer_within(60, lambda: {}["no"], "there")

    def late() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        answer_within(60, late, "there")


def test_no_answer_is_a_failure_with_a_next_step() -> None:
    never = threading.Event()
    with pytest.raises(RecordingError, match=r"no complete answer within 0.01 s \[there\] -> check network") as caught:
        answer_within(0.01, never.wait, "there")
    never.set()
    assert caught.value.code is FailureCode.UNREACHABLE_UPSTREAM


def test_what_is_waited_for_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WORD_SECONDS", 0.001)
    monkeypatch.setattr(asking, "SECONDS_BETWEEN_WORDS", 0.002)
    told: list[str] = []
    three = threading.Event()

    def say(text: str) -> None:
        told.append(text)
        if len(told) == 3:
            three.set()

    with telling("asking the archive", say):
        assert three.wait(60)
    n_told = len(told)
    assert set(told) == {"asking the archive: waiting for 0 s"}
    assert len(told) == n_told


def test_a_quick_answer_is_not_worth_a_line() -> None:
    told: list[str] = []
    with telling("asking", told.append):
        pass
    assert told == []


@pytest.mark.parametrize(("pipeline", "variable"), [("meg-xl", "GIT_URL"), ("ndt3", "DANDI_URL")])
@pytest.mark.parametrize("verb", ["plan", "ingest"])
def test_a_command_tells_whom_it_waits_for_and_gives_up(
    tmp_path: Path, mute: str, monkeypatch: pytest.MonkeyPatch, pipeline: str, variable: str, verb: str
) -> None:
    monkeypatch.setenv(f"NEUROMILL_ENDPOINTS__{variable}", f"{mute}/x")
    monkeypatch.setenv("NEUROMILL_LISTING_SECONDS", "0.2")
    monkeypatch.setattr(asking, "FIRST_WORD_SECONDS", 0.01)
    ended = neuromill(verb, pipeline, "--home", tmp_path)
    assert ended.code == RecordingError.exit_code
    first, *_, last = ended.err.splitlines()
    assert first.startswith("asking the archive what is in ")
    assert f"[{mute}/x]: waiting for 0 s" in first
    assert last.startswith(f"neuromill: no complete answer within 0.2 s [{mute}/x] -> check network")
    assert ended.out == ""


def test_a_command_that_gives_up_leaves_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(slow_git(tmp_path / "slow", shutil.which("git") or "git")), prepend=os.pathsep)
    monkeypatch.setenv("NEUROMILL_LISTING_SECONDS", "2")
    ended = neuromill("plan", "meg-xl", "--home", tmp_path / "home")
    git, helper = started(tmp_path / "slow")
    assert not is_alive(git)
    assert gone(helper)
    assert ended.code == RecordingError.exit_code
    assert "no complete answer within 2 s" in ended.err
