"""Learning rate of a step."""

import math

import pytest

from neuromill.training.config import OptimConfig
from neuromill.training.schedule import learning_rate, step_seed

CONFIG = OptimConfig(lr=1e-3, warmup_steps=10)


def test_warm_up_rises_then_the_cosine_falls_to_its_floor() -> None:
    rates = [learning_rate(CONFIG, step, 100) for step in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[0] > 0
    assert rates[10] == pytest.approx(1e-3) == pytest.approx(max(rates))
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(1e-5)


@pytest.mark.parametrize("step", [0, 7, 50, 100])
def test_published_schedule_is_a_bare_cosine(step: int) -> None:
    published = 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * step / 100)) / 2
    assert learning_rate(CONFIG, step, 100, parity=True) == pytest.approx(published)


def test_short_runs_warm_up_for_half_of_their_steps_at_most() -> None:
    assert learning_rate(OptimConfig(lr=1e-3, warmup_steps=250), 5, 10) == pytest.approx(1e-3)


def test_seeds_of_steps_and_ranks_differ_and_fit_torch() -> None:
    seeds = {step_seed(42, step, rank) for step in range(100) for rank in range(3)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
