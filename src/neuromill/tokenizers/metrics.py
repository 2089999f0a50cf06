"""How well a tokenizer reconstructs, and how it uses its codebooks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neuromill.records import ConfigError
from neuromill.tokenizers.usage import Sequences, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from neuromill.tokenizers.protocol import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """Means over rows that are not silent, in the normalised domain.

    Attributes
    ----------
    correlation
        Pearson correlation of a row and its reconstruction. A constant prediction has none (0).
    si_sdr_db
        Scale-invariant signal-to-distortion ratio, dB.
    mse, baseline_mse
        Mean squared error of the reconstruction, and of predicting each row's mean.
    usage
        Codes seen.
    n_rows
        Rows that counted.
    distinct
        Per level, how many different code sequences the rows got.
    """

    correlation: float
    si_sdr_db: float
    mse: float
    baseline_mse: float
    usage: Usage
    n_rows: int
    distinct: tuple[int, ...] = ()

    def summary(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "correlation": round(self.correlation, 4),
            "si_sdr_db": round(self.si_sdr_db, 3),
            "mse": round(self.mse, 5),
            "baseline_mse": round(self.baseline_mse, 5),
            "n_rows": self.n_rows,
            "distinct_sequences": list(self.distinct),
            "usage": self.usage.summary(),
        }


def evaluate(tokenizer: Tokenizer, windows: Iterable[Tensor]) -> Quality:
    """Encode and decode held-out windows in physical units, as ``Tokenizer.round_trip`` takes them.

    Parameters
    ----------
    windows
        float32 [row, time] or [window, channel, time] each.

    Raises
    ------
    ConfigError
        If no row carries a signal.
    """
    usage = Usage.empty(tokenizer.n_quantizers, tokenizer.codebook_size)
    sequences = Sequences(tokenizer.n_quantizers)
    rows = [np.zeros((0, 4))]
    for window in windows:
        trip = tokenizer.round_trip(window)
        codes = trip.codes.cpu().numpy()
        if len(codes):
            usage += Usage.of(codes, tokenizer.codebook_size)
            sequences.add(codes)
        rows.append(row_scores(trip.output, trip.target).cpu().numpy())
    scores = np.concatenate(rows)
    if len(scores) == 0:
        raise ConfigError("no row with a signal to evaluate on", next_step="give windows of good channels")
    correlation, si_sdr, mse, baseline = (float(v) for v in scores.mean(axis=0))
    return Quality(correlation, si_sdr, mse, baseline, usage, len(scores), sequences.distinct)


def row_scores(output: Tensor, target: Tensor) -> Tensor:
    """Correlation, SI-SDR in dB, squared error, squared error of the mean: float64 [row, 4]."""
    output, target = output.double(), target.double()
    return torch.stack(
        [
            correlation(output, target),
            si_sdr_db(output, target),
            (output - target).square().mean(dim=-1),
            _centred(target).square().mean(dim=-1),
        ],
        dim=1,
    )


def correlation(output: Tensor, target: Tensor) -> Tensor:
    """Pearson correlation of floats [..., time] along the last axis: [...]; 0 where one is constant."""
    a, b = _centred(output), _centred(target)
    norms = a.norm(dim=-1) * b.norm(dim=-1)
    return torch.where(norms > 0, (a * b).sum(dim=-1) / norms.clamp_min(math.ulp(0.0)), 0.0)


def si_sdr_db(output: Tensor, target: Tensor, floor_db: float = -100.0) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB of floats [..., time] less their means: [...].

    It is bounded to +-``floor_db``.
    """
    r2 = correlation(output, target).square()
    low = 10 ** (floor_db / 10)
    return 10 * torch.log10(r2.clamp_min(low) / (1 - r2).clamp_min(low))


def _centred(x: Tensor) -> Tensor:
    return x - x.mean(dim=-1, keepdim=True)
