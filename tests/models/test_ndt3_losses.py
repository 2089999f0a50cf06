"""Targets and losses."""

import numpy as np
import pytest
import torch
from scipy import stats

from neuromill.models.ndt3 import Ndt3Predictions
from neuromill.models.ndt3_losses import ndt3_losses, poisson_targets, spike_losses
from support.ndt3 import batch_of, tiny


@pytest.mark.parametrize(
    ("count", "golden", "entropy"),
    [
        (0, [1, 0, 0, 0], 0),
        (1, [0.368, 0.368, 0.184, 0.061, 0.015], 1.305),
        (2, [0.135, 0.271, 0.271, 0.180, 0.090], 1.705),
    ],
)
def test_golden_targets(count: int, golden: list[float], entropy: float) -> None:
    row = poisson_targets()[count].double()
    assert row[: len(golden)].numpy() == pytest.approx(golden, abs=6e-4)
    assert torch.special.entr(row).sum().item() == pytest.approx(entropy, abs=6e-4)


def test_targets_are_truncated_poisson_distributions() -> None:
    table = poisson_targets().double().numpy()
    assert table.shape == (22, 22)
    expected = stats.poisson.pmf(np.arange(22), np.arange(22)[:, None])
    np.testing.assert_allclose(table, expected / expected.sum(1, keepdims=True), atol=1e-7)


def test_published_table_says_nothing_of_high_counts() -> None:
    ours, published = poisson_targets(), poisson_targets(parity=True)
    assert torch.equal(ours[:21], published[:21])
    assert not published[21].any()
    assert ours[21].sum() == pytest.approx(1)


def test_nobody_can_change_the_table_of_the_others() -> None:
    poisson_targets()[:] = 0
    assert poisson_targets().any()


def test_loss_of_a_token_is_cross_entropy_and_high_counts_share_a_class() -> None:
    logits, table = torch.randn(5, 32, 22), poisson_targets()
    counts = torch.randint(0, 20, (5, 32), dtype=torch.uint8)
    counts[0, :3] = torch.tensor([21, 100, 255], dtype=torch.uint8)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), table[counts.long().clamp(max=21).flatten()], reduction="none"
    )
    torch.testing.assert_close(spike_losses(logits, counts, table).flatten(), expected)
    assert not spike_losses(logits, counts, poisson_targets(parity=True))[0, :3].any()


def test_loss_cannot_fall_below_the_entropy_of_its_target() -> None:
    table = poisson_targets()
    counts = torch.arange(22).expand(32, -1).T
    floor = torch.special.entr(table).sum(-1)
    perfect = spike_losses(table.clamp(min=1e-30).log()[counts], counts, table)
    torch.testing.assert_close(perfect, floor[:, None].expand(-1, 32), atol=1e-4, rtol=1e-4)


def predictions_for(batch) -> Ndt3Predictions:
    torch.manual_seed(1)
    return Ndt3Predictions(torch.randn(len(batch.patches), 32, 22), torch.randn(len(batch.covariates)))


def test_padded_channels_and_invalid_covariates_do_not_count() -> None:
    batch = batch_of(units=(40,))
    batch.covariate_valid[3] = False
    predictions = predictions_for(batch)
    losses = ndt3_losses(batch, predictions)
    assert (losses.n_spike, losses.n_covariate) == (12 * 40, 23)
    other = Ndt3Predictions(predictions.spike_logits.clone(), predictions.covariates.clone())
    other.spike_logits[batch.patch_channels == 8, 8:] += torch.randn(24, 22)
    other.covariates[3] = 100
    again = ndt3_losses(batch, other)
    assert torch.equal(losses.spike, again.spike)
    assert torch.equal(losses.covariate, again.covariate)
    other.spike_logits[batch.patch_channels == 8, 7] += torch.randn(22)
    assert ndt3_losses(batch, other).spike != losses.spike


def test_mean_over_elements_or_over_chunks() -> None:
    batch = batch_of(n_times=17, units=(40,))  # chunks of 12 and 5 bins
    predictions = predictions_for(batch)
    elements, chunks = ndt3_losses(batch, predictions), ndt3_losses(batch, predictions, per_chunk=True)
    errors = (predictions.covariates - batch.covariates).square()
    torch.testing.assert_close(elements.covariate, errors.mean())
    torch.testing.assert_close(chunks.covariate, (errors[:24].mean() + errors[24:].mean()) / 2)
    nats = spike_losses(predictions.spike_logits, batch.patches, poisson_targets())
    real = torch.arange(32) < batch.patch_channels[:, None]
    torch.testing.assert_close(elements.spike, nats[real].mean())
    halves = [nats[part][real[part]].mean() for part in (slice(24), slice(24, None))]
    torch.testing.assert_close(chunks.spike, sum(halves) / 2)


@pytest.mark.parametrize("per_chunk", [True, False])
def test_nothing_to_predict_is_a_loss_of_zero(*, per_chunk: bool) -> None:
    batch = batch_of(n_covariates=0)
    losses = ndt3_losses(batch, tiny()(batch), per_chunk=per_chunk)
    assert losses.covariate == 0
    assert losses.spike > 0
