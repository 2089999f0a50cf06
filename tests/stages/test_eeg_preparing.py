"""EEG that is prepared: what is rejected, where events go, units, checksums, folders that are no BIDS."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
import yaml

from neuromill.catalog.work import WorkState
from neuromill.records import Events, FailureCode
from neuromill.signals.chain import plan_chain
from neuromill.signals.eeg_steps import Crop
from neuromill.stages.event_times import move_events
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from neuromill.store.reader import StoreReader
from neuromill.store.verify import verify_store
from neuromill.tokenizers.tfdual_config import CHANNELS_10_20
from support.edf import LABEL, rewrite, scaled
from support.eeg_roads import TFDUAL, Tokenizers, codebrain_steps, road_pipeline, save_tokenizers
from support.stages import counts, workspace_at
from support.tfdual import table

ARITHMETIC = "bids/eeg-arithmetic/sub-00/eeg/sub-00_task-arithmetic_eeg.edf"
REST = "bids/eeg-arithmetic/sub-00/eeg/sub-00_task-rest_eeg.edf"
IMAGERY = "bids/eeg-motorimagery/sub-001/eeg/sub-001_task-motion_run-4_eeg.edf"
LIMIT = 45e-6  # at the published 100 uV all of this recording is kept
MONTAGE = list(CHANNELS_10_20)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Tokenizers:
    return save_tokenizers(tmp_path_factory.mktemp("tokenizers"))


def eeg_pipeline(tokenizers: Tokenizers, line: float = 50.0, limit: float = 100e-6, **crop: Any) -> Pipeline:
    """The steps of ``codebrain`` at a mains frequency that a plain folder cannot state."""
    changes = {"notch_filter": {"freqs": [line]}, "reject": {"threshold_volts": limit}}
    document = road_pipeline(TFDUAL, tokenizers).model_dump(mode="json", exclude_unset=True)
    steps = [step | changes.get(step["step"], {}) for step in codebrain_steps(**crop)]
    return Pipeline.model_validate(document | {"prepare": {"steps": steps, "min_seconds": 30.0}})


def prepared(workspace: Workspace, pipeline: Pipeline, data: Path) -> tuple[dict[str, dict[str, Any]], StoreReader]:
    """Ingest and prepare a folder; attributes by recording name."""
    selection = Selection(data=data)
    run_stage(workspace, pipeline, selection, Stage.INGEST)
    result = run_stage(workspace, pipeline, selection, Stage.PREPARE)
    (store,) = (workspace.home / "stores").glob(f"*/prepare/{result.identity}")
    assert verify_store(store) == ()
    reader = StoreReader.open(store)
    return {one.name: dict(one.attributes) for one in reader.recordings}, reader


# Rejection


@pytest.mark.data
def test_rejection_is_stored_as_a_mask_with_its_reasons(tmp_path: Path, data: Path, tokenizers: Tokenizers) -> None:
    """Oracle: the largest absolute value of each stored window."""
    folder = tmp_path / "lab"
    folder.mkdir()
    shutil.copy(data / REST, folder / "a.edf")
    with workspace_at(tmp_path / "home") as workspace:
        about, reader = prepared(workspace, eeg_pipeline(tokenizers, limit=LIMIT), folder)
        facts = next(row.facts for row in workspace.ledger.rows() if row.key.stage == "prepare")
    (name,) = about
    rejected, array = reader.read(name, "rejected"), reader.recording(name).arrays["rejected"]
    assert (rejected.shape, rejected.dtype) == ((6, 19), np.uint8)  # 180 of 182 s
    assert array.spec.dims == ("window", "channel")
    assert array.spec.attributes == {"window_samples": 6000, "legend": ["kept", "amplitude", "flat"]}
    signal = reader.read_physical(name, 0, reader.recording(name).n_rows)
    largest = np.abs(signal.reshape(6, 6000, 19)).max(axis=1)
    clear = np.abs(largest - LIMIT) > 1e-6  # float16 rounds: what is within 1 uV of the limit may go either way
    np.testing.assert_array_equal((rejected == 1)[clear], (largest >= LIMIT)[clear])
    assert 0 < rejected.mean() < 1
    told = about[name]["facts"]["rejection"]
    assert told == facts["rejection"]
    assert told["by_reason"] == {"amplitude": int((rejected == 1).sum()), "flat": 0}
    assert told["share_by_channel"].keys() == set(MONTAGE)
    assert about[name]["facts"]["typical_volts"] == facts["typical_volts"]
    assert 2e-6 < facts["typical_volts"] < 500e-6


@pytest.mark.data
def test_the_montage_is_kept_as_facts(tmp_path: Path, data: Path, tokenizers: Tokenizers) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    shutil.copy(data / ARITHMETIC, folder / "a.edf")
    with workspace_at(tmp_path / "home") as workspace:
        about, _ = prepared(workspace, eeg_pipeline(tokenizers), folder)
    (one,) = about.values()
    assert one["channel_names"] == MONTAGE
    montage = one["facts"]["chain"]["montage"]
    assert montage["sources"][:2] == ["EEG Fp1", "EEG Fp2"]
    assert (montage["missing"], montage["unmatched"]) == ([], ["EEG A2-A1"])  # ECG is no EEG


# Events


def chain_with(first: float = 0.0, last: float = 0.0):
    crop = [Crop(first_seconds=first, last_seconds=last)] if first or last else []
    return plan_chain(crop, table(), 100.0, 10_000)


def events_at(*rows: tuple[float, float]) -> Events:
    onsets, durations = np.array(rows, dtype=float).reshape(-1, 2).T
    return Events(onsets, durations, tuple(f"event {i}" for i in range(len(rows))))


def test_events_move_with_the_start_and_are_counted_where_they_fall_out() -> None:
    before, reaching, on_time, inside, long, after = (5, 1), (8, 4), (10, 0), (50, 2), (85, 60), (90, 0)
    moved = move_events(events_at(before, reaching, on_time, inside, long, after), chain_with(10, 10))
    assert moved.events.onsets.tolist() == [0, 0, 40, 75]
    assert moved.events.durations.tolist() == [2, 0, 2, 60]
    assert moved.events.descriptions == ("event 1", "event 2", "event 3", "event 4")
    assert moved.facts == {"events": {"n_outside": 2, "n_cut": 1}}


def test_without_a_crop_events_are_what_they_were() -> None:
    events = events_at((5, 1), (99.9, 3))
    moved = move_events(events, chain_with())
    assert moved.events is events
    assert moved.facts == {}


def test_no_events_move_nowhere() -> None:
    assert len(move_events(events_at(), chain_with(10)).events) == 0


@pytest.mark.data
def test_events_of_a_real_recording_stay_with_their_samples(tmp_path: Path, data: Path, tokenizers: Tokenizers) -> None:
    """30 annotations every 4.2 s: those from 20 to 110 s, 20 s earlier."""
    folder = tmp_path / "lab"
    folder.mkdir()
    shutil.copy(data / IMAGERY, folder / "a.edf")
    with workspace_at(tmp_path / "home") as workspace:
        about, reader = prepared(workspace, eeg_pipeline(tokenizers, 60.0, first_seconds=20.0), folder)
    (name,) = about
    raw = mne.io.read_raw_edf(data / IMAGERY, verbose="error")
    there = [(o - 20, d, t) for o, d, t in zip(*_columns(raw.annotations), strict=True) if 20 <= o < 110]
    np.testing.assert_allclose(reader.read(name, "event_onset")[-len(there) :], [o for o, _, _ in there], atol=1e-9)
    told = about[name]["event_descriptions"]
    assert told[-len(there) :] == [text for _, _, text in there]
    counted = about[name]["facts"]["events"]
    assert counted["n_outside"] == len(raw.annotations) - len(told)
    assert counted["n_cut"] == len(told) - len(there)
    assert about[name]["facts"]["chain"]["start_seconds"] == 20.0


def _columns(annotations: mne.Annotations) -> tuple[Any, Any, Any]:
    return annotations.onset, annotations.duration, annotations.description


# Units


@pytest.mark.data
@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_a_factor_of_a_hundred_is_a_unit_conflict(
    tmp_path: Path, data: Path, tokenizers: Tokenizers, factor: float
) -> None:
    folder = tmp_path / "lab"
    scaled(data / ARITHMETIC, folder / "a.edf", factor)
    with workspace_at(tmp_path / "home") as workspace:
        pipeline, selection = eeg_pipeline(tokenizers), Selection(data=folder)
        assert run_stage(workspace, pipeline, selection, Stage.INGEST).done == 1
        assert run_stage(workspace, pipeline, selection, Stage.PREPARE).failed == 1
        (row,) = workspace.ledger.rows(states=[WorkState.FAILED])
    assert row.code is FailureCode.UNIT_CONFLICT
    assert not list((tmp_path / "home").rglob("rejected"))  # nothing of it is published


# Checksums


@pytest.mark.data
@pytest.mark.parametrize(("stated", "failed"), [("", 0), ("0" * 64, 1)])
@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.txt"])
def test_checksums_of_the_folder_are_compared(
    tmp_path: Path, data: Path, tokenizers: Tokenizers, name: str, stated: str, failed: int
) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    shutil.copy(data / ARITHMETIC, folder / "a.edf")
    found = hashlib.sha256((folder / "a.edf").read_bytes()).hexdigest()
    (folder / name).write_text(f"{stated or found}  ./a.edf\n{'1' * 64} *gone.edf\nno line\n")
    with workspace_at(tmp_path / "home") as workspace:
        result = run_stage(workspace, eeg_pipeline(tokenizers), Selection(data=folder), Stage.INGEST)
        assert (result.done, result.failed) == (1 - failed, failed)
        codes = [row.code for row in workspace.ledger.rows(states=[WorkState.FAILED])]
    assert codes == [FailureCode.DIGEST_MISMATCH] * failed


# A folder that is no BIDS


def tueg_like(data: Path, root: Path) -> Path:
    """Real recordings under the names and labels of Temple University, one in a montage that is left out."""

    def label(text: str) -> str:
        return f"{text.upper()}-REF" if text.startswith("EEG") and "A2" not in text else text

    places = {
        "01_tcp_ar/aaaaaaaa_s001_t000": ARITHMETIC,
        "01_tcp_ar/aaaaaaaa_s001_t001": REST,
        "02_tcp_le/aaaaaabz_s001_t000": ARITHMETIC.replace("sub-00", "sub-01"),
        "04_tcp_le_a/aaaaaaaa_s002_t000": ARITHMETIC.replace("sub-00", "sub-02"),
    }
    for place, source in places.items():
        subject = place.split("/")[1].split("_")[0]
        rewrite(data / source, root / f"edf/000/{subject}/s001_2015/{place}.edf", LABEL, label)
    (root / "AAREADME.txt").write_text("text\n")
    return root


@pytest.mark.data
def test_a_folder_like_tueg_goes_the_whole_road(
    tmp_path: Path, data: Path, tokenizers: Tokenizers, shipped_card: dict[str, Any]
) -> None:
    root = tueg_like(data, tmp_path / "tueg")
    home = tmp_path / "home"
    (home / "catalogs").mkdir(parents=True)
    own = shipped_card | {"id": "tueg-small", "folder": str(root), "expected": {}}
    (home / "catalogs" / "own.yaml").write_text(yaml.safe_dump(own))
    document = eeg_pipeline(tokenizers).model_dump(mode="json", exclude_unset=True)
    pipeline = Pipeline.model_validate(document | {"datasets": ["tueg-small"]})
    stages = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE)
    with workspace_at(home) as workspace:
        results = {stage: run_stage(workspace, pipeline, Selection(), stage) for stage in stages}
        assert [(result.found, result.done, result.failed) for result in results.values()] == [(3, 3, 0)] * 3
        version = workspace.dataset("tueg-small").card.dataset_version
        assert counts(workspace, results[Stage.TOKENIZE], version).done == 3
        with StoreReader.open(workspace.store(version, Stage.TOKENIZE, results[Stage.TOKENIZE].identity)) as reader:
            found = {one.attributes["entities"]["run"] + one.attributes["entities"]["subject"]: one
                     for one in reader.recordings}  # fmt: skip
            assert sorted(found) == ["t000aaaaaaaa", "t000aaaaaabz", "t001aaaaaaaa"]
            for one in found.values():
                assert one.attributes["modality"] == "eeg"
                assert one.attributes["channel_names"] == MONTAGE
                assert one.arrays["codes"].spec.dtype == "uint16"
            shapes = {name: one.arrays["codes"].spec.shape for name, one in found.items()}
        assert shapes == {"t000aaaaaaaa": (60, 2, 19), "t000aaaaaabz": (60, 2, 19), "t001aaaaaaaa": (180, 2, 19)}
        again = [run_stage(workspace, pipeline, Selection(), stage).note for stage in stages]
        assert set(again) == {"nothing to do"}


@pytest.fixture
def shipped_card() -> dict[str, Any]:
    """The card of TUEG as it ships."""
    from neuromill.stages.shipped import shipped_folder

    document: dict[str, Any] = yaml.safe_load((shipped_folder("catalogs") / "tueg" / "tueg.yaml").read_text())
    return document
