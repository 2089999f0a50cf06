"""Masked prediction of several code streams: what one batch gave, how it adds up, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from neuromill.training.metrics import DIGITS, ScoreRow, shares_of, sum_over_ranks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_fabric import Fabric
    from torch import Tensor

    from neuromill.training.coded_loader import CodedBatch


@dataclass(frozen=True, slots=True, eq=False)
class CodesOutcome:
    """What one batch gave.

    Attributes
    ----------
    loss
        Sum over the quantizers of the mean cross-entropy of the hidden patches, nats (with gradient).
    losses
        float64 [quantizer]: cross-entropies, summed over the hidden patches.
    correct
        float64 [dataset, quantizer]: hidden patches whose most likely code was right.
    positions
        float64 [dataset]: hidden patches.
    counts
        float64 [quantizer, code]: how often each code was to be predicted.
    """

    loss: Tensor
    losses: Tensor
    correct: Tensor
    positions: Tensor
    counts: Tensor


def code_losses(logits: Sequence[Tensor], batch: CodedBatch, n_datasets: int) -> CodesOutcome:
    """Cross-entropies of hidden patches.

    ``logits`` are one float [hidden, code] per quantizer, rows in row-major order of (window, channel, patch). A batch
    without a hidden patch has loss 0 and zero gradients.
    """
    targets = batch.codes[batch.hidden].long()  # [hidden, quantizer], the same order
    owners = batch.datasets[:, None, None].expand_as(batch.hidden)[batch.hidden]
    count = max(len(targets), 1)
    sums = torch.stack(
        [
            functional.cross_entropy(one.float(), target, reduction="sum")
            for one, target in zip(logits, targets.unbind(1), strict=True)
        ]
    )
    loss = sums.sum() / count
    with torch.no_grad():
        right = torch.stack([one.argmax(dim=-1) for one in logits], dim=1) == targets
        return CodesOutcome(
            loss=loss,
            losses=sums.double(),
            correct=right.new_zeros(n_datasets, len(sums), dtype=torch.float64).index_add_(0, owners, right.double()),
            positions=torch.bincount(owners, minlength=n_datasets).double(),
            counts=torch.stack([_count(target, logits[0].shape[-1]) for target in targets.unbind(1)]),
        )


def _count(codes: Tensor, size: int) -> Tensor:
    return torch.bincount(codes, minlength=size).double()


@dataclass(frozen=True, slots=True)
class CodesScores(ScoreRow):
    """Loss and accuracy over some steps.

    Attributes
    ----------
    loss
        Sum of ``losses``; chance is the number of quantizers times ln of the number of codes (16.64 for 2 x 4,096).
    losses
        Mean cross-entropy of each quantizer over the hidden patches, nats.
    accuracy
        Mean of ``per_quantizer``.
    per_quantizer
        Share of the hidden patches whose code was predicted right, by quantizer.
    commonest
        What always naming the commonest code of these very patches would have had: an accuracy below it has learned
        nothing, above it something.
    per_dataset
        ``per_quantizer`` by data set; data sets that did not occur are left out.
    positions
        Hidden patches these numbers rest on.
    """

    loss: float
    losses: tuple[float, ...]
    accuracy: float
    per_quantizer: tuple[float, ...]
    commonest: tuple[float, ...]
    per_dataset: dict[str, tuple[float, ...]]
    positions: int


class CodesTally:
    """Adds up outcomes on the device; nothing waits for the device until :meth:`scores`."""

    def __init__(self, datasets: Sequence[str], n_quantizers: int, codebook_size: int, device: torch.device) -> None:
        self.datasets = datasets

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self._losses = zeros(n_quantizers)
        self._sums = zeros(len(datasets), 1 + n_quantizers)
        self._counts = zeros(n_quantizers, codebook_size)

    def add(self, outcome: CodesOutcome) -> None:
        """Count a batch."""
        self._losses += outcome.losses.detach()
        self._sums[:, 0] += outcome.positions
        self._sums[:, 1:] += outcome.correct
        self._counts += outcome.counts

    def counts(self, fabric: Fabric | None = None) -> Tensor:
        """Codes to be predicted so far, over all ranks: float64 [quantizer, code], on the CPU."""
        return sum_over_ranks(self._counts, fabric).cpu()

    def scores(self, fabric: Fabric | None = None) -> CodesScores:
        """Loss and accuracies so far, over all ranks."""
        parts = (self._losses, self._sums, self._counts)
        packed = sum_over_ranks(torch.cat([part.flatten() for part in parts]), fabric).cpu()
        split = packed.split([part.numel() for part in parts])
        losses, sums, counts = (one.reshape(part.shape) for one, part in zip(split, parts, strict=True))
        total = sums.sum(dim=0)
        n = max(total[0].item(), 1.0)
        each = tuple((losses / n).tolist())
        shares = shares_of(total)
        return CodesScores(
            loss=sum(each),
            losses=each,
            accuracy=sum(shares) / len(shares),
            per_quantizer=shares,
            commonest=tuple(round(value / n, DIGITS) for value in counts.amax(dim=1).tolist()),
            per_dataset={
                name: shares_of(row) for name, row in zip(self.datasets, sums, strict=True) if row[0].item() > 0
            },
            positions=int(total[0].item()),
        )


def frequency_baseline(training: Tensor, held_out: Tensor) -> dict[str, Any]:
    """What knowing how often each code occurs in training is worth on held-out patches.

    Parameters
    ----------
    training, held_out
        Counts [quantizer, code], integers or floats. Probabilities are (count + 1) / (sum + number of codes).

    Returns
    -------
    dict
        ``losses`` (nats) and ``per_quantizer`` (always naming the commonest training code), their sum and mean, and
        ``positions``.
    """
    smoothed = training.double() + 1
    surprise = -(smoothed / smoothed.sum(dim=1, keepdim=True)).log()
    n = held_out.sum(dim=1).clamp(min=1)
    losses = ((held_out * surprise).sum(dim=1) / n).tolist()
    right = (held_out.gather(1, training.argmax(dim=1, keepdim=True)).squeeze(1) / n).tolist()
    return {
        "name": "frequencies",
        "loss": sum(losses),
        "losses": losses,
        "accuracy": sum(right) / len(right),
        "per_quantizer": [round(value, DIGITS) for value in right],
        "positions": int(held_out[0].sum().item()),
    }
