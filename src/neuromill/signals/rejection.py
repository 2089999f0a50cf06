"""Looks at the output window by window: what is too large or too flat, and whether the unit can be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.records.amplitudes import IMPLAUSIBLE, Amplitude, apart, is_one_fault
from neuromill.records.rejection import Rejection

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

    from neuromill.records import ChannelTable
    from neuromill.signals.eeg_steps import ExpectAmplitude, Reject

AMPLITUDE, FLAT = 1, 2
LEGEND = ("kept", "amplitude", "flat")
"""Name of each reason, at its number."""
VOLTS = "V"
MICRO = 1e6
NAMED = 8  # channels in a message


class WindowWatch:
    """Extremes and standard deviation of every window of every channel, from blocks of any size."""

    def __init__(self, n_channels: int, n_times: int, window_samples: int) -> None:
        n_windows = -(-n_times // window_samples)
        self.window_samples = window_samples
        self.low = np.full((n_windows, n_channels), np.inf, dtype=np.float32)
        self.high = np.full((n_windows, n_channels), -np.inf, dtype=np.float32)
        self._sum = np.zeros((n_windows, n_channels))
        self._squares = np.zeros((n_windows, n_channels))
        self._count = np.zeros((n_windows, 1), dtype=np.int64)
        self._seen = 0

    def see(self, block: NDArray[np.float32]) -> None:
        """Take the next block, float32 [channel, time]."""
        for window, part in self._parts(block):
            np.minimum(self.low[window], part.min(axis=1), out=self.low[window])
            np.maximum(self.high[window], part.max(axis=1), out=self.high[window])
            exact = part.astype(np.float64)
            self._sum[window] += exact.sum(axis=1)
            self._squares[window] += np.square(exact).sum(axis=1)
            self._count[window] += part.shape[1]

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation in the unit of the signal, float64 [window, channel]."""
        count = np.maximum(self._count, 1)
        return np.sqrt(np.maximum(self._squares / count - np.square(self._sum / count), 0))

    def _parts(self, block: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        done, length = 0, block.shape[1]
        while done < length:
            window, within = divmod(self._seen, self.window_samples)
            take = min(self.window_samples - within, length - done)
            yield window, block[:, done : done + take]
            done += take
            self._seen += take


def window_length(seconds: float, sfreq: float) -> int:
    """Samples in a window of ``seconds``, at least one."""
    return max(1, round(seconds * sfreq))


def voltages(channels: ChannelTable, step: str) -> NDArray[np.intp]:
    """Rows of channels in volts, intp [row] ascending.

    Raises
    ------
    ConfigError
        If there are none, for then the step is a mistake.
    """
    rows = np.flatnonzero([unit == VOLTS for unit in channels.units])
    if not rows.size:
        raise ConfigError(f"{step} is for channels in volts, and none is kept", next_step=f"take {step} out")
    return rows


def judge(step: Reject, watch: WindowWatch, channels: ChannelTable) -> Rejection:
    """Turn extremes into reasons."""
    rows = voltages(channels, step.step)
    reasons = np.zeros(watch.low.shape, dtype=np.uint8)
    low, high = watch.low[:, rows], watch.high[:, rows]
    found = np.zeros(low.shape, dtype=np.uint8)
    if step.flat_volts is not None:
        found[high - low < step.flat_volts] = FLAT
    found[np.maximum(np.abs(low), np.abs(high)) >= step.threshold_volts] = AMPLITUDE
    reasons[:, rows] = found
    return Rejection(reasons, watch.window_samples, LEGEND)


def good_voltages(channels: ChannelTable, bads: Mapping[int, str]) -> list[int]:
    """Rows of channels in volts that are bad neither in the table nor here."""
    return [
        i for i, (unit, bad) in enumerate(zip(channels.units, channels.bads, strict=True))
        if unit == VOLTS and not bad and i not in bads
    ]  # fmt: skip


def typical_amplitude(watch: WindowWatch, good: list[int]) -> float | None:
    """Median over windows and channels of the standard deviation; None where there is no channel."""
    return float(np.median(watch.std[:, good])) if good else None


def require_amplitude(step: ExpectAmplitude, typical: float | None, where: str = "") -> None:
    """Raise ``unit_conflict`` where the typical amplitude lies outside the bounds."""
    if typical is None or step.low_volts <= typical <= step.high_volts:
        return
    raise RecordingError(
        FailureCode.UNIT_CONFLICT,
        f"a typical amplitude of {typical * MICRO:.3g} uV; expected is "
        f"{step.low_volts * MICRO:g} to {step.high_volts * MICRO:g} uV",
        where=where,
        next_step="compare the unit in channels.tsv and in the file with the numbers; or widen expect_amplitude",
    )


def require_one_unit(
    step: ExpectAmplitude, watch: WindowWatch, channels: ChannelTable, good: list[int], where: str = ""
) -> dict[int, str]:
    """Channels that are another order of magnitude than the others: row -> ``implausible``.

    Raises
    ------
    RecordingError
        ``unit_conflict``: they are more than a quarter of the good channels, or half of them.
    """
    if step.channel_ratio is None or not good:
        return {}
    levels = [Amplitude(*one) for one in np.quantile(watch.std[:, good], (0.25, 0.5, 0.75), axis=0).T]
    found = {good[at]: levels[at].usual for at in apart(levels, (step.low_volts, step.high_volts), step.channel_ratio)}
    if is_one_fault(len(found), len(good)):
        raise _channels_apart(step, found, channels, f"{len(found)} of {len(good)} channels are", where)
    return dict.fromkeys(found, IMPLAUSIBLE)


def require_not_averaged(
    step: ExpectAmplitude, found: Collection[int], watch: WindowWatch, channels: ChannelTable, where: str = ""
) -> None:
    """Raise ``unit_conflict`` where an implausibly large channel was part of an average that all channels have lost."""
    usual = np.median(watch.std, axis=0)
    middle = np.median(usual)
    large = {row: float(usual[row]) for row in found if usual[row] > middle}
    if large:
        raise _channels_apart(step, large, channels, "in the average reference were channels", where)


def _channels_apart(
    step: ExpectAmplitude, found: Mapping[int, float], channels: ChannelTable, what: str, where: str
) -> RecordingError:
    named = ", ".join(f"{channels.names[row]} {MICRO * level:.3g} uV" for row, level in list(found.items())[:NAMED])
    return RecordingError(
        FailureCode.UNIT_CONFLICT,
        f"{what} more than {step.channel_ratio:g} times larger or smaller than the others: "
        f"{named}{', ...' if len(found) > NAMED else ''}",
        where=where,
        next_step="compare their unit in channels.tsv and in the file with the numbers, or mark them bad there",
    )
