"""Scores of NDT3: its losses, and the R2 of the covariates it decodes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch

from neuromill.training.metrics import DIGITS, ScoreRow, sum_over_ranks
from neuromill.training.r2 import N_SUMS, r2_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_fabric import Fabric
    from numpy.typing import NDArray
    from torch import Tensor

    from neuromill.training.spike_source import SpikeTokenRecording

MAX_COVARIATES = 17  # slots of the vocabulary


class R2Report(NamedTuple):
    """R2 over all covariates, of each, and of each recording; None where nothing varies.

    Covariates of the same name are concatenated over recordings. All in normalised units (values over their scale).
    """

    r2: float | None
    r2_per_covariate: dict[str, float | None]
    r2_per_recording: dict[str, float | None]

    @classmethod
    def of(cls, sums: NDArray[np.float64], recordings: Sequence[SpikeTokenRecording]) -> Self:
        """Report from sums float64 [recording, covariate slot, 4] (see :mod:`neuromill.training.r2`)."""
        by_name: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(N_SUMS))
        seen = [(number, one) for number, one in enumerate(recordings) if sums[number, :, 0].any()]
        for number, one in seen:
            for dimension, name in enumerate(one.covariates):
                by_name[name] += sums[number, dimension]
        per_covariate = {name: _rounded(r2_of(total)) for name, total in by_name.items()}
        per_recording = {one.name: _rounded(r2_of(sums[number])) for number, one in seen}
        whole = r2_of(np.stack(list(by_name.values()))) if by_name else None
        return cls(_rounded(whole), per_covariate, per_recording)


@dataclass(frozen=True, slots=True)
class Ndt3Scores(ScoreRow):
    """Losses and R2 over some steps.

    Attributes
    ----------
    loss
        ``spike_weight * spike_loss + covariate_weight * covariate_loss``.
    spike_loss
        Nats per channel and bin; it cannot fall below the entropy of the softened target.
    covariate_loss
        Mean squared error of normalised values.
    r2, r2_per_covariate, r2_per_recording
        See :class:`R2Report`. In training they are those of the model with dropout, while it learns.
    n_spike, n_covariate
        Elements these numbers rest on.
    """

    loss: float
    spike_loss: float
    covariate_loss: float
    r2: float | None
    r2_per_covariate: dict[str, float | None]
    r2_per_recording: dict[str, float | None]
    n_spike: int
    n_covariate: int


@dataclass(frozen=True, slots=True, eq=False)
class Ndt3Outcome:
    """What one batch gave.

    Attributes
    ----------
    loss
        Weighted sum of the losses, with gradient.
    losses
        float64 [4]: spike loss times its elements, those elements, covariate loss times its elements, those.
    sums
        float64 [recording * covariate slot, 4] for the R2.
    """

    loss: Tensor
    losses: Tensor
    sums: Tensor


class Ndt3Tally:
    """Adds up outcomes on the device; nothing waits for the device until :meth:`scores`."""

    def __init__(
        self,
        recordings: Sequence[SpikeTokenRecording],
        weights: tuple[float, float],
        device: torch.device,
    ) -> None:
        self._recordings, self._weights = recordings, weights
        self._losses = torch.zeros(4, dtype=torch.float64, device=device)
        self._sums = torch.zeros(len(recordings) * MAX_COVARIATES, N_SUMS, dtype=torch.float64, device=device)

    def add(self, outcome: Ndt3Outcome) -> None:
        """Count a batch."""
        self._losses += outcome.losses
        self._sums += outcome.sums

    def scores(self, fabric: Fabric | None = None) -> Ndt3Scores:
        """Losses and R2 so far, over all ranks."""
        packed = sum_over_ranks(torch.cat((self._losses, self._sums.flatten())), fabric).cpu().numpy()
        spike_sum, n_spike, covariate_sum, n_covariate = packed[:4].tolist()
        spike, covariate = spike_sum / max(n_spike, 1), covariate_sum / max(n_covariate, 1)
        report = R2Report.of(packed[4:].reshape(-1, MAX_COVARIATES, N_SUMS), self._recordings)
        return Ndt3Scores(
            loss=self._weights[0] * spike + self._weights[1] * covariate,
            spike_loss=spike,
            covariate_loss=covariate,
            **report._asdict(),
            n_spike=int(n_spike),
            n_covariate=int(n_covariate),
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
