"""Every recording of spikes in the test data, whole or damaged, ends as the table says; what is made of it is right."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neuromill.catalog.work import Counts, WorkState
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.running import plan_stage, run_stage
from neuromill.stages.selection import Selection
from neuromill.store.reader import StoreReader
from neuromill.store.verify import verify_store
from support.outcomes import TOKENS, Expected, expected_outcomes
from support.paths import data_root
from support.recordings import dataset_root
from support.spike_roads import tiny_spike_pipeline
from support.stages import counts, leftovers, workspace_at

ROWS = tuple(row for row in expected_outcomes() if row.modality == "spikes")
FOLDERS = sorted({dataset_root(data_root(), row.path)[0] for row in ROWS})
STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)


@dataclass(frozen=True)
class Ended:
    """What became of one folder."""

    results: dict[Stage, StageResult]
    counts: dict[Stage, Counts]
    outcomes: dict[str, str]  # by path of the recording within the folder
    next_steps: dict[str, str]
    names: dict[str, str]  # recording name by path
    prepared: Path
    tokens: Path
    losses: tuple[float, ...]
    problems: tuple[object, ...]
    leftovers: tuple[str, ...]
    again: tuple[str, ...]


@pytest.fixture(scope="session")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Ended]:
    home = tmp_path_factory.mktemp("spike-outcomes")
    return {data: _run(data, home / f"{data.parent.name}-{data.name}") for data in FOLDERS}


def _run(data: Path, home: Path) -> Ended:
    pipeline, selection = tiny_spike_pipeline(), Selection(data=data)
    with workspace_at(home) as workspace:
        paths = {
            item.recording.id: item.recording.path
            for item in plan_stage(workspace, pipeline, selection, Stage.INGEST).todo
        }
        results = {stage: run_stage(workspace, pipeline, selection, stage) for stage in STAGES}
        rows = [row for row in workspace.ledger.rows() if row.key.recording_id in paths]
        failed = {row.key.recording_id: row for row in rows if row.state is WorkState.FAILED}
        done = {row.key.recording_id for row in rows if row.state is WorkState.DONE and row.key.stage == "tokenize"}
        version = next(iter(paths)).dataset_version
        prepared, tokens = (
            workspace.store(version, stage, results[stage].identity) for stage in (Stage.PREPARE, Stage.TOKENIZE)
        )
        problems = (*verify_store(prepared), *verify_store(tokens)) if done else ()
        train = run_stage(workspace, pipeline, selection, Stage.TRAIN) if done else None
        return Ended(
            results=results,
            counts={stage: counts(workspace, result, version) for stage, result in results.items()},
            outcomes={
                path: str(failed[name].code) if name in failed else TOKENS if name in done else "nothing"
                for name, path in paths.items()
            },
            next_steps={path: failed[name].next_step for name, path in paths.items() if name in failed},
            names={path: name.name for name, path in paths.items()},
            prepared=prepared,
            tokens=tokens,
            losses=_losses(workspace.run_folder(train.identity)) if train else (),
            problems=problems,
            leftovers=tuple(leftovers(home)),
            again=tuple(run_stage(workspace, pipeline, selection, stage).note for stage in STAGES),
        )


def _losses(folder: Path) -> tuple[float, ...]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return tuple(line["loss"] for line in lines if line["kind"] == "train")


def _rows_of(folder: Path) -> dict[str, Expected]:
    places = {row: dataset_root(data_root(), row.path) for row in ROWS}
    return {path: row for row, (root, path) in places.items() if root == folder}


@pytest.mark.data
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_the_recording_ends_as_the_table_says(ended: dict[Path, Ended], row: Expected) -> None:
    root, path = dataset_root(data_root(), row.path)
    assert ended[root].outcomes.get(path) == row.outcome, row.reason
    if row.outcome != TOKENS:
        assert ended[root].next_steps[path]  # whoever reads the failure is told what to do


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

    def test_a_second_run_has_nothing_to_do(self, ended: dict[Path, Ended], folder: Path) -> None:
        assert set(ended[folder].again) == {"nothing to do"}

    def test_tokens_train(self, ended: dict[Path, Ended], folder: Path) -> None:
        losses = ended[folder].losses
        if any(row.outcome == TOKENS for row in _rows_of(folder).values()):
            assert losses
            assert all(map(math.isfinite, losses))
        else:
            assert losses == ()


def _prepared(ended: dict[Path, Ended], path: str) -> tuple[StoreReader, str, dict[str, Any]]:
    root, inside = dataset_root(data_root(), path)
    one = ended[root]
    reader = StoreReader.open(one.prepared)
    name = one.names[inside]
    return reader, name, dict(reader.recording(name).attributes)


REAL = tuple(row.path for row in ROWS if row.outcome == TOKENS and not row.path.startswith("malformed"))


@pytest.mark.data
@pytest.mark.parametrize("path", REAL)
def test_counts_per_unit_are_the_spikes_within_the_bins(ended: dict[Path, Ended], path: str) -> None:
    """Oracle: one histogram per unit of the times as h5py reads them, nothing of ours in between."""
    reader, name, about = _prepared(ended, path)
    counts = reader.read(name, "counts")
    width, start = about["bin_seconds"], about["start_seconds"]
    with h5py.File(data_root() / path) as file:
        times, ends = file["units/spike_times"][:], file["units/spike_times_index"][:].astype(int)
    for unit, (a, b) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        # A time written in decimals may lie on an edge: to 1 ns it belongs to the bin that begins there.
        bins = np.floor(np.round((times[a:b] - start) / width, 7)).astype(int)
        inside = bins[(bins >= 0) & (bins < len(counts))]
        np.testing.assert_array_equal(np.bincount(inside, minlength=len(counts)), counts[:, unit], err_msg=str(unit))


@pytest.mark.data
def test_covariates_are_resampled_as_scipy_does(ended: dict[Path, Ended]) -> None:
    """1 kHz hand velocity of the maze trial, regular stamps: polyphase 1/20 with line padding, in every whole bin.

    A covariate stands for the end of its bin: the value of bin k is scipy's sample k + 1.
    """
    from scipy.signal import resample_poly

    path = "nwb/mc_maze_trial748.nwb"
    reader, name, about = _prepared(ended, path)
    with h5py.File(data_root() / path) as file:
        series = file["processing/behavior/hand_vel"]
        values = series["data"][:] * series["data"].attrs["conversion"]
    column = about["covariate_names"].index("hand_vel_x")
    ours = reader.read(name, "covariate")[:, column]
    theirs = resample_poly(values[:, 0], 1, 20, padtype="line")[1:]
    n = min(len(ours), len(theirs))
    assert n >= 160
    assert len(ours) - n <= 1
    # float32 storage of values up to 0.5 m/s
    np.testing.assert_allclose(ours[:n], theirs[:n], atol=1e-7)


@pytest.mark.data
def test_masked_units_and_stretches_stay_in_their_places(ended: dict[Path, Ended]) -> None:
    reader, name, about = _prepared(ended, "malformed/nwb/nwb_spikes_nan.nwb")
    whole = _prepared(ended, "malformed/nwb/nwb_ok.nwb")
    assert about["unit_names"] == whole[2]["unit_names"]
    assert len(about["bads"]) == len(about["unit_names"]) - 11
    reader, name, about = _prepared(ended, "malformed/nwb/nwb_behaviour_nan.nwb")
    valid = reader.read(name, "covariate_valid").astype(bool)
    assert 0 < valid.mean() < 1
