"""Engines: what drives the recordings of a shard. Same function, same bytes from each of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from neuromill.records import FailureCode
from neuromill.stages.outcomes import Outcome, WorkItem
from neuromill.stages.settings import EngineKind, EngineSettings
from neuromill.stages.time_limit import Limited, limited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Work = Callable[[WorkItem], Outcome]


class Engine(Protocol):
    """Runs one function over many items and yields outcomes as they come, in any order."""

    def run(self, work: Work, items: Sequence[WorkItem]) -> Iterator[Outcome]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class SerialEngine:
    """In this process, one after the other: for tests and debuggers."""

    def run(self, work: Work, items: Sequence[WorkItem]) -> Iterator[Outcome]:
        """Yield the outcome of each item, in order."""
        for item in items:
            yield work(item)


@dataclass(slots=True)
class ProcessEngine:
    """A spawned process pool with capped threads.

    A worker that dies (killed, out of memory) breaks the whole pool and does not say which item it was on. The
    items in flight are then run one at a time in fresh pools, so that exactly the item that kills its worker
    fails with ``interrupted`` and every other one is done; then the rest goes on side by side.

    A worker that is at one item for more than ``recording_seconds`` (0: no limit) ends itself. It says so, hence its
    item fails with ``interrupted`` at once, and the others in flight are simply done again.
    """

    n_workers: int
    threads_per_worker: int = 1
    recording_seconds: float = 0.0
    _pool: ProcessPoolExecutor | None = None

    def run(self, work: Work, items: Sequence[WorkItem]) -> Iterator[Outcome]:
        """Yield outcomes as they come; items in flight are at most twice the workers."""
        waiting = deque(items)
        with limited(work, self.recording_seconds) as within_limit:
            while waiting:
                running: dict[Future[Outcome], WorkItem] = {}
                try:
                    yield from self._run_together(within_limit, waiting, running)
                except BrokenProcessPool:
                    self.close()
                    yield from self._after_death(within_limit, waiting, list(running.values()))

    def _after_death(self, work: Limited, waiting: deque[WorkItem], running: list[WorkItem]) -> Iterator[Outcome]:
        """Settle what was in flight: fail what took too long, else look for the item that kills its worker."""
        ended = [(item, work.late(item)) for item in running]
        if all(outcome is None for _, outcome in ended):
            for item in running:
                yield self._run_alone(work, item)
            return
        waiting.extendleft(item for item, outcome in reversed(ended) if outcome is None)
        yield from (outcome for _, outcome in ended if outcome is not None)

    def _run_together(
        self, work: Work, waiting: deque[WorkItem], running: dict[Future[Outcome], WorkItem]
    ) -> Iterator[Outcome]:
        """Empty ``waiting``; when the pool breaks, ``running`` holds what was in flight."""
        while waiting or running:
            while waiting and len(running) < 2 * self.n_workers:
                future = self._submit(work, waiting[0])
                running[future] = waiting.popleft()
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(finished, key=lambda done: done.exception() is not None):
                outcome = future.result()
                del running[future]
                yield outcome

    def _run_alone(self, work: Limited, item: WorkItem) -> Outcome:
        try:
            return self._submit(work, item).result()
        except BrokenProcessPool:
            self.close()
            return work.late(item) or Outcome(
                item,
                FailureCode.INTERRUPTED,
                "the worker process died on this recording",
                "if memory ran out use fewer workers, then `neuromill retry`",
            )

    def _submit(self, work: Work, item: WorkItem) -> Future[Outcome]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.n_workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=prepare_worker,
                initargs=(self.threads_per_worker,),
            )
        with _interrupts_held():
            return self._pool.submit(work, item)

    def close(self) -> None:
        """Stop the workers; items not yet started are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


@dataclass(frozen=True, slots=True)
class DaskEngine:
    """``distributed.Client.map`` on a cluster that exists already (1.6 ms an item; a Prefect task run costs 100)."""

    client: object

    def run(self, work: Work, items: Sequence[WorkItem]) -> Iterator[Outcome]:
        """Yield outcomes as they come. An item whose worker died too often comes back ``interrupted``."""
        from distributed import KilledWorker, as_completed

        futures = self.client.map(work, items, pure=False, retries=0)  # type: ignore[attr-defined]
        by_key = dict(zip((future.key for future in futures), items, strict=True))
        for future in as_completed(futures, raise_errors=False):
            try:
                yield future.result()
            except KilledWorker as error:
                item = by_key[future.key]
                yield Outcome(item, FailureCode.INTERRUPTED, f"the Dask worker died: {error}", "`neuromill retry`")


@contextmanager
def open_engine(settings: EngineSettings) -> Iterator[Engine]:
    """Start the engine that the settings name; its workers are gone when the block ends."""
    with ExitStack() as stack:
        if settings.kind is EngineKind.SERIAL:
            yield SerialEngine()
        elif settings.kind is EngineKind.PROCESSES:
            engine = ProcessEngine(settings.n_workers, settings.threads_per_worker, settings.recording_seconds)
            stack.callback(engine.close)
            yield engine
        else:
            yield DaskEngine(_dask_client(settings, stack))


def _dask_client(settings: EngineSettings, stack: ExitStack) -> object:
    from distributed import Client, LocalCluster

    address: object = settings.dask_address
    if not address:
        address = stack.enter_context(
            LocalCluster(
                n_workers=settings.n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
            )
        )
    client = stack.enter_context(Client(address))
    client.register_worker_callbacks(partial(cap_threads, settings.threads_per_worker))  # those that come later, too
    return client


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while workers start: each would print a traceback from the middle of its imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepare_worker(n_threads: int) -> None:
    """Set up a spawned worker: capped threads, an end when the parent ends, and a quiet one at Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    cap_threads(n_threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A pool worker blocks on a queue whose write end its siblings hold open too:
    # after `kill -9` of the parent it would wait for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def cap_threads(n_threads: int) -> None:
    """Cap the threads of BLAS, OpenMP and torch in this process, now and for libraries loaded later."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = str(n_threads)
    from threadpoolctl import threadpool_limits

    threadpool_limits(n_threads)
