"""Fitting learns, resumes to the same bits, revives dead codes, and is caught where it does not."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from neuromill.records import ConfigError
from neuromill.tokenizers.config import (
    BioCodecConfig,
    FitConfig,
    GateConfig,
    LossConfig,
    RevivalConfig,
    TokenizerConfig,
)
from neuromill.tokenizers.files import load_checkpoint
from neuromill.tokenizers.fitting import fit, learning_rate
from neuromill.tokenizers.gate import check_gate
from support.codec import SMALL, meg_like
from support.fits import KilledError, die_at

TOKENIZER = TokenizerConfig(network=SMALL)
FIT = FitConfig(segment_seconds=3, batch_size=8, steps=12, lr=1e-3, checkpoint_every=5, kmeans_iterations=5,
                revival=RevivalConfig(every=2), losses=LossConfig(stft_windows=(32,)))  # fmt: skip
SIGNAL = meg_like(40, 1500)


def batches(step):
    rng = np.random.default_rng([0, step])
    start = int(rng.integers(1500 - 150))
    return torch.from_numpy(SIGNAL[rng.choice(40, 8, replace=False), start : start + 150])


def weights(report):
    return report.tokenizer.codec.state_dict()


@pytest.fixture(scope="module")
def undisturbed():
    return fit(TOKENIZER, FIT, batches)


def test_same_seed_same_bits(undisturbed):
    again = fit(TOKENIZER, FIT, batches)
    assert again.losses == undisturbed.losses
    assert again.tokenizer.digest == undisturbed.tokenizer.digest
    other = fit(TOKENIZER, FIT.model_copy(update={"seed": 1}), batches)
    assert other.losses[0] != undisturbed.losses[0]


@pytest.mark.parametrize("died_at", [3, 4, 6, 9, 11])
def test_interrupted_and_resumed_equals_undisturbed(undisturbed, tmp_path, died_at):
    checkpoint = tmp_path / "fit.pt"
    with pytest.raises(KilledError):
        fit(TOKENIZER, FIT, batches, checkpoint=checkpoint, progress=die_at(died_at))
    steps = []
    resumed = fit(TOKENIZER, FIT, batches, checkpoint=checkpoint, progress=lambda losses: steps.append(losses.step))
    assert steps == list(range({3: 0, 4: 5, 6: 5, 9: 10, 11: 12}[died_at], 12))
    assert resumed.losses == undisturbed.losses
    assert all(torch.equal(t, weights(undisturbed)[name]) for name, t in weights(resumed).items())


def test_resume_also_after_a_second_interruption(undisturbed, tmp_path):
    for step in (6, 11):
        with pytest.raises(KilledError):
            fit(TOKENIZER, FIT, batches, checkpoint=tmp_path / "fit.pt", progress=die_at(step))
    assert fit(TOKENIZER, FIT, batches, checkpoint=tmp_path / "fit.pt").losses == undisturbed.losses


@pytest.mark.parametrize(
    "changes",
    [
        {"config": FIT.model_copy(update={"lr": 2e-3})},
        {"tokenizer": TokenizerConfig(network=SMALL.model_copy(update={"n_quantizers": 2}))},
        {"data_identity": "other"},
    ],
)
def test_checkpoint_of_another_fit_is_refused(tmp_path, changes):
    arguments = {"tokenizer": TOKENIZER, "config": FIT, "batches": batches, "checkpoint": tmp_path / "fit.pt"}
    fit(**{**arguments, "config": FIT.model_copy(update={"steps": 12})})
    with pytest.raises(ConfigError, match="another fit"):
        fit(**{**arguments, **changes})


def test_checkpoint_interval_is_not_part_of_the_identity(tmp_path):
    for every in (5, 7):
        fit(TOKENIZER, FIT.model_copy(update={"checkpoint_every": every}), batches, checkpoint=tmp_path / "fit.pt")
    assert len(load_checkpoint(tmp_path / "fit.pt")["curve"]) == 12


def test_caller_keeps_its_random_state():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(TOKENIZER, FIT.model_copy(update={"steps": 2}), batches)
    assert torch.equal(torch.rand(3), expected)


def test_learning_rate_warms_up_and_falls_to_zero():
    config = FitConfig(steps=100, lr=1.0, warmup_share=0.25)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(5e-4)
    assert max(rates) == rates[25] == 1.0
    assert all(a < b for a, b in pairwise(rates[:26]))
    assert all(a > b for a, b in pairwise(rates[25:]))
    assert rates[100] == pytest.approx(0)


def test_autocast_keeps_codebooks_in_float32():
    report = fit(TOKENIZER, FIT.model_copy(update={"precision": "bfloat16"}), batches)
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in weights(report).values())
    plain = fit(TOKENIZER, FIT, batches)
    assert report.losses[0].total == pytest.approx(plain.losses[0].total, rel=0.05)
    assert report.losses != plain.losses


def test_a_loss_that_is_not_a_number_stops_the_fit():
    wild = FIT.model_copy(update={"lr": 1e30, "warmup_share": 0.0})
    with pytest.raises(ConfigError, match="the loss is"):
        fit(TOKENIZER, wild, batches)


NETWORK = BioCodecConfig(
    base_width=8, dilations=(1,), lstm_layers=1, latent_dim=16, n_quantizers=3, codebook_size=32, codebook_dim=8
)
LEARN = FitConfig(segment_seconds=3, batch_size=32, steps=120, lr=6e-3, warmup_share=0.1, ema_decay=0.95,
                  kmeans_iterations=10, losses=LossConfig(time_weight=1.0, stft_windows=(64,)))  # fmt: skip


def test_it_learns_and_beats_predicting_the_mean():
    train, held_out = meg_like(64, 3000), torch.from_numpy(meg_like(32, 900, seed=9))

    def draw(step):
        rng = np.random.default_rng([1, step])
        start = int(rng.integers(3000 - 200))
        return torch.from_numpy(train[rng.choice(64, 32, replace=False), start : start + 200])

    report = fit(TokenizerConfig(network=NETWORK), LEARN, draw, validation=[held_out])
    summary = report.summary()
    assert summary["last_loss"] < 0.8 * summary["first_loss"]
    assert report.quality.mse < report.quality.baseline_mse
    assert report.quality.correlation > 0.5
    gate = GateConfig(min_correlation=0.5)
    assert check_gate(report.quality.usage, gate, correlation=report.quality.correlation) == ()


def collapsing(step):
    """One and the same row for the first steps, signals later: k-means finds a single direction."""
    if step < 1:
        return torch.from_numpy(np.repeat(SIGNAL[:1, :150], 8, axis=0))
    return batches(step)


@pytest.mark.parametrize("revival", [False, True])
def test_gate_catches_dead_codebooks_unless_they_are_revived(revival):
    config = LEARN.model_copy(
        update={"batch_size": 8, "steps": 80, "revival": RevivalConfig(enabled=revival, every=5, below_share=0.2)}
    )
    network = NETWORK.model_copy(update={"codebook_size": 64})
    report = fit(TokenizerConfig(network=network), config, collapsing, validation=[torch.from_numpy(SIGNAL)])
    problems = check_gate(report.quality.usage, GateConfig())
    assert (problems == ()) == revival, [str(p) for p in problems]
