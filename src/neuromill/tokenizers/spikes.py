"""Bins of spikes and behaviour as NDT3's tokens, and back. Pure numpy; nothing is fitted.

One token per bin and patch of 32 channels, one per bin and covariate; constraints where they change; return and reward
per bin, or one dummy per chunk. Tokens of a chunk are sorted by ``48 * bin + slot`` here, once: no loader sorts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from neuromill.records import FailureCode, RecordingError, SpikeTokens, TokenKind
from neuromill.tokenizers.spike_chunks import SILENT, TOO_SHORT, plan_chunks
from neuromill.tokenizers.spike_vocabulary import (
    CHANNELS_PER_PATCH,
    HORIZON_BINS,
    MAX_RETURN,
    N_SLOTS,
    VOCABULARY,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
    from neuromill.tokenizers.spike_chunks import ChunkPlan

DUMMY_BIN = 100


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Which unit is which channel of which patch.

    Attributes
    ----------
    columns
        int64 [patch, 32]: index of the unit, ``n_units`` for padding.
    channels
        uint8 [patch]: real channels.
    """

    columns: NDArray[np.int64]
    channels: NDArray[np.uint8]

    @classmethod
    def of(cls, arrays: Sequence[str]) -> Self:
        """Patches of units on these arrays: each array by itself, in the order in which they first occur.

        Raises
        ------
        RecordingError
            ``no_usable_channels`` without units, ``too_large`` where the vocabulary has too few slots.
        """
        if not arrays:
            raise RecordingError(
                FailureCode.NO_USABLE_CHANNELS, "there is no unit to make tokens of", next_step="leave it out"
            )
        names = np.array(arrays)
        groups = [np.flatnonzero(names == name) for name in dict.fromkeys(arrays)]
        padded = [np.pad(group, (0, -len(group) % CHANNELS_PER_PATCH), constant_values=len(arrays)) for group in groups]
        columns = np.concatenate(padded).reshape(-1, CHANNELS_PER_PATCH)
        if len(columns) > VOCABULARY.n_patches:
            raise RecordingError(
                FailureCode.TOO_LARGE,
                f"{len(arrays)} units on {len(groups)} arrays fill {len(columns)} patches of {CHANNELS_PER_PATCH}; "
                f"the vocabulary of NDT3 has slots for {VOCABULARY.n_patches}",
                next_step="choose fewer units with `keep` in the card's `spikes.units`",
            )
        return cls(columns, (columns < len(arrays)).sum(axis=1).astype(np.uint8))

    def fill(self, counts: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Counts [time, unit] as uint8 [time, patch, 32]; padding is 0."""
        wide = np.zeros((len(counts), counts.shape[1] + 1), np.uint8)
        wide[:, :-1] = counts
        filled: NDArray[np.uint8] = wide[:, self.columns]
        return filled

    def empty(self, patches: NDArray[np.uint8], n_units: int) -> NDArray[np.uint8]:
        """Inverse of :meth:`fill`: uint8 [time, unit]."""
        counts = np.zeros((len(patches), n_units + 1), np.uint8)
        counts[:, self.columns] = patches
        return counts[:, :-1]


@dataclass(frozen=True, slots=True, eq=False)
class Untokenized:
    """What tokens say of a recording.

    Attributes
    ----------
    counts
        uint8 [time, unit]; 0 outside chunks.
    covariates
        float32 [time, covariate], normalised; NaN outside chunks and where not valid.
    covered
        bool [time]: bins that lie in a chunk.
    """

    counts: NDArray[np.uint8]
    covariates: NDArray[np.float32]
    covered: NDArray[np.bool_]


def tokenize_spikes(
    config: Ndt3TokenizerConfig,
    counts: NDArray[np.uint8],
    arrays: Sequence[str],
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    scale: NDArray[np.float32],
    segment: NDArray[np.int32],
    *,
    trials: NDArray[np.bool_] | None = None,
    constraints: NDArray[np.floating] | None = None,
    rewards: NDArray[np.integer] | None = None,
    chunks: ChunkPlan | None = None,
) -> tuple[SpikeTokens, NDArray[np.uint8]]:
    """Tokens of all chunks that are kept, and the real channels of each patch, uint8 [patch] (NDT3 paper's code).

    Parameters
    ----------
    counts
        uint8 [time, unit].
    arrays
        Array of each unit; units of one array share patches.
    values, valid
        float32 and bool [time, covariate]: covariates in their own units, and whether they count. NaN never counts.
    scale
        float32 [covariate]: values are divided by it and clipped to [-1, 1].
    segment
        int32 [time], -1 where not observed.
    trials
        bool [time], True inside successful trials; only read with ``covariates_in: trials``.
    constraints
        [time, 3, covariate] in [0, 1]: 1 - brain control, active assist, passive assist. None is native control.
    rewards
        [time], 1 in the last bin of a rewarded trial. None gives each chunk one dummy return token.
    chunks
        Of :func:`chunks_of` with the same arguments, where the caller wants to know what was left out; None plans.

    Raises
    ------
    RecordingError
        No units, too many units or covariates for the vocabulary, a scale that is no positive number, no trials to go
        by, or no chunk is left.
    """
    patches = Patches.of(arrays)
    normalised = _normalised(values, scale)
    plan = plan_chunks(config, counts, normalised, segment) if chunks is None else chunks
    _check_not_empty(plan)
    rows, places = plan.rows(), _Places.of(plan)
    counting = _counting(config, valid & np.isfinite(normalised), trials)
    tokens = _assembled(
        plan,
        (
            _spike_part(patches.fill(counts[rows]), places),
            _covariate_part(config, normalised[rows], counting[rows], places, len(plan)),
            _constraint_part(None if constraints is None else constraints[rows], values.shape[1], places),
            _return_part(None if rewards is None else _returns(rewards)[rows], places),
        ),
    )
    return tokens, patches.channels


def chunks_of(
    config: Ndt3TokenizerConfig,
    counts: NDArray[np.uint8],
    values: NDArray[np.float32],
    scale: NDArray[np.float32],
    segment: NDArray[np.int32],
) -> ChunkPlan:
    """Plan the chunks that :func:`tokenize_spikes` makes of a recording, with what it leaves out and why.

    Shapes, dtypes and units are those of its arguments.

    Raises
    ------
    RecordingError
        ``too_large`` (more covariates than the vocabulary has slots), ``non_finite`` (a scale is no positive number).
    """
    return plan_chunks(config, counts, _normalised(values, scale), segment)


def untokenize(tokens: SpikeTokens, arrays: Sequence[str], n_times: int, n_covariates: int) -> Untokenized:
    """Counts and normalised covariates of the bins that lie in chunks; the inverse of :func:`tokenize_spikes`."""
    patches = Patches.of(arrays)
    chunk = np.repeat(np.arange(tokens.n_chunks), np.diff(tokens.chunk_tokens))
    times = tokens.chunk_start_bins[chunk] + tokens.bins
    real = tokens.bins < tokens.chunk_n_bins[chunk]  # not the published dummy behind the last bin
    spikes, behaviour = tokens.kinds == TokenKind.SPIKE, tokens.kinds == TokenKind.COVARIATE
    filled = np.zeros((n_times, len(patches.channels), CHANNELS_PER_PATCH), np.uint8)
    filled[times[spikes], tokens.slots[spikes].astype(np.int64) - VOCABULARY.spike] = tokens.patches
    covariates = np.full((n_times, n_covariates), np.nan, np.float32)
    shown = tokens.covariate_valid & real[behaviour]
    places = times[behaviour][shown], tokens.slots[behaviour][shown].astype(np.int64) - VOCABULARY.covariate
    covariates[places] = tokens.covariates[shown]
    covered = np.zeros(n_times, bool)
    covered[times[spikes]] = True
    return Untokenized(patches.empty(filled, len(arrays)), covariates, covered)


def return_to_go(rewards: NDArray[np.integer], horizon: int = HORIZON_BINS) -> NDArray[np.int64]:
    """Rewards of the current and the following ``horizon - 1`` bins: int64 [time]."""
    total = np.concatenate(([0], np.cumsum(rewards, dtype=np.int64)))
    first = np.arange(len(rewards))
    return np.asarray(total[np.minimum(first + horizon, len(rewards))] - total[first])


def change_points(constraints: NDArray[np.floating], first_bins: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows of ``constraints`` [row, 3, covariate] that get tokens: bool [row].

    These are the first bins of chunks, marked in ``first_bins`` [row], and all in which any component changes.
    """
    changes = first_bins.copy()
    changes[1:] |= (np.diff(constraints, axis=0) != 0).any(axis=(1, 2))
    return changes


class _Places(NamedTuple):
    """Chunk and bin within it, int64 [row] each."""

    chunk: NDArray[np.int64]
    bin: NDArray[np.int64]

    @classmethod
    def of(cls, plan: ChunkPlan) -> Self:
        chunk = np.repeat(np.arange(len(plan)), plan.n_bins)
        return cls(chunk, plan.rows() - plan.starts[chunk])

    def at(self, rows: NDArray[np.bool_]) -> _Places:
        return _Places(self.chunk[rows], self.bin[rows])

    def with_slots(self, first: int, n: int) -> tuple[_Places, NDArray[np.int64]]:
        """``n`` tokens per row, at the slots from ``first`` on."""
        repeated = _Places(np.repeat(self.chunk, n), np.repeat(self.bin, n))
        return repeated, np.tile(np.arange(first, first + n), len(self.bin))


class _Part(NamedTuple):
    """Tokens of one kind in their order, with what they hold."""

    kind: TokenKind
    places: _Places
    slots: NDArray[np.int64]
    contents: tuple[NDArray[np.generic], ...]


def _spike_part(filled: NDArray[np.uint8], places: _Places) -> _Part:
    tokens, slots = places.with_slots(VOCABULARY.spike, filled.shape[1])
    return _Part(TokenKind.SPIKE, tokens, slots, (filled.reshape(-1, CHANNELS_PER_PATCH),))


def _covariate_part(
    config: Ndt3TokenizerConfig,
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    places: _Places,
    n_chunks: int,
) -> _Part:
    if config.parity and not values.shape[1]:
        behind = np.full(n_chunks, max(DUMMY_BIN, config.chunk_bins))
        dummies, slots = _Places(np.arange(n_chunks), behind).with_slots(VOCABULARY.covariate, 1)
        return _Part(TokenKind.COVARIATE, dummies, slots, (np.zeros(n_chunks, np.float32), np.ones(n_chunks, bool)))
    tokens, slots = places.with_slots(VOCABULARY.covariate, values.shape[1])
    shown = np.where(valid, values, np.float32(0)).ravel()
    return _Part(TokenKind.COVARIATE, tokens, slots, (shown, valid.ravel()))


def _constraint_part(constraints: NDArray[np.floating] | None, n_covariates: int, places: _Places) -> _Part:
    first_bins = places.bin == 0
    if constraints is None:
        emitted, shown = first_bins, np.zeros((int(first_bins.sum()), 3, n_covariates), np.float16)
    else:
        _check_constraints(constraints)
        emitted = change_points(constraints, first_bins)
        shown = constraints[emitted].astype(np.float16)
    tokens, slots = places.at(emitted).with_slots(VOCABULARY.constraint, n_covariates)
    return _Part(TokenKind.CONSTRAINT, tokens, slots, (shown.transpose(0, 2, 1).reshape(-1, 3),))


def _return_part(returns: NDArray[np.uint8] | None, places: _Places) -> _Part:
    if returns is None:
        places = places.at(places.bin == 0)
        returns = np.zeros((len(places.bin), 2), np.uint8)
    tokens, slots = places.with_slots(VOCABULARY.return_, 1)
    return _Part(TokenKind.RETURN, tokens, slots, (returns,))


def _returns(rewards: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return-to-go and reward, both shifted by one: uint8 [time, 2]."""
    pairs = (np.minimum(return_to_go(rewards), MAX_RETURN), np.clip(rewards, 0, 1))
    return (np.stack(pairs, axis=1) + 1).astype(np.uint8)


def _assembled(plan: ChunkPlan, parts: tuple[_Part, _Part, _Part, _Part]) -> SpikeTokens:
    """Sort the tokens of all kinds into one sequence; parts come in the order of ``TokenKind``."""
    chunk = np.concatenate([part.places.chunk for part in parts])
    bins = np.concatenate([part.places.bin for part in parts])
    slots = np.concatenate([part.slots for part in parts])
    kinds = np.repeat(np.array([part.kind for part in parts], np.uint8), [len(part.slots) for part in parts])
    keys_per_chunk = N_SLOTS * (int(bins.max()) + 1)
    order = np.argsort(chunk * keys_per_chunk + N_SLOTS * bins + slots, kind="stable")
    ends = np.arange(1, len(plan) + 1)
    contents = [np.searchsorted(part.places.chunk, np.append(0, ends)) for part in parts]
    spikes, covariates, constraints, returns = (part.contents for part in parts)
    return SpikeTokens(
        slots=slots[order].astype(np.uint8),
        bins=bins[order].astype(np.uint16),
        kinds=kinds[order],
        patches=np.asarray(spikes[0], np.uint8),
        covariates=np.asarray(covariates[0], np.float32),
        covariate_valid=np.asarray(covariates[1], np.bool_),
        constraints=np.asarray(constraints[0], np.float16),
        returns=np.asarray(returns[0], np.uint8),
        chunk_tokens=np.sum(contents, axis=0),
        chunk_contents=np.stack(contents, axis=1),
        chunk_start_bins=plan.starts.astype(np.int64),
        chunk_n_bins=plan.n_bins.astype(np.uint16),
    )


def _normalised(values: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values over their scale, clipped to [-1, 1]; NaN where not finite."""
    if values.shape[1] > VOCABULARY.n_covariates:
        raise RecordingError(
            FailureCode.TOO_LARGE,
            f"{values.shape[1]} covariates; the vocabulary of NDT3 has slots for {VOCABULARY.n_covariates}",
            next_step="choose the axes to keep in the card's `spikes.covariates`",
        )
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise RecordingError(
            FailureCode.NON_FINITE, "the scale of a covariate is not a positive number", next_step="prepare it again"
        )
    finite = np.where(np.isfinite(values), values, np.float32(np.nan))
    return np.clip(finite / scale, -1, 1).astype(np.float32)


def _counting(
    config: Ndt3TokenizerConfig, valid: NDArray[np.bool_], trials: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    if config.covariates_in == "observed":
        return valid
    if trials is None:
        raise RecordingError(
            FailureCode.MISSING_FACT,
            "`covariates_in: trials`, and the recording has no trials",
            next_step="set `covariates_in: observed`, or name the trials in the card's `spikes` section",
        )
    return valid & trials[:, None]


def _check_constraints(constraints: NDArray[np.floating]) -> None:
    if not ((constraints >= 0) & (constraints <= 1)).all():
        raise RecordingError(FailureCode.NON_FINITE, "constraints are not numbers between 0 and 1")


def _check_not_empty(plan: ChunkPlan) -> None:
    if len(plan):
        return
    codes = {TOO_SHORT: FailureCode.TOO_SHORT, SILENT: FailureCode.NO_SPIKES}
    reason = max(plan.left_out, key=lambda name: plan.left_out[name]) if plan.left_out else TOO_SHORT
    raise RecordingError(
        codes.get(reason, FailureCode.NO_COVARIATES),
        f"no chunk is left: {dict(plan.left_out)} were left out" if plan.left_out else "no bin was observed",
        next_step="leave it out, or set `sanity_rule: false` of the tokenizer",
    )
