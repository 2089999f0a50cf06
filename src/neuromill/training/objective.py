"""Masked prediction of codes: loss, and the counts its accuracy is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from neuromill.models.criss_cross import masked_positions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from neuromill.training.loader import TokenBatch


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What one batch gave.

    Attributes
    ----------
    loss
        Cross-entropy in nats, mean over masked real positions and over quantizer levels (with gradient).
    correct
        float64 [dataset, quantizer]: positions whose most likely code was right.
    positions
        float64 [dataset]: masked real positions.
    """

    loss: Tensor
    correct: Tensor
    positions: Tensor


def masked_prediction(model: nn.Module, batch: TokenBatch, datasets: Tensor, n_datasets: int) -> Outcome:
    """Run the model on a batch; ``datasets`` int64 [batch] numbers the data set of each row."""
    chosen = masked_positions(batch.masked_frames, batch.sensors.mask, batch.codes.shape[1])
    logits = model(batch.codes, batch.sensors, batch.masked_frames, batch.frame_mask).float()
    targets = batch.codes.permute(0, 1, 3, 2)[chosen].long()
    loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    with torch.no_grad():
        right = (logits.argmax(dim=-1) == targets).double()
        owner = datasets[:, None, None].expand_as(chosen)[chosen]
        correct = right.new_zeros(n_datasets, targets.shape[1]).index_add_(0, owner, right)
        positions = torch.bincount(owner, minlength=n_datasets).double()
    return Outcome(loss, correct, positions)
