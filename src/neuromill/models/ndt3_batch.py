"""Chunks of spike tokens side by side, as NDT3 takes them: slicing, cropping, padding. Order is never computed here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch

from neuromill.records import SpikeTokens, TokenKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

# The part of the vocabulary (version 1) that a model has to know; a test holds them to the tokenizer's.
N_SLOTS = 48
CHANNELS_PER_PATCH = 32
FIRST_SPIKE_SLOT = 18
FIRST_COVARIATE_SLOT = 29

TOKEN_BUDGET = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """One chunk of a recording.

    Attributes
    ----------
    tokens
        Exactly one chunk.
    patch_channels
        uint8 [patch]: real channels of each patch; the rest of its 32 is padding and has no loss.
    """

    tokens: SpikeTokens
    patch_channels: NDArray[np.uint8]

    @classmethod
    def of(cls, tokens: SpikeTokens, chunk: int, patch_channels: NDArray[np.uint8]) -> Self:
        """Chunk number ``chunk`` of a recording's tokens; its arrays are views.

        ``patch_channels`` is uint8 [patch], that of the recording.
        """
        return cls(chunk_of(tokens, chunk), patch_channels)

    def __len__(self) -> int:
        return len(self.tokens.slots)

    @property
    def n_bins(self) -> int:
        """Bins of the chunk."""
        return int(self.tokens.chunk_n_bins[0])


class CovariatePlaces(NamedTuple):
    """Where the covariate tokens of a batch belong: int64 [covariate token] each."""

    chunk: Tensor
    bin: Tensor
    dimension: Tensor


class SpikeTokenBatch(NamedTuple):
    """Chunks padded to one length. A named tuple, because wrappers (DDP, Fabric) look for tensors inside.

    Contents are those of all chunks one after the other, without padding; ``..._positions`` say where they go in the
    flattened [chunk x token].

    Attributes
    ----------
    slots, bins
        int64 [chunk, token]; slot 48 and bin 0 for padding, which is always last.
    mask
        bool [chunk, token], False for padding.
    n_bins
        int64 [chunk].
    patches, patch_channels, spike_positions
        uint8 [spike token, 32] counts, uint8 and int64 [spike token].
    covariates, covariate_valid, covariate_positions
        float32 normalised values, bool and int64 [covariate token].
    constraints, constraint_positions
        float32 [constraint token, 3] and int64 [constraint token].
    returns, return_positions
        uint8 [return token, 2] (return-to-go, reward) and int64 [return token].
    """

    slots: Tensor
    bins: Tensor
    mask: Tensor
    n_bins: Tensor
    patches: Tensor
    patch_channels: Tensor
    spike_positions: Tensor
    covariates: Tensor
    covariate_valid: Tensor
    covariate_positions: Tensor
    constraints: Tensor
    constraint_positions: Tensor
    returns: Tensor
    return_positions: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SpikeTokenBatch:
        """Copy to a device."""
        return SpikeTokenBatch(*(tensor.to(device, non_blocking=non_blocking) for tensor in self))

    def covariate_places(self) -> CovariatePlaces:
        """Chunk, bin and dimension of each covariate token."""
        where = self.covariate_positions
        dimension = self.slots.flatten()[where] - FIRST_COVARIATE_SLOT
        return CovariatePlaces(where // self.slots.shape[1], self.bins.flatten()[where], dimension)


def chunk_of(tokens: SpikeTokens, chunk: int) -> SpikeTokens:
    """Tokens of one chunk; its arrays are views."""
    first, last = tokens.chunk_tokens[chunk : chunk + 2]
    heads, tails = tokens.chunk_contents[chunk : chunk + 2]
    content = [slice(head, tail) for head, tail in zip(heads, tails, strict=True)]
    return SpikeTokens(
        slots=tokens.slots[first:last],
        bins=tokens.bins[first:last],
        kinds=tokens.kinds[first:last],
        patches=tokens.patches[content[TokenKind.SPIKE]],
        covariates=tokens.covariates[content[TokenKind.COVARIATE]],
        covariate_valid=tokens.covariate_valid[content[TokenKind.COVARIATE]],
        constraints=tokens.constraints[content[TokenKind.CONSTRAINT]],
        returns=tokens.returns[content[TokenKind.RETURN]],
        chunk_tokens=np.array([0, last - first]),
        chunk_contents=np.stack([np.zeros_like(heads), tails - heads]),
        chunk_start_bins=tokens.chunk_start_bins[chunk : chunk + 1],
        chunk_n_bins=tokens.chunk_n_bins[chunk : chunk + 1],
    )


def collate(chunks: Sequence[Chunk], *, n_tokens: int | None = None) -> SpikeTokenBatch:
    """Pad chunks to the longest of them, or to ``n_tokens``."""
    width = max(n_tokens or 0, *(len(chunk) for chunk in chunks)) if chunks else n_tokens or 0
    all_tokens = [chunk.tokens for chunk in chunks]

    def padded(rows: list[NDArray[np.integer]], fill: int) -> Tensor:
        out = np.full((len(rows), width), fill, np.int64)
        for place, row in zip(out, rows, strict=True):
            place[: len(row)] = row
        return torch.from_numpy(out)

    def joined(rows: list[NDArray[np.generic]]) -> Tensor:
        return torch.from_numpy(np.concatenate(rows))

    kinds = padded([t.kinds for t in all_tokens], len(TokenKind)).flatten()
    where = [(kinds == kind).nonzero().squeeze(1) for kind in TokenKind]
    slots = padded([t.slots for t in all_tokens], N_SLOTS)
    channels = [chunk.patch_channels[_patch_numbers(chunk.tokens)] for chunk in chunks]
    return SpikeTokenBatch(
        slots=slots,
        bins=padded([t.bins for t in all_tokens], 0),
        mask=slots != N_SLOTS,
        n_bins=torch.tensor([chunk.n_bins for chunk in chunks]),
        patches=joined([t.patches for t in all_tokens]),
        patch_channels=joined([*channels]),
        spike_positions=where[TokenKind.SPIKE],
        covariates=joined([t.covariates for t in all_tokens]),
        covariate_valid=joined([t.covariate_valid for t in all_tokens]),
        covariate_positions=where[TokenKind.COVARIATE],
        constraints=joined([t.constraints.astype(np.float32) for t in all_tokens]),
        constraint_positions=where[TokenKind.CONSTRAINT],
        returns=joined([t.returns for t in all_tokens]),
        return_positions=where[TokenKind.RETURN],
    )


def _patch_numbers(tokens: SpikeTokens) -> NDArray[np.uint8]:
    slots: NDArray[np.uint8] = tokens.slots[tokens.kinds == TokenKind.SPIKE]
    return slots - np.uint8(FIRST_SPIKE_SLOT)


def allowed_bins(
    n_patches: int, n_covariates: int, n_constraints: int, *, budget: int = TOKEN_BUDGET, max_bins: int = 100
) -> int:
    """Bins of a chunk that fit into a budget of tokens, counted as published: as if every bin had constraints."""
    per_bin = n_patches + 1 + 2 * n_covariates
    return min((budget - n_constraints) // per_bin, max_bins)


def crop(chunk: Chunk, start: int, n_bins: int) -> Chunk:
    """Bins ``start`` to ``start + n_bins`` of a chunk, counted from 0 again.

    Where no constraint is left, the latest earlier ones move to the first bin; so do returns.
    """
    tokens = chunk.tokens
    bins, n_kept = tokens.bins.astype(np.int64), min(n_bins, chunk.n_bins - start)
    outside = bins >= chunk.n_bins  # the published dummy covariate stands behind the last bin, in a crop as well
    for kind in (TokenKind.CONSTRAINT, TokenKind.RETURN):
        bins = _moved(bins, tokens.kinds == kind, start, start + n_kept)
    keep = outside | ((bins >= start) & (bins < start + n_kept))

    def kept(kind: TokenKind) -> NDArray[np.bool_]:
        of_kind: NDArray[np.bool_] = keep[tokens.kinds == kind]
        return of_kind

    new_bins = np.where(outside, bins, bins - start)[keep]
    contents = [int(kept(kind).sum()) for kind in TokenKind]
    order = np.argsort(N_SLOTS * new_bins + tokens.slots[keep], kind="stable")
    cropped = replace(
        tokens,
        slots=tokens.slots[keep][order],
        bins=new_bins[order].astype(np.uint16),
        kinds=tokens.kinds[keep][order],
        patches=tokens.patches[kept(TokenKind.SPIKE)],
        covariates=tokens.covariates[kept(TokenKind.COVARIATE)],
        covariate_valid=tokens.covariate_valid[kept(TokenKind.COVARIATE)],
        constraints=tokens.constraints[kept(TokenKind.CONSTRAINT)],
        returns=tokens.returns[kept(TokenKind.RETURN)],
        chunk_tokens=np.array([0, int(keep.sum())]),
        chunk_contents=np.array([[0] * len(TokenKind), contents]),
        chunk_start_bins=tokens.chunk_start_bins + start,
        chunk_n_bins=np.array([n_kept], np.uint16),
    )
    return Chunk(cropped, chunk.patch_channels)


def _moved(bins: NDArray[np.int64], of_kind: NDArray[np.bool_], start: int, stop: int) -> NDArray[np.int64]:
    earlier = of_kind & (bins < start)
    if (of_kind & (bins >= start) & (bins < stop)).any() or not earlier.any():
        return bins
    return np.where(earlier & (bins == bins[earlier].max()), start, bins)


def crop_to_budget(chunk: Chunk, draw: Callable[[int], int] | None = None, *, budget: int = TOKEN_BUDGET) -> Chunk:
    """Crop a chunk that is too wide for a budget of tokens; others come back as they are.

    Parameters
    ----------
    draw
        Gives a start below its argument, for training; None starts at the first bin, for validation.
    """
    n_bins = bins_within(chunk, budget)
    if n_bins >= chunk.n_bins:
        return chunk
    start = 0 if draw is None else draw(max(chunk.n_bins - n_bins, 1))
    return crop(chunk, start, n_bins)


def bins_within(chunk: Chunk, budget: int) -> int:
    """Bins that :func:`crop_to_budget` leaves of a chunk: at least one, which ``smallest_budget`` tokens hold."""
    n_constraints, n_covariates = _sizes(chunk.tokens)
    n_bins = allowed_bins(len(chunk.patch_channels), n_covariates, n_constraints, budget=budget, max_bins=chunk.n_bins)
    return max(n_bins, 1)


def smallest_budget(n_patches: int, n_covariates: int) -> int:
    """Tokens of one bin with everything in it; without covariates it may have a dummy."""
    return n_patches + 1 + 2 * max(n_covariates, 1)


def _sizes(tokens: SpikeTokens) -> tuple[int, int]:
    covariates = tokens.slots[tokens.kinds == TokenKind.COVARIATE]
    n_covariates = int(covariates.max()) - FIRST_COVARIATE_SLOT + 1 if len(covariates) else 0
    return len(tokens.constraints), n_covariates
