"""What stands beside R2: the same bins, decoded by ridge and by the mean."""

from dataclasses import replace

import numpy as np
import pytest
from lightning_fabric import Fabric

from neuromill.training.chunks import split_chunks
from neuromill.training.ndt3_config import Ndt3TrainConfig, RidgeConfig
from neuromill.training.ridge import fit_ridge
from neuromill.training.spike_baselines import baseline_rows, stretches, unroll
from neuromill.training.spike_source import MemorySpikeTokens, Span
from support.spike_tokens import CHUNK_BINS, reaching, spike_source

RIDGE = RidgeConfig(lags=(2, 4))
FABRIC = Fabric(accelerator="cpu", devices=1)


def rows(source: MemorySpikeTokens, ridge: RidgeConfig | None = RIDGE) -> dict[str, dict[str, object]]:
    found = baseline_rows(source, split_chunks(source.recordings, Ndt3TrainConfig()), ridge, FABRIC)
    return {str(row["name"]): row for row in found["validation"]}


def test_tokens_are_put_back_on_their_bins() -> None:
    source = spike_source("a", n_units=40)
    counts, velocity = reaching(600, 40, 0)
    bins = unroll(source, 0)
    np.testing.assert_array_equal(bins.counts, counts)
    scale = np.quantile(np.abs(velocity), 0.999, axis=0)
    np.testing.assert_allclose(bins.values, np.clip(velocity / scale, -1, 1), atol=1e-6)
    assert bins.valid.all()
    assert set(bins.segments) == {0}


@pytest.mark.parametrize("known", [True, False])
def test_stretches_end_at_gaps_and_joins(*, known: bool) -> None:
    one = replace(
        spike_source("a").recordings[0],
        chunk_start_bins=np.array([0, 20, 40, 45, 70]),
        chunk_n_bins=np.array([20, 20, 5, 20, 20]),
    )
    segments = np.repeat([0, 1, -1, 2], [45, 20, 5, 30]).astype(np.int32) if known else None
    expected = np.repeat([0, 1, -1, 2], [45, 20, 5, 20])
    np.testing.assert_array_equal(stretches(one, segments), expected)
    if known:  # a join between two whole chunks shows only there
        assert stretches(one, np.repeat([0, 1], [20, 80]).astype(np.int32))[19:21].tolist() == [0, 1]


def test_equal_a_direct_computation() -> None:
    source = spike_source("a")
    found = rows(source)
    bins = unroll(source, 0)
    train, held_out = bins.values[:440], bins.values[460:600]
    learn = np.zeros(bins.values.shape, bool)
    learn[:440] = True
    decoder = fit_ridge(RIDGE, bins.counts, bins.segments, bins.values, learn, bin_seconds=0.02)
    total = ((held_out - held_out.mean(axis=0)) ** 2).sum(axis=0)
    for name, predicted in (
        ("mean", train.mean(axis=0)),
        ("ridge", decoder.predict(bins.counts, bins.segments)[460:600]),
    ):
        residual = ((held_out - predicted) ** 2).sum(axis=0)
        assert found[name]["r2"] == pytest.approx(1 - residual.sum() / total.sum(), abs=2e-6)
        assert [*found[name]["r2_per_covariate"].values()] == pytest.approx(1 - residual / total, abs=2e-6)
    assert found["ridge"]["r2"] > 0.3
    assert found["mean"]["r2"] < 0.05
    assert found["ridge"]["calibrated"] == found["ridge"]["left_out"] == []


def test_a_recording_that_is_held_out_as_a_whole_is_decoded_in_turns_and_named() -> None:
    train, held_out = (
        spike_source("a", spans=[Span("train", 0, 600)]),
        spike_source("b", spans=[Span("validation", 0, 600)], seed=9),
    )
    both = MemorySpikeTokens([*train.recordings, *held_out.recordings], [*train.tokens, *held_out.tokens])
    found = rows(both)
    assert found["ridge"]["calibrated"] == ["b"]
    assert found["ridge"]["r2"] > 0.3
    assert list(found["ridge"]["r2_per_recording"]) == ["b"]
    assert found["mean"]["r2"] == pytest.approx(0, abs=0.2)


def test_too_little_training_is_named_and_decoded_by_the_mean() -> None:
    found = rows(
        spike_source("a", spans=[Span("train", 0, CHUNK_BINS), Span("validation", 300, 600)]),
        RIDGE.model_copy(update={"folds": 15}),
    )
    assert found["ridge"]["left_out"] == ["a"]
    assert found["ridge"]["r2"] == found["mean"]["r2"]


def test_ridge_can_be_left_out() -> None:
    assert list(rows(spike_source("a"), None)) == ["mean"]
