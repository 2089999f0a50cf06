"""The two ways a probe learns: logistic regression on frozen features, and fine-tuning of all weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from neuromill.training.schedule import step_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from neuromill.models.eegssm import EEGSSM
    from neuromill.training.probe_config import FineTuneConfig

MAX_ITERATIONS = 500
FLAT = 1e-9  # a feature without spread is left as it is


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """Multinomial logistic regression on standardised features; weight float64 [feature, class]."""

    mean: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """float32 [example, feature] -> float64 [example, class]."""
        x = (torch.from_numpy(features).double() - self.mean) / self.spread
        return (x @ self.weight + self.bias).softmax(dim=1).numpy()


def fit_logistic(features: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int, l2: float) -> Logistic:
    """Fit by L-BFGS in float64 from zero: convex, so the start and a seed do not matter.

    Classes weigh the same however often they occur. Minimised: mean cross-entropy + l2 / 2 * squared weights (the bias
    is free). ``features`` are float32 [example, feature], ``labels`` int64 [example] from 0 to ``n_classes`` - 1.
    """
    x, y = torch.from_numpy(features).double(), torch.from_numpy(labels)
    mean, spread = x.mean(dim=0), x.std(dim=0, unbiased=False)
    spread = torch.where(spread > FLAT, spread, 1.0)
    x = (x - mean) / spread
    weights = class_weights(y, n_classes).double()
    weight = torch.zeros(x.shape[1], n_classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(n_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(x @ weight + bias, y, weights) + l2 / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return Logistic(mean, spread, weight.detach(), bias.detach())


def class_weights(labels: Tensor, n_classes: int) -> Tensor:
    """Inverse frequencies of labels int64 [example]: float32 [class], mean 1 over the examples.

    A class that does not occur has 0.
    """
    counts = torch.bincount(labels, minlength=n_classes)
    present = counts > 0
    return torch.where(present, len(labels) / (counts.clamp(min=1) * present.sum()), 0.0).float()


def fine_tune(
    model: EEGSSM,
    read: Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]],
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    n_classes: int,
    config: FineTuneConfig,
    seed: int,
) -> None:
    """Train all weights of a model with a classifier, in place.

    Parameters
    ----------
    read
        Gives the signal of examples, float32 [batch, channel, time], and which of their patches are fit for use, bool
        [batch, channel, patch]: the mean head averages those.
    rows, labels
        int64 [example] each: examples to learn from, and the label of each.
    """
    device = next(model.parameters()).device
    weights = class_weights(torch.from_numpy(labels), n_classes).to(device)
    learned = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=config.lr, weight_decay=config.weight_decay)
    model.train()
    for step, batch in enumerate(_batches(len(rows), config, seed)):
        torch.manual_seed(step_seed(seed, step, 0))
        target = torch.from_numpy(labels[batch]).to(device)
        x, usable = (one.to(device) for one in read(rows[batch]))
        logits = model(x, usable=usable)
        loss = functional.cross_entropy(logits, target, weights, label_smoothing=config.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, config.clip_norm)
        optimizer.step()
    model.eval()


def _batches(n: int, config: FineTuneConfig, seed: int) -> Iterator[NDArray[np.int64]]:
    for epoch in range(config.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(n)
        yield from (order[first : first + config.batch_size] for first in range(0, n, config.batch_size))
