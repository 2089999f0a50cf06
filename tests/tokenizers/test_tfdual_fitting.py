"""A TFDual fit resumes to the same bits, tells codebook health, and with revival both codebooks live."""

import numpy as np
import pytest
import torch

from neuromill.records import ConfigError
from neuromill.tokenizers.config import GateConfig, RevivalConfig
from neuromill.tokenizers.gate import judge
from neuromill.tokenizers.tfdual_config import TfDualFitConfig
from neuromill.tokenizers.tfdual_fitting import fit_tfdual, tfdual_learning_rate
from support.fits import KilledError, die_at
from support.tfdual import CONFIG, WINDOW, eeg_like

NETWORK = CONFIG.network.model_copy(update={"depth": 1, "codebook_size": 16})
TINY = CONFIG.model_copy(update={"network": NETWORK})
FIT = TfDualFitConfig(
    batch_size=4, steps=8, lr=1e-3, kmeans_iterations=3, log_every=3, checkpoint_every=3, cpu_threads=1
)
DATA = torch.from_numpy(eeg_like(64, 8, WINDOW))


def batches(step, n=4):
    return DATA[torch.from_numpy(np.random.default_rng([0, step]).integers(0, len(DATA), n))]


@pytest.fixture(scope="module")
def undisturbed():
    return fit_tfdual(TINY, FIT, batches)


@pytest.mark.parametrize("died_at", [1, 4, 6, 7])
def test_interrupted_and_resumed_equals_undisturbed(undisturbed, tmp_path, died_at):
    with pytest.raises(KilledError):
        fit_tfdual(TINY, FIT, batches, checkpoint=tmp_path / "fit.pt", progress=die_at(died_at))
    resumed = fit_tfdual(TINY, FIT, batches, checkpoint=tmp_path / "fit.pt")
    assert resumed.losses == undisturbed.losses
    assert resumed.health == undisturbed.health
    assert resumed.tokenizer.digest == undisturbed.tokenizer.digest


def test_seed_and_data_name_a_fit(undisturbed, tmp_path):
    assert fit_tfdual(TINY, FIT, batches).tokenizer.digest == undisturbed.tokenizer.digest
    other = fit_tfdual(TINY, FIT.model_copy(update={"seed": 1, "steps": 1}), batches, checkpoint=tmp_path / "fit.pt")
    assert other.losses[0] != undisturbed.losses[0]
    with pytest.raises(ConfigError, match="another fit"):
        fit_tfdual(TINY, FIT, batches, checkpoint=tmp_path / "fit.pt")


def test_health_is_counted_anew_per_log_window(undisturbed):
    assert [one.until for one in undisturbed.health] == [3, 6]
    assert [x.health.until if x.health else None for x in undisturbed.losses] == [None, None, 3, 3, 3, 6, 6, 6]
    first = undisturbed.health[0]
    assert all(1 <= p <= n <= 16 for p, n in zip(first.perplexity, first.used, strict=True))
    assert str(undisturbed.losses[2]).startswith("loss ")
    assert "perplexity" in str(undisturbed.losses[2])


def test_missing_channels_change_nothing_but_themselves():
    def holed(step):
        windows = batches(step).clone()
        windows[1, 2] = torch.nan
        windows[3] = torch.nan
        return windows

    report = fit_tfdual(TINY, FIT, holed, validation=[holed(0)])
    assert all(np.isfinite(x.total) for x in report.losses)
    assert report.quality.n_rows == 3 * 8 - 1
    with pytest.raises(ConfigError, match="no channel"):
        fit_tfdual(TINY, FIT, lambda step: torch.full_like(batches(step), torch.nan))


def test_silence_can_be_kept_out_of_the_contrastive_loss(undisturbed):
    def holed(step):
        windows = batches(step).clone()
        windows[:, 2, 7] = torch.nan
        return windows

    fit = FIT.model_copy(update={"steps": 1})
    one, other = (fit_tfdual(TINY, fit, holed, contrast_silence=silence).losses[0] for silence in (True, False))
    assert one.contrastive != other.contrastive
    assert (one.time, one.amplitude, one.phase, one.commitment) == (
        other.time, other.amplitude, other.phase, other.commitment,
    )  # fmt: skip
    whole = fit_tfdual(TINY, FIT, batches, contrast_silence=False)
    assert whole.tokenizer.digest == undisturbed.tokenizer.digest


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bfloat16"},
        {"losses": {"contrastive_weight": 0.0}},
        {"kmeans_init": False},
        {"max_grad_norm": 1.0},
    ],
    ids=str,
)
def test_options(undisturbed, change):
    fit = TfDualFitConfig.model_validate(FIT.model_dump() | change)
    report = fit_tfdual(TINY, fit, batches)
    assert report.losses != undisturbed.losses
    assert all(t.isfinite().all() for t in report.tokenizer.state().values())


def test_fsq_needs_no_codebook():
    report = fit_tfdual(TINY.model_copy(update={"quantizer": "fsq", "levels": (4, 4)}), FIT, batches)
    assert report.losses[-1].commitment == 0
    assert min(report.health[-1].used) > 1


def test_learning_rate():
    config = TfDualFitConfig(steps=100, lr=1e-3, min_lr=1e-5, warmup_share=0.1)
    rates = [tfdual_learning_rate(step, config) for step in range(100)]
    assert max(rates) == rates[9] == 1e-3
    assert rates[0] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("revival", [True, False])
def test_collapse_is_real_and_revival_prevents_it(revival):
    """The published defaults lose both codebooks within a hundred steps; the gate tells, and opens with revival."""
    fit = TfDualFitConfig(
        batch_size=16, steps=250, lr=1e-3, min_lr=1e-4, kmeans_init=False, log_every=50, cpu_threads=1,
        revival=RevivalConfig(enabled=revival, every=1),
    )  # fmt: skip
    train, held_out = torch.from_numpy(eeg_like(256, 8, WINDOW)), torch.from_numpy(eeg_like(64, 8, WINDOW, seed=1))

    def draw(step):
        return train[torch.from_numpy(np.random.default_rng([1, step]).integers(0, 256, 16))]

    report = fit_tfdual(CONFIG, fit, draw, validation=[held_out])
    gate = GateConfig(
        min_perplexity_share=0, min_used_share=0, max_dominant_share=0.95, min_codes=16, min_perplexity=8,
        min_distinct_sequences=16, min_distinct_share=0.05,
    )  # fmt: skip
    problems = judge(report.quality, gate)
    if revival:
        assert problems == (), [str(problem) for problem in problems]
    else:
        assert {problem.level for problem in problems} == {0, 1}
        assert {"perplexity"} <= {problem.measure for problem in problems}
