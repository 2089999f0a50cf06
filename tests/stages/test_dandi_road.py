"""Dandisets through all stages that recordings go through, from an archive that answers as DANDI does."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neuromill.catalog.index import read_index
from neuromill.catalog.work import WorkState
from neuromill.records import Digest, FailureCode, RecordingError
from neuromill.sources.cache import RawCache
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.refreshing import refresh
from neuromill.stages.running import plan_stage, run_pipeline, run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.settings import EngineKind, EngineSettings
from neuromill.stages.workspace import Workspace
from neuromill.store.reader import StoreReader
from neuromill.store.verify import verify_store
from neuromill.synthetic.dandi_archive import DandiArchive, ServedAsset
from support.dandi_road import (
    DANDISET,
    VERSION,
    SpoiltArchive,
    asking,
    assert_true,
    counts_of,
    objects_below,
    prepared,
    real_asset,
    session,
    truth,
    write_card,
    write_session,
)
from support.nwb import write_zarr
from support.spike_roads import tiny_spike_pipeline
from support.stages import counts, leftovers, run, tree_digests, workspace_at

STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)
EVERYTHING = Selection()
MAZE, MAZE_VERSION = "000140", "0.220113.0408"
HUMAN, HUMAN_VERSION = "000207", "0.220216.0323"
PATH = "sub-A/sub-A_ses-1_behavior+ecephys.nwb"
OTHER = "sub-B/sub-B_ses-1_behavior+ecephys.nwb"
SEEDS = {"A": 1, "B": 2}
RAW_BYTES = 28 << 20


def pipeline_of(*datasets: str, **changes: Any) -> Pipeline:
    return tiny_spike_pipeline(datasets=datasets or (DANDISET,), **changes)


def human_card(home: Path) -> None:
    write_card(
        home,
        id=HUMAN,
        version=HUMAN_VERSION,
        spikes={"covariates": (), "units": {"is_sorted": True, "area_column": "electrodes.location"}},
    )


@pytest.fixture
def real(data: Path) -> dict[str, ServedAsset]:
    return {dandiset: real_asset(data, dandiset) for dandiset in (MAZE, HUMAN)}


@pytest.fixture
def archive_of_real(real: dict[str, ServedAsset]):
    with DandiArchive({}) as archive:
        archive.add(MAZE, MAZE_VERSION, [real[MAZE]])
        archive.add(HUMAN, HUMAN_VERSION, [real[HUMAN]])
        yield archive


@pytest.mark.data
def test_real_dandisets_from_the_listing_to_tokens(archive_of_real, real, tmp_path: Path) -> None:
    """The shipped card of 000140, and one of ours for 000207, whose files and listings are the real ones."""
    home, pipeline = tmp_path / "home", pipeline_of(MAZE, HUMAN)
    human_card(home)
    with asking(archive_of_real, home) as workspace:
        for dandiset, asset in real.items():
            archive_of_real.requests.clear()
            refreshed = refresh(workspace, workspace.dataset(dandiset))
            assert not any("download" in line or "/blobs/" in line for line in archive_of_real.requests)
            (listed,) = read_index(refreshed.index)
            (member,) = listed.members
            assert (member.path, member.size) == (asset.path, asset.size)
            assert member.digest == Digest("sha256", asset.digest["dandi:sha2-256"])
            assert refreshed.revision
        assert len(plan_stage(workspace, pipeline, EVERYTHING, Stage.INGEST).todo) == 2
        results = run(workspace, pipeline, EVERYTHING, *STAGES)
        assert {(r.found, r.done, r.failed) for r in results.values()} == {(2, 2, 0)}
        archive_of_real.requests.clear()
        again = run_pipeline(workspace, pipeline, EVERYTHING, until=Stage.TOKENIZE)
        notes = {result.stage: result.note for result in again}
        assert notes == dict.fromkeys(STAGES, "nothing to do") | {Stage.FIT: "tokens by rule: nothing to fit"}
        assert archive_of_real.requests == []
        for dandiset in (MAZE, HUMAN):
            _assert_counts_of_file(workspace, dandiset, results[Stage.PREPARE], real[dandiset])
    assert leftovers(home) == []
    with asking(archive_of_real, tmp_path / "elsewhere") as workspace:
        human_card(workspace.home)
        elsewhere = run(workspace, pipeline, EVERYTHING, *STAGES)
    assert {s: r.identity for s, r in elsewhere.items()} == {s: r.identity for s, r in results.items()}
    assert tree_digests(tmp_path / "elsewhere" / "stores") == tree_digests(home / "stores")


def _assert_counts_of_file(workspace: Workspace, dandiset: str, result: StageResult, asset: ServedAsset) -> None:
    """As many spikes per unit as the file has within the bins."""
    store = workspace.store(workspace.dataset(dandiset).card.dataset_version, Stage.PREPARE, result.identity)
    assert verify_store(store) == ()
    assert isinstance(asset.body, Path)
    with StoreReader.open(store) as reader, h5py.File(asset.body) as file:
        (one,) = reader.recordings
        found = reader.read(one.name, "counts").sum(axis=0, dtype=int)
        first = one.attributes["start_seconds"]
        last = first + one.n_rows * one.attributes["bin_seconds"]
        times = np.split(file["units/spike_times"][:], file["units/spike_times_index"][:-1].astype(int))
        kept = ~file["units/heldout"][:].astype(bool) if "heldout" in file["units"] else np.ones(len(times), bool)
        whole = [
            ((unit >= first - 1e-9) & (unit < last - 1e-9)).sum()
            for unit, keep in zip(times, kept, strict=True)
            if keep
        ]
    np.testing.assert_array_equal(found, whole)


@pytest.fixture
def archive(tmp_path: Path):
    files = {PATH: write_session(tmp_path / "a.nwb", 1), OTHER: write_session(tmp_path / "b.nwb", 2)}
    with SpoiltArchive({DANDISET: {VERSION: files}}) as served:
        yield served


class TestDraft:
    def test_it_is_taken_only_when_asked_for_and_pinned_by_its_manifest(self, archive, tmp_path: Path) -> None:
        home = tmp_path / "home"
        write_card(home, version="draft")
        with asking(archive, home) as workspace:
            revision = refresh(workspace, workspace.dataset(DANDISET)).revision
            assert run(workspace, pipeline_of(), EVERYTHING, Stage.INGEST)[Stage.INGEST].done == 2
        pinned = f"draft-{revision[:12]}"
        write_card(home, version=pinned)
        with asking(archive, home) as workspace:
            refreshed = refresh(workspace, workspace.dataset(DANDISET))
            assert (refreshed.dataset_version.version, refreshed.revision) == (pinned, revision)
            assert run(workspace, pipeline_of(), EVERYTHING, *STAGES)[Stage.TOKENIZE].done == 2

    def test_a_changed_one_is_noticed_and_what_is_indexed_stays_as_it_is(self, archive, tmp_path: Path) -> None:
        home = tmp_path / "home"
        write_card(home, version="draft")
        with asking(archive, home) as workspace:
            pinned = f"draft-{refresh(workspace, workspace.dataset(DANDISET)).revision[:12]}"
        write_card(home, version=pinned)
        with asking(archive, home) as workspace:
            refresh(workspace, workspace.dataset(DANDISET))
            before = archive.assets[DANDISET][VERSION]
            changed = ServedAsset.of(DANDISET, OTHER, write_session(tmp_path / "c.nwb", 3))
            archive.add(DANDISET, VERSION, [before[0], changed])
            with pytest.raises(RecordingError, match="is not draft-") as caught:
                refresh(workspace, workspace.dataset(DANDISET))
            assert caught.value.code is FailureCode.CHANGED_UPSTREAM
            assert "version: draft-" in caught.value.next_step
            ingest = run_stage(workspace, pipeline_of(), EVERYTHING, Stage.INGEST)
            assert (ingest.found, ingest.done, ingest.failed) == (2, 1, 1)  # one is gone, no other came in its place
            (failed,) = workspace.ledger.rows(states=[WorkState.FAILED])
            assert failed.code is FailureCode.UNREACHABLE_UPSTREAM

    def test_after_a_refresh_only_what_changed_is_done_again(self, archive, tmp_path: Path) -> None:
        home = tmp_path / "home"
        write_card(home, version="draft")
        with asking(archive, home) as workspace:
            run(workspace, pipeline_of(), EVERYTHING, *STAGES)
            before = archive.assets[DANDISET][VERSION]
            changed = ServedAsset.of(DANDISET, OTHER, write_session(tmp_path / "c.nwb", 3))
            archive.add(DANDISET, VERSION, [before[0], changed])
            refresh(workspace, workspace.dataset(DANDISET))
            again = run(workspace, pipeline_of(), EVERYTHING, *STAGES)
            assert [(r.already_done, r.done) for r in again.values()] == [(1, 1)] * 3
            version = workspace.dataset(DANDISET).card.dataset_version
            published = counts_of(workspace.store(version, Stage.PREPARE, again[Stage.PREPARE].identity))
        assert_true(published, {"A": 1, "B": 3})


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_session(tmp_path_factory.mktemp("large") / "large.nwb", 1, RAW_BYTES)


class TestStream:
    @pytest.fixture
    def archive_of_large(self, large: Path):
        with SpoiltArchive({DANDISET: {VERSION: {PATH: large}}}) as served:
            yield served

    def road(self, archive: SpoiltArchive, home: Path, **card: Any) -> tuple[Path, dict[Stage, StageResult]]:
        write_card(home, **card)
        with asking(archive, home) as workspace:
            results = run(workspace, pipeline_of(), EVERYTHING, *STAGES)
            assert {(r.found, r.done) for r in results.values()} == {(1, 1)}
            assert run_stage(workspace, pipeline_of(), EVERYTHING, Stage.INGEST).note == "nothing to do"
            assert leftovers(home) == []
            return prepared(workspace, results[Stage.PREPARE].identity), results

    def test_little_is_transferred_and_the_published_bytes_are_those_of_the_whole(
        self, archive_of_large, tmp_path: Path
    ) -> None:
        archive = archive_of_large
        whole, results = self.road(archive, tmp_path / "whole")
        assert archive.sent > RAW_BYTES
        archive.sent = 0
        stream, streamed = self.road(archive, tmp_path / "stream", fetch="stream")
        assert 0 < archive.sent < RAW_BYTES / 10  # each block twice: used, then verified
        assert {s: r.identity for s, r in streamed.items()} == {s: r.identity for s, r in results.items()}
        assert tree_digests(tmp_path / "stream" / "stores") == tree_digests(tmp_path / "whole" / "stores")
        assert_true(counts_of(stream), SEEDS)
        assert counts_of(whole).keys() == counts_of(stream).keys()
        held = sum(path.stat().st_size for path in (tmp_path / "stream" / "cache" / "raw").rglob("*"))
        assert held < RAW_BYTES / 10

    def test_a_layout_that_changes_is_another_input(self, archive_of_large, tmp_path: Path) -> None:
        home = tmp_path / "home"
        self.road(archive_of_large, home, fetch="stream")
        write_card(home, fetch="stream", spikes={"covariates": ()})
        with asking(archive_of_large, home) as workspace:
            refresh(workspace, workspace.dataset(DANDISET))
            assert run_stage(workspace, pipeline_of(), EVERYTHING, Stage.INGEST).done == 1

    def test_a_zarr_asset_gives_the_same_counts_and_covariates(self, tmp_path: Path) -> None:
        nodes = session(1, 1 << 20)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            objects = objects_below(write_zarr(nodes, tmp_path / "a.nwb.zarr"))
        with SpoiltArchive({DANDISET: {VERSION: {f"{PATH}.zarr": objects}}}) as archive:
            zarr, _ = self.road(archive, tmp_path / "zarr")
            assert archive.sent < (1 << 20) / 10
        with SpoiltArchive({DANDISET: {VERSION: {PATH: write_session(tmp_path / "a.nwb", 1)}}}) as archive:
            hdf5, _ = self.road(archive, tmp_path / "hdf5")
        assert list(counts_of(zarr)) == list(counts_of(hdf5))
        with StoreReader.open(zarr) as one, StoreReader.open(hdf5) as other:
            (name,) = (recording.name for recording in one.recordings)
            for array in ("counts", "covariate", "covariate_valid", "segment"):
                np.testing.assert_array_equal(one.read(name, array), other.read(name, array), err_msg=array)
        assert_true(counts_of(zarr), SEEDS)

    def test_what_other_code_drew_is_drawn_again(
        self, archive_of_large, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home = tmp_path / "home"
        self.road(archive_of_large, home, fetch="stream")
        monkeypatch.setattr("neuromill.readers.extract.EXTRACT_CODE", "a mended one")
        with asking(archive_of_large, home) as workspace:
            assert run_stage(workspace, pipeline_of(), EVERYTHING, Stage.INGEST).done == 1
            assert run_stage(workspace, pipeline_of(), EVERYTHING, Stage.INGEST).note == "nothing to do"

    def test_what_cannot_be_read_in_part_is_coded(self, tmp_path: Path) -> None:
        write_card(tmp_path / "home", spikes={"format": "flint"})
        store = {f"{PATH}.zarr": {".zgroup": b'{"zarr_format": 2}'}}
        with SpoiltArchive({DANDISET: {VERSION: store}}) as archive, asking(archive, tmp_path / "home") as workspace:
            assert run_stage(workspace, pipeline_of(), EVERYTHING, Stage.INGEST).failed == 1
            (row,) = workspace.ledger.rows(states=[WorkState.FAILED])
        assert row.code is FailureCode.UNSUPPORTED_FORMAT
        assert "Zarr asset" in row.next_step


@pytest.mark.parametrize("fetch", ["whole", "stream"])
class TestRawIsNotKept:
    def test_extracts_and_files_are_dropped_and_nothing_is_done_again(
        self, archive, tmp_path: Path, fetch: str
    ) -> None:
        home, pipeline = tmp_path / "home", pipeline_of(keep_raw=False)
        write_card(home, fetch=fetch)
        with asking(archive, home) as workspace:
            results = run(workspace, pipeline, EVERYTHING, *STAGES)
            assert {(r.found, r.done) for r in results.values()} == {(2, 2)}
            assert [path for path in (home / "cache" / "raw").rglob("*") if path.is_file()] == []
            again = run(workspace, pipeline, EVERYTHING, *STAGES)
            assert {r.note for r in again.values()} == {"nothing to do"}
            assert_true(counts_of(prepared(workspace, results[Stage.PREPARE].identity)), SEEDS)

    def test_what_another_worker_drops_in_between_is_fetched_again(
        self, archive, tmp_path: Path, fetch: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the look into the cache and the link, twice."""
        write_card(tmp_path / "home", fetch=fetch)
        dropped: list[Path] = []
        find, derived = RawCache.find, RawCache.derived

        def dropping(found: Path | None) -> Path | None:
            if found is not None and armed and len(dropped) < 2:
                dropped.append(found)
                found.unlink()
            return found

        armed: list[bool] = []
        monkeypatch.setattr(RawCache, "find", lambda self, file: dropping(find(self, file)))
        monkeypatch.setattr(RawCache, "derived", lambda self, name: dropping(derived(self, name)))
        with asking(archive, tmp_path / "home") as workspace:
            run_stage(workspace, pipeline_of(), EVERYTHING, Stage.INGEST)
            armed.append(True)
            result = run_stage(workspace, pipeline_of(), EVERYTHING, Stage.PREPARE)
            assert (result.done, result.failed, len(dropped)) == (2, 0, 2)
            assert_true(counts_of(prepared(workspace, result.identity)), SEEDS)

    @pytest.mark.slow
    def test_workers_that_share_one_content(self, archive, tmp_path: Path, fetch: str) -> None:
        body = write_session(tmp_path / "same.nwb", 1)
        paths = [f"sub-A/sub-A_ses-{n}_behavior+ecephys.nwb" for n in range(8)]
        archive.add(DANDISET, VERSION, [ServedAsset.of(DANDISET, path, body) for path in paths])
        home, pipeline = tmp_path / "home", pipeline_of(keep_raw=False)
        write_card(home, fetch=fetch)
        engine = EngineSettings(kind=EngineKind.PROCESSES, workers=2)
        with asking(archive, home, engine=engine) as workspace:
            results = run(workspace, pipeline, EVERYTHING, Stage.INGEST, Stage.PREPARE)
            assert {(r.found, r.done, r.failed) for r in results.values()} == {(8, 8, 0)}
            published = counts_of(prepared(workspace, results[Stage.PREPARE].identity))
        assert len(published) == 8
        for found in published.values():
            np.testing.assert_array_equal(found, truth(1))
        assert [path for path in (home / "cache" / "raw").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("consolidate", [True, False])
def test_a_folder_with_nwb_as_zarr(tmp_path: Path, *, consolidate: bool) -> None:
    """Zarr keeps its metadata in hidden files, which are content here and nowhere else."""
    data = tmp_path / "lab"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_zarr(session(1), data / f"{PATH}.zarr", consolidate=consolidate)
    (data / f"{PATH}.zarr" / ".DS_Store").write_bytes(b"x")
    write_session(data / OTHER, 2)
    with workspace_at(tmp_path / "home") as workspace:
        results = run(workspace, tiny_spike_pipeline(), Selection(data=data), *STAGES)
        assert {(r.found, r.done, r.failed) for r in results.values()} == {(2, 2, 0)}
        assert counts(workspace, results[Stage.TOKENIZE]).done == 2
        version = workspace.ledger.rows()[0].key.recording_id.dataset_version
        index = read_index(workspace.index_path(version))
        paths = {member.path for recording in index for member in recording.members}
        assert_true(counts_of(workspace.store(version, Stage.PREPARE, results[Stage.PREPARE].identity)), SEEDS)
        again = run(workspace, tiny_spike_pipeline(), Selection(data=data), *STAGES)
        assert {r.note for r in again.values()} == {"nothing to do"}
    assert f"{PATH}.zarr/units/.zgroup" in paths
    assert (f"{PATH}.zarr/.zmetadata" in paths) is consolidate
    assert not any(path.endswith(".DS_Store") for path in paths)


def test_a_local_card_reads_its_files_where_they_are_whatever_it_says_of_fetching(tmp_path: Path) -> None:
    data, home = tmp_path / "lab", tmp_path / "home"
    write_session(data / PATH, 1)
    write_card(home, id="lab2026", archive="local", version="1", folder=str(data), fetch="stream")
    with workspace_at(home) as workspace:
        results = run(workspace, pipeline_of("lab2026"), EVERYTHING, *STAGES)
    assert {(r.found, r.done, r.failed) for r in results.values()} == {(1, 1, 0)}


def test_an_asset_that_is_listed_under_another_digest_is_never_published(archive, tmp_path: Path) -> None:
    first, second = archive.assets[DANDISET][VERSION]
    wrong = {**first.digest, "dandi:sha2-256": "0" * 64}
    archive.add(DANDISET, VERSION, [replace(first, digest=wrong), second])
    write_card(tmp_path / "home")
    with asking(archive, tmp_path / "home") as workspace:
        result = run_stage(workspace, pipeline_of(), EVERYTHING, Stage.INGEST)
        assert (result.found, result.done, result.failed) == (2, 1, 1)
        (row,) = workspace.ledger.rows(states=[WorkState.FAILED])
        assert row.code is FailureCode.DIGEST_MISMATCH
