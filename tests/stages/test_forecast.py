"""Plan before pay: what is told before, while and after the work is done."""

import shutil
from pathlib import Path

import pytest

from neuromill.records import ConfigError
from neuromill.stages.forecast import forecast
from neuromill.stages.outcomes import Stage
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from support.stages import Road, bids_path, run, save_tiny_tokenizer, tiny_pipeline, workspace_at, write_fif

RECORDING_STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)


def test_before_anything_is_done(walked: Road, tmp_path: Path) -> None:
    with workspace_at(tmp_path / "home") as workspace:
        told = {one.stage: one for one in forecast(workspace, walked.pipeline, walked.selection)}
        assert workspace.ledger.rows() == ()
    size = sum(path.stat().st_size for path in walked.data.rglob("*.fif"))
    assert [one.todo for one in told.values()] == [4, 4, 1, 4, 1]
    assert all(one.done == one.failed == 0 for one in told.values())
    assert (told[Stage.INGEST].bytes_in, told[Stage.INGEST].bytes_out) == (size, size)
    assert told[Stage.PREPARE].bytes_out is None  # no sidecar says how long the recordings are
    assert told[Stage.FIT].note == "after recordings are prepared"
    assert "tokenizer is fitted" in told[Stage.TOKENIZE].note
    assert not (tmp_path / "home" / "stores").exists()
    assert not (tmp_path / "home" / "cache" / "raw").exists()


def test_after_everything_is_done(road: Road, workspace: Workspace) -> None:
    told = forecast(workspace, road.pipeline, road.selection)
    assert [(one.found, one.done, one.todo) for one in told] == [(4, 4, 0), (4, 4, 0), (1, 1, 0), (4, 4, 0), (1, 1, 0)]
    assert [one.identity for one in told] == [road.results[one.stage].identity for one in told]
    assert all(one.found == one.done + one.failed + one.todo for one in told)


def test_time_comes_from_what_the_ledger_saw(road: Road, workspace: Workspace) -> None:
    shutil.rmtree(road.store(Stage.PREPARE))
    told = {one.stage: one for one in forecast(workspace, road.pipeline, road.selection)}
    rows = [row for row in workspace.ledger.rows() if row.key.stage == "prepare"]
    assert told[Stage.PREPARE].seconds == pytest.approx(sum(row.seconds or 0 for row in rows))
    assert told[Stage.INGEST].seconds is None


def test_time_grows_with_the_bytes_not_with_the_number_of_recordings(road: Road, workspace: Workspace) -> None:
    whole = tiny_pipeline(prepare={"dtype": "float32"})
    told = forecast(workspace, whole, road.selection, [Stage.PREPARE])[0]
    write_fif(bids_path(road.data, "03"), seconds=60.0)
    one = forecast(workspace, whole, Selection(data=road.data, where="subject = '03'"), [Stage.PREPARE])[0]
    sizes = [path.stat().st_size for path in sorted(road.data.rglob("*.fif"))]
    assert told.seconds is not None
    assert one.seconds == pytest.approx(told.seconds * sizes[-1] / sum(sizes[:-1]), rel=1e-6)


def test_another_archive_says_nothing_of_the_time_to_fetch(road: Road, workspace: Workspace) -> None:
    shutil.rmtree(road.home / "cache" / "raw")
    told = forecast(workspace, road.pipeline, road.selection, [Stage.INGEST])[0]
    spent = sum(row.seconds or 0 for row in workspace.ledger.rows() if row.key.stage == "ingest")
    assert told.seconds == pytest.approx(spent)
    other = road.data.rename(road.data.with_name("other"))
    again = forecast(workspace, road.pipeline, Selection(data=other), [Stage.INGEST, Stage.PREPARE])
    assert again[0].seconds is None  # nothing says any more that `lab` was a folder
    assert again[1].seconds is not None


def test_a_changed_step_is_told_as_new_work(road: Road, workspace: Workspace) -> None:
    changed = tiny_pipeline(prepare={"dtype": "float32"})
    told = forecast(workspace, changed, road.selection)
    assert [(one.stage, one.done, one.todo) for one in told] == [
        (Stage.INGEST, 4, 0), (Stage.PREPARE, 0, 4), (Stage.FIT, 0, 1), (Stage.TOKENIZE, 0, 4), (Stage.TRAIN, 0, 1),
    ]  # fmt: skip


def test_a_published_tokenizer_is_named(road: Road, workspace: Workspace, tmp_path: Path) -> None:
    source = str(save_tiny_tokenizer(tmp_path / "tokenizer"))
    told = {one.stage: one for one in forecast(workspace, tiny_pipeline(pretrained={"source": source}), road.selection)}
    assert told[Stage.FIT].note == f"uses {source}"
    assert (told[Stage.FIT].todo, told[Stage.TOKENIZE].todo) == (0, 4)


def test_sidecars_tell_the_bytes_that_will_be_written(tmp_path: Path, walked: Road) -> None:
    data = tmp_path / "lab"
    shutil.copytree(walked.data, data)
    for path in data.rglob("*_meg.fif"):
        path.with_suffix(".json").write_text(
            '{"SamplingFrequency": 100, "RecordingDuration": 9.4, "MEGChannelCount": 6, "PowerLineFrequency": 50}'
        )
    with workspace_at(tmp_path / "home") as workspace:
        told = {one.stage: one for one in forecast(workspace, walked.pipeline, Selection(data=data))}
        expected = 4 * 6 * 9.4 * 50 * 2  # recordings, channels, seconds, Hz, bytes of float16
        assert told[Stage.PREPARE].bytes_out == pytest.approx(expected, abs=4)
        pretrained = {"pretrained": {"source": str(save_tiny_tokenizer(tmp_path / "tokenizer"))}}
        model = walked.home / "runs" / walked.results[Stage.TRAIN].identity / "model"
        other = tiny_pipeline(**pretrained, pretrained_model=str(model), train={"model": {"latent_dim": 32}})
        codes, features = forecast(workspace, other, Selection(data=data), [Stage.TOKENIZE, Stage.EMBED])
        frames = 9.4 * 50 / 12  # seconds, Hz, samples of a frame
        assert codes.bytes_out == pytest.approx(4 * 6 * frames * 3, abs=4)
        assert features.bytes_out == pytest.approx(4 * 6 * frames * 16 * 2, abs=4)  # dims of the model that is used
        run(workspace, walked.pipeline, Selection(data=data), Stage.INGEST)
        assert forecast(workspace, walked.pipeline, Selection(data=data))[0].done == 4


def test_failures_are_told_by_code(road: Road, workspace: Workspace) -> None:
    strict = tiny_pipeline(prepare={"min_seconds": 9.6})
    run(workspace, strict, road.selection, Stage.PREPARE)
    told = {one.stage: one for one in forecast(workspace, strict, road.selection)}
    assert (told[Stage.PREPARE].done, told[Stage.PREPARE].failed, told[Stage.PREPARE].note) == (2, 2, "2 too_short")


def test_as_json(road: Road, workspace: Workspace) -> None:
    document = forecast(workspace, road.pipeline, road.selection)[1].as_dict()
    assert document["stage"] == "prepare"
    assert document["done"] == 4


def test_a_condition_nobody_meets_is_a_mistake(road: Road, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="no recording is chosen"):
        forecast(workspace, road.pipeline, Selection(data=road.data, where="run = '9'"))
