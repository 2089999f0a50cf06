"""Requests that are tried again: which failures may pass, how long to wait, when to give up."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from neuromill.records import Config, FailureCode, RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

_TRANSIENT_STATUS = frozenset({408, 425, 429})
_SERVER_ERROR = 500
_SUCCESS = range(200, 300)
_FORBIDDEN = (401, 403)


class Patience(Config):
    """How long a request is tried: ``fruitless_attempts`` in a row may bring nothing new."""

    fruitless_attempts: int = 8
    first_delay_seconds: float = 0.5
    longest_delay_seconds: float = 60.0
    longest_retry_after_seconds: float = 300.0
    connect_timeout_seconds: float = 20.0
    read_timeout_seconds: float = 60.0

    def delay(self, fruitless: int) -> float:
        """Seconds to wait after so many fruitless attempts in a row (exponential, capped)."""
        return min(self.first_delay_seconds * 2.0 ** max(0, fruitless - 1), self.longest_delay_seconds)


class TryAgainError(Exception):
    """An attempt failed in a way that may pass; ``after`` is what the server asked for, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(slots=True)
class Attempts:
    """Counts the fruitless attempts in a row at one request, and waits between them."""

    patience: Patience
    where: str
    sleep: Callable[[float], None] = time.sleep
    next_step: str = "try again later"
    fruitless: int = field(default=0, init=False)

    def failed(self, error: Exception, *, progress: bool = False) -> None:
        """Wait before the next attempt: as long as the server asked for, else longer each time.

        Raises
        ------
        RecordingError
            ``retries_exhausted`` after too many attempts in a row without progress.
        """
        self.fruitless = 0 if progress else self.fruitless + 1
        if self.fruitless >= self.patience.fruitless_attempts:
            raise RecordingError(
                FailureCode.RETRIES_EXHAUSTED,
                f"{self.fruitless} attempts in a row brought nothing new: {str(error) or type(error).__name__}",
                where=self.where,
                next_step=self.next_step,
            ) from error
        asked = error.after if isinstance(error, TryAgainError) else None
        longest = self.patience.longest_retry_after_seconds
        self.sleep(self.patience.delay(self.fruitless) if asked is None else min(asked, longest))


def check_status(status: int, headers: Mapping[str, str], where: str) -> None:
    """Raise ``TryAgainError`` for a status that may pass, ``unreachable_upstream`` for any other refusal."""
    if status in _TRANSIENT_STATUS or status >= _SERVER_ERROR:
        raise TryAgainError(f"the server answers {status}", retry_after(headers.get("retry-after", "")))
    if status not in _SUCCESS:
        closed = "it may be under embargo, which only its owners can read; " if status in _FORBIDDEN else ""
        raise RecordingError(
            FailureCode.UNREACHABLE_UPSTREAM,
            f"the archive does not hand this out (HTTP {status})",
            where=where,
            next_step=f"{closed}refresh the catalog, or look it up on the archive's site",
        )


def retry_after(text: str) -> float | None:
    """Seconds of a Retry-After header (a number or an HTTP date); None where there is none that can be read."""
    if text.strip().isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def open_client(patience: Patience) -> httpx.Client:
    """Open an HTTP client that follows redirects and has time-outs."""
    import httpx

    timeout = httpx.Timeout(patience.read_timeout_seconds, connect=patience.connect_timeout_seconds)
    return httpx.Client(timeout=timeout, follow_redirects=True)
