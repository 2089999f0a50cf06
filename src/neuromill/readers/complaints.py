"""The errors of this room, to be raised: each has its code, and the sentence that says what to do."""

from __future__ import annotations

from dataclasses import dataclass

from neuromill.records import FailureCode, RecordingError

FETCH_AGAIN = "fetch the file again; if the archive's own copy is like this, report it there"


@dataclass(frozen=True, slots=True)
class Complaint:
    """A failure code and what to do about it, unless the reader that complains knows better."""

    code: FailureCode
    next_step: str

    def __call__(self, what: str, where: str, next_step: str = "") -> RecordingError:
        """Return the error, for a ``raise``."""
        return RecordingError(self.code, what, where=where, next_step=next_step or self.next_step)


truncated = Complaint(FailureCode.TRUNCATED, FETCH_AGAIN)
"""A file ends before what its header promises."""

unreadable = Complaint(FailureCode.UNREADABLE, FETCH_AGAIN)
"""The content of a file contradicts itself or the file's name."""

missing = Complaint(FailureCode.MISSING_MEMBER, "fetch or restore the missing file, then ingest again")
"""A file that the recording needs is not there."""

missing_fact = Complaint(FailureCode.MISSING_FACT, "state it in the source, or correct the card")
"""Something has to be known, and nothing states it."""

empty = Complaint(FailureCode.EMPTY, "nothing to prepare; leave the recording out")
"""There is no sample of signal."""

not_continuous = Complaint(FailureCode.NOT_CONTINUOUS, "split the recording at its gaps into recordings of their own")
"""Pieces of signal do not follow on from each other."""

unit_conflict = Complaint(
    FailureCode.UNIT_CONFLICT, "correct the unit or the scale in the source; a factor is never guessed"
)
"""Values cannot be in the unit stated."""

too_large = Complaint(
    FailureCode.TOO_LARGE, "its declared size may be damaged; else leave the array out of the card's layout"
)
"""An array declares more than there is room for."""

no_spikes = Complaint(FailureCode.NO_SPIKES, "leave it out, or take the asset that holds the units")
"""There are no spikes."""

bad_timestamps = Complaint(FailureCode.BAD_TIMESTAMPS, "correct the time base in the source")
"""Times cannot be put on one clock."""

no_covariates = Complaint(FailureCode.NO_COVARIATES, "leave it out, or let the card go without covariates")
"""There is no behaviour, and the card needs some."""

no_usable_units = Complaint(FailureCode.NO_USABLE_CHANNELS, "look at the units; correct them in the source")
"""Every unit is masked."""


def unsupported(what: str, where: str, next_step: str) -> RecordingError:
    """No reader here opens a file of this kind; what to do depends on the kind."""
    return RecordingError(FailureCode.UNSUPPORTED_FORMAT, what, where=where, next_step=next_step)


def duplicates(names: str, where: str) -> RecordingError:
    """Channels cannot be told apart by name."""
    return RecordingError(
        FailureCode.DUPLICATE_CHANNELS,
        f"channel names occur more than once: {names}",
        where=where,
        next_step="rename the channels in the source; which is which cannot be guessed",
    )
