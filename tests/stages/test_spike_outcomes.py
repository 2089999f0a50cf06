"""Every recording of spikes in the test data, whole or damaged, ends as the table says; what is made of it is right."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neuromill.stages.outcomes import Stage
from neuromill.store.reader import StoreReader
from support.outcome_folders import (
    Ended,
    EveryFolder,
    assert_ended_as_the_table_says,
    folders_of,
    place_of,
    rows_of,
    run_folder,
)
from support.outcomes import TOKENS, Expected
from support.paths import data_root
from support.spike_roads import tiny_spike_pipeline

ROWS = rows_of("spikes")
FOLDERS = folders_of(ROWS)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Ended]:
    home, road = tmp_path_factory.mktemp("spike-outcomes"), {"spikes": tiny_spike_pipeline()}
    return {data: run_folder(data, home / f"{data.parent.name}-{data.name}", road, train=True) for data in FOLDERS}


@pytest.mark.data
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_the_recording_ends_as_the_table_says(ended: dict[Path, Ended], row: Expected) -> None:
    assert_ended_as_the_table_says(ended, row)


@pytest.mark.data
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
class TestFolder(EveryFolder):
    rows = ROWS

    def test_tokens_train(self, ended: dict[Path, Ended], folder: Path) -> None:
        (run,) = ended[folder].runs.values()
        if any(row.outcome == TOKENS for row in ROWS if place_of(row)[0] == folder):
            assert run.losses
            assert all(map(math.isfinite, run.losses))
        else:
            assert run.losses == ()


def _prepared(ended: dict[Path, Ended], path: str) -> tuple[StoreReader, str, dict[str, Any]]:
    root, inside = place_of(Expected(path, "spikes", TOKENS, ""))
    one = ended[root]
    return one.open(Stage.PREPARE, inside), one.names[inside], one.prepared[inside]


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
