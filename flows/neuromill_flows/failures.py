"""What ends a task run or a flow run, and what is worth a retry."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING

from sqlalchemy.exc import InterfaceError, OperationalError

from neuromill.records import NeuroMillError

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun

    from neuromill.stages.outcomes import ShardResult

# One bad recording alone in a shard is a fact for the ledger, not a broken platform.
MIN_FAILED = 2

# Nothing but a person can mend these: trying again only hides them.
_OURS = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError)


class TooManyFailedError(NeuroMillError):
    """More of the recordings of a shard failed than the limit allows: most likely not the recordings' fault."""

    exit_code = 3

    def __init__(self, label: str, result: ShardResult, limit: float) -> None:
        super().__init__(
            f"{result.failed} of {result.done + result.failed} recordings failed, the limit is {limit:.0%}",
            where=label,
            next_step="`neuromill status` says why; `neuromill retry` tries them again",
        )
        self.label, self.result, self.limit = label, result, limit

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip from a Dask worker."""
        return (type(self), (self.label, self.result, self.limit))


class StageFailedError(NeuroMillError):
    """A stage ended with shards that failed; the stages after it were not started."""


def check_share(label: str, result: ShardResult, limit: float) -> ShardResult:
    """Return the result, or raise ``TooManyFailedError`` where at least two and more than ``limit`` of all failed."""
    share = result.failed / max(1, result.done + result.failed)
    if result.failed >= MIN_FAILED and share > limit:
        raise TooManyFailedError(label, result, limit)
    return result


def is_infrastructure(error: BaseException) -> bool:
    """Whether trying again may help: network, disk, a locked or lost database, dead workers.

    Bad recordings never get here: they are outcomes in the ledger.
    """
    if isinstance(error, _OURS):
        return False
    return isinstance(error, OSError | BrokenExecutor | OperationalError | InterfaceError)


def worth_a_retry(_task: Task[..., object], _run: TaskRun, state: State) -> bool:
    """Prefect's retry condition of a shard: infrastructure trouble only."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and is_infrastructure(error)
