"""What stands beside NDT3's R2: ridge regression of the same bins, and the mean of the training bins (chance)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuromill.models.ndt3_batch import FIRST_COVARIATE_SLOT, FIRST_SPIKE_SLOT, TOKEN_BUDGET, Chunk, bins_within
from neuromill.records import RecordingError, TokenKind
from neuromill.training.metrics import sum_over_ranks
from neuromill.training.ndt3_metrics import MAX_COVARIATES, R2Report
from neuromill.training.r2 import N_SUMS, sums_of
from neuromill.training.ridge import fit_ridge
from neuromill.training.spike_source import VALIDATION
from neuromill.training.task import TEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    source: SpikeTokenSource,
    split: ChunkSplit,
    ridge: RidgeConfig | None,
    fabric: Fabric,
    *,
    token_budget: int = TOKEN_BUDGET,
) -> dict[str, list[dict[str, Any]]]:
    """Lines "mean" and (unless ``ridge`` is None) "ridge" on the chunks of "validation" and of "test".

    A held-out chunk above the budget of tokens is scored up to where the loader crops it, so that the bins are those
    that NDT3 is scored on; ``n_covariate`` says how many values of them.

    Ridge is fitted to the training bins of each held-out recording. A recording that is held out as a whole has
    none; there, five blocks of its held-out bins are decoded in turn by a fit to the other four, and the line names
    the recording under ``calibrated``: such a decoder has seen the session, NDT3 has not. Recordings with too few
    bins for a fit are named under ``left_out`` and decoded by the mean; so is a single covariate of too few bins.
    """
    recordings, parts = source.recordings, {VALIDATION: split.validation, TEST: split.test}
    means = _means(source, split, fabric)
    shape = (len(parts), len(recordings), MAX_COVARIATES, N_SUMS)
    mean_sums, ridge_sums, marks = np.zeros(shape), np.zeros(shape), np.zeros((*shape[:2], 2))
    for number in _share(np.unique(np.concatenate([*parts.values()])[:, 0]), fabric):
        one, bins = recordings[number], unroll(source, number)
        lengths = _lengths_within(source, number, token_budget)
        held_out = [_bins(one, chunks_in(chunks, number), lengths) for chunks in parts.values()]
        flat = np.broadcast_to(means[number, : bins.values.shape[1]], bins.values.shape)
        rows = [bins.valid & part[:, None] for part in held_out]
        mean_sums[:, number] = [_sums(bins, flat, part) for part in rows]
        if ridge is not None:
            train = bins_of(one, chunks_in(split.train, number))
            decoded, how = _ridge(ridge, bins, train, held_out, one.bin_seconds)
            ridge_sums[:, number] = [_sums(bins, np.where(np.isnan(decoded), flat, decoded), part) for part in rows]
            marks[:, number] = [np.multiply(how, part.any()) for part in held_out]
    packed = torch.from_numpy(np.concatenate([array.ravel() for array in (mean_sums, ridge_sums, marks)]))
    total = sum_over_ranks(packed.to(fabric.device), fabric).cpu().numpy()
    mean_sums, ridge_sums = total[: 2 * mean_sums.size].reshape(2, *shape)
    marks = total[2 * mean_sums.size :].reshape(marks.shape)
    found: dict[str, list[dict[str, Any]]] = {}
    for number, (part, chunks) in enumerate(parts.items()):
        if len(chunks):
            found[part] = [_row("mean", mean_sums[number], recordings)]
            if ridge is not None:
                found[part].append(_row("ridge", ridge_sums[number], recordings) | _named(marks[number], recordings))
    return found


def _row(name: str, sums: NDArray[np.float64], recordings: Sequence[SpikeTokenRecording]) -> dict[str, Any]:
    return {"name": name, **R2Report.of(sums, recordings)._asdict(), "n_covariate": int(sums[..., 0].sum())}


def _named(marks: NDArray[np.float64], recordings: Sequence[SpikeTokenRecording]) -> dict[str, list[str]]:
    names = [[one.name for one, is_so in zip(recordings, column > 0, strict=True) if is_so] for column in marks.T]
    return {"calibrated": names[CALIBRATED], "left_out": names[LEFT_OUT]}


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
    """Chunks of one recording, int64 [chunk], among int64 [chunk, 2] of recording and chunk."""
    return np.asarray(chunks[chunks[:, 0] == recording, 1])


def bins_of(recording: SpikeTokenRecording, chunks: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Bins of some chunks, int64 [chunk]: bool [time]."""
    return _bins(recording, chunks, recording.chunk_n_bins)


def _bins(recording: SpikeTokenRecording, chunks: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """First ``lengths`` (of every chunk of the recording) bins of some chunks: bool [time]."""
    inside = np.zeros(recording.n_bins, np.bool_)
    for start, length in zip(recording.chunk_start_bins[chunks], lengths[chunks], strict=True):
        inside[start : start + length] = True
    return inside


def _lengths_within(source: SpikeTokenSource, number: int, token_budget: int) -> NDArray[np.int64]:
    """Bins of each chunk that a budget of tokens leaves: int64 [chunk]."""
    patch_channels = source.recordings[number].patch_channels
    lengths = [
        min(chunk.n_bins, bins_within(chunk, token_budget))
        for tokens in _pieces(source, number)
        for chunk in (Chunk.of(tokens, place, patch_channels) for place in range(tokens.n_chunks))
    ]
    return np.array(lengths, np.int64)


def _ridge(
    config: RidgeConfig,
    bins: Unrolled,
    train: NDArray[np.bool_],
    held_out: Sequence[NDArray[np.bool_]],
    bin_seconds: float,
) -> tuple[NDArray[np.float64], tuple[bool, bool]]:
    """Decoded values of disjoint parts, NaN for none, and whether the recording was left out or calibrated."""
    decoded = np.full(bins.values.shape, np.nan)
    if train.any():
        turns = [(train, np.logical_or.reduce(held_out))]
    else:
        turns = [turn for part in held_out if part.any() for turn in _turns(part)]
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
