"""Which windows a fit sees at which step: a pure function of seed and step, so that a fit can resume anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ConfigError
from neuromill.tokenizers.montage import MISSING
from neuromill.tokenizers.rejection import Stretches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.tokenizers.montage import Group
    from neuromill.tokenizers.rejection import Rejection


@dataclass(frozen=True, slots=True)
class WindowPick:
    """Samples ``start`` to ``start + window`` of some channels (ascending) of recording number ``recording``."""

    recording: int
    start: int
    channels: tuple[int, ...]


@dataclass(frozen=True)
class WindowPlan:
    """Random windows over recordings, long ones more often.

    Attributes
    ----------
    n_times
        Samples per recording. Recordings shorter than a window are left out.
    channels
        Good channels per recording.
    window_samples
        Length of a window.
    rows
        Rows per batch.
    rows_per_window
        Channels taken from one window: more means fewer reads, fewer means more variety.
    seed
        One seed in, same picks out.
    rejections
        What preparation rejected, per recording, None where nothing is; () for no recording. A row that holds a
        rejected sample is not picked.
    """

    n_times: tuple[int, ...]
    channels: tuple[tuple[int, ...], ...]
    window_samples: int
    rows: int
    rows_per_window: int = 32
    seed: int = 0
    rejections: tuple[Rejection | None, ...] = ()

    @cached_property
    def _stretches(self) -> tuple[Stretches, ...]:
        """Allowed starts per recording."""
        pairs = enumerate(zip(self.n_times, self.channels, strict=True))
        return tuple(
            _allowed(_of(self.rejections, i), channels, n_times, self.window_samples)
            for i, (n_times, channels) in pairs
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to pick."""
        return not any(one.n_starts for one in self._stretches)

    def batch(self, step: int) -> tuple[WindowPick, ...]:
        """Pick the windows of one batch, ``rows`` rows in total.

        Raises
        ------
        ConfigError
            If no recording with a good channel is as long as a window that is not rejected.
        """
        if self.is_empty:
            raise _nothing(self.window_samples, self.rejections, where="fit.segment_seconds")
        spare = np.array([one.n_starts for one in self._stretches], dtype=np.float64)
        rng = np.random.default_rng([self.seed, step])
        picks: list[WindowPick] = []
        left = self.rows
        while left > 0:
            recording = int(rng.choice(len(spare), p=spare / spare.sum()))
            pick = self._pick(rng, recording, min(left, self.rows_per_window))
            picks.append(pick)
            left -= len(pick.channels)
        return tuple(picks)

    def _pick(self, rng: np.random.Generator, recording: int, n_rows: int) -> WindowPick:
        channels: Sequence[int] = self.channels[recording]
        allowed, rejection = self._stretches[recording], _of(self.rejections, recording)
        if rejection is not None:
            start = allowed.start(int(rng.integers(allowed.n_starts)))
            kept = rejection.kept(np.array([start]), self.window_samples)[0]
            channels = [i for i in channels if kept[i]]
        chosen = rng.choice(len(channels), size=min(n_rows, len(channels)), replace=False)
        if rejection is None:  # drawn after the channels, as in fits from before there were rejections
            start = allowed.start(int(rng.integers(allowed.n_starts)))
        return WindowPick(recording, start, tuple(sorted(channels[int(i)] for i in chosen)))


@dataclass(frozen=True, slots=True)
class JointPick:
    """Samples ``start`` to ``start + window`` of one group of channels of recording number ``recording``."""

    recording: int
    start: int
    group: Group


@dataclass(frozen=True)
class JointPlan:
    """Random windows whose channels are seen jointly, long recordings more often.

    All windows of a batch have the same number of positions, so that nothing is filled up: a batch is drawn from the
    groups of one size, sizes in proportion to their seconds.

    Attributes
    ----------
    n_times
        Samples per recording. Recordings shorter than a window are left out.
    groups
        Groups of channels per recording; bad channels stand as ``MISSING``. Groups without a channel are left out.
    window_samples
        Length of a window.
    windows
        Windows per batch.
    seed
        One seed in, same picks out.
    rejections
        What preparation rejected, per recording, None where nothing is; () for no recording. A window in which every
        channel of the group holds a rejected sample is not picked.
    """

    n_times: tuple[int, ...]
    groups: tuple[tuple[Group, ...], ...]
    window_samples: int
    windows: int
    seed: int = 0
    rejections: tuple[Rejection | None, ...] = ()

    @cached_property
    def _choices(self) -> tuple[tuple[int, Group, Stretches], ...]:
        """Recording, group and allowed starts, where there are any."""
        choices = (
            (recording, group, _allowed(_of(self.rejections, recording), _members(group), n_times, self.window_samples))
            for recording, n_times in enumerate(self.n_times)
            for group in self.groups[recording]
        )
        return tuple(choice for choice in choices if choice[2].n_starts)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to pick."""
        return not self._choices

    def batch(self, step: int) -> tuple[JointPick, ...]:
        """Pick the windows of one batch.

        Raises
        ------
        ConfigError
            If no recording with a good channel is as long as a window that is not rejected.
        """
        if self.is_empty:
            raise _nothing(self.window_samples, self.rejections, where="tokenizer.network.window_patches")
        rng = np.random.default_rng([self.seed, step])
        size = len(self._choices[_weighted(rng, [allowed.n_starts for _, _, allowed in self._choices])][1])
        same = [choice for choice in self._choices if len(choice[1]) == size]
        weights = [allowed.n_starts for _, _, allowed in same]
        chosen = [same[_weighted(rng, weights)] for _ in range(self.windows)]
        return tuple(
            JointPick(recording, allowed.start(int(rng.integers(allowed.n_starts))), group)
            for recording, group, allowed in chosen
        )


def _members(group: Group) -> tuple[int, ...]:
    return tuple(channel for channel in group if channel != MISSING)


def _of(rejections: Sequence[Rejection | None], recording: int) -> Rejection | None:
    return rejections[recording] if rejections else None


def _allowed(rejection: Rejection | None, channels: Sequence[int], n_times: int, window_samples: int) -> Stretches:
    if rejection is not None:
        return rejection.stretches(channels, n_times, window_samples)
    n_starts = max(0, n_times - window_samples + 1) if channels else 0
    return Stretches(np.array([0]), np.array([n_starts]))


def _nothing(window_samples: int, rejections: Sequence[Rejection | None], where: str) -> ConfigError:
    if any(one is not None for one in rejections):
        what = f"no window of {window_samples} samples has a channel that preparation did not reject"
        return ConfigError(what, where=where, next_step="use shorter windows, or a milder `reject` step in `prepare`")
    what = f"no recording is as long as a window of {window_samples} samples"
    return ConfigError(what, where=where, next_step="use shorter windows")


def _weighted(rng: np.random.Generator, weights: Sequence[int]) -> int:
    shares = np.asarray(weights, np.float64)
    return int(rng.choice(len(shares), p=shares / shares.sum()))
