"""Fitting and training as stages: what they refuse, when a model counts as done, and one run in several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from neuromill.models.files import from_pretrained
from neuromill.records import ConfigError, PartId, Recording
from neuromill.stages.choosing import Chosen
from neuromill.stages.outcomes import Stage
from neuromill.stages.running import SILENT, run_pipeline, run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.training import global_rank
from neuromill.stages.workspace import Workspace
from neuromill.training.config import TrainConfig
from support.stages import TINY, Listener, Road, counts, filtered, tiny_pipeline, workspace_at

TWO_RANKS = ("train.devices=2", "train.strategy=ddp", "train.accelerator=cpu", "train.cpu_threads=1")


# Parts


@pytest.mark.parametrize("stage", [Stage.FIT, Stage.TRAIN])
def test_a_part_learns_nothing(road: Road, workspace: Workspace, stage: Stage) -> None:
    with pytest.raises(ConfigError, match=r"learns from all recordings.*--part 1/2.*once, without --part"):
        run_stage(workspace, road.pipeline, Selection(data=road.data, part=PartId(1, 2)), stage)
    whole = Selection(data=road.data, part=PartId(1, 1))
    assert run_stage(workspace, road.pipeline, whole, stage).note == "nothing to do"


def test_a_part_of_a_whole_run_stops_before_the_fit(walked: Road, tmp_path: Path) -> None:
    with workspace_at(tmp_path / "home") as workspace:
        part = Selection(data=walked.data, part=PartId(1, 2))
        with pytest.raises(ConfigError, match="neuromill tokenizer fit"):
            run_pipeline(workspace, walked.pipeline, part)
        assert counts(workspace, walked.results[Stage.PREPARE]).done == 2
    assert not (tmp_path / "home" / "tokenizers").exists()


# Fit


def test_signals_at_another_rate_than_the_tokenizer_are_refused_before_a_step(road: Road, workspace: Workspace) -> None:
    as_recorded = {"steps": filtered(1.0)["steps"][:-1]}  # without a rate in the file, nothing can be told from it
    raw, listener = tiny_pipeline(prepare=as_recorded), Listener()
    run_stage(workspace, raw, road.selection, Stage.PREPARE)
    with pytest.raises(ConfigError, match=r"prepared at \d+ Hz, the tokenizer is for 50 Hz \[sub-01.*\].*resample"):
        run_stage(workspace, raw, road.selection, Stage.FIT, listener)
    assert listener.begun == []


def test_a_verdict_on_seen_recordings_is_said_and_noted(road: Road, workspace: Workspace) -> None:
    listener = Listener()
    result = run_stage(workspace, tiny_pipeline(fit={"seed": 5}), road.selection, Stage.FIT, listener)
    assert [text for text in listener.said if "no window is held out" in text]
    facts = workspace.ledger.runs("fit")[-1].facts
    assert facts["held_out"] is False
    assert facts["device"] in ("cpu", "cuda")
    kept = json.loads((workspace.tokenizer_folder(result.identity) / "config.json").read_text())["facts"]
    assert (kept["held_out"], kept["device"]) == (False, facts["device"])


@pytest.mark.parametrize(("seconds", "held_out"), [(2.0, True), (9.6, False)])
def test_held_out_recordings_shorter_than_a_window_judge_nothing(
    road: Road, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, seconds: float, *, held_out: bool
) -> None:
    """Runs 01 last 9.4 s and are held out, runs 02 last 9.8 s."""

    def split_of(_: Chosen, recording: Recording) -> str:
        return "validation" if "run-01" in recording.id.name else "train"

    monkeypatch.setattr(Chosen, "split_of", split_of)
    listener = Listener()
    changed = tiny_pipeline(fit={"segment_seconds": seconds})
    run_stage(workspace, changed, road.selection, Stage.FIT, listener)
    assert workspace.ledger.runs("fit")[-1].facts["held_out"] is held_out
    assert any("no window is held out" in text for text in listener.said) is not held_out


# Train


def test_a_run_notes_where_and_in_what_it_was_computed(road: Road, workspace: Workspace) -> None:
    (row,) = [row for row in workspace.ledger.runs("train") if row.identity == road.results[Stage.TRAIN].identity]
    assert {name: row.facts[name] for name in ("device", "precision", "world_size", "steps")} == {
        "device": "cpu",
        "precision": "32-true",
        "world_size": 1,
        "steps": 3,
    }


@pytest.mark.parametrize("damage", ["config", "weights", "torn"])
def test_half_a_model_is_not_done_and_is_mended(road: Road, workspace: Workspace, damage: str) -> None:
    model = workspace.run_folder(road.results[Stage.TRAIN].identity) / "model"
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    if damage == "torn":
        weights.write_bytes(whole[:-10])
    else:
        (model / "config.json" if damage == "config" else weights).unlink()
    with pytest.raises(ConfigError, match="no model is trained"):
        run_stage(workspace, road.pipeline, road.selection, Stage.EMBED)
    assert run_stage(workspace, road.pipeline, road.selection, Stage.TRAIN).done == 1
    assert weights.read_bytes() == whole
    assert run_stage(workspace, road.pipeline, road.selection, Stage.TRAIN).note == "nothing to do"
    assert run_stage(workspace, road.pipeline, road.selection, Stage.EMBED).note == "nothing to do"


@pytest.mark.parametrize(
    ("devices", "variables", "rank"),
    [
        (2, {}, 0),
        (2, {"RANK": "1", "LOCAL_RANK": "0"}, 1),
        (2, {"LOCAL_RANK": "1"}, 1),
        (2, {"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, 1),
        (2, {"SLURM_PROCID": "1"}, 1),
        (1, {"RANK": "1", "LOCAL_RANK": "1", "SLURM_PROCID": "1"}, 0),
    ],
)
def test_the_rank_of_a_process(
    monkeypatch: pytest.MonkeyPatch, devices: int, variables: dict[str, str], rank: int
) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert global_rank(TrainConfig(devices=devices)) == rank


def test_several_devices_within_another_program_are_refused(
    road: Road, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fabric would start the second rank by running this test session again."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    two = tiny_pipeline(train={"devices": 2})
    with pytest.raises(ConfigError, match=r"2 devices need a process each.*torchrun --nproc-per-node 2"):
        run_stage(workspace, two, road.selection, Stage.TRAIN, SILENT)


def _train_on_two(road: Road, folder: Path, launcher: list[str]) -> subprocess.CompletedProcess[str]:
    pipeline = folder / "tiny.yaml"
    pipeline.write_text(yaml.safe_dump(TINY))
    settings = [word for setting in TWO_RANKS for word in ("--set", setting)]
    where = [str(pipeline), "--data", str(road.data), "--home", str(road.home), "--engine", "serial"]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "SLURM_NTASKS")
    }
    return subprocess.run(
        [*launcher, "train", *where, *settings],
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=240,
        check=False,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torchrun", "module", "script"])
def test_two_ranks_train_one_model(road: Road, workspace: Workspace, tmp_path: Path, how: str) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launchers = {
        "torchrun": [sys.executable, *torchrun, "-m", "neuromill.cli.main"],
        "module": [sys.executable, "-m", "neuromill.cli.main"],
        "script": [str(Path(sys.executable).parent / "neuromill")],
    }
    before = len(workspace.ledger.runs("train"))
    ended = _train_on_two(road, tmp_path, launchers[how])
    assert ended.returncode == 0, ended.stderr
    (row,) = workspace.ledger.runs("train")[before:]
    assert row.identity != road.results[Stage.TRAIN].identity
    assert (row.facts["world_size"], row.facts["steps"]) == (2, 3)
    assert row.ended_at is not None
    from_pretrained(workspace.run_folder(row.identity) / "model")
    assert list((road.home / "locks").iterdir()) == []
    again = _train_on_two(road, tmp_path, launchers[how])
    assert again.returncode == 0, again.stderr
    assert len(workspace.ledger.runs("train")) == before + 1
