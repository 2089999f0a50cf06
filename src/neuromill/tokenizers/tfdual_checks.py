"""Which recordings a TFDual tokenizer takes. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import FailureCode, RecordingError
from neuromill.records.amplitudes import Amplitude, apart
from neuromill.tokenizers.montage import channel_groups, present

if TYPE_CHECKING:
    from neuromill.records import ChannelTable
    from neuromill.tokenizers.protocol import Read
    from neuromill.tokenizers.tfdual_config import TfDualTokenizerConfig

VOLTS = "V"
SAMPLED_WINDOWS = 8
QUARTILES = (0.25, 0.5, 0.75)
# Above the 10 of expect_amplitude, which sees the whole recording: what it takes is not refused here.
CHANNEL_RATIO = 20.0


def require_windows(config: TfDualTokenizerConfig, channels: ChannelTable, n_times: int, read: Read) -> None:
    """Refuse a recording without the channels, shorter than a window, or in another unit.

    Parameters
    ----------
    config
        Settings of the tokenizer.
    channels
        Columns of the recording.
    n_times
        Its samples.
    read
        ``read(start, stop)`` gives float32 [time, channel] in physical units; up to eight windows are read.

    Raises
    ------
    RecordingError
        ``no_usable_channels``, ``duplicate_channels``, ``too_short``; with ``fixed`` scaling ``unit_conflict`` for
        channels that are not in volts, and for amplitudes that only a wrong unit explains, of all or of some channels.
    """
    groups = channel_groups(config, channels)
    if n_times < config.window_samples:
        raise RecordingError(
            FailureCode.TOO_SHORT,
            f"{n_times / config.sfreq:g} s is shorter than a window of {config.window_samples / config.sfreq:g} s",
            next_step="choose a tokenizer with shorter windows",
        )
    used = [i for group in groups for i, there in zip(group, present(group, channels.bads), strict=True) if there]
    if not used:
        raise RecordingError(FailureCode.NO_USABLE_CHANNELS, "every channel that the tokenizer looks at is bad")
    if config.input.scaling == "fixed":
        _require_volts(channels, used)
        _require_plausible(config, channels, used, n_times, read)


def _require_volts(channels: ChannelTable, used: list[int]) -> None:
    others = sorted({channels.units[i] or "none" for i in used} - {VOLTS})
    if others:
        raise RecordingError(
            FailureCode.UNIT_CONFLICT,
            f"channels are in {', '.join(others)}, the tokenizer takes volts",
            next_step="set tokenizer.input.scaling: robust",
        )


def _require_plausible(
    config: TfDualTokenizerConfig, channels: ChannelTable, used: list[int], n_times: int, read: Read
) -> None:
    """Compare the median standard deviation over channels and some windows with the bounds, and channels with it."""
    window = config.window_samples
    starts = np.unique(np.linspace(0, n_times - window, SAMPLED_WINDOWS).astype(int))
    units = config.input.unit_volts
    windows = [read(int(one), int(one) + window)[:, used].astype(np.float64) / units for one in starts]
    found = np.concatenate([np.std(one, axis=0) for one in windows])
    found = found[np.isfinite(found) & (found > 0)]
    low, high = config.input.plausible_units
    microvolts = 1e6 * units
    if len(found) and not low <= np.median(found) <= high:
        raise _unit_conflict(
            f"channels deviate by {np.median(found) * microvolts:.3g} uV, "
            f"plausible are {low * microvolts:g} to {high * microvolts:g} uV"
        )
    patches = np.concatenate([one.reshape(-1, config.hop_samples, len(used)) for one in windows])
    levels = [Amplitude(*one) for one in np.quantile(np.std(patches, axis=1), QUARTILES, axis=0).T]
    wrong = [at for at in apart(levels, (low, high), CHANNEL_RATIO) if not low <= levels[at].usual <= high]
    if wrong:
        named = ", ".join(f"{channels.names[used[at]]} {levels[at].usual * microvolts:.3g} uV" for at in wrong[:8])
        raise _unit_conflict(
            f"{len(wrong)} of {len(used)} channels are more than {CHANNEL_RATIO:g} times larger or smaller than "
            f"the others and outside {low * microvolts:g} to {high * microvolts:g} uV: {named}"
        )


def _unit_conflict(what: str) -> RecordingError:
    return RecordingError(
        FailureCode.UNIT_CONFLICT,
        what,
        next_step="check the units in the file and in channels.tsv; `expect_amplitude` in prepare marks single "
        "channels bad; bounds: tokenizer.input.plausible_units",
    )
