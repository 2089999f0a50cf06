"""Checkpoints: complete or absent, and no code runs when they are read."""

from pathlib import Path, PurePosixPath

import pytest
import torch

from neuromill.models.config import CrissCrossConfig
from neuromill.models.criss_cross import CrissCross
from neuromill.records import ConfigError
from neuromill.training.checkpoints import RunState, latest_checkpoint, load_state, restore, save_checkpoint

TINY = CrissCrossConfig(latent_dim=8, n_layers=1, n_heads=2, fourier_dim=4, codebook_size=4, codebook_dim=2)


def model_and_optimizer() -> tuple[CrissCross, torch.optim.AdamW]:
    model = CrissCross(TINY)
    optimizer = torch.optim.AdamW(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    return model, optimizer


def save(folder: Path, step: int, keep: int | None = None) -> Path:
    return save_checkpoint(folder, *model_and_optimizer(), RunState(step, 1, 2, 1, {"a": [1]}), keep=keep)


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer()
    state = RunState(7, 1, 2, 1, {"config": {"seed": 3}})
    path = save_checkpoint(tmp_path, model, optimizer, state)
    assert load_state(path) == state
    other_model, other_optimizer = model_and_optimizer()
    restore(path, other_model, other_optimizer)
    torch.testing.assert_close(other_model.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(other_optimizer.state_dict()["state"], optimizer.state_dict()["state"], rtol=0, atol=0)


def test_newest_wins_and_unfinished_ones_do_not_count(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    save(tmp_path, 9)
    newest = save(tmp_path, 10)
    (tmp_path / ".step-00000011.tmp").mkdir()
    (tmp_path / "step-00000012").mkdir()
    assert latest_checkpoint(tmp_path) == newest
    save(tmp_path, 11, keep=1)
    assert [p.name for p in tmp_path.glob("step-*/state.json")] == ["state.json"]


def test_saving_again_replaces(tmp_path: Path) -> None:
    assert save(tmp_path, 3) == save(tmp_path, 3)
    assert len(list(tmp_path.iterdir())) == 1


def test_torn_optimiser_state_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    whole = (path / "optimizer.pt").read_bytes()
    (path / "optimizer.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="remove this folder"):
        restore(path, *model_and_optimizer())


def test_optimiser_state_with_foreign_objects_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    torch.save({"state": PurePosixPath("x")}, path / "optimizer.pt")
    with pytest.raises(ConfigError, match="cannot be read"):
        restore(path, *model_and_optimizer())


@pytest.mark.parametrize("content", [7, [1], {"state": {}, "param_groups": 3}])
def test_optimiser_state_that_is_none_is_refused(tmp_path: Path, content: object) -> None:
    path = save(tmp_path, 3)
    torch.save(content, path / "optimizer.pt")
    with pytest.raises(ConfigError, match="cannot be read"):
        restore(path, *model_and_optimizer())


@pytest.mark.parametrize("text", ["", "[]", '{"step": 1}'])
def test_damaged_state_is_refused(tmp_path: Path, text: str) -> None:
    path = save(tmp_path, 3)
    (path / "state.json").write_text(text)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_state(path)
