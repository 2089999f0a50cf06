"""Where a recording of spikes is cut into chunks, and which chunks are left out, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig

CONSTANT_STD = 1e-8
TOO_SHORT, SILENT, CONSTANT = "too_short", "no_spikes", "constant_covariates"


@dataclass(frozen=True, slots=True, eq=False)
class ChunkPlan:
    """Chunks in the order of time.

    Attributes
    ----------
    starts, n_bins
        int64 [chunk]: first bin in the recording, and number of bins.
    left_out
        Number of chunks that were left out, by reason: ``too_short``, ``no_spikes``, ``constant_covariates``. The
        first reason that holds counts.
    """

    starts: NDArray[np.int64]
    n_bins: NDArray[np.int64]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [chunk + 1]: chunk c has the rows ``offsets[c]:offsets[c + 1]`` of the chunks' bins."""
        return np.concatenate(([0], np.cumsum(self.n_bins)))

    def rows(self) -> NDArray[np.int64]:
        """Bins of all chunks one after the other, numbered in the recording: int64 [row]."""
        return np.repeat(self.starts - self.offsets[:-1], self.n_bins) + np.arange(self.offsets[-1])

    def without(self, reason: str, drop: NDArray[np.bool_]) -> Self:
        """Leave out the chunks marked in bool [chunk]."""
        left_out = dict(self.left_out)
        if drop.any():
            left_out[reason] = left_out.get(reason, 0) + int(drop.sum())
        return type(self)(self.starts[~drop], self.n_bins[~drop], left_out)


def plan_chunks(
    config: Ndt3TokenizerConfig,
    counts: NDArray[np.uint8],
    values: NDArray[np.float32],
    segment: NDArray[np.int32],
) -> ChunkPlan:
    """Cut a recording into chunks and leave out those that teach nothing (NDT3 paper's code).

    Parameters
    ----------
    counts
        uint8 [time, unit].
    values
        float32 [time, covariate], normalised; NaN where not observed.
    segment
        int32 [time], -1 where not observed. A chunk lies within one segment, except in parity.
    """
    plan = _cut_from_start(config, len(counts)) if config.parity else _cut_segments(config, segment)
    plan = plan.without(TOO_SHORT, plan.n_bins < config.min_chunk_bins)
    if config.sanity_rule:
        plan = plan.without(SILENT, _silent(plan, counts))
        plan = plan.without(CONSTANT, _constant(plan, values))
    return plan


def _cut_from_start(config: Ndt3TokenizerConfig, n_times: int) -> ChunkPlan:
    if n_times < config.chunk_bins:  # published: a source shorter than one chunk is kept whole
        return ChunkPlan(np.zeros(min(n_times, 1), np.int64), np.full(min(n_times, 1), n_times), {})
    starts = np.arange(0, n_times - config.chunk_bins + 1, config.chunk_bins)
    rest = {TOO_SHORT: 1} if n_times % config.chunk_bins else {}
    return ChunkPlan(starts, np.full(len(starts), config.chunk_bins), rest)


def _cut_segments(config: Ndt3TokenizerConfig, segment: NDArray[np.int32]) -> ChunkPlan:
    edges = np.flatnonzero(np.diff(segment, prepend=np.int32(-2), append=np.int32(-2)))  # -2 is no segment
    observed = segment[edges[:-1]] >= 0
    starts, stops = edges[:-1][observed], edges[1:][observed]
    n_chunks = -(-(stops - starts) // config.chunk_bins)
    first_chunk = np.cumsum(n_chunks) - n_chunks
    number = np.arange(n_chunks.sum()) - np.repeat(first_chunk, n_chunks)  # of a chunk within its segment
    chunk_starts = np.repeat(starts, n_chunks) + number * config.chunk_bins
    n_bins = np.minimum(np.repeat(stops, n_chunks) - chunk_starts, config.chunk_bins)
    return ChunkPlan(chunk_starts, n_bins, {})


def _silent(plan: ChunkPlan, counts: NDArray[np.uint8]) -> NDArray[np.bool_]:
    fired = np.concatenate(([0], np.cumsum(counts.any(axis=1))))
    return np.asarray(fired[plan.starts + plan.n_bins] == fired[plan.starts])


def _constant(plan: ChunkPlan, values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Chunks in which covariates were observed and none of them changes: bool [chunk]."""
    if not len(plan) or not values.shape[1]:
        return np.zeros(len(plan), bool)
    inside = values[plan.rows()].astype(np.float64)
    observed = np.isfinite(inside)
    n_observed = _sums(plan, observed.astype(np.float64))
    means = _sums(plan, np.where(observed, inside, 0)) / np.maximum(n_observed, 1)
    deviations = np.where(observed, inside - np.repeat(means, plan.n_bins, axis=0), 0)
    std = np.sqrt(_sums(plan, deviations**2) / np.maximum(n_observed, 1))
    return np.asarray((n_observed > 0).any(axis=1) & (std <= CONSTANT_STD).all(axis=1))


def _sums(plan: ChunkPlan, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.add.reduceat(rows, plan.offsets[:-1], axis=0)
