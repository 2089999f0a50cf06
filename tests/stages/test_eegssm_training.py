"""The train stage for EEGSSM: signals and tokens from the stores, rejected windows, what names the run."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from neuromill.models.eegssm import EEGSSM
from neuromill.models.files import from_pretrained
from neuromill.records import ConfigError
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.eegssm_training import open_coded
from neuromill.stages.outcomes import Stage
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.training import halves
from neuromill.stages.workspace import Workspace
from neuromill.store.reader import StoreReader
from neuromill.tokenizers.files import save_pretrained
from neuromill.training.metrics import MetricsFile
from support.stages import Listener, workspace_at
from support.tfdual import random_tokenizer
from support.tiny_eeg import HOP, MODEL, TOKENIZER, WINDOW, pipeline_of, write_eeg


def one_artefact(number: int, signal: np.ndarray) -> None:
    """C3 of the first subject is far too large from 7 to 8 s."""
    if number == 0:
        signal[0, 700:800] += 2e-3 * np.sin(np.linspace(0, 60, 100))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eeg")
    save_pretrained(random_tokenizer(TOKENIZER), folder / "tokenizer")
    write_eeg(folder / "lab", ("01", "02", "03"), one_artefact)
    return folder


@pytest.fixture(scope="module")
def workspace(folder: Path) -> Iterator[Workspace]:
    with workspace_at(folder / "home") as opened:
        for stage in (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE):
            result = run_stage(opened, pipeline_of(folder / "tokenizer"), Selection(data=folder / "lab"), stage)
            assert (result.done, result.failed) == (3, 0)
        yield opened


def test_a_run_reads_both_stores_and_is_done_once(workspace: Workspace, folder: Path) -> None:
    pipeline, selection = pipeline_of(folder / "tokenizer"), Selection(data=folder / "lab")
    listener = Listener()
    result = run_stage(workspace, pipeline, selection, Stage.TRAIN, listener)
    assert result.note.startswith("loss ")
    rows = MetricsFile(workspace.run_folder(result.identity) / "metrics.jsonl").rows()
    assert rows[0]["loss"] == pytest.approx(2 * np.log(300), abs=1)
    assert len(rows[0]["per_quantizer"]) == len(rows[0]["commonest"]) == 2
    model = from_pretrained(workspace.run_folder(result.identity) / "model", EEGSSM)
    assert (model.config.codebook_size_t, model.config.codebook_size_f) == (300, 300)
    assert run_stage(workspace, pipeline, selection, Stage.TRAIN).note == "nothing to do"
    other = run_stage(workspace, pipeline_of(folder / "tokenizer", mask_share=0.4), selection, Stage.TRAIN)
    assert other.identity != result.identity


def test_the_signal_is_in_the_unit_of_the_tokenizer_and_rejected_windows_are_silent(
    workspace: Workspace, folder: Path
) -> None:
    pipeline, selection = pipeline_of(folder / "tokenizer"), Selection(data=folder / "lab")
    chosen = choose(workspace, pipeline, selection)
    context = work_context(workspace, pipeline, chosen, Stage.TRAIN)
    source = open_coded(workspace, context, halves(workspace, chosen, context).train)
    assert [one.subject for one in source.recordings] == ["01", "02", "03"]
    first = source.recordings[0]
    assert (first.n_frames, first.n_channels, first.segment_frames) == (30, 4, WINDOW)
    expected = np.ones((4, 30), np.bool_)
    expected[0, 6:12] = False  # 7 to 8 s lie in the second window of 6 s
    np.testing.assert_array_equal(source.usable(0, 0, 30), expected)
    store = workspace.store(chosen.selected[0].id.dataset_version, Stage.PREPARE, context.identity(Stage.PREPARE))
    with StoreReader.open(store) as reader:
        volts = reader.read_physical(reader.recordings[0].name)
    out = np.empty((4, 9 * HOP), np.float32)
    source.read_signal(0, 4, 13, out)  # over two seams of segments
    np.testing.assert_allclose(out, volts[4 * HOP : 13 * HOP].T / TOKENIZER.input.unit_volts, rtol=1e-5, atol=1e-6)
    assert source.code_counts().sum() == 2 * 4 * 30 * 3


def test_parity_rejects_whole_windows(workspace: Workspace, folder: Path) -> None:
    pipeline, selection = pipeline_of(folder / "tokenizer", parity=True), Selection(data=folder / "lab")
    chosen = choose(workspace, pipeline, selection)
    context = work_context(workspace, pipeline, chosen, Stage.TRAIN)
    source = open_coded(workspace, context, halves(workspace, chosen, context).train)
    assert source.usable(0, 0, 30).all(axis=0).tolist() == [True] * 6 + [False] * 6 + [True] * 18


def test_a_patch_of_another_length_is_refused(workspace: Workspace, folder: Path) -> None:
    pipeline = pipeline_of(folder / "tokenizer", model={**MODEL, "patch_size": 100})
    with pytest.raises(ConfigError, match=r"has 50 samples, a patch of the model 100.*train\.model\.patch_size to 50"):
        run_stage(workspace, pipeline, Selection(data=folder / "lab"), Stage.TRAIN)
