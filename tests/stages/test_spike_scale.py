"""The scale of covariates in tokens: of the whole recording, or of its training part alone."""

from collections.abc import Iterator

import numpy as np
import pytest

from neuromill.catalog.time_blocks import TimeBlocks, block_spans
from neuromill.records import UnitTable
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.running import run_stage
from neuromill.stages.spike_tokenizing import PreparedSpikes, training_scale
from neuromill.stages.workspace import Workspace
from neuromill.store.reader import StoreReader
from neuromill.synthetic.nwb import SessionsSpec, session_files
from support.stages import workspace_at

from .test_spike_training import SELECTION, tiny, write_card

BLOCKS = TimeBlocks(validation=(0.5, 0.75), test=(0.75, 1.0), guard_seconds=1.0)
WIDTH = 0.02


def made(values: np.ndarray, valid: np.ndarray | None = None) -> PreparedSpikes:
    n_times, n_covariates = values.shape
    return PreparedSpikes(
        UnitTable(("u",), ("",), ("",), ("",), (None,), ("",)),
        np.zeros((n_times, 1), np.uint8), values.astype(np.float32),
        np.ones_like(values, bool) if valid is None else valid, np.full(n_covariates, 7, np.float32),
        np.zeros(n_times, np.int32), np.ones(n_times, bool), {"bin_seconds": WIDTH},
    )  # fmt: skip


def test_neither_held_out_blocks_nor_guards_count() -> None:
    values = np.tile(np.arange(1000.0)[:, None], 2)
    values[450:] = 1e6  # the guard of 50 bins, validation, test
    np.testing.assert_allclose(training_scale(made(values), BLOCKS, 0.999), np.quantile(np.arange(450.0), 0.999))
    np.testing.assert_array_equal(training_scale(made(values), BLOCKS, 1.0), 449)


def test_what_is_not_observed_in_training_keeps_the_scale_of_the_recording() -> None:
    valid = np.ones((1000, 2), bool)
    valid[:450, 1] = False
    found = training_scale(made(np.full((1000, 2), -3.0), valid), BLOCKS, 0.999)
    assert found.dtype == np.float32
    assert found.tolist() == [3, 7]


def test_a_covariate_that_is_still_in_training_is_not_divided_by_nothing() -> None:
    values = np.zeros((1000, 1))
    values[600:] = 5
    assert training_scale(made(values), BLOCKS, 0.999).tolist() == [1]


def scaled(by: str) -> Pipeline:
    return tiny().model_copy(update={"tokenizer": tiny().tokenizer.model_copy(update={"scale_from": by})})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("scale")
    for path, content in session_files(SessionsSpec(subjects=1, units_per_array=8, seconds=40.0)).items():
        file = folder / "sessions" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    write_card(folder / "home", folder / "sessions", time_blocks=BLOCKS.model_dump(mode="json"))
    with workspace_at(folder / "home") as opened:
        for stage in (Stage.INGEST, Stage.PREPARE):
            assert run_stage(opened, tiny(), SELECTION, stage).done == 1
        yield opened


def identity(workspace: Workspace, by: str) -> str:
    with workspace_at(workspace.home) as again:  # reads the card as it is now
        return work_context(again, scaled(by), choose(again, scaled(by), SELECTION), Stage.TOKENIZE).token_identity


def test_tokens_are_scaled_by_the_training_part_where_the_pipeline_says_so(workspace: Workspace) -> None:
    results = {by: run_stage(workspace, scaled(by), SELECTION, Stage.TOKENIZE) for by in ("recording", "train")}
    assert [result.done for result in results.values()] == [1, 1]
    stores = {path.name: path for path in (workspace.home / "stores").glob("*/*/*")}
    (prepared,) = (path for path in stores.values() if path.parent.name == "prepare")
    with StoreReader.open(prepared) as reader:
        name = reader.recordings[0].name
        values, valid, whole = (reader.read(name, f"covariate{end}") for end in ("", "_valid", "_scale"))
    scales = {}
    for by, result in results.items():
        with StoreReader.open(stores[result.identity]) as reader:
            scales[by] = reader.read(name, "covariate_scale")
    spans = block_spans(BLOCKS, len(values), WIDTH)
    train = np.concatenate([np.arange(one.start, one.stop) for one in spans if one.split == "train"])
    expected = [np.quantile(np.abs(values[train, k][valid[train, k] != 0]), 0.999) for k in range(values.shape[1])]
    np.testing.assert_array_equal(scales["recording"], whole)
    np.testing.assert_allclose(scales["train"], expected, rtol=1e-6)
    assert (scales["train"] != whole).any()
    assert run_stage(workspace, scaled("train"), SELECTION, Stage.TRAIN).done == 1


def test_other_blocks_are_other_tokens_only_where_they_decide_the_scale(workspace: Workspace) -> None:
    card = workspace.home / "catalogs" / "own.yaml"
    kept = card.read_text()
    before = {by: identity(workspace, by) for by in ("recording", "train")}
    try:
        card.write_text(kept.replace("- 0.5\n", "- 0.6\n"))
        assert card.read_text() != kept
        after = {by: identity(workspace, by) for by in ("recording", "train")}
    finally:
        card.write_text(kept)
    assert after["recording"] == before["recording"] != before["train"] != after["train"]
