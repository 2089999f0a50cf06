"""All stages on a real session with behaviour: position of a rat on a track, decoded beside ridge."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from neuromill.store.reader import StoreReader
from neuromill.training.metrics import MetricsFile
from support.stages import workspace_at

pytestmark = [pytest.mark.data, pytest.mark.slow]  # 30 s of training

FILE = "nwb/rat_linear_track.nwb"
POSITION = "processing/behavior/Position/position"
BIN_SECONDS = 0.02
N_UNITS, N_SPIKES = 31, 28829

CARD: dict[str, Any] = {
    "id": "rat",
    "title": "A rat on a linear track",
    "archive": "local",
    "version": "1",
    "modality": "spikes",
    "device": "tetrodes",
    "licence": "MIT",
    "citation": "nelpy example data",
    "recordings": {"layout": "plain", "datatypes": ["spikes"]},
    "spikes": {
        "units": {"is_sorted": True},
        "covariates": [{"path": POSITION, "axes": ["x", "y"]}],
        "need_covariates": True,
        "trials": None,
    },
    # After 49.7 % of the session every sample reads (522, 8): the tracking ended.
    "splits": {"time_blocks": {"validation": [0.35, 0.42], "test": [0.42, 0.49]}},
}

PIPELINE = Pipeline.model_validate(
    {
        "name": "rat",
        "datasets": ["rat"],
        "prepare": {"kind": "spikes", "bin_seconds": BIN_SECONDS},
        "tokenizer": {"kind": "ndt3"},
        "train": {
            "kind": "ndt3",
            "model": {"hidden_dim": 64, "n_layers": 2, "n_heads": 4, "dropout": 0.0},
            "optim": {"lr": 3.0e-3, "warmup_steps": 20},
            "covariate_weight": 30.0,
            "batch_size": 8,
            "epochs": 100,
            "max_steps": 300,
            "validate_every_steps": 300,
            "accelerator": "cpu",
            "cpu_threads": 1,
        },
    }
)


@pytest.fixture(scope="module")
def road(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, dict[Stage, StageResult]]]:
    """The session in a folder of its own, declared by a card in the home folder, after all stages."""
    folder = tmp_path_factory.mktemp("rat")
    (folder / "session").mkdir()
    shutil.copy(data / FILE, folder / "session")
    cards = folder / "home" / "catalogs"
    cards.mkdir(parents=True)
    (cards / "rat.yaml").write_text(yaml.safe_dump(CARD | {"folder": str(folder / "session")}))
    with workspace_at(folder / "home") as workspace:
        stages = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE, Stage.TRAIN)
        yield workspace, {stage: run_stage(workspace, PIPELINE, Selection(), stage) for stage in stages}


def prepared(workspace: Workspace, results: dict[Stage, StageResult]) -> StoreReader:
    return StoreReader.open(workspace.home / "stores" / "rat@1" / "prepare" / results[Stage.PREPARE].identity)


def test_every_stage_does_the_session(road):
    _, results = road
    assert [(result.done, result.failed) for result in results.values()] == [(1, 0)] * 4


def test_counts_and_notes_are_those_of_the_file(road, data):
    with prepared(*road) as reader, h5py.File(data / FILE) as file:
        (about,) = reader.recordings
        counts = reader.read(about.name, "counts")
        spike_times, ends = file["units/spike_times"][:], file["units/spike_times_index"][:]
    # A time less than a nanosecond before an edge lies on it: a rule of binning. Without it 37 of 28829 spikes move.
    since = spike_times + 1e-9 - about.attributes["start_seconds"]
    bins = [np.floor(train / BIN_SECONDS).astype(int) for train in np.split(since, ends[:-1])]
    expected = np.stack([np.bincount(train, minlength=about.n_rows) for train in bins], axis=1)
    assert counts.shape[1] == N_UNITS
    np.testing.assert_array_equal(counts, expected)
    assert about.attributes["facts"]["counting"]["n_spikes"] == len(spike_times) == N_SPIKES
    assert about.attributes["facts"]["spikes"]["notes"] == [
        f"1 repeated time stamps of {POSITION} merged",
        "position_x, position_y: no change from 5382.3 to 6379.5 s (50% of the samples): was it tracked there?",
    ]


def test_behaviour_is_the_position_of_the_file_in_pixels(road, data):
    with prepared(*road) as reader, h5py.File(data / FILE) as file:
        (about,) = reader.recordings
        values, valid = reader.read(about.name, "covariate"), reader.read(about.name, "covariate_valid")
        stamps, position = file[f"{POSITION}/timestamps"][:], file[f"{POSITION}/data"][:].astype(float)
        ends = about.attributes["start_seconds"] + BIN_SECONDS * (1 + np.arange(about.n_rows))
    assert list(about.attributes["covariate_names"]) == ["position_x", "position_y"]
    assert list(about.attributes["covariate_units"]) == ["pixels", "pixels"]
    for axis in range(2):
        there = valid[:, axis].astype(bool)
        assert there.mean() > 0.99
        expected = np.interp(ends, stamps, position[:, axis])
        # Pixels are whole numbers at 60 Hz: a step of a running rat is a few of them.
        assert np.quantile(np.abs(values[there, axis] - expected[there]), 0.999) < 5


def test_position_is_decoded_and_told_beside_ridge(road):
    workspace, results = road
    note = results[Stage.TRAIN].note
    rows = MetricsFile(workspace.run_folder(results[Stage.TRAIN].identity) / "metrics.jsonl").rows()
    r2 = [row["r2"] for row in rows if row["kind"] == "validation"][-1]
    baselines, beside_test = (
        {row["name"]: row["r2"] for row in rows if row["kind"] == "baseline" and row["split"] == split}
        for split in ("stored", "test")
    )
    (test,) = [row["r2"] for row in rows if row["kind"] == "test"]
    first = f"R2 {r2:.2f} (ridge {baselines['ridge']:.2f})"
    assert note == f"{first}; test {test:.2f} (ridge {beside_test['ridge']:.2f})"
    # Measured: 0.47 and 0.30. Far from them the road is broken; close to them it is not this test's matter.
    assert 0.2 < r2 < 1
    assert 0.2 < baselines["ridge"] < 1
    assert baselines["mean"] < 0.01
