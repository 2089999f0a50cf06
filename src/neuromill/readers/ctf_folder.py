"""Look over a CTF ``.ds`` folder before MNE opens it, and its clock afterwards.

Offsets of the ``.res4`` header follow the CTF file format description (MEG42RS): big-endian, samples per trial at byte
1288, channels at 1292, rate at 1296, trials at 1312, length of the run description at 1836, its text at 1844.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

import numpy as np

from neuromill.readers.complaints import empty, missing, not_continuous, truncated, unreadable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

COUNTS, TRIALS, DESCRIPTION_LENGTH, SHORT = Struct(">ih2xd"), Struct(">h"), Struct(">i"), Struct(">h")
COUNTS_AT, TRIALS_AT, DESCRIPTION_LENGTH_AT, DESCRIPTION_AT = 1288, 1312, 1836, 1844
FILTER_BYTES, PARAMETER_BYTES, NAME_BYTES, SENSOR_BYTES = 18, 8, 32, 1328
MEG4_HEADER_BYTES, SAMPLE_BYTES = 8, 4
SYSTEM_CLOCK = "SCLK01-177"


@dataclass(frozen=True, slots=True)
class CtfHeader:
    """What the ``.res4`` file promises; rate in Hz."""

    samples_per_trial: int
    n_channels: int
    sfreq: float
    n_trials: int

    @property
    def data_bytes(self) -> int:
        """Bytes of samples that all ``.meg4`` files together must hold."""
        return self.samples_per_trial * self.n_channels * self.n_trials * SAMPLE_BYTES


def check_ctf(folder: Path, where: str) -> CtfHeader:
    """Return the header of a complete CTF folder.

    Raises
    ------
    RecordingError
        ``missing_member`` (no ``.res4`` or no ``.meg4`` under the folder's own name), ``truncated`` (header or samples
        end early), ``unreadable`` (more samples than the header knows), ``empty``.
    """
    header = read_header(_member(folder, ".res4", where), where)
    first = _member(folder, ".meg4", where)
    files = [first, *sorted(folder.glob(f"{folder.stem}.[0-9]*_meg4"))]
    found = sum(max(file.stat().st_size - MEG4_HEADER_BYTES, 0) for file in files)
    if header.data_bytes == 0 or found == 0:
        raise empty("CTF recording without samples", where)
    if found < header.data_bytes:
        raise truncated(f".meg4 files hold {found} bytes of samples, the header promises {header.data_bytes}", where)
    if found > header.data_bytes:
        raise unreadable(f".meg4 files hold {found} bytes of samples, the header knows of {header.data_bytes}", where)
    return header


def _member(folder: Path, suffix: str, where: str) -> Path:
    path = folder / f"{folder.stem}{suffix}"
    if not path.is_file():
        raise missing(f"{folder.name} has no {path.name}", where)
    return path


def read_header(res4: Path, where: str) -> CtfHeader:
    """Read the counts of a ``.res4`` file and check that it holds all its channels; raises ``truncated``."""
    content = res4.read_bytes()
    if len(content) < DESCRIPTION_AT:
        raise truncated(f"{res4.name} has {len(content)} bytes, less than its fixed part", where)
    samples, channels, sfreq = COUNTS.unpack_from(content, COUNTS_AT)
    (trials,) = TRIALS.unpack_from(content, TRIALS_AT)
    if min(samples, channels, trials) < 0 or not sfreq > 0:
        raise unreadable(f"{res4.name} states {channels} channels, {samples} samples, {sfreq} Hz", where)
    needed = _channels_end(content, channels)
    if len(content) < needed:
        raise truncated(f"{res4.name} has {len(content)} bytes, its {channels} channels need {needed}", where)
    return CtfHeader(samples, channels, sfreq, trials)


def _channels_end(content: bytes, n_channels: int) -> int:
    """Byte after the last channel description: run description and filters before it differ in length."""
    length: int
    n_filters: int
    n_parameters: int
    (length,) = DESCRIPTION_LENGTH.unpack_from(content, DESCRIPTION_LENGTH_AT)
    at = DESCRIPTION_AT + max(length, 0)
    if at + SHORT.size > len(content):
        return at + SHORT.size
    (n_filters,) = SHORT.unpack_from(content, at)
    at += SHORT.size
    for _ in range(n_filters):
        at += FILTER_BYTES
        if at > len(content):
            return at
        (n_parameters,) = SHORT.unpack_from(content, at - SHORT.size)
        at += PARAMETER_BYTES * max(n_parameters, 0)
    return at + n_channels * (NAME_BYTES + SENSOR_BYTES)


def check_clock(steps: NDArray[np.float64] | None, sfreq: float, n_trials: int, where: str) -> None:
    """Check that trials follow on from each other, by the system clock.

    CTF writes continuous recordings as trials too, so more than one trial says nothing by itself.

    Parameters
    ----------
    steps
        float64 [trial - 1]: seconds on the system clock from the last sample of each trial to the first of the next;
        None without clock.

    Raises
    ------
    RecordingError
        ``not_continuous`` where a step is off by half a sample, or where no clock can show that the trials join.
    """
    if n_trials == 1:
        return
    if steps is None:
        raise not_continuous(f"{n_trials} trials and no system clock ({SYSTEM_CLOCK}) to show that they join", where)
    gaps = np.flatnonzero(np.abs(steps - 1 / sfreq) > 0.5 / sfreq)
    if gaps.size:
        first = int(gaps[0])
        raise not_continuous(
            f"trial {first + 2} of {n_trials} starts {steps[first]:.4f} s after the last sample of the one before",
            where,
        )
