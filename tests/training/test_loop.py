"""The loop: it learns, it refuses, and an interrupted run ends as an undisturbed one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from neuromill.models.config import CrissCrossConfig
from neuromill.models.files import from_pretrained
from neuromill.records import ConfigError, NeuroMillError
from neuromill.training.config import OptimConfig, TrainConfig, WindowConfig
from neuromill.training.criss_cross_task import train
from neuromill.training.loop import TrainResult
from neuromill.training.tokens import MemoryTokens
from support.tokens import codebooks, memory_tokens, recording
from support.training_runs import InterruptedRunError, interrupt_at, lines, on_two_ranks, weights

MODEL = CrissCrossConfig(
    latent_dim=16, n_layers=1, n_heads=2, fourier_dim=8, n_quantizers=2, codebook_size=8, codebook_dim=4
)
CONFIG = TrainConfig(
    model=MODEL,
    windows=WindowConfig(window_frames=24),
    optim=OptimConfig(lr=5e-3, warmup_steps=3),
    epochs=4,  # of 6 batches: every checkpoint falls into mid epoch
    max_steps=20,
    batch_size=2,
    log_every_steps=4,
    validate_every_steps=6,
    checkpoint_every_steps=5,
    keep_checkpoints=None,
    accelerator="cpu",
)
BOOKS = codebooks(2, 8, 4)


def tokens(*subjects: str, dataset: str = "demo") -> MemoryTokens:
    parts = [recording(f"{dataset}-{s}", 60 + 7 * i, 5 + i, subject=s, n_quantizers=2, dataset=dataset, n_bad=i % 2)
             for i, s in enumerate(subjects)]  # fmt: skip
    return memory_tokens(*parts, size=8)


TRAIN, HELD_OUT = tokens("01", "02", "03"), tokens("04")


def run(folder: Path, *, stop_at: int | None = None, **changes: object) -> TrainResult:
    config = CONFIG.model_copy(update=changes)
    return train(config, TRAIN, HELD_OUT, BOOKS, folder, on_step=interrupt_at(stop_at))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    result = run(folder)
    assert result.steps == 20
    assert result.resumed_from == 0
    return folder


def test_loss_starts_near_chance_and_falls(tmp_path: Path) -> None:
    result = run(tmp_path, epochs=20, max_steps=None, log_every_steps=10)
    assert result.first_loss == pytest.approx(math.log(8), abs=0.6)
    assert result.last_loss < 0.8 * result.first_loss
    assert result.validation is not None
    assert result.validation.accuracy > 1.5 / 8
    assert not from_pretrained(result.model_folder).training
    assert (result.device, result.precision, result.world_size) == ("cpu", "32-true", 1)


def test_metrics_have_every_level_and_dataset(undisturbed: Path) -> None:
    rows = lines(undisturbed)
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 4, 5, 8, 10, 12, 15, 16, 20]
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [6, 12, 18, 20]
    for row in rows:
        assert len(row["per_level"]) == 2
        assert list(row["per_dataset"]) == ["demo"]
        assert row["accuracy"] == pytest.approx(np.mean(row["per_level"]))
    assert len({row["positions"] for row in rows if row["kind"] == "validation"}) == 1


@pytest.mark.parametrize("stop_at", [3, 5, 8, 13, 19])
def test_an_interrupted_run_ends_as_an_undisturbed_one(undisturbed: Path, tmp_path: Path, stop_at: int) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path, stop_at=stop_at)
    result = run(tmp_path, loader_threads=3)
    assert result.resumed_from == stop_at // 5 * 5
    assert lines(tmp_path) == lines(undisturbed)
    assert weights(tmp_path) == weights(undisturbed)


def test_a_finished_run_is_left_as_it_is(undisturbed: Path) -> None:
    before, rows = weights(undisturbed), lines(undisturbed)
    result = run(undisturbed, stop_at=1)
    assert result.resumed_from == result.steps == 20
    assert (weights(undisturbed), lines(undisturbed)) == (before, rows)
    assert result.validation is not None


def test_training_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    run(tmp_path, max_steps=2)
    torch.testing.assert_close(torch.rand(3), expected)


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path, max_steps=2)
    with pytest.raises(ConfigError, match=r"config\.optim\.lr, config\.seed"):
        run(tmp_path, max_steps=2, seed=1, optim=OptimConfig(lr=1e-3, warmup_steps=3))


def test_a_run_does_not_continue_on_more_ranks(tmp_path: Path) -> None:
    run(tmp_path, max_steps=2)
    state = tmp_path / "checkpoints" / "step-00000002" / "state.json"
    document = json.loads(state.read_text())
    document["world_size"] = document["settings"]["config"]["devices"] = 2
    state.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"config\.devices, number of ranks \(2\)"):
        run(tmp_path, max_steps=2)


def test_other_data_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path, max_steps=2)
    with pytest.raises(ConfigError, match="recordings"):
        train(CONFIG.model_copy(update={"max_steps": 2}), tokens("01", "02"), None, BOOKS, tmp_path)


def test_a_leaking_split_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="demo/02"):
        train(CONFIG, TRAIN, tokens("02"), BOOKS, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_diverging_run_stops_and_keeps_its_last_checkpoint(tmp_path: Path) -> None:
    broken = np.full_like(BOOKS, np.inf)
    with pytest.raises(NeuroMillError, match="diverged"):
        train(CONFIG, TRAIN, None, broken, tmp_path)
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "checkpoints").exists()


def test_accuracy_is_kept_apart_by_dataset(tmp_path: Path) -> None:
    other = tokens("09", dataset="other")
    both = MemoryTokens([*TRAIN.recordings, *other.recordings], [*TRAIN.codes, *other.codes])
    result = train(CONFIG.model_copy(update={"max_steps": 6}), both, HELD_OUT, BOOKS, tmp_path)
    train_rows = [row for row in lines(tmp_path) if row["kind"] == "train"]
    assert {name for row in train_rows for name in row["per_dataset"]} == {"demo", "other"}
    assert result.validation is not None
    assert list(result.validation.per_dataset) == ["demo"]


def test_published_behaviour_trains_too(tmp_path: Path) -> None:
    result = run(tmp_path, model=MODEL.model_copy(update={"parity": True}), max_steps=4)
    assert math.isfinite(result.last_loss)
    assert lines(tmp_path)[0]["lr"] == pytest.approx(5e-3)  # no warm-up


def test_windows_too_short_for_the_published_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shorter than a hidden block"):
        run(tmp_path, model=MODEL.model_copy(update={"parity": True}), windows=WindowConfig(window_frames=12))


def test_bf16_trains(tmp_path: Path) -> None:
    assert math.isfinite(run(tmp_path, precision="bf16-mixed", max_steps=3).last_loss)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    run(tmp_path, keep_checkpoints=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000015", "step-00000020"]


@pytest.mark.slow
def test_two_ranks_agree_and_resume(tmp_path: Path) -> None:
    statements = (
        "from test_loop import BOOKS, CONFIG, HELD_OUT, TRAIN, train\n"
        "stop = int(sys.argv[2])\n"
        "def on_step(p):\n    if p.step == stop: raise SystemExit(3)\n"
        "config = CONFIG.model_copy(update={'devices': 2, 'strategy': 'ddp', 'epochs': 8, 'max_steps': 16})\n"
        "train(config, TRAIN, HELD_OUT, BOOKS, Path(sys.argv[1]), on_step=on_step)\n"
    )

    def launch(folder: Path, stop: int) -> int:
        done = on_two_ranks(tmp_path / "two_ranks.py", statements, str(folder), str(stop))
        assert done.returncode == 0 or stop, done.stderr
        return done.returncode

    assert launch(tmp_path / "whole", 0) == 0
    assert launch(tmp_path / "stopped", 7) != 0
    assert launch(tmp_path / "stopped", 0) == 0
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    positions = [row["positions"] for row in lines(tmp_path / "whole") if row["kind"] == "validation"]
    run(tmp_path / "single", max_steps=6)
    single = [row["positions"] for row in lines(tmp_path / "single") if row["kind"] == "validation"]
    assert set(positions) == set(single)
