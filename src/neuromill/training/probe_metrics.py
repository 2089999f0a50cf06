"""Metrics of classification: balanced accuracy, Cohen's kappa, area under the ROC curve. Pure numpy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGITS = 6


@dataclass(frozen=True, slots=True)
class ProbeScores:
    """How well classes are told apart.

    Attributes
    ----------
    balanced_accuracy
        Mean of the classes' recalls; chance is 1 / number of classes.
    kappa
        Cohen's; chance is 0.
    auroc
        Two classes: area under the ROC curve of the second one. More: mean over the classes of one against the rest.
        Chance is 0.5.
    accuracy
        Share that is right.
    """

    balanced_accuracy: float
    kappa: float
    auroc: float
    accuracy: float

    def row(self) -> dict[str, Any]:
        """Rounded, by name."""
        return {name: round(value, DIGITS) for name, value in asdict(self).items()}


def score(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> ProbeScores:
    """Score probabilities float64 [example, class] against labels int64 [example].

    Classes that do not occur count nowhere.
    """
    predicted = probabilities.argmax(axis=1)
    n_classes = probabilities.shape[1]
    areas = [auroc(labels == k, probabilities[:, k]) for k in _positives(n_classes)]
    known = [area for area in areas if not np.isnan(area)]
    return ProbeScores(
        balanced_accuracy=balanced_accuracy(labels, predicted, n_classes),
        kappa=cohen_kappa(labels, predicted, n_classes),
        auroc=float(np.mean(known)) if known else float("nan"),
        accuracy=float((labels == predicted).mean()),
    )


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Counts int64 [label, prediction] of int64 [example] each."""
    return np.bincount(labels * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)


def balanced_accuracy(labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> float:
    """Mean over the classes that occur of the share of their examples that is recognised; int64 [example] each."""
    table = confusion(labels, predicted, n_classes)
    occurs = table.sum(axis=1) > 0
    return float((table.diagonal()[occurs] / table.sum(axis=1)[occurs]).mean())


def cohen_kappa(labels: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> float:
    """Agreement beyond what the frequencies of labels and predictions bring by themselves; 0 where those are all.

    ``labels`` and ``predicted`` are int64 [example].
    """
    table = confusion(labels, predicted, n_classes) / len(labels)
    by_chance = float(table.sum(axis=0) @ table.sum(axis=1))
    return 0.0 if by_chance == 1 else float((table.trace() - by_chance) / (1 - by_chance))


def auroc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Chance that a positive example has a higher score than a negative one; ties count half. NaN without both.

    ``positive`` is bool [example], ``scores`` float64 [example].
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]  # mean rank of tied scores, from 1
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def _positives(n_classes: int) -> range:
    return range(1, 2) if n_classes == 2 else range(n_classes)  # noqa: PLR2004 - of two, one decides
