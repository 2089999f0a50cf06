"""Work for ledgers, and what several processes do with it (importable, so that spawned processes find it)."""

import multiprocessing
from collections import Counter

from neuromill.catalog.ledger import Ledger
from neuromill.catalog.work import Happening, Work, WorkKey
from neuromill.records import RecordingId


def key(name: str = "rec-1", stage: str = "prepare", identity: str = "id1", version: str = "1") -> WorkKey:
    return WorkKey("ds1", version, name, stage, identity)


def work(*names: str, digest: str = "d1", **more: str) -> list[Work]:
    return [Work(key(name, **more), digest) for name in names]


def claim_all(url: str, worker: str, names: list[str]) -> None:
    """Expect everything, do whatever nobody has done yet."""
    with Ledger(url) as ledger:
        ledger.expect(work(*names))
        for name in names:
            attempt = ledger.start(key(name), worker=worker)
            if attempt == 1 and not ledger.finish(key(name), attempt=attempt, facts={"by": worker}):
                raise SystemExit(f"{worker} lost {name}")


def check_two_processes_share_the_work(url: str) -> None:
    """Two spawned processes write at once: nothing is expected twice, nothing is done twice, nothing is lost."""
    names = [f"rec-{i}" for i in range(40)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=claim_all, args=(url, worker, names)) for worker in ("a", "b")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    with Ledger(url) as ledger:
        told = Counter(e.happening for name in names for e in ledger.history(RecordingId("ds1", "1", name)))
        assert told[Happening.EXPECTED] == len(names)
        assert told[Happening.FINISHED] == len(names)
        ledger.release_running()
        assert ledger.counts().found == len(names)
