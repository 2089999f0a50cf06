"""What can go wrong with a recording: a closed list of codes, and the errors that carry them."""

from __future__ import annotations

from enum import StrEnum


class FailureCode(StrEnum):
    """Closed list of reasons why a recording did not become tokens; ``docs/failures/<code>.md`` explains each."""

    UNREACHABLE_UPSTREAM = "unreachable_upstream"
    DIGEST_MISMATCH = "digest_mismatch"
    CHANGED_UPSTREAM = "changed_upstream"
    TRUNCATED = "truncated"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNREADABLE = "unreadable"
    MISSING_MEMBER = "missing_member"
    MISSING_FACT = "missing_fact"
    MAXSHIELD = "maxshield"
    NOT_CONTINUOUS = "not_continuous"
    EMPTY = "empty"
    TOO_SHORT = "too_short"
    DUPLICATE_CHANNELS = "duplicate_channels"
    NO_USABLE_CHANNELS = "no_usable_channels"
    NON_FINITE = "non_finite"
    UNIT_CONFLICT = "unit_conflict"
    NO_SPIKES = "no_spikes"
    BAD_TIMESTAMPS = "bad_timestamps"
    NO_COVARIATES = "no_covariates"
    TOO_LARGE = "too_large"
    HOSTILE_NAME = "hostile_name"
    RETRIES_EXHAUSTED = "retries_exhausted"
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"

    @property
    def transient(self) -> bool:
        """True where trying again may help; every other code is final until the input or the pipeline changes."""
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    {FailureCode.UNREACHABLE_UPSTREAM, FailureCode.RETRIES_EXHAUSTED, FailureCode.INTERRUPTED, FailureCode.INTERNAL}
)


class NeuroMillError(Exception):
    """Base of every error this package raises on purpose.

    Parameters
    ----------
    what
        What is wrong, one sentence.
    where
        The file, key or recording it is about.
    next_step
        What the reader can do now.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        super().__init__(what, where, next_step)
        self.what, self.where, self.next_step = what, where, next_step

    def __str__(self) -> str:
        """One line: what, where, next action."""
        place = f" [{self.where}]" if self.where else ""
        action = f" -> {self.next_step}" if self.next_step else ""
        return f"{self.what}{place}{action}"


class ConfigError(NeuroMillError):
    """A card, a pipeline, a setting or an argument is wrong; nothing was done."""

    exit_code = 2


class RecordingError(NeuroMillError):
    """One recording cannot go on; the others do. Carries the code that the ledger keeps."""

    exit_code = 3

    def __init__(self, code: FailureCode, what: str, *, where: str = "", next_step: str = "") -> None:
        super().__init__(what, where=where, next_step=next_step)
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip from a worker process (keyword arguments do not, by default)."""
        return (_rebuild, (self.code, self.what, self.where, self.next_step))


def _rebuild(code: FailureCode, what: str, where: str, next_step: str) -> RecordingError:
    return RecordingError(code, what, where=where, next_step=next_step)
