"""Features: of which model, and sensors named as that model names them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from neuromill.models.criss_cross import CrissCross
from neuromill.models.files import from_pretrained, save_pretrained
from neuromill.stages import embedding
from neuromill.stages.embedding import model_digest
from neuromill.stages.outcomes import Stage
from neuromill.stages.running import run_stage
from neuromill.stages.workspace import Workspace
from neuromill.training.store_tokens import StoreTokens
from support.stages import Road


@pytest.fixture
def opened_with(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The parity that each token store is opened with."""
    seen: list[bool] = []
    real: Any = StoreTokens.open

    def spy(*arguments: Any, parity: bool = False, **named: Any) -> StoreTokens:
        seen.append(parity)
        return real(*arguments, parity=parity, **named)

    monkeypatch.setattr(StoreTokens, "open", spy)
    return seen


def other_model(road: Road, workspace: Workspace, folder: Path, *, parity: bool) -> Path:
    """The trained model with its weights negated, so that its features are others."""
    model = from_pretrained(workspace.run_folder(road.results[Stage.TRAIN].identity) / "model")
    twin = CrissCross(model.config.model_copy(update={"parity": parity}))
    twin.load_state_dict({name: -tensor for name, tensor in model.state_dict().items()})
    save_pretrained(twin, folder)
    return folder


@pytest.mark.parametrize("parity", [False, True], ids=["ours", "as published"])
def test_sensors_are_named_as_the_model_was_trained_on(
    road: Road, workspace: Workspace, tmp_path: Path, opened_with: list[bool], *, parity: bool
) -> None:
    folder = other_model(road, workspace, tmp_path / "other", parity=parity)
    pipeline = road.pipeline.model_copy(update={"pretrained_model": str(folder)})
    assert run_stage(workspace, pipeline, road.selection, Stage.EMBED).done == 4
    assert opened_with == [parity] * 4


def test_a_model_is_read_once_for_all_recordings(
    road: Road, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = other_model(road, workspace, tmp_path / "other", parity=False)
    pipeline = road.pipeline.model_copy(update={"pretrained_model": str(folder)})
    read: list[str] = []
    real = Path.read_bytes

    def count(path: Path) -> bytes:
        if path.parent == folder:
            read.append(path.name)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", count)
    assert run_stage(workspace, pipeline, road.selection, Stage.EMBED).done == 4
    assert sorted(read) == ["config.json", "model.safetensors"]


def test_other_weights_in_the_same_folder_are_another_model(tmp_path: Path, road: Road, workspace: Workspace) -> None:
    folder = other_model(road, workspace, tmp_path / "other", parity=False)
    before = model_digest(folder)
    first = embedding._load_model(str(folder), before)
    save_pretrained(from_pretrained(workspace.run_folder(road.results[Stage.TRAIN].identity) / "model"), folder)
    after = model_digest(folder)
    assert after != before
    second = embedding._load_model(str(folder), after)
    assert not torch.equal(next(first.parameters()), next(second.parameters()))
