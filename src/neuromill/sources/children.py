"""Programs that work on a question end with it: none lives on in a folder that somebody else takes over."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neuromill.records import FailureCode, RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SECONDS_TO_END = 5.0
"""What a program is given to remove its own locks before it is killed."""


@dataclass(frozen=True, slots=True)
class Children:
    """Programs started for one question. Each leads a process group, so that its own helpers end with it."""

    _running: set[subprocess.Popen[bytes]] = field(default_factory=set, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _over: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Count what this thread runs in the block among these."""
        token = _QUESTION.set(self)
        try:
            yield
        finally:
            _QUESTION.reset(token)

    def end(self) -> None:
        """End those that run, and wait for it; no further one is started."""
        with self._lock:
            self._over.set()
            running = tuple(self._running)
        for child in running:
            _end(child)

    def run(
        self, command: Sequence[str], *, feed: bytes, env: Mapping[str, str], holding: Sequence[int]
    ) -> subprocess.CompletedProcess[bytes]:
        """See `run_child`."""
        with self._lock:
            if self._over.is_set():
                raise RecordingError(FailureCode.UNREACHABLE_UPSTREAM, "the question was given up")
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=env,
                pass_fds=holding,
                process_group=0,
            )
            self._running.add(child)
        try:
            with child:
                try:
                    out, err = child.communicate(feed)
                finally:  # of Ctrl-C: the child is in a group of its own and does not see it
                    _end(child)
        finally:
            with self._lock:
                self._running.discard(child)
        return subprocess.CompletedProcess(command, child.returncode, out, err)


_QUESTION: ContextVar[Children | None] = ContextVar("question", default=None)


def run_child(
    command: Sequence[str], *, feed: bytes, env: Mapping[str, str], holding: Sequence[int] = ()
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, which comes early where the question it works on is given up (`Children.asked`).

    Parameters
    ----------
    holding
        Descriptors it inherits: a lock is held on until it has ended, even where this process is killed.

    Raises
    ------
    FileNotFoundError
        There is no such program.
    RecordingError
        ``unreachable_upstream`` where the question is given up already.
    """
    return (_QUESTION.get() or Children()).run(command, feed=feed, env=env, holding=holding)


def _end(child: subprocess.Popen[bytes]) -> None:
    for way in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(child.pid, way)
        with suppress(subprocess.TimeoutExpired):
            child.wait(SECONDS_TO_END)
