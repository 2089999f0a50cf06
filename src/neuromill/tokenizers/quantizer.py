"""Residual vector quantizer with cosine search (BioCodec paper, residual VQ).

Buffers and projections carry the published names (``vq.layers.0._codebook.embed``). Search, moving averages and
revival run in float32 also under autocast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuromill.tokenizers.config import RevivalConfig

if TYPE_CHECKING:
    from neuromill.tokenizers.config import BioCodecConfig

LAPLACE_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class Learning:
    """How codebooks learn during one forward pass in training; nothing here is a module's hidden state.

    ``generator`` (CPU) draws the k-means start and the vectors that replace dead rows; ``revive`` says whether
    dead rows are replaced in this pass.
    """

    generator: torch.Generator
    decay: float = 0.99
    kmeans_iterations: int = 50
    revival: RevivalConfig = field(default_factory=RevivalConfig)
    revive: bool = True


@dataclass(frozen=True, slots=True)
class Quantized:
    """``latent`` [row, latent, frame], ``codes`` int64 [row, quantizer, frame], ``commitment`` scalar."""

    latent: Tensor
    codes: Tensor
    commitment: Tensor


def unit(x: Tensor) -> Tensor:
    """Divide floats [..., dim] by their Euclidean norm along the last axis; a zero vector stays zero."""
    return functional.normalize(x, dim=-1)


def nearest(vectors: Tensor, rows: Tensor) -> Tensor:
    """Index of the row [code, dim] with the largest cosine to each vector [n, dim]: int64 [n]; of equals the first."""
    return (unit(vectors) @ unit(rows).t()).argmax(dim=-1)


def draw(vectors: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """``n`` of the vectors [vector, dim] at random, [n, dim], distinct where there are enough."""
    n_vectors = len(vectors)
    if n_vectors >= n:
        chosen = torch.randperm(n_vectors, generator=generator)[:n]
    else:
        chosen = torch.randint(n_vectors, (n,), generator=generator)
    return vectors[chosen.to(vectors.device)]


def spherical_kmeans(
    vectors: Tensor, n_clusters: int, iterations: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Cluster unit vectors float32 [n, dim] by cosine: unit centres [cluster, dim] and counts [cluster], float32.

    A cluster that loses all its vectors keeps its centre.
    """
    centres = draw(vectors, n_clusters, generator)
    counts = vectors.new_zeros(n_clusters)
    for _ in range(iterations):
        counts, sums = count_and_sum(vectors, nearest(vectors, centres), n_clusters)
        centres = torch.where(counts[:, None] > 0, unit(sums), centres)
    return centres, counts


def count_and_sum(vectors: Tensor, codes: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
    """Vectors per code [code] and their sums [code, dim], float32: a matrix product, the same bits on every run."""
    onehot = vectors.new_zeros(len(vectors), n_codes).scatter_(1, codes[:, None], 1.0)
    return onehot.sum(dim=0), onehot.t() @ vectors


class CosineCodebook(nn.Module):
    """Unit rows learnt by exponential moving averages. All buffers are float32.

    Buffers: ``inited`` [1], ``cluster_size`` [code], ``embed`` [code, dim], ``embed_avg`` [code, dim].
    """

    inited: Tensor
    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor

    def __init__(self, n_codes: int, dim: int) -> None:
        super().__init__()
        rows = unit(torch.randn(n_codes, dim))
        self.register_buffer("inited", torch.zeros(1))
        self.register_buffer("cluster_size", torch.zeros(n_codes))
        self.register_buffer("embed", rows)
        self.register_buffer("embed_avg", rows.clone())

    def search(self, vectors: Tensor) -> Tensor:
        """float32 [..., dim] -> int64 [...]."""
        return nearest(vectors.reshape(-1, vectors.shape[-1]), self.embed).view(vectors.shape[:-1])

    @torch.no_grad()
    def start(self, vectors: Tensor, learning: Learning) -> None:
        """Place the rows by k-means on the first batch, float32 [n, dim]; does nothing later."""
        if bool(self.inited):
            return
        centres, counts = spherical_kmeans(
            unit(vectors), len(self.embed), learning.kmeans_iterations, learning.generator
        )
        self.embed.copy_(centres)
        self.embed_avg.copy_(centres * counts[:, None])
        self.cluster_size.copy_(counts)
        self.inited.fill_(1)

    @torch.no_grad()
    def update(self, vectors: Tensor, codes: Tensor, learning: Learning) -> None:
        """Move counts, sums and rows towards this batch (float32 [n, dim], int64 [n]); replace dead rows."""
        directions = unit(vectors)
        counts, sums = count_and_sum(directions, codes, len(self.embed))
        self.cluster_size.lerp_(counts, 1 - learning.decay)
        self.embed_avg.lerp_(sums, 1 - learning.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + LAPLACE_EPSILON) / (total + len(self.embed) * LAPLACE_EPSILON) * total
        self.embed.copy_(unit(self.embed_avg / smoothed[:, None]))
        if learning.revival.enabled and learning.revive:
            self._revive(directions, learning)

    def _revive(self, directions: Tensor, learning: Learning) -> None:
        floor = learning.revival.below_share * len(directions) / len(self.embed)
        dead = (self.cluster_size < floor).nonzero().squeeze(-1)
        if len(dead) == 0:
            return
        rows = draw(directions, len(dead), learning.generator)
        # Twice the floor: an unused newcomer is dead again after ln 2 / (1 - decay) steps, about 70 at 0.99.
        self.embed[dead] = rows
        self.embed_avg[dead] = rows * (2 * floor)
        self.cluster_size[dead] = 2 * floor


class Level(nn.Module):
    """One level: project down, look the nearest row up, project up."""

    def __init__(self, config: BioCodecConfig) -> None:
        super().__init__()
        self.project_in = nn.Linear(config.latent_dim, config.codebook_dim)
        self.project_out = nn.Linear(config.codebook_dim, config.latent_dim)
        self._codebook = CosineCodebook(config.codebook_size, config.codebook_dim)

    @property
    def codebook(self) -> CosineCodebook:
        """Rows and their moving averages."""
        return self._codebook

    def forward(self, residual: Tensor, learning: Learning | None) -> tuple[Tensor, Tensor, Tensor]:
        """float32 [row, frame, latent] -> quantized, same shape; codes int64 [row, frame]; commitment (unweighted)."""
        z = cast("Tensor", self.project_in(residual))
        flat = z.detach().reshape(-1, z.shape[-1])
        if learning is not None:
            self.codebook.start(flat, learning)
        codes = self.codebook.search(z.detach())
        looked_up = functional.embedding(codes, self.codebook.embed)
        commitment = functional.mse_loss(z, looked_up)
        out = cast("Tensor", self.project_out(z + (looked_up - z).detach() if learning is not None else looked_up))
        if learning is not None:
            self.codebook.update(flat, codes.reshape(-1), learning)
        return out, codes, commitment

    def decode(self, codes: Tensor) -> Tensor:
        """int64 [row, frame] -> float32 [row, frame, latent]."""
        return cast("Tensor", self.project_out(functional.embedding(codes, self.codebook.embed)))


class _Levels(nn.Module):
    """Holds the levels under the published name ``vq.layers``."""

    def __init__(self, config: BioCodecConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Level(config) for _ in range(config.n_quantizers))


class ResidualQuantizer(nn.Module):
    """Levels in a row, each quantizing what the ones before it left over."""

    def __init__(self, config: BioCodecConfig) -> None:
        super().__init__()
        self.vq = _Levels(config)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, coarsest first."""
        return tuple(cast("Level", layer) for layer in self.vq.layers)

    def forward(self, latent: Tensor, learning: Learning | None = None) -> Quantized:
        """Quantize [row, latent, frame] in float32.

        With ``learning`` the codebooks move and gradients pass straight through.
        """
        with torch.autocast(latent.device.type, enabled=False):
            residual = latent.float().transpose(1, 2)
            total = torch.zeros_like(residual)
            codes, commitments = [], []
            for level in self.levels:
                quantized, level_codes, commitment = level(residual, learning)
                residual = residual - quantized.detach()
                total = total + quantized
                codes.append(level_codes)
                commitments.append(commitment)
            return Quantized(total.transpose(1, 2), torch.stack(codes, dim=1), torch.stack(commitments).mean())

    def decode(self, codes: Tensor) -> Tensor:
        """Sum the levels' vectors: integer [row, quantizer, frame] -> float32 [row, latent, frame]."""
        with torch.autocast(codes.device.type, enabled=False):
            parts = [level.decode(codes[:, i].long()) for i, level in enumerate(self.levels)]
            return torch.stack(parts).sum(dim=0).transpose(1, 2)
