"""The gate is no part of a fit: with other thresholds, what is fitted is judged afresh, without a step."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuromill.records import NeuroMillError
from neuromill.stages.identities import fit_identity, learning_identity
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from neuromill.tokenizers.files import open_tokenizer, read_facts
from support.stages import Listener, run, tiny_pipeline, workspace_at, write_bids

STEPS = 3
STRICT = {"min_perplexity_share": 1.0}
LENIENT = {"min_perplexity_share": 0.0}


@pytest.fixture
def selection(tmp_path: Path) -> Selection:
    return Selection(data=write_bids(tmp_path / "lab", subjects=("01",)))


@pytest.fixture
def workspace(tmp_path: Path, selection: Selection) -> Iterator[Workspace]:
    with workspace_at(tmp_path / "home") as opened:
        run(opened, tiny_pipeline(), selection, Stage.INGEST, Stage.PREPARE)
        yield opened


def fit(workspace: Workspace, pipeline: Pipeline, selection: Selection) -> tuple[StageResult, float]:
    """What came out, and steps taken."""
    listener = Listener()
    return run_stage(workspace, pipeline, selection, Stage.FIT, listener), listener.advanced


def refused(workspace: Workspace, pipeline: Pipeline, selection: Selection) -> tuple[Path, float]:
    """File with the reasons, and steps taken."""
    listener = Listener()
    with pytest.raises(NeuroMillError, match="is not published") as caught:
        run_stage(workspace, pipeline, selection, Stage.FIT, listener)
    return Path(caught.value.where), listener.advanced


def test_refused_then_published_under_lower_thresholds_without_a_step(
    workspace: Workspace, selection: Selection, tmp_path: Path
) -> None:
    reasons, steps = refused(workspace, tiny_pipeline(gate=STRICT), selection)
    assert steps == STEPS
    assert refused(workspace, tiny_pipeline(gate=STRICT | {"n_windows": 2}), selection) == (reasons, 0)
    assert json.loads(reasons.read_text())["problems"]
    result, steps = fit(workspace, tiny_pipeline(gate=LENIENT), selection)
    assert (result.done, steps) == (1, 0)
    assert [path.name for path in (workspace.home / "tokenizers").iterdir()] == [result.identity]
    with workspace_at(tmp_path / "other") as other:  # the same tokenizer as if nobody had refused it
        run(other, tiny_pipeline(), selection, Stage.INGEST, Stage.PREPARE)
        direct, steps = fit(other, tiny_pipeline(gate=LENIENT), selection)
        assert steps == STEPS
        folders = [one.tokenizer_folder(result.identity) for one in (workspace, other)]
        assert direct.identity == result.identity
        assert (folders[0] / "model.safetensors").read_bytes() == (folders[1] / "model.safetensors").read_bytes()
        assert read_facts(folders[0]) == read_facts(folders[1])


def test_published_then_judged_by_other_thresholds_without_a_step(workspace: Workspace, selection: Selection) -> None:
    first, _ = fit(workspace, tiny_pipeline(gate=LENIENT), selection)
    broken = workspace.tokenizer_folder("0" * 16)  # another one that cannot be read is none of our business
    broken.mkdir()
    (broken / "config.json").write_text("{")
    reasons, steps = refused(workspace, tiny_pipeline(gate=STRICT), selection)
    assert steps == 0
    assert reasons.is_file()
    other, steps = fit(workspace, tiny_pipeline(gate={"n_windows": 2}), selection)
    assert (other.done, steps) == (1, 0)
    folders = [workspace.tokenizer_folder(one.identity) for one in (first, other)]
    assert folders[0] != folders[1]
    assert open_tokenizer(folders[0]).digest == open_tokenizer(folders[1]).digest
    frames = [read_facts(folder)["quality"]["usage"]["n_frames"] for folder in folders]
    assert frames[1] == 2 * frames[0]  # measured again, on twice the windows
    assert not reasons.exists()


def test_other_steps_are_another_fit(workspace: Workspace, selection: Selection) -> None:
    refused(workspace, tiny_pipeline(gate=STRICT), selection)
    _, steps = fit(workspace, tiny_pipeline(fit={"lr": 1e-3}), selection)
    assert steps == STEPS


def test_names() -> None:
    """That of the steps is the one of the tokenizer under the default gate; pipelines without a gate keep theirs."""
    pipelines = [tiny_pipeline(gate=gate) for gate in (STRICT, LENIENT)]
    assert len({fit_identity(pipeline, ()) for pipeline in pipelines}) == 2
    document = pipelines[0].model_dump(mode="json", exclude_unset=True)
    document.pop("gate")
    plain = Pipeline.model_validate(document)
    assert {learning_identity(pipeline, ()) for pipeline in pipelines} == {fit_identity(plain, ())}
    assert learning_identity(tiny_pipeline(fit={"seed": 1}), ()) != fit_identity(plain, ())
