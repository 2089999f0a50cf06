"""Vector quantizer with unit codes that follow the mean direction of what they are assigned (CodeBrain paper, 1.3).

A count-free cousin of the codebook in ``quantizer.py``: every code that is hit moves by the same share towards the mean
direction of its vectors, however many they are. Ours adds what keeps it alive: revival, and counts over all ranks.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuromill.records import ConfigError
from neuromill.tokenizers.collectives import from_first_rank, sum_over_ranks
from neuromill.tokenizers.quantizer import draw, unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuromill.tokenizers.quantizer import Learning

CHUNK_PRODUCTS = 2**20
"""Cosines held at once: 4 MiB of float32, which stay in the cache between the product and the search."""


@dataclass(frozen=True, slots=True)
class Looked:
    """``vectors`` float32 [n, dim] (gradients pass straight through), ``codes`` int64 [n], ``commitment`` scalar."""

    vectors: Tensor
    codes: Tensor
    commitment: Tensor


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep matrix products in float32 whatever the process allows: a rounded cosine picks another code."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def nearest_unit(vectors: Tensor, rows: Tensor) -> Tensor:
    """Index of the row with the largest product, int64 [n]; the first one of equals.

    Parameters
    ----------
    vectors, rows
        float32 [n, dim] and [code, dim], of unit length where the nearest direction is meant. One matrix product per
        chunk of vectors; memory does not grow with n x code.
    """
    step = max(1, CHUNK_PRODUCTS // len(rows))
    columns = rows.t().contiguous()
    with full_float32():
        if vectors.device.type == "cpu":
            return _nearest_on_cpu(vectors, columns, step)
        return torch.cat([(chunk @ columns).argmax(dim=-1) for chunk in vectors.split(step)])


def _nearest_on_cpu(vectors: Tensor, columns: Tensor, step: int) -> Tensor:
    """Search with as many threads as torch has, each with chunks of its own.

    One thread per product: OpenMP threads that share products this small wait for each other (two threads on two busy
    cores: 3.0 s for 16,384 vectors and 4096 codes where this takes 0.28).
    """
    codes = np.empty(len(vectors), np.int64)
    threads = torch.get_num_threads()
    length = -(-len(vectors) // (step * threads)) * step

    def search(first: int) -> None:
        some, found = vectors[first : first + length], codes[first : first + length]
        products = columns.new_empty(min(step, len(some)), columns.shape[1])
        for start in range(0, len(some), step):
            chunk = some[start : start + step]
            torch.mm(chunk, columns, out=products[: len(chunk)])
            # numpy's argmax takes 4 to 10 ms over 16,384 x 4096 values where torch 2.13's takes 60.
            products[: len(chunk)].numpy().argmax(axis=1, out=found[start : start + len(chunk)])

    if length >= len(vectors):
        search(0)
    else:
        # The number is one of each thread, and that of threads to come: the pool's have one, the others what they had.
        # A thread of somebody else that asks torch for the first time meanwhile has one as well: slower, same values.
        try:
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                list(pool.map(search, range(0, len(vectors), length)))
        finally:
            torch.set_num_threads(threads)
    return torch.from_numpy(codes)


def code_sums(vectors: Tensor, codes: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
    """Vectors per code [code] and their sums [code, dim], float32; the same bits on every run."""
    counts = torch.bincount(codes, minlength=n_codes).to(vectors.dtype)
    sums = vectors.new_zeros(n_codes, vectors.shape[1])
    if not vectors.is_cuda:
        return counts, sums.index_add_(0, codes, vectors)
    # On a GPU index_add_ adds in any order.
    step = max(1, CHUNK_PRODUCTS // n_codes)
    with full_float32():
        for some, where in zip(vectors.split(step), codes.split(step), strict=True):
            sums += functional.one_hot(where, n_codes).to(vectors.dtype).t() @ some
    return counts, sums


def spherical_kmeans(vectors: Tensor, n_codes: int, iterations: int, generator: torch.Generator) -> Tensor:
    """Unit centres float32 [code, dim] of unit vectors [n, dim] of all ranks; a centre that nothing chooses stays."""
    centres = from_first_rank(draw(vectors, n_codes, generator).clone())
    for _ in range(iterations):
        counts, sums = code_sums(vectors, nearest_unit(vectors, centres), n_codes)
        centres = torch.where(sum_over_ranks(counts)[:, None] > 0, unit(sum_over_ranks(sums)), centres)
    return centres


class NormEmaCodebook(nn.Module):
    """Unit rows learned by moving averages of directions.

    Buffers: ``embed`` float32 [code, dim], ``usage`` float32 [code] (moving count of assignments per step),
    ``inited`` [1].
    """

    embed: Tensor
    usage: Tensor
    inited: Tensor

    def __init__(self, n_codes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("embed", unit(torch.randn(n_codes, dim)))
        self.register_buffer("usage", torch.zeros(n_codes))
        self.register_buffer("inited", torch.zeros(1))

    def forward(self, z: Tensor, learning: Learning | None = None, valid: Tensor | None = None) -> Looked:
        """Quantize float32 [n, dim].

        Parameters
        ----------
        z
            Any length; only directions count.
        learning
            How the codes move after this pass; None leaves them alone.
        valid
            bool [n]: rows that count in the loss and move codes; None takes all.

        Raises
        ------
        ConfigError
            If the codes were never placed: random codes tokenize nothing.
        """
        directions = unit(z)
        if not bool(self.inited):
            raise ConfigError(
                "the codebook was never initialised", where="quantizer", next_step="fit the tokenizer, or load weights"
            )
        codes = nearest_unit(directions.detach(), self.embed)
        looked = functional.embedding(codes, self.embed).clone()
        errors = (directions - looked).square().mean(dim=-1)
        commitment = errors.mean() if valid is None else (errors * valid).sum() / valid.sum().clamp_min(1)
        if learning is None:
            return Looked(looked, codes, commitment)
        kept = slice(None) if valid is None else valid
        self.update(directions.detach()[kept], codes[kept], learning)
        return Looked(directions + (looked - directions).detach(), codes, commitment)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors of integer codes [...]: float32 [..., dim]."""
        return functional.embedding(codes.long(), self.embed)

    @torch.no_grad()
    def start(self, z: Tensor, learning: Learning, *, kmeans: bool) -> None:
        """Place the codes before the first training pass; does nothing later.

        Parameters
        ----------
        z
            float32 [n, dim], the whole first batch (of this rank).
        learning
            Generator and k-means iterations.
        kmeans
            False keeps the random unit rows.
        """
        if bool(self.inited):
            return
        if kmeans:
            directions = unit(z)
            n_codes = len(self.embed)
            self.embed.copy_(spherical_kmeans(directions, n_codes, learning.kmeans_iterations, learning.generator))
            counts, _ = code_sums(directions, nearest_unit(directions, self.embed), n_codes)
            self.usage.copy_(sum_over_ranks(counts))
        from_first_rank(self.embed)
        self.inited.fill_(1)

    @torch.no_grad()
    def update(self, directions: Tensor, codes: Tensor, learning: Learning) -> None:
        """Move every code that vectors of any rank were assigned to; replace dead ones.

        ``directions`` are unit vectors float32 [n, dim], ``codes`` int64 [n].
        """
        counts, sums = code_sums(directions, codes, len(self.embed))
        counts, sums = sum_over_ranks(counts), sum_over_ranks(sums)
        means = unit(sums / counts.clamp_min(1)[:, None])
        moved = unit(learning.decay * self.embed + (1 - learning.decay) * means)
        self.embed.copy_(torch.where(counts[:, None] > 0, moved, self.embed))
        self.usage.lerp_(counts, 1 - learning.decay)
        if learning.revival.enabled and learning.revive:
            self._revive(directions, float(counts.sum()), learning)

    def _revive(self, directions: Tensor, n_vectors: float, learning: Learning) -> None:
        floor = learning.revival.below_share * n_vectors / len(self.embed)
        dead = (self.usage < floor).nonzero().squeeze(-1)
        if len(dead) == 0 or len(directions) == 0:
            return
        self.embed[dead] = from_first_rank(draw(directions, len(dead), learning.generator).clone())
        # Twice the floor: an unused newcomer is dead again after ln 2 / (1 - decay) steps, about 70 at 0.99.
        self.usage[dead] = 2 * floor
