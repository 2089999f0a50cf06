"""The errors of this room, each with the sentence that says what to do."""

from __future__ import annotations

from neuromill.records import FailureCode, RecordingError

FETCH_AGAIN = "fetch the file again; if the archive's own copy is like this, report it there"


def truncated(what: str, where: str) -> RecordingError:
    """Return the error for a file that ends before what its header promises."""
    return RecordingError(FailureCode.TRUNCATED, what, where=where, next_step=FETCH_AGAIN)


def unreadable(what: str, where: str, next_step: str = FETCH_AGAIN) -> RecordingError:
    """Return the error for a file whose content contradicts itself or its name."""
    return RecordingError(FailureCode.UNREADABLE, what, where=where, next_step=next_step)


def missing(what: str, where: str) -> RecordingError:
    """Return the error for a file that the recording needs and that is not there."""
    return RecordingError(
        FailureCode.MISSING_MEMBER, what, where=where, next_step="fetch or restore the missing file, then ingest again"
    )


def empty(what: str, where: str) -> RecordingError:
    """Return the error for a recording that holds no sample of signal."""
    return RecordingError(FailureCode.EMPTY, what, where=where, next_step="nothing to prepare; leave the recording out")


def duplicates(names: str, where: str) -> RecordingError:
    """Return the error for channels that cannot be told apart by name."""
    return RecordingError(
        FailureCode.DUPLICATE_CHANNELS,
        f"channel names occur more than once: {names}",
        where=where,
        next_step="rename the channels in the source; which is which cannot be guessed",
    )


def not_continuous(what: str, where: str) -> RecordingError:
    """Return the error for pieces of signal that do not follow on from each other."""
    return RecordingError(
        FailureCode.NOT_CONTINUOUS,
        what,
        where=where,
        next_step="split the recording at its gaps into recordings of their own",
    )


def unit_conflict(what: str, where: str) -> RecordingError:
    """Return the error for values that cannot be in the unit stated."""
    return RecordingError(
        FailureCode.UNIT_CONFLICT,
        what,
        where=where,
        next_step="correct the unit or the scale in the source; a factor is never guessed",
    )


def unsupported(what: str, where: str, next_step: str) -> RecordingError:
    """Return the error for a file of a kind that no reader here opens."""
    return RecordingError(FailureCode.UNSUPPORTED_FORMAT, what, where=where, next_step=next_step)


def too_large(what: str, where: str) -> RecordingError:
    """Return the error for an array that declares more than there is room for."""
    return RecordingError(
        FailureCode.TOO_LARGE,
        what,
        where=where,
        next_step="its declared size may be damaged; else leave the array out of the card's layout",
    )


def missing_fact(what: str, where: str) -> RecordingError:
    """Return the error for something that has to be known and that nothing states."""
    return RecordingError(
        FailureCode.MISSING_FACT, what, where=where, next_step="state it in the source, or correct the card"
    )


def no_spikes(what: str, where: str) -> RecordingError:
    """Return the error for a file without spikes."""
    return RecordingError(
        FailureCode.NO_SPIKES, what, where=where, next_step="leave it out, or take the asset that holds the units"
    )


def bad_timestamps(what: str, where: str) -> RecordingError:
    """Return the error for times that cannot be put on one clock."""
    return RecordingError(
        FailureCode.BAD_TIMESTAMPS, what, where=where, next_step="correct the time base in the source"
    )


def no_covariates(what: str, where: str) -> RecordingError:
    """Return the error for a recording without behaviour where the card needs some."""
    return RecordingError(
        FailureCode.NO_COVARIATES, what, where=where, next_step="leave it out, or let the card go without covariates"
    )


def no_usable_units(what: str, where: str) -> RecordingError:
    """Return the error for a recording of which every unit is masked."""
    return RecordingError(
        FailureCode.NO_USABLE_CHANNELS, what, where=where, next_step="look at the units; correct them in the source"
    )
