"""One hour of EEG of 19 channels, from the file to the published tokens, as codebrain prepares and stores it."""

from pathlib import Path

import mne
import numpy as np
import pytest

from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline, load_pipeline
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.shipped import find_pipeline
from neuromill.store.reader import StoreReader
from neuromill.store.usage import codebook_usage
from neuromill.tokenizers.files import save_pretrained
from neuromill.tokenizers.tfdual_config import CHANNELS_10_20
from support.eeg_roads import SMALL_TFDUAL, codebrain_steps
from support.stages import workspace_at
from support.tfdual import random_tokenizer

SFREQ, HOUR = 200, 3600


def write_hour(root: Path) -> None:
    rng = np.random.default_rng(0)
    info = mne.create_info(list(CHANNELS_10_20), SFREQ, "eeg")
    info["line_freq"] = 60.0
    signal = rng.standard_normal((len(CHANNELS_10_20), HOUR * SFREQ)) * 2e-5
    file = root / "sub-01" / "eeg" / "sub-01_task-rest_eeg.fif"
    file.parent.mkdir(parents=True)
    mne.io.RawArray(signal, info, verbose="error").save(file, verbose="error")
    (root / "dataset_description.json").write_text('{"Name": "hour", "BIDSVersion": "1.9.0"}\n')


def pipeline_of(tokenizer: Path) -> Pipeline:
    """As shipped, but for a small network with the same codes, and nothing cut from the hour."""
    document = load_pipeline(find_pipeline("codebrain")).model_dump(mode="json", exclude_unset=True)
    document["prepare"]["steps"] = codebrain_steps()
    changes = {"tokenizer": SMALL_TFDUAL.model_dump(), "pretrained": {"source": str(tokenizer)}}
    return Pipeline.model_validate(document | changes)


@pytest.mark.slow
def test_an_hour_of_19_channels_takes_at_most_300_kilobytes(tmp_path: Path) -> None:
    """All files of the group: codes, divisors, segments, sensors, attributes with the pipeline, manifest."""
    write_hour(tmp_path / "hour")
    save_pretrained(random_tokenizer(SMALL_TFDUAL), tmp_path / "tokenizer")
    pipeline, selection = pipeline_of(tmp_path / "tokenizer"), Selection(data=tmp_path / "hour")
    with workspace_at(tmp_path / "home") as workspace:
        for stage in (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE):
            result = run_stage(workspace, pipeline, selection, stage)
            assert (result.done, result.failed) == (1, 0)
    (group,) = (tmp_path / "home").glob("stores/*/tokenize/*/*.zarr")
    n_bytes = sum(file.stat().st_size for file in group.rglob("*") if file.is_file())
    assert result.bytes_out == n_bytes
    with StoreReader.of_groups(group.parent) as reader:
        (one,) = reader.recordings
        assert one.main.shape == (HOUR, 2, 19)
        assert codebook_usage(reader, one.name).sum() == HOUR * 2 * 19
    assert HOUR * 2 * 19 * 2 < n_bytes <= 300_000
