"""What is done to the output of the filters, block by block: reference, trimming, float32, watching."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.signals.eeg_steps import Crop, ExpectAmplitude, Reference, Reject
from neuromill.signals.rejection import (
    WindowWatch,
    good_voltages,
    judge,
    require_amplitude,
    require_not_averaged,
    require_one_unit,
    typical_amplitude,
    voltages,
    window_length,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neuromill.records import ChannelTable
    from neuromill.signals.base_step import BaseStep
    from neuromill.signals.quality import ChainReport

S = TypeVar("S", Reference, Crop, Reject, ExpectAmplitude)
Trailing = Reference | Crop | Reject | ExpectAmplitude
"""Steps that see what the filters made."""
LOOKING = (Reject, ExpectAmplitude)


@dataclass(frozen=True, slots=True)
class Finish:
    """Planned for one recording.

    Attributes
    ----------
    start, stop
        Samples that the filters made and that stay.
    averaged
        Rows whose mean is subtracted from all; empty for none.
    reject, expect
        What to look for.
    """

    start: int
    stop: int
    averaged: tuple[int, ...] = ()
    reject: Reject | None = None
    expect: ExpectAmplitude | None = None

    @classmethod
    def of(cls, steps: Sequence[BaseStep], channels: ChannelTable, sfreq: float, n_times: int, where: str = "") -> Self:
        """Plan the trailing steps for ``n_times`` filtered samples at ``sfreq`` Hz.

        Raises
        ------
        ConfigError
            Two steps of a kind, or steps in an order that cannot be kept.
        RecordingError
            ``too_short``: trimming leaves nothing.
        """
        _require_order(steps)
        crop, reject, expect = _found(steps, Crop), _found(steps, Reject), _found(steps, ExpectAmplitude)
        for look in (reject, expect):
            if look is not None:
                voltages(channels, look.step)
        start, stop = _kept(crop, sfreq, n_times, where) if crop is not None else (0, n_times)
        averaged = _averaged(channels) if _found(steps, Reference) is not None else ()
        return cls(start, stop, averaged, reject, expect)

    @property
    def n_times(self) -> int:
        """Samples that stay."""
        return self.stop - self.start


class Finishing:
    """One pass of a ``Finish`` over the blocks that the filters make."""

    def __init__(self, finish: Finish, channels: ChannelTable, sfreq: float, where: str = "") -> None:
        self._finish, self._channels, self._where = finish, channels, where
        self._seen = 0
        self._averaged = np.array(finish.averaged, dtype=np.intp)
        self._reject = self._watch(finish.reject, sfreq)
        self._expect = self._watch(finish.expect, sfreq)
        # An average spreads what one channel has too much over all of them: compare them before it.
        self._before = self._watch(finish.expect if finish.averaged else None, sfreq)

    def take(self, block: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return what stays of the next block, float64 [channel, time], as float32 [channel, time]; it may be empty."""
        start = max(self._finish.start - self._seen, 0)
        stop = max(self._finish.stop - self._seen, 0)
        self._seen += block.shape[1]
        block = block[:, start:stop]
        if self._averaged.size:
            if self._before is not None:
                self._before.see(block.astype(np.float32))
            block = block - block[self._averaged].mean(axis=0)
        made = block.astype(np.float32)
        for watch in (self._reject, self._expect):
            if watch is not None:
                watch.see(made)
        return made

    def report(self, report: ChainReport) -> ChainReport:
        """Add what was seen to the report of a run.

        Raises
        ------
        RecordingError
            ``unit_conflict``: the amplitudes are not those the steps expect, or not of one order of magnitude.
        """
        finish = self._finish
        if finish.expect is not None and self._expect is not None:
            good = good_voltages(self._channels, report.bads)
            typical = typical_amplitude(self._expect, good)
            require_amplitude(finish.expect, typical, self._where)
            report = replace(report, bads={**report.bads, **self._apart(finish.expect, good)}, typical_volts=typical)
        if finish.reject is not None and self._reject is not None:
            report = replace(report, rejection=judge(finish.reject, self._reject, self._channels))
        return report

    def _apart(self, expect: ExpectAmplitude, good: list[int]) -> dict[int, str]:
        watch = self._before or self._expect
        if watch is None:
            return {}
        found = require_one_unit(expect, watch, self._channels, good, self._where)
        if self._before is not None:
            require_not_averaged(expect, found, self._before, self._channels, self._where)
        return found

    def _watch(self, step: Reject | ExpectAmplitude | None, sfreq: float) -> WindowWatch | None:
        if step is None:
            return None
        samples = window_length(step.window_seconds, sfreq)
        return WindowWatch(len(self._channels), self._finish.n_times, samples)


def _found(steps: Sequence[BaseStep], kind: type[S]) -> S | None:
    return next((step for step in steps if isinstance(step, kind)), None)


def _require_order(steps: Sequence[BaseStep]) -> None:
    """Only what does not change the result may stand in another order than it is run in.

    A reference commutes with filters, and channels are picked before anything is read. Trimming and looking do not.
    """
    trailing = [step for step in steps if isinstance(step, Trailing)]
    if len({type(step) for step in trailing}) < len(trailing):
        raise ConfigError("reference, crop, reject and expect_amplitude stand once in a chain")
    late = [i for i, step in enumerate(steps) if isinstance(step, (Crop, *LOOKING))]
    other = [i for i, step in enumerate(steps) if not isinstance(step, (Crop, *LOOKING))]
    crop = [i for i, step in enumerate(steps) if isinstance(step, Crop)]
    look = [i for i, step in enumerate(steps) if isinstance(step, LOOKING)]
    if (late and other and min(late) < max(other)) or (crop and look and min(look) < max(crop)):
        raise ConfigError(
            "crop, reject and expect_amplitude see what all other steps made, and crop comes first of them",
            next_step="put crop behind the filters and the reference, then reject and expect_amplitude",
        )


def _kept(crop: Crop, sfreq: float, n_times: int, where: str) -> tuple[int, int]:
    start = round(crop.first_seconds * sfreq)
    left = n_times - start - round(crop.last_seconds * sfreq)
    if crop.multiple_of_seconds is not None:
        left -= left % window_length(crop.multiple_of_seconds, sfreq)
    if left <= 0:
        raise RecordingError(
            FailureCode.TOO_SHORT,
            f"{n_times / sfreq:.4g} s of signal, and the ends to be cut leave nothing",
            where=where,
            next_step="shorten first_seconds, last_seconds or multiple_of_seconds of the crop step",
        )
    return start, start + left


def _averaged(channels: ChannelTable) -> tuple[int, ...]:
    good = tuple(i for i, bad in enumerate(channels.bads) if not bad)
    if len({channels.types[i] for i in good}) > 1:
        raise ConfigError("an average reference over channels of several types", next_step="pick one type")
    return good
