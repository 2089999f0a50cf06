"""Every folder of the test data, taken through the stages: what became of it, and what must hold of each."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuromill.catalog.work import Counts, WorkRow, WorkState
from neuromill.records import DatasetVersion, Recording, RecordingId
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.running import plan_stage, run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from neuromill.store.reader import StoreReader
from neuromill.store.verify import verify_store
from support.outcomes import TOKENS, Expected, expected_outcomes
from support.paths import data_root
from support.recordings import dataset_root
from support.stages import counts, leftovers, workspace_at

STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)
STORES = (Stage.PREPARE, Stage.TOKENIZE)


def rows_of(*modalities: str) -> tuple[Expected, ...]:
    """Rows of the table, in file order."""
    return tuple(row for row in expected_outcomes() if row.modality in modalities)


def place_of(row: Expected) -> tuple[Path, str]:
    """Folder that is the dataset of a row, and the path in it; "" where the whole folder is one case."""
    path = data_root() / row.path
    is_case = path.is_dir() and path.suffix != ".ds"  # a CTF recording is a folder itself
    return (path, "") if is_case else dataset_root(data_root(), row.path)


def folders_of(rows: Iterable[Expected]) -> list[Path]:
    """The datasets of these rows."""
    return sorted({place_of(row)[0] for row in rows})


@dataclass(frozen=True)
class RoadRun:
    """One pipeline over its recordings of a folder."""

    results: dict[Stage, StageResult]
    counts: dict[Stage, Counts]
    stores: dict[Stage, Path]  # those that are there
    problems: tuple[object, ...]
    losses: tuple[float, ...]
    again: tuple[str, ...]  # what a second run of each stage says


@dataclass(frozen=True)
class Ended:
    """What became of one folder; dictionaries by the path of the recording within it."""

    runs: dict[str, RoadRun]  # by road
    roads: dict[str, str]
    names: dict[str, str]
    outcomes: dict[str, str]
    next_steps: dict[str, str]  # of those that failed
    prepared: dict[str, dict[str, Any]]  # attributes
    tokens: dict[str, dict[str, Any]]
    problems: tuple[object, ...]
    leftovers: tuple[str, ...]
    copies: tuple[Path, ...]

    def open(self, stage: Stage, path: str) -> StoreReader:
        """The store that holds what a stage made of a recording."""
        return StoreReader.open(self.runs[self.roads[path]].stores[stage])


def run_folder(
    data: Path,
    home: Path,
    pipelines: Mapping[str, Pipeline],
    road_of: Callable[[Recording, Path], str] | None = None,
    *,
    train: bool = False,
) -> Ended:
    """Take the recordings of a folder down their roads; several folders may share a home.

    ``road_of`` names the pipeline of a recording; without it there is only one.
    """
    with workspace_at(home) as workspace:
        plan = plan_stage(workspace, next(iter(pipelines.values())), Selection(data=data), Stage.INGEST)
        recordings = {item.recording.id: item.recording for item in plan.todo}
        only_road = next(iter(pipelines))
        roads = {name: road_of(one, data) if road_of else only_road for name, one in recordings.items()}
        (version,) = {name.dataset_version for name in recordings}
        taken = sorted(set(roads.values()))
        runs = {}
        for road in taken:
            where = _only(name.name for name, its in roads.items() if its == road) if len(taken) > 1 else ""
            selection = Selection(data=data, where=where)
            runs[road] = _run_road(workspace, pipelines[road], selection, version, train=train)
        rows = [row for row in workspace.ledger.rows() if row.key.recording_id in recordings]
        paths = {name: recording.path for name, recording in recordings.items()}
        return Ended(
            runs=runs,
            roads={paths[name]: road for name, road in roads.items()},
            names={path: name.name for name, path in paths.items()},
            outcomes=_outcomes(rows, paths),
            next_steps={paths[row.key.recording_id]: row.next_step for row in rows if row.state is WorkState.FAILED},
            prepared=_attributes(runs.values(), Stage.PREPARE, paths),
            tokens=_attributes(runs.values(), Stage.TOKENIZE, paths),
            problems=tuple(
                one for run in runs.values() for store in run.stores.values() for one in verify_store(store)
            ),
            leftovers=tuple(leftovers(home)),
            copies=tuple(p for p in (home / "cache" / "raw").rglob("*") if p.is_file() and not p.is_symlink()),
        )


def _run_road(
    workspace: Workspace, pipeline: Pipeline, selection: Selection, version: DatasetVersion, *, train: bool
) -> RoadRun:
    results = {stage: run_stage(workspace, pipeline, selection, stage) for stage in STAGES}
    counted = {stage: counts(workspace, result, version) for stage, result in results.items()}
    stores = {stage: workspace.store(version, stage, results[stage].identity) for stage in STORES}
    stores = {stage: store for stage, store in stores.items() if store.is_dir()}
    trains = train and results[Stage.TOKENIZE].done > 0
    trained = run_stage(workspace, pipeline, selection, Stage.TRAIN) if trains else None
    return RoadRun(
        results=results,
        counts=counted,
        stores=stores,
        problems=tuple(problem for store in stores.values() for problem in verify_store(store)),
        losses=_losses(workspace.run_folder(trained.identity)) if trained else (),
        again=tuple(run_stage(workspace, pipeline, selection, stage).note for stage in STAGES),
    )


def _only(names: Iterable[str]) -> str:
    """SQL condition for these recordings."""
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    return f"recording IN ({quoted})"


def _losses(folder: Path) -> tuple[float, ...]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return tuple(line["loss"] for line in lines if line.get("kind") == "train")


def _outcomes(rows: Iterable[WorkRow], paths: Mapping[RecordingId, str]) -> dict[str, str]:
    found = dict.fromkeys(paths.values(), "nothing")
    for row in rows:
        if row.state is WorkState.DONE and row.key.stage == Stage.TOKENIZE:
            found[paths[row.key.recording_id]] = TOKENS
    return found | {paths[row.key.recording_id]: str(row.code) for row in rows if row.state is WorkState.FAILED}


def _attributes(runs: Iterable[RoadRun], stage: Stage, paths: Mapping[RecordingId, str]) -> dict[str, dict[str, Any]]:
    by_name = {name.name: path for name, path in paths.items()}
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        if stage in run.stores:
            with StoreReader.open(run.stores[stage]) as reader:
                found |= {by_name[one.name]: dict(one.attributes) for one in reader.recordings}
    return found


def assert_ended_as_the_table_says(ended: Mapping[Path, Ended], row: Expected) -> None:
    """Of a whole folder, where that is the case, all recordings; a failure tells whoever reads it what to do."""
    root, path = place_of(row)
    one = ended[root]
    outcomes = {one.outcomes.get(path, "not found")} if path else set(one.outcomes.values())
    assert outcomes == {row.outcome}, row.reason
    if row.outcome != TOKENS:
        assert one.next_steps
        assert all([one.next_steps[path]] if path else one.next_steps.values())


class EveryFolder:
    """What holds of each folder; a test module names its rows and parametrizes ``folder``."""

    rows: tuple[Expected, ...]

    def paths(self, folder: Path) -> set[str]:
        return {path for root, path in map(place_of, self.rows) if root == folder}

    def test_nothing_else_is_found(self, ended: dict[Path, Ended], folder: Path) -> None:
        if self.paths(folder) != {""}:
            assert set(ended[folder].outcomes) == self.paths(folder)

    def test_found_is_done_plus_failed_plus_waiting_at_each_stage(self, ended: dict[Path, Ended], folder: Path) -> None:
        one = ended[folder]
        for road, run in one.runs.items():
            found = Counter(one.roads.values())[road]
            for stage, result in run.results.items():
                ledger = run.counts[stage]
                assert result.found == found == result.done + result.failed
                if len(one.runs) == 1 or stage is not Stage.INGEST:  # whose identity all roads share
                    assert (result.found, result.done, result.failed) == (ledger.found, ledger.done, ledger.failed)
                assert (ledger.waiting, ledger.running) == (0, 0)
                found -= result.failed

    def test_stores_are_whole_and_nothing_is_left_behind(self, ended: dict[Path, Ended], folder: Path) -> None:
        assert ended[folder].problems == ()
        assert ended[folder].leftovers == ()

    def test_files_are_read_in_place(self, ended: dict[Path, Ended], folder: Path) -> None:
        assert ended[folder].copies == ()

    def test_a_second_run_has_nothing_to_do(self, ended: dict[Path, Ended], folder: Path) -> None:
        assert {note for run in ended[folder].runs.values() for note in run.again} == {"nothing to do"}
