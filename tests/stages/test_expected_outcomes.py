"""Every MEG recording of the test data, whole or damaged, ends as the table says, and tokens can be trained on."""

import math
from pathlib import Path

import numpy as np
import pytest

from neuromill.stages.pipeline import load_pipeline
from neuromill.stages.shipped import find_pipeline
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
from support.stages import save_tiny_tokenizer, tiny_pipeline

ROWS = rows_of("meg")
FOLDERS = folders_of(ROWS)
TRAIN = {
    "model": {"latent_dim": 16, "n_layers": 1, "n_heads": 2, "fourier_dim": 8, "dropout": 0.0},
    "windows": {"window_frames": 12},
    "max_steps": 10,
    "log_every_steps": 1,
    "accelerator": "cpu",
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Ended]:
    """All folders in one home, by the steps a user of ``meg-xl`` runs."""
    folder = tmp_path_factory.mktemp("outcomes")
    tokenizer = {"source": str(save_tiny_tokenizer(folder / "tokenizer"))}
    steps = load_pipeline(find_pipeline("meg-xl")).prepare.model_dump(mode="json")
    road = {"meg": tiny_pipeline(prepare=steps, pretrained=tokenizer, train=TRAIN)}
    return {data: run_folder(data, folder / "home", road, train=True) for data in FOLDERS}


@pytest.mark.data
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_the_recording_ends_as_the_table_says(ended: dict[Path, Ended], row: Expected) -> None:
    assert_ended_as_the_table_says(ended, row)


@pytest.mark.data
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
class TestFolder(EveryFolder):
    rows = ROWS

    def test_tails_are_kept_and_masked(self, ended: dict[Path, Ended], folder: Path) -> None:
        for path, about in ended[folder].tokens.items():
            segment, n_segments = about["segment_samples"], about["n_segments"]
            assert (n_segments - 1) * segment < about["n_valid_samples"] <= n_segments * segment, path
        assert set(ended[folder].tokens) == tokenized(folder)

    def test_tokens_train(self, ended: dict[Path, Ended], folder: Path) -> None:
        (run,) = ended[folder].runs.values()
        if tokenized(folder):
            assert len(run.losses) >= 10
            assert all(map(math.isfinite, run.losses))
        else:
            assert run.losses == ()


def tokenized(folder: Path) -> set[str]:
    """Recordings of a folder that end as tokens."""
    return {path for row in ROWS for root, path in [place_of(row)] if root == folder and row.outcome == TOKENS}


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
