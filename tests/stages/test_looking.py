"""Looking at what is there, and failures that nobody has seen yet."""

import shutil
from pathlib import Path

import pytest

from neuromill.catalog.work import Counts, WorkKey
from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.stages.looking import (
    bits_per_second,
    count_retries,
    describe_tokenizer,
    find_recordings,
    list_stores,
    parse_codes,
    seconds_of,
    stage_counts,
)
from neuromill.stages.outcomes import Stage
from neuromill.stages.workspace import Workspace
from support.codec import small_tokenizer
from support.stages import Road, leftovers, save_tiny_tokenizer, workspace_at

NAME = "sub-01_task-rest_run-01_meg"
HOURS = 2 * (9.4 + 9.8) / 3600  # two subjects, runs of 9.4 and 9.8 s


def test_stores_are_listed_with_hours_and_bytes(road: Road, workspace: Workspace) -> None:
    stores = {store.stage: store for store in list_stores(workspace)}
    assert list(stores) == ["embed", "prepare", "tokenize"]
    for stage, store in stores.items():
        assert (store.dataset_version, store.identity) == ("lab@local", road.results[Stage(stage)].identity)
        assert (store.n_recordings, store.indexed) == (4, True)
        assert store.hours == pytest.approx(HOURS, rel=0.03)  # frames reach up to 0.24 s over the end
        assert 0 < store.n_bytes <= sum(p.stat().st_size for p in store.folder.rglob("*") if p.is_file())
    assert stores["prepare"].hours == pytest.approx(HOURS, rel=1e-6)


def test_an_empty_home_lists_nothing(tmp_path: Path) -> None:
    with workspace_at(tmp_path / "none") as workspace:
        assert list_stores(workspace) == ()
        assert stage_counts(workspace) == ()


def test_a_store_whose_index_is_gone_is_told(road: Road, workspace: Workspace) -> None:
    (road.store(Stage.PREPARE) / "index.parquet").unlink()
    assert {store.stage: store.indexed for store in list_stores(workspace)} == {
        "embed": True, "prepare": False, "tokenize": True,
    }  # fmt: skip


def test_a_damaged_group_is_told_beside_the_whole_ones(road: Road, workspace: Workspace) -> None:
    (road.store(Stage.PREPARE) / f"{NAME}.zarr" / "manifest" / "zarr.json").unlink()
    stores = {store.stage: store for store in list_stores(workspace)}
    assert (stores["prepare"].n_recordings, len(stores["prepare"].damaged)) == (3, 1)
    assert stores["prepare"].damaged[0].startswith(f"{NAME}: no such file in the store")
    assert (stores["embed"].n_recordings, stores["embed"].damaged) == (4, ())


def test_counts_come_in_the_order_of_the_stages(road: Road, workspace: Workspace) -> None:
    told = stage_counts(workspace)
    assert [one.stage for one in told] == ["ingest", "prepare", "tokenize", "embed"]
    assert all(one.counts == Counts(found=4, done=4, failed=0, waiting=0) for one in told)
    assert [one.identity for one in told] == [road.results[Stage(one.stage)].identity for one in told]


@pytest.mark.parametrize("name", [NAME, f"lab@local/{NAME}"])
def test_a_recording_is_found_by_its_name(road: Road, workspace: Workspace, name: str) -> None:
    assert [str(found) for found in find_recordings(workspace, name)] == [f"lab@local/{NAME}"]


def test_a_near_miss_is_told(road: Road, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=f"did you mean lab@local/{NAME}"):
        find_recordings(workspace, "sub-01")
    with pytest.raises(ConfigError, match="neuromill status"):
        find_recordings(workspace, "nobody")


def test_codes_by_name() -> None:
    assert parse_codes(["truncated", "empty"]) == {FailureCode.TRUNCATED, FailureCode.EMPTY}
    with pytest.raises(ConfigError, match="codes: unreachable_upstream"):
        parse_codes(["broken"])


@pytest.mark.parametrize(
    ("arguments", "n"),
    [
        ({"recordings": None, "codes": None, "everything": False}, 1),  # transient ones only
        ({"recordings": None, "codes": None, "everything": True}, 2),
        ({"recordings": None, "codes": [FailureCode.TRUNCATED], "everything": False}, 1),
        ({"recordings": None, "codes": [FailureCode.EMPTY], "everything": False}, 0),
        ({"recordings": [NAME], "codes": None, "everything": False}, 2),
        ({"recordings": ["sub-02_task-rest_run-01_meg"], "codes": None, "everything": True}, 0),
    ],
)
def test_what_retry_would_send_back_is_what_it_sends_back(
    road: Road, workspace: Workspace, arguments: dict[str, object], n: int
) -> None:
    (recording,) = find_recordings(workspace, NAME)
    for stage, code in ((Stage.PREPARE, FailureCode.TRUNCATED), (Stage.TOKENIZE, FailureCode.INTERRUPTED)):
        key = WorkKey.of(recording, stage.value, road.results[stage].identity)
        workspace.ledger.start(key)
        workspace.ledger.fail(key, RecordingError(code, "test"))
    names = arguments["recordings"]
    chosen = None if names is None else [r for name in names for r in find_recordings(workspace, name)]
    said = count_retries(workspace, **arguments | {"recordings": chosen})
    sent = workspace.ledger.retry(codes=arguments["codes"], recordings=chosen, everything=bool(arguments["everything"]))
    assert said == sent == n


def test_a_fitted_tokenizer_is_described_by_folder_or_first_digits(road: Road, workspace: Workspace) -> None:
    identity = road.results[Stage.FIT].identity
    described = describe_tokenizer(workspace, identity[:6])
    assert described == describe_tokenizer(workspace, str(workspace.tokenizer_folder(identity)))
    assert (described["n_quantizers"], described["codebook_size"], described["hop_samples"]) == (3, 16, 12)
    assert [level["level"] for level in described["levels"]] == [0, 1, 2]
    assert all(1 <= level["perplexity"] <= 16 for level in described["levels"])
    assert len(described["fitted_on"]) == 4
    assert described["held_out"] is False


def test_a_tokenizer_without_a_fit_is_described(workspace: Workspace, tmp_path: Path) -> None:
    described = describe_tokenizer(workspace, str(save_tiny_tokenizer(tmp_path / "published")))
    assert (described["levels"], described["fitted_on"]) == ([], [])


def test_the_rate_of_codes() -> None:
    assert bits_per_second(small_tokenizer()) == pytest.approx(3 * 4 * 50 / 12)  # levels, bits of 16 codes, frames


def test_seconds_of_samples_and_frames() -> None:
    assert seconds_of("signal", 500, {"sfreq": 50.0, "frame_rate": 1.0}) == 10.0
    assert seconds_of("tokens", 50, {"sfreq": 50.0, "frame_rate": 50 / 12}) == pytest.approx(12.0)


# Scratch


def test_scratch_of_the_dead_goes_and_of_the_living_stays(tmp_path: Path) -> None:
    from neuromill.stages.scratch import clean_scratch, scratch_folder

    root = tmp_path / "scratch"
    assert clean_scratch(root) == ()
    with scratch_folder(root) as mine:
        (root / "recording-dead" / "sub-01").mkdir(parents=True)
        assert clean_scratch(root) == ("recording-dead",)
        assert mine.is_dir()
    assert not mine.exists()
    assert leftovers(tmp_path) == []
    shutil.rmtree(root)
