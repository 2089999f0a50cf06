"""Writes an EDF file (Kemp et al. 1992): 16 bits, records of one second. The same signal gives the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

STEP_MICROVOLTS = 0.1
"""Of one bit; the range is +-3276.8 uV."""
_LOW, _HIGH = -32768, 32767
_MICRO = 1e6


def write_edf(
    path: Path, signal: NDArray[np.float64], names: Sequence[str], sfreq: int, *, prefilter: str = ""
) -> None:
    """Write ``signal``, float64 [channel, time] volts. Values beyond the range are clipped, as an amplifier would.

    Raises
    ------
    ConfigError
        The signal is no whole number of seconds, or a name is longer than the 16 characters of a label.
    """
    n_records, rest = divmod(signal.shape[1], sfreq)
    too_long = [name for name in names if len(name.encode("ascii")) > 16]  # noqa: PLR2004 - width of the field
    if rest or too_long:
        what = f"labels are too long: {too_long}" if too_long else f"{signal.shape[1]} samples are no whole seconds"
        raise ConfigError(what, where=path.name, next_step="use whole seconds and short names")
    digital = np.clip(np.rint(signal * (_MICRO / STEP_MICROVOLTS)), _LOW, _HIGH).astype("<i2")
    records = digital.reshape(len(names), n_records, sfreq).transpose(1, 0, 2)
    header = _fixed(len(names), n_records) + _signals(names, sfreq, prefilter)
    path.write_bytes(header.encode("ascii") + np.ascontiguousarray(records).tobytes())


def _fixed(n_signals: int, n_records: int) -> str:
    cells = (
        ("0", 8), ("X X X X", 80), ("Startdate 01-JAN-2020 X X X", 80), ("01.01.20", 8), ("00.00.00", 8),
        (256 * (n_signals + 1), 8), ("", 44), (n_records, 8), (1, 8), (n_signals, 4),
    )  # fmt: skip
    return "".join(str(value).ljust(width) for value, width in cells)


def _signals(names: Sequence[str], sfreq: int, prefilter: str) -> str:
    """One column after the other, each for all signals."""
    same = (
        ("AgAgCl electrode", 80), ("uV", 8),
        (f"{_LOW * STEP_MICROVOLTS:.1f}", 8), (f"{_HIGH * STEP_MICROVOLTS:.1f}", 8), (_LOW, 8), (_HIGH, 8),
        (prefilter, 80), (sfreq, 8), ("", 32),
    )  # fmt: skip
    labels = "".join(name.ljust(16) for name in names)
    return labels + "".join(str(value).ljust(width) * len(names) for value, width in same)
