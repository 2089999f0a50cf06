"""Every kind of tokenizer through the same stages, on the same magnetometers: one pipeline file away."""

import numpy as np
import pytest

from neuromill.records import ConfigError
from neuromill.stages.channels import channel_table
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.selection import Selection
from neuromill.store.reader import StoreReader
from neuromill.tokenizers.encoding import encode_segments, grid_for
from neuromill.tokenizers.files import open_tokenizer
from neuromill.tokenizers.tfdual_config import TfDualTokenizerConfig
from support.stages import N_CHANNELS, TINY, run, workspace_at, write_bids
from support.tfdual import SMALL

STAGES = (Stage.INGEST, Stage.PREPARE, Stage.FIT, Stage.TOKENIZE)
TFDUAL = {
    "kind": "tfdual", "sfreq": 50.0, "channels": [], "group_channels": 4, "input": {"scaling": "robust"},
    "network": SMALL.model_dump() | {"depth": 1, "codebook_size": 300},
}  # fmt: skip
TFDUAL_FIT = {"kind": "tfdual", "batch_size": 3, "steps": 2, "kmeans_iterations": 2, "log_every": 1, "cpu_threads": 1}


def pipeline_of(tokenizer, fit=None):
    document = {key: value for key, value in TINY.items() if key not in ("fit", "tokenize")}
    return Pipeline.model_validate(document | {"tokenizer": tokenizer} | ({"fit": fit} if fit else {}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_bids(tmp_path_factory.mktemp("data") / "lab", subjects=("01", "02"))


def road(home, data, pipeline):
    """Run all stages up to tokens; give back the codes of the first recording, its attributes and its tokenizer."""
    with workspace_at(home) as workspace:
        results = run(
            workspace, pipeline, Selection(data=data), *(list(Stage)[: list(Stage).index(Stage.TOKENIZE) + 1])
        )
        assert all(result.failed == 0 for result in results.values())
        store = home / "stores" / "lab@local" / "tokenize" / results[Stage.TOKENIZE].identity
        return store, open_tokenizer(workspace.tokenizer_folder(results[Stage.FIT].identity)), results


def test_tfdual_on_magnetometers(tmp_path, data):
    pipeline = pipeline_of(TFDUAL, TFDUAL_FIT)
    store, tokenizer, results = road(tmp_path, data, pipeline)
    assert isinstance(tokenizer.config, TfDualTokenizerConfig)
    with StoreReader.of_groups(store) as reader:
        name = reader.recordings[0].name
        codes = np.asarray(reader.read(name, "codes"))
        scale = np.asarray(reader.read(name, "scale"))
        attributes = reader.recording(name).attributes
        channels = tuple(attributes["channel_names"])
    assert codes.dtype == np.uint16
    assert codes.shape[1:] == (2, N_CHANNELS)
    assert np.isfinite(scale).all()
    assert attributes["segment_samples"] == tokenizer.window_samples
    prepared = tmp_path / "stores" / "lab@local" / "prepare" / results[Stage.PREPARE].identity
    with StoreReader.of_groups(prepared, (name,)) as reader:  # any window again: the stored codes
        table, n_times = channel_table(reader, name), reader.recording(name).n_rows
        last = grid_for(tokenizer, pipeline.tokenize, n_times).segments[-1]
        (again,) = encode_segments(
            tokenizer, lambda a, b: reader.read_physical(name, a, b), [last], pipeline.tokenize, table
        )
    assert table.names == channels
    assert np.array_equal(again.codes, codes[last.frames.start : last.frames.stop])


@pytest.mark.parametrize("kind", ["mu_law", "quantile"])
def test_fixed_tokenizers_need_no_fit(tmp_path, data, kind):
    store, tokenizer, _ = road(tmp_path, data, pipeline_of({"kind": kind, "sfreq": 50.0}))
    with StoreReader.of_groups(store) as reader:
        name = reader.recordings[0].name
        codes = np.asarray(reader.read(name, "codes"))
    assert codes.dtype == np.uint8
    assert codes.shape[1:] == (1, N_CHANNELS)
    assert tokenizer.state() == {}


def test_tokenizer_and_fit_must_be_of_one_kind(tmp_path, data):
    with pytest.raises(ConfigError, match="cannot be fitted with these settings"):
        road(tmp_path, data, pipeline_of(TFDUAL))
