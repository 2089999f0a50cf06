"""Streams from DANDI that break in the middle: retried or coded, and no wrong byte is ever published."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from neuromill.catalog.work import Counts, Scope, WorkState
from neuromill.records import FailureCode
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from neuromill.synthetic.dandi_archive import Response
from support.dandi import Mangle, cut_body, short_body, status, wrong_bytes
from support.dandi_road import (
    DANDISET,
    VERSION,
    SpoiltArchive,
    asking,
    assert_true,
    counts_of,
    objects_below,
    prepared,
    session,
    write_card,
)
from support.nwb import write_hdf5, write_zarr
from support.spike_roads import tiny_spike_pipeline
from support.stages import leftovers, run

EVERYTHING = Selection()
PIPELINE = tiny_spike_pipeline(datasets=(DANDISET,))
SEEDS = {"A": 1, "B": 2}
RAW_BYTES = 2 << 20  # between the parts that are wanted, so that a stream takes several requests
FOR_EVER = 1 << 30
EXHAUSTED, MISMATCH, CHANGED, UNREACHABLE = (
    FailureCode.RETRIES_EXHAUSTED,
    FailureCode.DIGEST_MISMATCH,
    FailureCode.CHANGED_UPSTREAM,
    FailureCode.UNREACHABLE_UPSTREAM,
)


@dataclass(frozen=True)
class Way:
    """How a session is served and fetched, and after how many good answers the first one is spoilt."""

    fetch: str
    zarr: bool
    skip: int


WAYS = {
    "whole": Way("whole", zarr=False, skip=0),
    "stream": Way("stream", zarr=False, skip=1),
    "zarr": Way("whole", zarr=True, skip=7),
}


@dataclass(frozen=True)
class Fault:
    """What an answer becomes; ``codes`` by way if it lasts, ``once`` where one such answer is a failure already."""

    mangle: Mangle
    codes: dict[str, FailureCode]
    once: frozenset[str] = frozenset()


def everywhere(code: FailureCode) -> dict[str, FailureCode]:
    return dict.fromkeys(WAYS, code)


FAULTS = {
    "closes": Fault(cut_body, everywhere(EXHAUSTED)),
    "500": Fault(status(500), everywhere(EXHAUSTED)),
    "429": Fault(status(429, Retry_After="0"), everywhere(EXHAUSTED)),
    "wrong bytes": Fault(wrong_bytes, everywhere(MISMATCH)),
    # A whole object that says it is shorter than the manifest says is another object; a range is only too short.
    "truncated": Fault(
        short_body,
        everywhere(CHANGED) | {"stream": EXHAUSTED},
        once=frozenset({"whole", "zarr"}),
    ),
    "404": Fault(status(404), everywhere(UNREACHABLE), once=frozenset(WAYS)),
}
CASES = [(way, fault) for way in WAYS for fault in FAULTS]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path | dict[str, bytes]]]:
    """Two sessions, as files and as Zarr assets, by way."""
    folder = tmp_path_factory.mktemp("sessions")
    whole: dict[str, Path | dict[str, bytes]] = {}
    zarr: dict[str, Path | dict[str, bytes]] = {}
    for subject, seed in SEEDS.items():
        path = f"sub-{subject}/sub-{subject}_ses-1_behavior+ecephys.nwb"
        whole[path] = write_hdf5(session(seed, RAW_BYTES), folder / f"{subject}.nwb")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr[f"{path}.zarr"] = objects_below(write_zarr(session(seed), folder / f"{subject}.nwb.zarr"))
    return {"whole": whole, "stream": whole, "zarr": zarr}


@pytest.fixture
def archive(files, way: str) -> Iterator[SpoiltArchive]:
    """The first of the two sessions is the one whose answers are spoilt."""
    with SpoiltArchive({DANDISET: {VERSION: files[way]}}) as served:
        served.content_id = served.assets[DANDISET][VERSION][0].content_id
        yield served


@pytest.fixture
def workspace(archive: SpoiltArchive, way: str, tmp_path: Path) -> Iterator[Workspace]:
    write_card(tmp_path / "home", fetch=WAYS[way].fetch)
    with asking(archive, tmp_path / "home") as opened:
        yield opened


def spoil(archive: SpoiltArchive, way: str, fault: str, times: int) -> None:
    archive.mangle, archive.skip, archive.times = FAULTS[fault].mangle, WAYS[way].skip, times


def stage(workspace: Workspace, which: Stage) -> tuple[StageResult, Counts]:
    """Run a stage; its result and the ledger say the same, and nothing is running or lost."""
    result = run_stage(workspace, PIPELINE, EVERYTHING, which)
    found = workspace.ledger.counts(Scope(stage=which.value, identity=result.identity))
    assert (found.found, found.done, found.failed) == (
        result.found,
        result.already_done + result.done,
        result.failed,
    )
    assert found.found == found.done + found.failed + found.waiting
    assert (found.running, found.waiting) == (0, 0)
    return result, found


def published(workspace: Workspace) -> int:
    """Prepare what is ingested; what is published then has the counts of its session."""
    result, _ = stage(workspace, Stage.PREPARE)
    counts = counts_of(prepared(workspace, result.identity))
    assert_true(counts, SEEDS)
    assert len(counts) == result.already_done + result.done
    return len(counts)


@pytest.mark.parametrize(("way", "fault"), [(w, f) for w, f in CASES if w not in FAULTS[f].once])
def test_a_fault_that_passes_costs_time_only(workspace, archive, way: str, fault: str) -> None:
    spoil(archive, way, fault, times=1)
    result, _ = stage(workspace, Stage.INGEST)
    assert archive.spoilt == 1
    assert (result.found, result.done, result.failed) == (2, 2, 0)
    assert published(workspace) == 2
    assert leftovers(workspace.home) == []


@pytest.mark.parametrize(("way", "fault"), CASES)
def test_a_fault_that_lasts_has_its_code_and_ends_when_the_fault_ends(workspace, archive, way: str, fault: str) -> None:
    spoil(archive, way, fault, times=FOR_EVER)
    result, _ = stage(workspace, Stage.INGEST)
    assert archive.spoilt
    assert (result.found, result.done, result.failed) == (2, 1, 1)
    (failed,) = workspace.ledger.rows(states=[WorkState.FAILED])
    assert failed.code is FAULTS[fault].codes[way]
    assert failed.next_step
    assert published(workspace) == 1

    archive.heal()
    if not failed.code.transient:  # `neuromill retry`: the archive, not the file, was at fault
        assert run_stage(workspace, PIPELINE, EVERYTHING, Stage.INGEST).failed == 1
        assert workspace.ledger.retry(codes=[failed.code]) == 1
    again, _ = stage(workspace, Stage.INGEST)
    assert (again.found, again.already_done, again.done, again.failed) == (2, 1, 1, 0)
    assert published(workspace) == 2
    assert run(workspace, PIPELINE, EVERYTHING, Stage.TOKENIZE)[Stage.TOKENIZE].done == 2
    assert leftovers(workspace.home) == []


@pytest.mark.parametrize("way", ["stream"])
@pytest.mark.parametrize("skip", range(6))
@pytest.mark.parametrize("fault", ["500", "wrong bytes"])
def test_wherever_a_stream_breaks_it_is_told_from_a_damaged_file(
    workspace, archive, way: str, fault: str, skip: int
) -> None:
    """As many bad answers as are tried, then good ones: the failure is that of the line, not of the file."""
    spoil(archive, way, fault, times=3)
    archive.skip = skip
    result, _ = stage(workspace, Stage.INGEST)
    rows = workspace.ledger.rows(states=[WorkState.FAILED])
    assert {row.code for row in rows} <= {FAULTS[fault].codes[way]}
    assert result.done == 2 - len(rows)
    assert published(workspace) == result.done


def test_the_same_range_spoilt_the_same_way_each_time_is_noticed(tmp_path: Path) -> None:
    """A file of one block is one request: asked for again as it was, it would come as wrong as before."""
    path = "sub-A/sub-A_ses-1_behavior+ecephys.nwb"
    write_card(tmp_path / "home", fetch="stream")
    with SpoiltArchive({DANDISET: {VERSION: {path: write_hdf5(session(1), tmp_path / "a.nwb")}}}) as archive:
        archive.mangle, archive.times = _spoil_the_middle, FOR_EVER
        with asking(archive, tmp_path / "home") as workspace:
            assert stage(workspace, Stage.INGEST)[0].failed == 1
            (failed,) = workspace.ledger.rows(states=[WorkState.FAILED])
    assert archive.spoilt
    assert failed.code is MISMATCH


def _spoil_the_middle(response: Response) -> Response:
    """Flip a bit of a spike time or of the cursor, which opens as well as the right one."""
    body = bytearray(response.body)
    body[len(body) // 2] ^= 1
    return replace(response, body=bytes(body))
