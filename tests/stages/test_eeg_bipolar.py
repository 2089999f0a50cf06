"""Bipolar channels through the stages: names and facts of the prepared group, codes per pair."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from neuromill.signals.bipolar import BIPOLAR_MONTAGES
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.store.reader import StoreReader
from neuromill.store.verify import verify_store
from neuromill.tokenizers.files import save_pretrained
from neuromill.tokenizers.tfdual_config import TfDualNetworkConfig, TfDualTokenizerConfig
from support.eeg_roads import TFDUAL, Tokenizers, codebrain_steps, road_pipeline
from support.stages import workspace_at
from support.tfdual import random_tokenizer

REST = "bids/eeg-arithmetic/sub-00/eeg/sub-00_task-rest_eeg.edf"
SIXTEEN = BIPOLAR_MONTAGES["double-banana-16"]
SMALL = TfDualTokenizerConfig(
    channels=SIXTEEN,
    network=TfDualNetworkConfig(width=50, depth=1, heads=5, mlp_ratio=1, decoder_depth=1, max_channels=16),
)


def bipolar_pipeline(folder: Path) -> Pipeline:
    """``codebrain`` with pairs in place of electrodes, and a tokenizer of sixteen of them."""
    save_pretrained(random_tokenizer(SMALL), folder)
    changes = {"pick_montage": {"step": "pick_bipolar"}, "notch_filter": {"step": "notch_filter", "freqs": [50.0]}}
    steps = [changes.get(step["step"], step) for step in codebrain_steps()]
    document = road_pipeline(TFDUAL, Tokenizers({TFDUAL: folder})).model_dump(mode="json", exclude_unset=True)
    return Pipeline.model_validate(document | {"prepare": {"steps": steps, "min_seconds": 30.0}})


@pytest.mark.data
def test_pairs_of_a_real_recording_become_tokens(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    shutil.copy(data / REST, folder / "a.edf")
    pipeline, selection = bipolar_pipeline(tmp_path / "tokenizer"), Selection(data=folder)
    with workspace_at(tmp_path / "home") as workspace:
        results = [run_stage(workspace, pipeline, selection, one) for one in (Stage.INGEST, Stage.PREPARE)]
        results.append(run_stage(workspace, pipeline, selection, Stage.TOKENIZE))
    signals, tokens = (
        next((tmp_path / "home" / "stores").glob(f"*/{stage}/{result.identity}"))
        for stage, result in zip(("prepare", "tokenize"), results[1:], strict=True)
    )
    assert verify_store(signals) == verify_store(tokens) == ()
    (prepared,) = StoreReader.open(signals).recordings
    assert prepared.attributes["channel_names"] == list(SIXTEEN)
    montage = prepared.attributes["facts"]["chain"]["montage"]
    assert montage["sources"][0] == ["EEG Fp1", "EEG F7"]
    assert (montage["missing"], montage["mixed"]) == ([], [])
    assert "EEG Cz" in montage["unmatched"]
    reader = StoreReader.open(tokens)
    codes = reader.read(reader.recordings[0].name, "codes")
    assert codes.shape == (180, 2, 16)
    assert codes.dtype == np.uint16
