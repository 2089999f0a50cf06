"""Every MEG recording of the test data, whole or damaged, ends as the table says, and tokens can be trained on."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuromill.catalog.work import Counts, WorkState
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.pipeline import load_pipeline
from neuromill.stages.running import plan_stage, run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.shipped import find_pipeline
from neuromill.store.reader import StoreReader
from neuromill.store.verify import verify_store
from support.outcomes import TOKENS, Expected, expected_outcomes
from support.paths import data_root
from support.recordings import dataset_root
from support.stages import counts, leftovers, save_tiny_tokenizer, tiny_pipeline, workspace_at

ROWS = tuple(row for row in expected_outcomes() if row.modality == "meg")
FOLDERS = sorted({dataset_root(data_root(), row.path)[0] for row in ROWS})
STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)
TRAIN = {
    "model": {"latent_dim": 16, "n_layers": 1, "n_heads": 2, "fourier_dim": 8, "dropout": 0.0},
    "windows": {"window_frames": 12},
    "max_steps": 10,
    "log_every_steps": 1,
    "accelerator": "cpu",
}


@dataclass(frozen=True)
class Ended:
    """What became of one folder."""

    results: dict[Stage, StageResult]
    counts: dict[Stage, Counts]
    outcomes: dict[str, str]  # by path of the recording within the folder
    tokens: dict[str, dict[str, Any]]  # attributes by path
    losses: tuple[float, ...]
    problems: tuple[object, ...]
    leftovers: tuple[str, ...]
    again: tuple[str, ...]
    copies: tuple[Path, ...]


@pytest.fixture(scope="session")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Ended]:
    folder = tmp_path_factory.mktemp("outcomes")
    tokenizer = save_tiny_tokenizer(folder / "tokenizer")
    return {data: _run(data, folder / "home", tokenizer) for data in FOLDERS}


def _run(data: Path, home: Path, tokenizer: Path) -> Ended:
    steps = load_pipeline(find_pipeline("meg-xl")).prepare.model_dump(mode="json")  # the steps a user runs
    pipeline = tiny_pipeline(prepare=steps, pretrained={"source": str(tokenizer)}, train=TRAIN)
    selection = Selection(data=data)
    with workspace_at(home) as workspace:
        paths = {
            item.recording.id: item.recording.path
            for item in plan_stage(workspace, pipeline, selection, Stage.INGEST).todo
        }
        results = {stage: run_stage(workspace, pipeline, selection, stage) for stage in STAGES}
        rows = [row for row in workspace.ledger.rows() if row.key.recording_id in paths]
        failed = {row.key.recording_id: str(row.code) for row in rows if row.state is WorkState.FAILED}
        done = {row.key.recording_id for row in rows if row.state is WorkState.DONE and row.key.stage == "tokenize"}
        version = next(iter(paths)).dataset_version
        store = workspace.store(version, Stage.TOKENIZE, results[Stage.TOKENIZE].identity)
        tokens, problems = {}, ()
        if done:
            problems = verify_store(store)
            with StoreReader.open(store) as reader:
                names = {str(name): path for name, path in paths.items()}
                tokens = {names[one.attributes["recording_id"]]: dict(one.attributes) for one in reader.recordings}
        train = run_stage(workspace, pipeline, selection, Stage.TRAIN) if done else None
        again = tuple(run_stage(workspace, pipeline, selection, stage).note for stage in STAGES)
        losses = _losses(workspace.run_folder(train.identity)) if train else ()
        return Ended(
            results=results,
            counts={stage: counts(workspace, result, version) for stage, result in results.items()},
            outcomes={path: failed.get(name, TOKENS if name in done else "nothing") for name, path in paths.items()},
            tokens=tokens,
            losses=losses,
            problems=problems,
            leftovers=tuple(leftovers(home)),
            again=again,
            copies=tuple(
                path for path in (home / "cache" / "raw").rglob("*") if path.is_file() and not path.is_symlink()
            ),
        )


def _losses(folder: Path) -> tuple[float, ...]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return tuple(line["loss"] for line in lines if "loss" in line)


def _rows_of(folder: Path) -> dict[str, Expected]:
    places = {row: dataset_root(data_root(), row.path) for row in ROWS}
    return {path: row for row, (root, path) in places.items() if root == folder}


@pytest.mark.data
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_the_recording_ends_as_the_table_says(ended: dict[Path, Ended], row: Expected) -> None:
    root, path = dataset_root(data_root(), row.path)
    assert ended[root].outcomes.get(path) == row.outcome, row.reason


@pytest.mark.data
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
class TestFolder:
    def test_nothing_else_is_found(self, ended: dict[Path, Ended], folder: Path) -> None:
        assert set(ended[folder].outcomes) == set(_rows_of(folder))

    def test_found_is_done_plus_failed_plus_waiting_at_each_stage(self, ended: dict[Path, Ended], folder: Path) -> None:
        found = len(_rows_of(folder))
        for stage in STAGES:
            result, ledger = ended[folder].results[stage], ended[folder].counts[stage]
            assert result.found == found
            assert (result.found, result.done, result.failed) == (ledger.found, ledger.done, ledger.failed)
            assert (ledger.waiting, ledger.running) == (0, 0)
            found -= result.failed

    def test_stores_are_whole_and_nothing_is_left_behind(self, ended: dict[Path, Ended], folder: Path) -> None:
        assert ended[folder].problems == ()
        assert ended[folder].leftovers == ()

    def test_files_are_read_in_place(self, ended: dict[Path, Ended], folder: Path) -> None:
        assert ended[folder].copies == ()

    def test_a_second_run_has_nothing_to_do(self, ended: dict[Path, Ended], folder: Path) -> None:
        assert set(ended[folder].again) == {"nothing to do"}

    def test_tails_are_kept_and_masked(self, ended: dict[Path, Ended], folder: Path) -> None:
        for path, about in ended[folder].tokens.items():
            segment, n_segments = about["segment_samples"], about["n_segments"]
            assert (n_segments - 1) * segment < about["n_valid_samples"] <= n_segments * segment, path
        expected = {path for path, row in _rows_of(folder).items() if row.outcome == TOKENS}
        assert set(ended[folder].tokens) == expected

    def test_tokens_train(self, ended: dict[Path, Ended], folder: Path) -> None:
        losses = ended[folder].losses
        if any(row.outcome == TOKENS for row in _rows_of(folder).values()):
            assert len(losses) >= 10
            assert all(map(math.isfinite, losses))
        else:
            assert losses == ()


@pytest.mark.data
def test_no_sample_is_dropped(ended: dict[Path, Ended]) -> None:
    """Seconds by hand from the files: 80 s of 3 channels, 5 s at 300.307 Hz, 10 s at 90 Hz."""
    tokens = ended[data_root() / "bids" / "meg-fif"].tokens
    samples = sorted(about["n_valid_samples"] for about in tokens.values())
    np.testing.assert_allclose(samples, [250, 500, 4000], atol=1)


@pytest.mark.data
def test_bad_channels_are_masked_not_dropped(ended: dict[Path, Ended]) -> None:
    tokens = ended[data_root() / "malformed" / "fif"].tokens
    whole = tokens["fif_ok_meg.fif"]
    for name, n_bad in (("fif_nan_channel_meg.fif", 2), ("fif_flat_channels_meg.fif", 3)):
        about = tokens[name]
        assert about["channel_names"] == whole["channel_names"]
        assert len(about["bads"]) == len(whole["bads"]) + n_bad
