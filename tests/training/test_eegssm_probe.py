"""Metrics against direct computation; logistic regression and fine-tuning against what they must find."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize

from neuromill.models.eegssm import EEGSSM
from neuromill.models.eegssm_config import EEGSSMConfig
from neuromill.training.probe_config import FineTuneConfig, LabelConfig
from neuromill.training.probe_learning import class_weights, fine_tune, fit_logistic
from neuromill.training.probe_metrics import auroc, balanced_accuracy, cohen_kappa, score

PAIRS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30)
SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30)


@given(PAIRS)
def test_balanced_accuracy_and_kappa_are_what_counting_gives(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = (np.array(one, np.int64) for one in zip(*pairs, strict=True))
    recalls = [np.mean([p == k for label, p in pairs if label == k]) for k in {label for label, _ in pairs}]
    assert balanced_accuracy(labels, predicted, 3) == pytest.approx(np.mean(recalls))
    agreed = np.mean([label == p for label, p in pairs])
    by_chance = np.mean([label == p for label, p in itertools.product(labels.tolist(), predicted.tolist())])
    expected = 0.0 if by_chance == 1 else (agreed - by_chance) / (1 - by_chance)
    assert cohen_kappa(labels, predicted, 3) == pytest.approx(expected)


@given(SCORED)
def test_auroc_is_the_share_of_pairs_in_the_right_order(rows: list[tuple[bool, int]]) -> None:
    positive, scores = np.array([p for p, _ in rows]), np.array([s for _, s in rows], float)
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    found = auroc(positive, scores)
    assert (found == pytest.approx(np.mean(pairs))) if pairs else np.isnan(found)


def test_scores_of_known_predictions() -> None:
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    found = score(labels, probabilities)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert (found.accuracy, found.auroc) == (0.75, 1.0)
    assert found.kappa == pytest.approx((0.75 - 0.5) / 0.5)
    constant = score(labels, np.tile([0.7, 0.3], (4, 1)))
    assert (constant.balanced_accuracy, constant.kappa, constant.auroc) == (0.5, 0.0, 0.5)
    three = score(np.array([0, 1, 2]), np.eye(3))
    assert (three.balanced_accuracy, three.kappa, three.auroc) == (1.0, 1.0, 1.0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), n_classes=st.integers(2, 4), l2=st.sampled_from([1e-2, 1.0]))
def test_logistic_regression_finds_the_minimum_that_scipy_finds(seed: int, n_classes: int, l2: float) -> None:
    rng = np.random.default_rng(seed)
    features = (rng.standard_normal((40, 3)) * [1, 10, 1e-3] + [0, 5, 1]).astype(np.float32)
    labels = np.concatenate((np.arange(n_classes), rng.integers(0, n_classes, 40 - n_classes)))
    found = fit_logistic(features, labels, n_classes, l2)
    x = (features.astype(float) - features.astype(float).mean(0)) / features.astype(float).std(0)
    weights = 1 / np.bincount(labels)[labels]

    def loss(flat: np.ndarray) -> float:
        weight, bias = flat[: 3 * n_classes].reshape(3, n_classes), flat[3 * n_classes :]
        z = x @ weight + bias
        nats = np.log(np.exp(z).sum(1)) - z[np.arange(40), labels]
        return float((weights * nats).sum() / weights.sum() + l2 / 2 * (weight**2).sum())

    ours = np.concatenate((found.weight.numpy().ravel(), found.bias.numpy()))
    best = minimize(loss, np.zeros_like(ours), method="BFGS", options={"gtol": 1e-7})
    assert loss(ours) == pytest.approx(best.fun, abs=1e-6)
    np.testing.assert_allclose(found.probabilities(features).sum(1), 1)


def test_a_feature_that_never_changes_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20, 2)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.int64)
    constant = np.concatenate((features, np.full((20, 1), 3, np.float32)), axis=1)
    with_it = fit_logistic(constant, labels, 2, 0.1).probabilities(constant)
    np.testing.assert_allclose(with_it, fit_logistic(features, labels, 2, 0.1).probabilities(features), atol=1e-6)


def test_rare_classes_weigh_as_much_as_common_ones() -> None:
    labels = torch.tensor([0] * 9 + [2])
    weights = class_weights(labels, 3)
    assert weights[1] == 0
    assert 9 * weights[0] == pytest.approx(weights[2].item())
    assert weights[labels].mean() == pytest.approx(1)


@pytest.mark.parametrize("head", ["mean", "flatten"])
def test_fine_tuning_learns_and_repeats_itself(head: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    signals = 0.1 * rng.standard_normal((24, 2, 100)).astype(np.float32)
    signals += (labels[:, None, None] * np.sin(np.arange(100))).astype(np.float32)
    config = FineTuneConfig(epochs=15, batch_size=8, lr=3e-3, head=head)

    def whole(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(signals[rows]), torch.ones(len(rows), 2, 2, dtype=torch.bool)

    def tuned() -> EEGSSM:
        torch.manual_seed(0)
        model = EEGSSM(EEGSSMConfig(
            patch_size=50, res_channels=8, skip_channels=8, out_channels=8, num_res_layers=1, pos_kernel=(3, 3),
            s4_lmax=16, n_outputs=2, head=head, n_chans=2, n_times=100,
        ))  # fmt: skip
        rows = np.arange(16)
        fine_tune(model, whole, rows, labels[rows], 2, config, seed=1)
        return model

    first, second = tuned(), tuned()
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert not first.training
    with torch.no_grad():
        predicted = first(torch.from_numpy(signals[16:])).argmax(1).numpy()
    assert (predicted == labels[16:]).all()


def test_labels_that_make_no_sense() -> None:
    with pytest.raises(ValidationError, match="only with them"):
        LabelConfig(source="events", column="trial_type")
    with pytest.raises(ValidationError, match="only with them"):
        LabelConfig(source="entity")
    with pytest.raises(ValidationError, match="two different classes"):
        LabelConfig(source="events", classes=("T1", "T1"))
