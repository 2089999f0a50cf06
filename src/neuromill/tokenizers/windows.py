"""Which windows a fit sees at which step: a pure function of seed and step, so that a fit can resume anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ConfigError
from neuromill.tokenizers.montage import MISSING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.tokenizers.config import FitConfig
    from neuromill.tokenizers.montage import Group


@dataclass(frozen=True, slots=True)
class WindowPick:
    """Samples ``start`` to ``start + window`` of some channels (ascending) of recording number ``recording``."""

    recording: int
    start: int
    channels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
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
    """

    n_times: tuple[int, ...]
    channels: tuple[tuple[int, ...], ...]
    window_samples: int
    rows: int
    rows_per_window: int = 32
    seed: int = 0

    def batch(self, step: int) -> tuple[WindowPick, ...]:
        """Pick the windows of one batch, ``rows`` rows in total.

        Raises
        ------
        ConfigError
            If no recording with a good channel is as long as a window.
        """
        spare = np.array([max(0, n - self.window_samples + 1) for n in self.n_times], dtype=np.float64)
        spare *= [len(channels) > 0 for channels in self.channels]
        if not spare.any():
            raise ConfigError(
                f"no recording is as long as a window of {self.window_samples} samples",
                where="fit.segment_seconds",
                next_step="use shorter windows",
            )
        rng = np.random.default_rng([self.seed, step])
        picks: list[WindowPick] = []
        left = self.rows
        while left > 0:
            recording = int(rng.choice(len(spare), p=spare / spare.sum()))
            pick = self._pick(rng, recording, min(left, self.rows_per_window), int(spare[recording]))
            picks.append(pick)
            left -= len(pick.channels)
        return tuple(picks)

    def _pick(self, rng: np.random.Generator, recording: int, n_rows: int, n_starts: int) -> WindowPick:
        channels: Sequence[int] = self.channels[recording]
        chosen = rng.choice(len(channels), size=min(n_rows, len(channels)), replace=False)
        return WindowPick(recording, int(rng.integers(n_starts)), tuple(sorted(channels[int(i)] for i in chosen)))


def plan_windows(
    config: FitConfig, *, sfreq: float, n_times: Sequence[int], channels: Sequence[Sequence[int]]
) -> WindowPlan:
    """Make the plan that a fit's settings ask for, over recordings of ``n_times`` samples with these good channels."""
    return WindowPlan(
        n_times=tuple(n_times),
        channels=tuple(tuple(rows) for rows in channels),
        window_samples=max(1, round(config.segment_seconds * sfreq)),
        rows=config.batch_size,
        seed=config.seed,
    )


@dataclass(frozen=True, slots=True)
class JointPick:
    """Samples ``start`` to ``start + window`` of one group of channels of recording number ``recording``."""

    recording: int
    start: int
    group: Group


@dataclass(frozen=True, slots=True)
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
    """

    n_times: tuple[int, ...]
    groups: tuple[tuple[Group, ...], ...]
    window_samples: int
    windows: int
    seed: int = 0

    def batch(self, step: int) -> tuple[JointPick, ...]:
        """Pick the windows of one batch.

        Raises
        ------
        ConfigError
            If no recording with a good channel is as long as a window.
        """
        choices = [
            (recording, group, n_times - self.window_samples + 1)
            for recording, n_times in enumerate(self.n_times)
            for group in self.groups[recording]
            if n_times >= self.window_samples and any(i != MISSING for i in group)
        ]
        if not choices:
            raise ConfigError(
                f"no recording is as long as a window of {self.window_samples} samples",
                where="tokenizer.network.window_patches",
                next_step="use shorter windows",
            )
        rng = np.random.default_rng([self.seed, step])
        size = len(choices[_weighted(rng, [n for _, _, n in choices])][1])
        same = [choice for choice in choices if len(choice[1]) == size]
        weights = [n for _, _, n in same]
        chosen = [same[_weighted(rng, weights)] for _ in range(self.windows)]
        return tuple(JointPick(recording, int(rng.integers(n)), group) for recording, group, n in chosen)


def _weighted(rng: np.random.Generator, weights: Sequence[int]) -> int:
    shares = np.asarray(weights, np.float64)
    return int(rng.choice(len(shares), p=shares / shares.sum()))
