"""What stands beside NDT3's R2: ridge regression of the same bins, and the mean of the training bins (chance)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuromill.models.ndt3_batch import FIRST_COVARIATE_SLOT, FIRST_SPIKE_SLOT
from neuromill.records import RecordingError, TokenKind
from neuromill.training.ndt3_metrics import MAX_COVARIATES, R2Report, sum_over_ranks
from neuromill.training.r2 import N_SUMS, sums_of
from neuromill.training.ridge import fit_ridge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning_fabric import Fabric
    from numpy.typing import NDArray

    from neuromill.records import SpikeTokens
    from neuromill.training.chunks import ChunkSplit
    from neuromill.training.ndt3_config import RidgeConfig
    from neuromill.training.spike_source import SpikeTokenRecording, SpikeTokenSource

CHUNKS_PER_READ = 256
CALIBRATION_FOLDS = 5
LEFT_OUT, CALIBRATED = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class Unrolled:
    """Tokens of a recording as bins again.

    Attributes
    ----------
    counts
        uint8 [time, unit], units in the order of their patches.
    values, valid
        float32 and bool [time, covariate], normalised.
    segments
        int32 [time]: bins of one stretch without a gap or a join share a number; -1 outside chunks.
    """

    counts: NDArray[np.uint8]
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    segments: NDArray[np.int32]


def baseline_rows(
    source: SpikeTokenSource, split: ChunkSplit, ridge: RidgeConfig | None, fabric: Fabric
) -> list[dict[str, Any]]:
    """Lines "mean" and (unless ``ridge`` is None) "ridge" on the held-out chunks.

    Ridge is fitted to the training bins of each held-out recording. A recording that is held out as a whole has
    none; there, five blocks of its held-out bins are decoded in turn by a fit to the other four, and the line names
    the recording under ``calibrated``: such a decoder has seen the session, NDT3 has not. Recordings with too few
    bins for a fit are named under ``left_out`` and decoded by the mean.
    """
    recordings = source.recordings
    means = _means(source, split, fabric)
    shape = (len(recordings), MAX_COVARIATES, N_SUMS)
    mean_sums, ridge_sums, marks = np.zeros(shape), np.zeros(shape), np.zeros((len(recordings), 2))
    for number in _share(np.unique(split.validation[:, 0]), fabric):
        train, held_out = (bins_of(recordings[number], chunks_in(part, number)) for part in split)
        bins = unroll(source, number)
        rows = bins.valid & held_out[:, None]
        flat = np.broadcast_to(means[number, : bins.values.shape[1]], bins.values.shape)
        mean_sums[number] = _sums(bins, flat, rows)
        if ridge is not None:
            decoded, marks[number] = _ridge(ridge, bins, train, held_out, recordings[number].bin_seconds)
            ridge_sums[number] = _sums(bins, np.where(np.isnan(decoded), flat, decoded), rows)
    packed = torch.from_numpy(np.concatenate([part.ravel() for part in (mean_sums, ridge_sums, marks)]))
    total = sum_over_ranks(packed.to(fabric.device), fabric).cpu().numpy()
    mean_sums, ridge_sums = total[: 2 * mean_sums.size].reshape(2, *shape)
    rows_out = [{"name": "mean", **R2Report.of(mean_sums, recordings)._asdict()}]
    if ridge is not None:
        marked = total[2 * mean_sums.size :].reshape(-1, 2) > 0
        names = [[one.name for one, is_so in zip(recordings, column, strict=True) if is_so] for column in marked.T]
        report = R2Report.of(ridge_sums, recordings)._asdict()
        rows_out.append({"name": "ridge", **report, "calibrated": names[CALIBRATED], "left_out": names[LEFT_OUT]})
    return rows_out


def unroll(source: SpikeTokenSource, number: int) -> Unrolled:
    """Put the tokens of a recording back on its bins."""
    one = source.recordings[number]
    counts = np.zeros((one.n_bins, len(one.patch_channels), 32), np.uint8)
    values = np.zeros((one.n_bins, len(one.covariates)), np.float32)
    valid = np.zeros(values.shape, np.bool_)
    for tokens in _pieces(source, number):
        starts = np.repeat(tokens.chunk_start_bins, np.diff(tokens.chunk_tokens))
        lengths = np.repeat(tokens.chunk_n_bins, np.diff(tokens.chunk_tokens))
        bins = starts + tokens.bins
        spikes, behaviour = tokens.kinds == TokenKind.SPIKE, tokens.kinds == TokenKind.COVARIATE
        counts[bins[spikes], tokens.slots[spikes].astype(np.int64) - FIRST_SPIKE_SLOT] = tokens.patches
        real = tokens.bins[behaviour] < lengths[behaviour]  # not the published dummy behind the last bin
        where = bins[behaviour][real], tokens.slots[behaviour][real].astype(np.int64) - FIRST_COVARIATE_SLOT
        values[where], valid[where] = tokens.covariates[real], tokens.covariate_valid[real]
    is_unit = np.arange(32) < one.patch_channels[:, None]
    return Unrolled(counts[:, is_unit], values, valid, stretches(one, source.read_segments(number)))


def stretches(recording: SpikeTokenRecording, segments: NDArray[np.int32] | None) -> NDArray[np.int32]:
    """Number the stretches of bins that lie in chunks, without a gap or a join: int32 [time], -1 outside.

    Where the segments of the prepared counts are not known, a chunk that is shorter than others ends a stretch.
    """
    starts, lengths = recording.chunk_start_bins, recording.chunk_n_bins
    chunk = np.full(recording.n_bins, -1)
    for number, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        chunk[start : start + length] = number
    part = np.cumsum(np.append(0, lengths[:-1] < lengths.max(initial=0)))[chunk] if segments is None else segments
    part = np.where(chunk < 0, -1, part[: recording.n_bins])
    new = (np.diff(part, prepend=-1) != 0) & (part >= 0)
    return np.where(part < 0, -1, np.cumsum(new) - 1).astype(np.int32)


def chunks_in(chunks: NDArray[np.int64], recording: int) -> NDArray[np.int64]:
    """Chunks of one recording among [chunk, 2] of recording and chunk."""
    return np.asarray(chunks[chunks[:, 0] == recording, 1])


def bins_of(recording: SpikeTokenRecording, chunks: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Bins of some chunks: bool [time]."""
    inside = np.zeros(recording.n_bins, np.bool_)
    for start, length in zip(recording.chunk_start_bins[chunks], recording.chunk_n_bins[chunks], strict=True):
        inside[start : start + length] = True
    return inside


def _ridge(
    config: RidgeConfig,
    bins: Unrolled,
    train: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    bin_seconds: float,
) -> tuple[NDArray[np.float64], tuple[bool, bool]]:
    """Decoded values, NaN where there are none, and whether the recording was left out or calibrated."""
    decoded = np.full(bins.values.shape, np.nan)
    turns = [(train, held_out)] if train.any() else _turns(held_out)
    try:
        for learn, tell in turns:
            rows = bins.valid & learn[:, None]
            decoder = fit_ridge(config, bins.counts, bins.segments, bins.values, rows, bin_seconds=bin_seconds)
            decoded[tell] = decoder.predict(bins.counts, bins.segments)[tell]
    except RecordingError:
        return np.full(bins.values.shape, np.nan), (True, False)
    return decoded, (False, not train.any())


def _turns(rows: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    for fold in np.array_split(np.flatnonzero(rows), CALIBRATION_FOLDS):
        tell = np.zeros(len(rows), np.bool_)
        tell[fold] = True
        yield rows & ~tell, tell


def _means(source: SpikeTokenSource, split: ChunkSplit, fabric: Fabric) -> NDArray[np.float64]:
    """Mean of the training bins, float64 [recording, covariate slot]: its own, else of all of the same name, else 0."""
    recordings = source.recordings
    sums = np.zeros((len(recordings), MAX_COVARIATES, 2))
    for number in _share(np.unique(split.train[:, 0]), fabric):
        bins = unroll(source, number)
        rows = bins.valid & bins_of(recordings[number], chunks_in(split.train, number))[:, None]
        sums[number, : rows.shape[1]] = np.stack((rows.sum(axis=0), np.where(rows, bins.values, 0).sum(axis=0)), axis=1)
    sums = sum_over_ranks(torch.from_numpy(sums).to(fabric.device), fabric).cpu().numpy()
    by_name: dict[str, NDArray[np.float64]] = {}
    for number, one in enumerate(recordings):
        for dimension, name in enumerate(one.covariates):
            by_name[name] = by_name.get(name, np.zeros(2)) + sums[number, dimension]
    for number, one in enumerate(recordings):
        for dimension, name in enumerate(one.covariates):
            if sums[number, dimension, 0] == 0:
                sums[number, dimension] = by_name[name]
    return np.asarray(sums[..., 1] / np.maximum(sums[..., 0], 1))


def _sums(bins: Unrolled, predicted: NDArray[np.floating[Any]], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    dimension = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)[rows]
    values, guesses = torch.from_numpy(bins.values[rows]), torch.from_numpy(predicted[rows])
    return sums_of(values, guesses, torch.from_numpy(dimension), MAX_COVARIATES).numpy()


def _pieces(source: SpikeTokenSource, number: int) -> Iterator[SpikeTokens]:
    n_chunks = source.recordings[number].n_chunks
    for first in range(0, n_chunks, CHUNKS_PER_READ):
        yield source.read_chunks(number, first, min(first + CHUNKS_PER_READ, n_chunks))


def _share(numbers: NDArray[np.int64], fabric: Fabric) -> list[int]:
    return [int(number) for number in numbers[fabric.global_rank :: fabric.world_size]]
