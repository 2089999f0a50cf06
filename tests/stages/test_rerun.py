"""What is done is not done again, what changed is, and nothing else is."""

import shutil
import threading
from pathlib import Path

import pytest

from neuromill.catalog.index import read_index
from neuromill.catalog.work import Scope, WorkState
from neuromill.records import ConfigError, FailureCode, NeuroMillError, PartId, RecordingError
from neuromill.stages.datasets import dataset_of_folder
from neuromill.stages.outcomes import Stage
from neuromill.stages.refreshing import refresh
from neuromill.stages.running import finish_stage, hold_stage, plan_stage, run_pipeline, run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from neuromill.store.errors import CorruptStoreError, MissingFileError, StoreError
from neuromill.store.verify import verify_store
from support.stages import (
    ALL_STAGES,
    Listener,
    Road,
    bids_path,
    counts,
    filtered,
    leftovers,
    run,
    save_tiny_tokenizer,
    stamps,
    tiny_pipeline,
    tree_digests,
    workspace_at,
    write_fif,
)

ITEM_STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE, Stage.EMBED)
NAMES = [f"sub-{subject}_task-rest_run-0{number}_meg" for subject in ("01", "02") for number in (1, 2)]


def test_the_first_run_did_everything(walked: Road) -> None:
    for stage in ITEM_STAGES:
        result = walked.results[stage]
        assert (result.found, result.already_done, result.done, result.failed) == (4, 0, 4, 0)
        assert result.note == ""
    for stage in ITEM_STAGES[1:]:
        assert sorted(path.stem for path in walked.store(stage).glob("*.zarr")) == NAMES
        assert verify_store(walked.store(stage)) == ()
    assert leftovers(walked.home) == []


def test_the_second_run_does_nothing_and_says_so(road: Road, workspace: Workspace) -> None:
    written = [road.home / name for name in ("stores", "tokenizers", "runs", "cache/raw")]
    bytes_before = tree_digests(road.home / "stores")
    before = [stamps(folder) for folder in written]
    history = {name: workspace.ledger.history(row.key.recording_id) for name, row in _rows(workspace).items()}
    listener = Listener()
    for stage in ALL_STAGES:
        result = run_stage(workspace, road.pipeline, road.selection, stage, listener)
        assert result.note == "nothing to do"
        assert result.nothing_to_do
        assert (result.found, result.already_done) == (road.results[stage].found, road.results[stage].found)
    assert (listener.said, listener.begun, listener.advanced) == ([], [], 0)
    after = [stamps(folder) for folder in written]
    assert [_without_index(stamp) for stamp in after] == [_without_index(stamp) for stamp in before]
    assert tree_digests(road.home / "stores") == bytes_before
    assert {n: workspace.ledger.history(r.key.recording_id) for n, r in _rows(workspace).items()} == history


def test_a_run_in_another_home_makes_the_same_bytes(walked: Road, tmp_path: Path) -> None:
    with workspace_at(tmp_path / "other") as workspace:
        run(workspace, walked.pipeline, walked.selection, *ALL_STAGES)
    assert tree_digests(tmp_path / "other" / "stores") == tree_digests(walked.home / "stores")


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"prepare": filtered(2.0)}, (Stage.PREPARE, Stage.TOKENIZE, Stage.EMBED)),
        ({"tokenize": {"segment_seconds": 6.0}}, (Stage.TOKENIZE, Stage.EMBED)),
        ({"train": {"max_steps": 2}}, (Stage.EMBED,)),
    ],
    ids=["prepare", "tokenize", "train"],
)
def test_a_changed_pipeline_redoes_its_stage_and_those_after_it(
    road: Road, workspace: Workspace, change: dict[str, object], again: tuple[Stage, ...]
) -> None:
    before = stamps(road.home / "stores")
    results = run(workspace, tiny_pipeline(**change), road.selection, *ALL_STAGES)
    redone = tuple(stage for stage in ITEM_STAGES if results[stage].done)
    assert redone == again
    for stage in ITEM_STAGES:
        assert (results[stage].identity != road.results[stage].identity) == (stage in again)
        assert results[stage].already_done + results[stage].done == 4
    after = stamps(road.home / "stores")
    kept = _without_index(before)
    assert {path: after.get(path) for path in kept} == kept
    assert len(after) > len(before)


def test_a_changed_file_redoes_its_recording_only(road: Road, workspace: Workspace) -> None:
    write_fif(bids_path(road.data, "02", 1), seconds=10.0, seed=999)
    before = {stage: tree_digests(road.store(stage)) for stage in (Stage.PREPARE,)}
    results = run(workspace, road.pipeline, road.selection, Stage.INGEST, Stage.PREPARE)
    assert [(r.already_done, r.done, r.failed) for r in results.values()] == [(3, 1, 0), (3, 1, 0)]
    after = tree_digests(road.store(Stage.PREPARE))
    changed = {path.split("/")[0] for path in after if after[path] != before[Stage.PREPARE].get(path)}
    assert changed == {"sub-02_task-rest_run-01_meg.zarr", "index.parquet"}
    assert verify_store(road.store(Stage.PREPARE)) == ()


def test_a_new_file_is_found(road: Road, workspace: Workspace) -> None:
    write_fif(bids_path(road.data, "03"), seed=3)
    results = run(workspace, road.pipeline, road.selection, Stage.INGEST, Stage.PREPARE)
    assert [(r.found, r.already_done, r.done) for r in results.values()] == [(5, 4, 1), (5, 4, 1)]


def test_a_group_or_store_deleted_by_hand_is_made_again(road: Road, workspace: Workspace) -> None:
    before = tree_digests(road.home / "stores")
    shutil.rmtree(road.store(Stage.TOKENIZE) / f"{NAMES[0]}.zarr")
    shutil.rmtree(road.store(Stage.PREPARE))
    results = run(workspace, road.pipeline, road.selection, Stage.PREPARE, Stage.TOKENIZE)
    assert (results[Stage.PREPARE].done, results[Stage.TOKENIZE].done) == (4, 1)
    assert tree_digests(road.home / "stores") == before


def test_a_cached_file_deleted_by_hand_is_brought_again(road: Road, workspace: Workspace) -> None:
    shutil.rmtree(road.home / "cache" / "raw")
    results = run(workspace, road.pipeline, road.selection, Stage.INGEST, Stage.PREPARE)
    assert (results[Stage.INGEST].done, results[Stage.PREPARE].note) == (4, "nothing to do")


def test_tokenize_waits_for_what_is_not_prepared(road: Road, workspace: Workspace) -> None:
    shutil.rmtree(road.store(Stage.PREPARE) / f"{NAMES[1]}.zarr")
    shutil.rmtree(road.store(Stage.TOKENIZE))
    listener = Listener()
    result = run_stage(workspace, road.pipeline, road.selection, Stage.TOKENIZE, listener)
    assert (result.found, result.done, result.failed, result.note) == (4, 3, 0, "1 waiting")
    assert listener.said == ["1 recordings wait for `neuromill prepare`"]
    assert run(workspace, road.pipeline, road.selection, Stage.PREPARE)[Stage.PREPARE].done == 1
    again = run_stage(workspace, road.pipeline, road.selection, Stage.TOKENIZE)
    assert (again.already_done, again.done, again.failed, again.note) == (3, 1, 0, "")


DAMAGES = {
    "metadata cut": lambda group: (group / "zarr.json").write_text("{"),
    "manifest cut": lambda group: (group / "manifest" / "zarr.json").write_text("{"),
    "shard cut": lambda group: _shard(group).write_bytes(_shard(group).read_bytes()[:100]),
    "shard deleted": lambda group: _shard(group).unlink(),
}


def _shard(group: Path) -> Path:
    return next(file for file in sorted(group.glob("*/c/**/*")) if file.is_file() and file.stat().st_size > 100)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_group_is_made_again_and_nothing_else(road: Road, workspace: Workspace, damage) -> None:
    before = tree_digests(road.home / "stores")
    for stage in (Stage.PREPARE, Stage.TOKENIZE, Stage.EMBED):
        damage(road.store(stage) / f"{NAMES[1]}.zarr")
    assert [item.recording.id.name for item in plan_stage(workspace, road.pipeline, road.selection, Stage.PREPARE).todo]
    waiting = run_stage(workspace, road.pipeline, road.selection, Stage.TOKENIZE)
    assert (waiting.already_done, waiting.done, waiting.failed, waiting.note) == (3, 0, 0, "1 waiting")
    results = run(workspace, road.pipeline, road.selection, Stage.PREPARE, Stage.TOKENIZE, Stage.EMBED)
    assert [(r.already_done, r.done, r.failed) for r in results.values()] == [(3, 1, 0)] * 3
    assert all(verify_store(road.store(stage)) == () for stage in results)
    assert tree_digests(road.home / "stores") == before
    assert leftovers(road.home) == []


def test_a_damaged_group_outside_the_selection_is_told_and_left_alone(road: Road, workspace: Workspace) -> None:
    (road.store(Stage.PREPARE) / f"{NAMES[0]}.zarr" / "zarr.json").write_text("{")
    listener, others = Listener(), Selection(data=road.data, where="subject = '02'")
    assert run_stage(workspace, road.pipeline, others, Stage.PREPARE, listener).note == "nothing to do"
    (told,) = listener.said
    assert told.startswith(f"lab@local/{NAMES[0]}: left out of the index of prepare: file has 1 bytes")
    finish_stage(workspace, road.pipeline, others, Stage.PREPARE, listener)
    assert listener.said == [told, told]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CorruptStoreError("file ends early", where="x"), FailureCode.TRUNCATED),
        (MissingFileError("no such file in the store", where="x"), FailureCode.MISSING_MEMBER),
        (FileNotFoundError(2, "No such file", "{store}/c/0"), FailureCode.MISSING_MEMBER),
        (FileNotFoundError(2, "No such file", "/elsewhere/c/0"), FailureCode.INTERNAL),
        (StoreError("already being written", where="x"), FailureCode.INTERNAL),
    ],
    ids=["corrupt", "missing", "gone", "gone elsewhere", "writer"],
)
def test_an_input_that_breaks_while_it_is_read_is_no_defect_of_the_program(
    road: Road, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, error: Exception, code: FailureCode
) -> None:
    if isinstance(error, FileNotFoundError):
        error.filename = error.filename.format(store=road.store(Stage.PREPARE))

    def tokenize(*_: object) -> None:
        raise error

    monkeypatch.setattr("neuromill.stages.tokenizing.tokenize_recording", tokenize)
    shutil.rmtree(road.store(Stage.TOKENIZE))
    assert run_stage(workspace, road.pipeline, road.selection, Stage.TOKENIZE).failed == 4
    rows = workspace.ledger.rows(Scope(stage="tokenize"), states=[WorkState.FAILED])
    assert {row.code for row in rows} == {code}
    assert all(("neuromill prepare" in row.next_step) == (code is not FailureCode.INTERNAL) for row in rows)


# keep_raw


def test_without_keep_raw_raw_files_go_and_come_back(tmp_path: Path, walked: Road) -> None:
    selection = Selection(data=walked.data)
    with workspace_at(tmp_path / "home") as workspace:
        pipeline = tiny_pipeline(keep_raw=False)
        first = run(workspace, pipeline, selection, Stage.INGEST, Stage.PREPARE)
        assert [r.done for r in first.values()] == [4, 4]
        assert _cached(tmp_path / "home") == []
        second = run(workspace, pipeline, selection, Stage.INGEST, Stage.PREPARE)
        assert [r.note for r in second.values()] == ["nothing to do", "nothing to do"]
        changed = tiny_pipeline(keep_raw=False, prepare=filtered(2.0))
        third = run(workspace, changed, selection, Stage.INGEST, Stage.PREPARE)
        assert [(r.done, r.failed) for r in third.values()] == [(0, 0), (4, 0)]
        assert _cached(tmp_path / "home") == []
    assert all(bids_path(walked.data, subject, 1).is_file() for subject in ("01", "02"))  # in place, never dropped


def test_a_shared_file_that_another_worker_drops_is_brought_again(
    tmp_path: Path, walked: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``keep_raw: false`` files of the same content (sidecars) vanish under the feet of a slower worker."""
    from neuromill.sources.cache import RawCache

    taken: set[str] = set()
    true_ensure = RawCache.ensure

    def ensure(self, source, file, progress=None):
        place = true_ensure(self, source, file, progress)
        if file.path not in taken:
            taken.add(file.path)
            self.drop([file])
        return place

    with workspace_at(tmp_path / "home") as workspace:
        pipeline = tiny_pipeline(keep_raw=False)
        run(workspace, pipeline, walked.selection, Stage.INGEST)
        monkeypatch.setattr(RawCache, "ensure", ensure)
        taken.clear()
        result = run_stage(workspace, pipeline, walked.selection, Stage.PREPARE)
    assert (result.done, result.failed) == (4, 0)
    assert taken


# What a killed run left


@pytest.mark.parametrize("part", [None, PartId(1, 2)], ids=["whole", "part"])
def test_work_left_running_is_taken_back(road: Road, workspace: Workspace, part: PartId | None) -> None:
    changed, selection = tiny_pipeline(prepare=filtered(2.0)), Selection(data=road.data, part=part)
    items = plan_stage(workspace, changed, selection, Stage.PREPARE).todo
    from neuromill.catalog.work import Work, WorkKey

    for item in items:
        key = WorkKey.of(item.recording.id, "prepare", item.identity)
        workspace.ledger.expect([Work(key, item.input_digest)])
        assert workspace.ledger.start(key, worker="gone:1") == 1
    result = run_stage(workspace, changed, selection, Stage.PREPARE)
    assert (result.found, result.done) == (len(items), len(items))
    assert counts(workspace, result).running == 0


def test_leftovers_of_killed_writers_are_removed(road: Road, workspace: Workspace) -> None:
    staged = road.store(Stage.PREPARE) / ".tmp-x.zarr-1" / "signal"
    scratch = road.home / "scratch" / "recording-abc" / "sub-01"
    for folder in (staged, scratch):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"1")
    assert len(leftovers(road.home)) == 2
    run_stage(workspace, road.pipeline, road.selection, Stage.PREPARE)
    assert leftovers(road.home) == []


def test_the_same_work_is_done_by_one_run_at_a_time(road: Road, workspace: Workspace) -> None:
    with hold_stage(workspace, road.pipeline, road.selection, Stage.PREPARE):
        locks = [path.name for path in (road.home / "locks").iterdir()]
    assert locks == [f"lab@local-prepare-{road.results[Stage.PREPARE].identity}.lock"]
    assert list((road.home / "locks").iterdir()) == []


def test_a_run_that_waits_for_another_says_so_once(road: Road, workspace: Workspace) -> None:
    listener, began = Listener(), threading.Event()

    def say(text: str) -> None:
        listener.said.append(text)
        began.set()

    def wait() -> None:
        with (
            workspace_at(road.home) as other,
            hold_stage(other, road.pipeline, road.selection, Stage.PREPARE, listener),
        ):
            pass

    listener.say = say  # type: ignore[method-assign]
    with hold_stage(workspace, road.pipeline, road.selection, Stage.PREPARE):
        thread = threading.Thread(target=wait)
        thread.start()
        assert began.wait(60)
    thread.join(60)
    assert not thread.is_alive()
    assert listener.said == ["another run holds prepare of lab@local; waiting"]
    assert list((road.home / "locks").iterdir()) == []


# Tokenizers


def test_the_gate_refuses_and_says_level_and_measure_every_time(road: Road, workspace: Workspace) -> None:
    strict = tiny_pipeline(gate={"min_used_share": 1.0, "min_perplexity_share": 1.0})
    told = []
    for _ in range(2):
        with pytest.raises(NeuroMillError, match="the tokenizer is not published") as caught:
            run_stage(workspace, strict, road.selection, Stage.FIT)
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert "level" in told[0]
    assert "perplexity" in told[0]
    assert Path(caught.value.where).name == "refused.json"
    assert Path(caught.value.where).is_file()
    with pytest.raises(ConfigError, match="no tokenizer is fitted"):
        run_stage(workspace, strict, road.selection, Stage.TOKENIZE)
    assert [path for path in (road.home / "tokenizers").iterdir() if not path.name.startswith("fit-")] == [
        road.home / "tokenizers" / road.results[Stage.FIT].identity
    ]


def test_a_fit_needs_something_prepared(tmp_path: Path, walked: Road) -> None:
    with workspace_at(tmp_path / "home") as workspace, pytest.raises(ConfigError, match="no prepared recording"):
        run_stage(workspace, walked.pipeline, walked.selection, Stage.FIT)


def test_later_stages_say_what_is_missing(tmp_path: Path, walked: Road) -> None:
    with workspace_at(tmp_path / "home") as workspace:
        for stage in (Stage.TOKENIZE, Stage.TRAIN, Stage.EMBED):
            with pytest.raises(ConfigError, match="no tokenizer is fitted"):
                run_stage(workspace, walked.pipeline, walked.selection, stage)


def test_a_pretrained_tokenizer_needs_no_fit(road: Road, workspace: Workspace, tmp_path: Path) -> None:
    source = save_tiny_tokenizer(tmp_path / "published")
    pipeline = tiny_pipeline(pretrained={"source": str(source)})
    results = run(workspace, pipeline, road.selection, *ALL_STAGES)
    assert results[Stage.FIT].done == 0
    assert str(source) in results[Stage.FIT].note
    assert results[Stage.TOKENIZE].identity != road.results[Stage.TOKENIZE].identity
    assert (results[Stage.TOKENIZE].done, results[Stage.TRAIN].done, results[Stage.EMBED].done) == (4, 1, 4)
    moved = tiny_pipeline(pretrained={"source": str(source.rename(tmp_path / "moved"))})
    assert (
        run_stage(workspace, moved, road.selection, Stage.TOKENIZE).note == "nothing to do"
    )  # weights count, not paths


def test_a_signal_of_another_rate_than_the_tokenizer_is_refused(
    road: Road, workspace: Workspace, tmp_path: Path
) -> None:
    source = save_tiny_tokenizer(tmp_path / "published")
    pipeline = tiny_pipeline(pretrained={"source": str(source)}, prepare=filtered(1.0, sfreq=40.0))
    results = run(workspace, pipeline, road.selection, Stage.PREPARE, Stage.TOKENIZE)
    assert results[Stage.TOKENIZE].failed == 4
    assert counts(workspace, results[Stage.TOKENIZE]).by_code == {FailureCode.UNIT_CONFLICT: 4}


# Runs


def test_run_pipeline_goes_until_a_stage(road: Road, workspace: Workspace) -> None:
    results = run_pipeline(workspace, road.pipeline, road.selection, until=Stage.TOKENIZE)
    assert [r.stage for r in results] == [Stage.INGEST, Stage.PREPARE, Stage.FIT, Stage.TOKENIZE]
    assert all(result.note == "nothing to do" for result in results)
    with pytest.raises(ConfigError, match="embed"):
        run_pipeline(workspace, road.pipeline, road.selection, until=Stage.EMBED)


def test_run_pipeline_ends_where_a_stage_leaves_nothing_for_the_next(road: Road, workspace: Workspace) -> None:
    listener = Listener()
    strict = tiny_pipeline(prepare={"min_seconds": 1000})
    results = run_pipeline(workspace, strict, road.selection, report=listener)
    assert [(r.stage, r.failed, r.note) for r in results] == [
        (Stage.INGEST, 0, "nothing to do"), (Stage.PREPARE, 4, "nothing is left for fit"),
    ]  # fmt: skip
    assert listener.said[-1] == "prepare: nothing is left for fit: all 4 recordings failed"
    again = run_pipeline(workspace, strict, road.selection, until=Stage.PREPARE)
    assert (again[-1].failed, again[-1].note) == (4, "nothing to do")


def test_fits_and_trainings_are_in_the_ledger_with_what_they_counted(walked: Road) -> None:
    with workspace_at(walked.home) as workspace:
        runs = {row.stage: row for row in workspace.ledger.runs()}
    assert set(runs) == {"fit", "train"}
    assert all(row.ended_at is not None for row in runs.values())
    assert sorted(runs["fit"].facts["recordings"]) == [f"lab@local/{name}" for name in NAMES]
    assert runs["train"].facts["steps"] == 3


def test_the_index_of_a_store_knows_the_split(walked: Road) -> None:
    from neuromill.store.reader import StoreReader

    with StoreReader.open(walked.store(Stage.TOKENIZE)) as reader:
        assert [one.extra["dataset_split"] for one in reader.recordings] == ["train"] * 4
    indexed = read_index(walked.home / "catalog" / "lab@local.parquet")
    assert [recording.id.name for recording in indexed] == NAMES


def _rows(workspace: Workspace):
    return {row.key.recording: row for row in workspace.ledger.rows(Scope(stage="ingest"))}


def _without_index(stamp: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {path: value for path, value in stamp.items() if not path.endswith("index.parquet")}


def _cached(home: Path) -> list[Path]:
    return [p for p in (home / "cache" / "raw").rglob("*") if p.is_symlink() or (p.is_file() and p.suffix != ".lock")]


def test_a_recording_error_keeps_its_place() -> None:
    from neuromill.stages.work import _text

    assert _text(RecordingError(FailureCode.EMPTY, "nothing", where="a.fif")) == "nothing [a.fif]"


def test_two_folders_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    folders = [tmp_path / place / "lab" for place in ("a", "b")]
    for folder in folders:
        (folder / "sub-01").mkdir(parents=True)
    with workspace_at(tmp_path / "home") as workspace:
        refresh(workspace, dataset_of_folder(folders[0]))
        refresh(workspace, dataset_of_folder(folders[0]))
        with pytest.raises(ConfigError, match=f"another folder of this name was used in this home: {folders[0]}"):
            refresh(workspace, dataset_of_folder(folders[1]))
