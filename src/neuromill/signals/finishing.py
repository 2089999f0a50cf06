"""What is done to the output of the filters, block by block: reference, trimming, float32, watching."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.signals.eeg_steps import Crop, ExpectAmplitude, Reference, Reject
from neuromill.signals.rejection import (
    WindowWatch,
    judge,
    require_amplitude,
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
        found = {type(step): step for step in steps}
        for kind in LOOKING:
            if kind in found:
                voltages(channels, str(getattr(found[kind], "step", "")))
        crop, reject, expect = found.get(Crop), found.get(Reject), found.get(ExpectAmplitude)
        start, stop = _kept(crop, sfreq, n_times, where) if isinstance(crop, Crop) else (0, n_times)
        return cls(
            start,
            stop,
            averaged=_averaged(channels) if Reference in found else (),
            reject=reject if isinstance(reject, Reject) else None,
            expect=expect if isinstance(expect, ExpectAmplitude) else None,
        )

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

    def take(self, block: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return what stays of the next block [channel, time]; it may be empty."""
        start = max(self._finish.start - self._seen, 0)
        stop = max(self._finish.stop - self._seen, 0)
        self._seen += block.shape[1]
        block = block[:, start:stop]
        if self._averaged.size:
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
            ``unit_conflict``: the amplitudes are not those the steps expect.
        """
        finish = self._finish
        if finish.expect is not None and self._expect is not None:
            typical = typical_amplitude(self._expect, self._channels, report.bads)
            require_amplitude(finish.expect, typical, self._where)
            report = replace(report, typical_volts=typical)
        if finish.reject is not None and self._reject is not None:
            report = replace(report, rejection=judge(finish.reject, self._reject, self._channels))
        return report

    def _watch(self, step: Reject | ExpectAmplitude | None, sfreq: float) -> WindowWatch | None:
        if step is None:
            return None
        samples = window_length(step.window_seconds, sfreq)
        return WindowWatch(len(self._channels), self._finish.n_times, samples)


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
