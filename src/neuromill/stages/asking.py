"""Ask an archive: tell what is waited for while it does not answer, and give up after a while."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from neuromill.records import FailureCode, RecordingError
from neuromill.sources.children import Children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neuromill.stages.datasets import Dataset
    from neuromill.stages.workspace import Workspace

T = TypeVar("T")

FIRST_WORD_SECONDS = 3.0
"""What is answered sooner is not worth a line."""
SECONDS_BETWEEN_WORDS = 15.0


@contextmanager
def telling(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say what the block waits for, after a few seconds and then again and again; ``say`` is called from a thread."""
    over = threading.Event()

    def tell() -> None:
        waited, pause = FIRST_WORD_SECONDS, FIRST_WORD_SECONDS
        while not over.wait(pause):
            say(f"{what}: waiting for {waited:.0f} s")
            pause = SECONDS_BETWEEN_WORDS
            waited += pause

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def answer_within(seconds: float, ask: Callable[[], T], where: str) -> T:
    """Return what ``ask`` returns, or raise what it raises; the caller waits for so long and no longer.

    A question that is given up (or interrupted) ends with the programs it runs; what waits for a socket goes on in a
    thread of its own, which keeps no program from ending.

    Raises
    ------
    RecordingError
        ``unreachable_upstream`` where nothing came back in time.
    """
    future: Future[T] = Future()
    children = Children()

    def run() -> None:
        try:
            with children.asked():
                answer = ask()
            future.set_result(answer)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where it was asked
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except FutureTimeoutError:
        if future.done():  # a time-out of its own
            raise
        raise RecordingError(
            FailureCode.UNREACHABLE_UPSTREAM,
            f"no complete answer within {seconds:g} s",
            where=where,
            next_step="check network and proxy (`neuromill doctor --network`); "
            "for a slow line set NEUROMILL_LISTING_SECONDS higher",
        ) from None
    finally:
        children.end()


def ask_archive(workspace: Workspace, dataset: Dataset, what: str, ask: Callable[[], T]) -> T:
    """Ask the archive of a data set, aloud and for `listing_seconds` at most; a folder of this machine is just read.

    Raises
    ------
    RecordingError
        ``unreachable_upstream`` where nothing came back in time.
    """
    if dataset.origin.archive == "local":
        return ask()
    where = address_of(workspace, dataset)
    with telling(f"{what} [{where}]", workspace.say):
        return answer_within(workspace.settings.listing_seconds, ask, where)


def address_of(workspace: Workspace, dataset: Dataset) -> str:
    """Address that is asked, for people to read."""
    endpoints, archive = workspace.settings.endpoints, dataset.origin.archive
    if archive == "local":
        return str(dataset.folder)
    return endpoints.dandi_url if archive == "dandi" else endpoints.git_url.replace("{dataset}", dataset.card.id)
