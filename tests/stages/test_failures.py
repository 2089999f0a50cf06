"""What fails is told, stays failed or is tried again; a choice that makes no sense is a mistake."""

from pathlib import Path

import pytest

from neuromill.catalog.work import WorkState
from neuromill.records import ConfigError, FailureCode, PartId
from neuromill.stages.outcomes import Stage
from neuromill.stages.preparing import prepare_recording
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.work import WorkContext
from neuromill.stages.workspace import Workspace
from support.stages import (
    Listener,
    Road,
    bids_path,
    counts,
    filtered,
    run,
    tiny_pipeline,
    tree_digests,
    workspace_at,
    write_bids,
    write_fif,
)

ITEM_STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE, Stage.EMBED)
NAMES = [f"sub-{subject}_task-rest_run-0{number}_meg" for subject in ("01", "02") for number in (1, 2)]


# Failures


@pytest.fixture
def hurt(tmp_path: Path) -> Path:
    """A whole recording, a truncated one, and one that git-annex has not fetched."""
    data = write_bids(tmp_path / "hurt", subjects=("01", "02", "03"), seconds=5.0)
    broken = bids_path(data, "02")
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    lost = bids_path(data, "03")
    lost.unlink()
    key = "MD5E-s1000--d41d8cd98f00b204e9800998ecf8427e.fif"
    lost.symlink_to(f"../../.git/annex/objects/Zx/q9/{key}/{key}")
    return data


def test_failures_are_told_and_final_ones_are_not_tried_again(tmp_path: Path, hurt: Path) -> None:
    selection, pipeline, listener = Selection(data=hurt), tiny_pipeline(), Listener()
    with workspace_at(tmp_path / "home") as workspace:
        ingest = run_stage(workspace, pipeline, selection, Stage.INGEST, listener)
        assert (ingest.found, ingest.done, ingest.failed) == (3, 2, 1)
        prepare = run_stage(workspace, pipeline, selection, Stage.PREPARE, listener)
        assert (prepare.found, prepare.done, prepare.failed) == (2, 1, 1)
        assert [line.split(": ")[1] for line in listener.said] == ["missing_member", "truncated"]
        by_code = counts(workspace, ingest).by_code | counts(workspace, prepare).by_code
        assert by_code == {FailureCode.MISSING_MEMBER: 1, FailureCode.TRUNCATED: 1}

        again = run(workspace, pipeline, selection, Stage.INGEST, Stage.PREPARE)
        assert {result.note for result in again.values()} == {"nothing to do"}  # final: not tried again, still counted
        assert (again[Stage.INGEST].already_done, again[Stage.INGEST].failed) == (2, 1)
        assert (again[Stage.PREPARE].already_done, again[Stage.PREPARE].failed) == (1, 1)
        attempts = {row.code: row.attempts for row in workspace.ledger.rows(states=[WorkState.FAILED])}
        assert attempts == {FailureCode.MISSING_MEMBER: 1, FailureCode.TRUNCATED: 1}

        assert workspace.ledger.retry(codes=[FailureCode.TRUNCATED]) == 1
        assert run_stage(workspace, pipeline, selection, Stage.PREPARE).failed == 1
        write_fif(bids_path(hurt, "02"), seed=2)  # mended
        mended = run(workspace, pipeline, selection, Stage.INGEST, Stage.PREPARE)
        assert (mended[Stage.PREPARE].done, mended[Stage.PREPARE].failed) == (1, 0)

        bids_path(hurt, "03").unlink()
        write_fif(bids_path(hurt, "03"), seed=3)  # fetched: another input, so no retry is needed
        fetched = run(workspace, pipeline, selection, Stage.INGEST, Stage.PREPARE)
        assert [(result.done, result.failed) for result in fetched.values()] == [(1, 0), (1, 0)]


def test_a_lost_file_says_what_to_do(tmp_path: Path, hurt: Path) -> None:
    with workspace_at(tmp_path / "home") as workspace:
        run_stage(workspace, tiny_pipeline(), Selection(data=hurt), Stage.INGEST)
        (row,) = workspace.ledger.rows(states=[WorkState.FAILED])
    assert row.key.recording == "sub-03_task-rest_run-01_meg"
    assert "git annex get" in row.next_step
    assert "sub-03" in row.message


def test_an_error_nobody_foresaw_stops_one_recording(
    road: Road, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(context: WorkContext, item):
        if item.recording.id.name == NAMES[0]:
            raise ZeroDivisionError("one over nothing")
        return prepare_recording(context, item)

    monkeypatch.setattr("neuromill.stages.preparing.prepare_recording", prepare)
    changed = tiny_pipeline(prepare=filtered(2.0))
    result = run_stage(workspace, changed, road.selection, Stage.PREPARE)
    assert (result.done, result.failed) == (3, 1)
    (row,) = workspace.ledger.rows(states=[WorkState.FAILED])
    assert (row.code, row.key.recording) == (FailureCode.INTERNAL, NAMES[0])
    assert row.message.startswith(f"ZeroDivisionError: one over nothing at {Path(__file__).name}:")
    monkeypatch.undo()
    assert run_stage(workspace, changed, road.selection, Stage.PREPARE).done == 1


# Choosing


def test_a_condition_chooses(road: Road, workspace: Workspace) -> None:
    selection = Selection(data=road.data, where="subject = '01'")
    assert run_stage(workspace, road.pipeline, selection, Stage.PREPARE).found == 2


@pytest.mark.parametrize("where", ["subject = '77'", "no_such_column = 1", "subject = '01'; DROP TABLE x"])
def test_a_condition_that_chooses_nothing_is_a_mistake(road: Road, workspace: Workspace, where: str) -> None:
    with pytest.raises(ConfigError):
        run_stage(workspace, road.pipeline, Selection(data=road.data, where=where), Stage.PREPARE)


def test_a_folder_that_is_not_there_is_a_mistake(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        run_stage(workspace, tiny_pipeline(), Selection(data=tmp_path / "none"), Stage.INGEST)


def test_a_pipeline_without_datasets_needs_a_folder(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="names no datasets"):
        run_stage(workspace, tiny_pipeline(), Selection(), Stage.INGEST)


def test_a_card_nobody_has_is_a_mistake(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="no card has this id"):
        run_stage(workspace, tiny_pipeline(datasets=("ds000000",)), Selection(), Stage.INGEST)


def test_parts_do_the_work_together_and_share_one_tokenizer(walked: Road, tmp_path: Path) -> None:
    with workspace_at(tmp_path / "home") as workspace:
        for stage in (Stage.INGEST, Stage.PREPARE):
            for index in (1, 2):
                part = Selection(data=walked.data, part=PartId(index, 2))
                result = run_stage(workspace, walked.pipeline, part, stage)
                assert (result.found, result.done) == (2, 2)
        fit = run_stage(workspace, walked.pipeline, walked.selection, Stage.FIT)
        assert fit.identity == walked.results[Stage.FIT].identity
        for index in (1, 2):
            part = Selection(data=walked.data, part=PartId(index, 2))
            assert run_stage(workspace, walked.pipeline, part, Stage.TOKENIZE).done == 2
    for stage in ("prepare", "tokenize"):
        place = f"stores/lab@local/{stage}"
        assert tree_digests(tmp_path / "home" / place) == tree_digests(walked.home / place)
