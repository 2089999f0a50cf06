"""The best validation: whose weights are the model, when a run stops, and that an interruption changes neither."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from neuromill.models.criss_cross import CrissCross
from neuromill.models.files import from_pretrained
from neuromill.records import ConfigError
from neuromill.training.best import BestValidation
from neuromill.training.config import TrainConfig
from neuromill.training.criss_cross_task import train
from neuromill.training.eegssm_config import EEGSSMTrainConfig
from neuromill.training.ndt3_config import Ndt3TrainConfig
from support.training_runs import on_two_ranks

from .test_loop import BOOKS, CONFIG, MODEL, TRAIN, InterruptedRunError, lines, run, weights

# A step size that grows beyond all reason: the held-out loss falls for some steps and then rises without end.
OPTIM = CONFIG.optim.model_copy(update={"lr": 0.3, "warmup_steps": 12, "final_lr_share": 1.0})
RISING = {"optim": OPTIM, "validate_every_steps": 1, "checkpoint_every_steps": 5}


def validations(folder: Path, score: str = "loss") -> dict[int, float]:
    return {int(row["step"]): row[score] for row in lines(folder) if row["kind"] == "validation"}  # type: ignore[misc]


def follow(tmp_path: Path, scores: Sequence[float | None], **config: Any) -> BestValidation:
    best = BestValidation(tmp_path / "best", Ndt3TrainConfig.model_validate(config), writes=False)
    by = best.config.best_by
    best.replay({"step": step, by: score} for step, score in enumerate(scores, 1))
    return best


@pytest.mark.parametrize(
    ("by", "scores", "step", "stale"),
    [
        ("loss", [3.0, 2.0, 2.0, 2.5], 2, 2),  # of equal ones the first
        ("r2", [0.1, 0.3, 0.2], 2, 1),
        ("r2", [None, None], None, 2),  # nothing varies
        ("r2", [None, -4.0, None], 2, 1),
        ("loss", [float("nan"), 5.0], 2, 0),
        ("loss", [], None, 0),
    ],
)
def test_which_is_the_best(tmp_path: Path, by: str, scores: list[float | None], step: int | None, stale: int) -> None:
    best = follow(tmp_path, scores, best_by=by)
    assert (best.step, best.stale) == (step, stale)


@given(st.lists(st.floats(0, 9), max_size=12), st.integers(1, 4))
def test_patience_counts_validations_since_the_best(scores: list[float], patience: int) -> None:
    best = follow(Path("none"), scores, patience=patience)
    since = len(scores) - 1 - scores.index(min(scores)) if scores else 0
    assert best.patience_is_over == (since >= patience)


def test_a_score_that_a_model_does_not_have_is_refused() -> None:
    for config, by in ((TrainConfig, "r2"), (EEGSSMTrainConfig, "r2"), (Ndt3TrainConfig, "accuracy")):
        with pytest.raises(ValidationError):
            config.model_validate({"best_by": by})


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("best")
    run(folder, keep="best", **RISING)
    return folder


def test_the_model_is_that_of_the_best_validation(kept: Path, tmp_path: Path) -> None:
    scores = validations(kept)
    step = min(scores, key=lambda one: scores[one])
    assert 1 < step < 10  # else this test says nothing
    (told,) = [row for row in lines(kept) if row["kind"] == "model"]
    assert (told["step"], told["weights_of_step"], told["score"]) == (20, step, scores[step])
    # A run that ends there has the same weights: the schedule is the same, it is killed after its checkpoint.
    with pytest.raises(InterruptedRunError):
        run(tmp_path, stop_at=step, **(RISING | {"checkpoint_every_steps": step}))
    expected = from_pretrained(tmp_path / "checkpoints" / f"step-{step:08d}").state_dict()
    found = from_pretrained(kept / "model").state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    last = from_pretrained(kept / "checkpoints" / "step-00000020").state_dict()
    assert any(not torch.equal(found[name], last[name]) for name in last)
    assert [path.name for path in (kept / "best").iterdir()] == [f"step-{step:08d}"]


def test_the_result_is_of_the_weights_that_are_kept(kept: Path) -> None:
    again = run(kept, keep="best", **RISING)  # finished already: nothing is written anew
    scores = validations(kept)
    assert again.model_step == min(scores, key=lambda one: scores[one])
    assert again.steps == 20
    assert again.validation is not None
    assert again.validation.loss == min(scores.values())
    assert sum(row["kind"] == "model" for row in lines(kept)) == 1


@pytest.mark.parametrize("stop_at", [1, 2, 4, 9, 19, 20])
def test_an_interrupted_run_keeps_the_same_weights(kept: Path, tmp_path: Path, stop_at: int) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path, stop_at=stop_at, keep="best", **RISING)
    result = run(tmp_path, keep="best", **RISING)
    assert result.resumed_from == stop_at // 5 * 5
    assert weights(tmp_path) == weights(kept)
    assert lines(tmp_path) == lines(kept)


def test_a_run_stops_when_nothing_has_become_better(kept: Path, tmp_path: Path) -> None:
    scores = validations(kept)
    best = min(scores, key=lambda one: scores[one])
    first = next(step for step in scores if step - min(range(1, step + 1), key=lambda one: scores[one]) == 2)
    result = run(tmp_path, patience=2, keep="best", **RISING)
    assert result.steps == first < 20
    assert validations(tmp_path) == {step: loss for step, loss in scores.items() if step <= first}
    assert (tmp_path / "checkpoints" / f"step-{first:08d}").is_dir()
    trained = [row["step"] for row in lines(tmp_path) if row["kind"] == "train"]
    assert trained[-1] == first
    assert len(trained) == len(set(trained))
    assert result.model_step <= best
    before = (lines(tmp_path), weights(tmp_path))
    assert run(tmp_path, patience=2, keep="best", **RISING).steps == first  # it does not go on
    assert (lines(tmp_path), weights(tmp_path)) == before
    killed = tmp_path / "killed"
    with pytest.raises(InterruptedRunError):
        run(killed, stop_at=first, patience=2, keep="best", **RISING)
    assert run(killed, patience=2, keep="best", **RISING).resumed_from == first
    assert (lines(killed), weights(killed)) == before


def test_last_weights_with_patience(kept: Path, tmp_path: Path) -> None:
    result = run(tmp_path, patience=2, **RISING)
    assert result.model_step == result.steps < 20
    assert not (tmp_path / "best").exists()
    assert not [row for row in lines(tmp_path) if row["kind"] == "model"]


def test_weights_that_are_gone_are_forgotten(kept: Path, tmp_path: Path) -> None:
    best = BestValidation(tmp_path, CONFIG.model_copy(update={"keep": "best"}), writes=True)
    model = CrissCross(MODEL, torch.from_numpy(BOOKS))
    best.offer({"step": 4, "loss": 2.0}, model)
    best.offer({"step": 8, "loss": 1.0}, model)
    assert len(list(tmp_path.iterdir())) == 2  # a run that is killed now goes back to step 4
    best.prune()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000008"]
    again = BestValidation(tmp_path, best.config, writes=True)
    again.replay([{"step": 4, "loss": 2.0}])
    assert (again.step, again.score) == (None, None)


def test_without_held_out_data_there_is_no_best(tmp_path: Path) -> None:
    for changes in ({"keep": "best"}, {"patience": 3}):
        with pytest.raises(ConfigError, match="nothing is held out"):
            train(CONFIG.model_copy(update=changes), TRAIN, None, BOOKS, tmp_path)


ON_TWO_RANKS = """
import json, os
from training.test_best import OPTIM, RISING
from training.test_loop import BOOKS, CONFIG, HELD_OUT, TRAIN, train

stop, rank = int(sys.argv[1]), os.environ["RANK"]
optim = OPTIM.model_copy(update={"lr": 0.1})
ranks = {"keep": "best", "devices": 2, "strategy": "ddp", "epochs": 8, "max_steps": 14, "optim": optim}
def on_step(progress):
    if progress.step == stop: raise SystemExit(3)
def run(folder, **changes):
    config = CONFIG.model_copy(update=RISING | ranks | changes)
    result = train(config, TRAIN, HELD_OUT, BOOKS, Path(folder), on_step=on_step)
    told = [result.steps, result.model_step, result.validation.loss, result.last_loss, result.world_size]
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(told))
run(sys.argv[2])
if len(sys.argv) > 3: run(sys.argv[3], patience=2, checkpoint_every_steps=1)
"""


@pytest.mark.slow
def test_two_ranks_keep_the_same_best_weights_and_resume(tmp_path: Path) -> None:
    whole, killed, patient = (tmp_path / name for name in ("whole", "killed", "patient"))

    def launch(stop: int, *folders: Path) -> None:
        done = on_two_ranks(tmp_path / "two_ranks.py", ON_TWO_RANKS, str(stop), *map(str, folders))
        assert (done.returncode == 0) == (stop == 0), done.stderr

    def told(folder: Path) -> list[float]:
        first, second = (json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2))
        assert first == second
        return list(first)

    launch(0, whole, patient)
    scores = validations(whole)
    step = min(scores, key=lambda one: scores[one])
    assert 1 < step < 14  # else this test says nothing
    assert told(whole)[:3] == [14, step, scores[step]]
    assert [path.name for path in (whole / "best").iterdir()] == [f"step-{step:08d}"]

    launch(9, killed)  # between two checkpoints
    launch(14, killed)  # after the last step
    launch(0, killed)
    assert told(killed) == told(whole)
    assert lines(killed) == lines(whole)
    assert weights(killed) == weights(whole)

    steps, chosen, *_ = told(patient)
    assert steps == next(one for one in scores if one - min(range(1, one + 1), key=lambda before: scores[before]) == 2)
    assert validations(patient) == {one: score for one, score in scores.items() if one <= steps}
    found = from_pretrained(patient / "model").state_dict()
    for number, is_same in ((chosen, True), (steps, False)):
        there = from_pretrained(patient / "checkpoints" / f"step-{number:08d}").state_dict()
        assert all(torch.equal(found[name], there[name]) for name in found) == is_same
