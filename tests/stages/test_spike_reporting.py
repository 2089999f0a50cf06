"""Everything that looks, on a spike pipeline: report, stores, forecast, commands."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from neuromill.reports.contents import ReportContents
from neuromill.reports.spike_contents import SpikeContents
from neuromill.reports.spike_pictures import r2
from neuromill.stages.forecast import forecast
from neuromill.stages.looking import describe_columns, list_stores, notes_of
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.reporting import collect, write_report
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.shipped import shipped_folder
from neuromill.stages.workspace import Workspace
from neuromill.store.looking import open_spikes
from neuromill.synthetic.nwb import SessionsSpec, session_files
from neuromill.training.metrics import MetricsFile
from support.command import neuromill
from support.spike_roads import TINY_SPIKES, tiny_spike_pipeline
from support.stages import tree_digests, workspace_at

SPEC = SessionsSpec(subjects=2, units_per_array=8, seconds=40.0)
SELECTION = Selection()
NAMES = [f"sub-{who}_ses-RT-20260101_behavior+ecephys" for who in "AB"]
STAGES = (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE, Stage.TRAIN)


@dataclass(frozen=True)
class Place:
    workspace: Workspace
    pipeline: Pipeline
    contents: ReportContents

    @property
    def spikes(self) -> SpikeContents:
        assert self.contents.spikes is not None
        return self.contents.spikes


def write_sessions(folder: Path) -> None:
    """Two sessions of 40 s and their card, with blocks of time held out."""
    for path, content in session_files(SPEC).items():
        file = folder / "sessions" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    card = yaml.safe_load((shipped_folder("catalogs") / "dandi" / "999002.yaml").read_text())
    card |= {"id": "own-spikes", "archive": "local", "folder": str(folder / "sessions"), "version": "1"}
    (folder / "home" / "catalogs").mkdir(parents=True)
    (folder / "home" / "catalogs" / "own.yaml").write_text(yaml.safe_dump(card))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("spikes")
    write_sessions(folder)
    pipeline = tiny_spike_pipeline(datasets=["own-spikes"], train={"ridge": {"lags": [3]}, "cpu_threads": 1})
    with workspace_at(folder / "home") as workspace:
        for stage in STAGES:
            assert run_stage(workspace, pipeline, SELECTION, stage).failed == 0
        yield Place(workspace, pipeline, collect(workspace, pipeline, SELECTION))


def prepared(place: Place, name: str):
    store = next((place.workspace.home / "stores").glob("*/prepare/*"))
    return open_spikes(store, name)


def test_recordings(place: Place) -> None:
    data = prepared(place, NAMES[0])
    first = place.spikes.recordings[0]
    assert [one.name.partition("/")[2] for one in place.spikes.recordings] == NAMES
    assert (first.n_units, dict(first.masked), dict(first.arrays)) == (16, {}, {"M1": 8, "PMd": 8})
    assert first.seconds == pytest.approx(data.sizes["time"] * 0.02)
    assert first.observed_share == 1.0
    assert first.covariates == tuple(data.covariate.to_numpy())
    assert first.n_trials == data.sizes["trial"]
    assert first.n_successes == int(data.trial_success.sum())
    assert first.n_spikes == int(data.counts.sum())
    assert {note.text for note in place.spikes.notes}


def test_splits_are_those_of_the_card_in_every_part_of_the_page(place: Place) -> None:
    stretches = place.spikes.recordings[0].stretches
    assert [stretch.split for stretch in stretches] == ["train", "validation", "test"]
    assert all(a.stop < b.start for a, b in pairwise(stretches))  # a guard between them
    facts = place.contents.recordings[0]
    assert dict(facts.parts) == {s.split: pytest.approx(s.stop - s.start) for s in stretches}
    for part in (place.spikes.activity, place.spikes.decoded):
        assert part is not None
        assert part.split == "validation"
        n_times = (part.true if hasattr(part, "true") else part.counts).shape[1]
        held_out = stretches[1]
        assert held_out.start - 1e-6 <= part.start_seconds
        assert part.start_seconds + n_times * part.bin_seconds <= held_out.stop + 1e-6


def test_rates(place: Place) -> None:
    rates = {one.array: one for one in place.spikes.rates}
    assert list(rates) == ["M1", "PMd"]
    measured = np.concatenate([
        data.unit_mean_rate.to_numpy()[data.unit_array.to_numpy() == "M1"]
        for data in (prepared(place, name) for name in NAMES)
    ])  # fmt: skip
    np.testing.assert_allclose(rates["M1"].hertz, np.sort(measured))
    assert rates["M1"].n_recordings == 2


def test_activity_is_what_the_store_holds(place: Place) -> None:
    item = place.spikes.activity
    assert item is not None
    data = prepared(place, item.recording.partition("/")[2])
    first = int(np.flatnonzero(np.isclose(data.time, item.start_seconds))[0])
    rows = slice(first, first + item.counts.shape[1])
    stored = data.counts.isel(time=rows).sel(unit=list(item.units)).to_numpy().T
    np.testing.assert_array_equal(item.counts, stored)
    np.testing.assert_array_equal(item.values, data.behaviour.isel(time=rows).to_numpy().T)
    assert item.n_units == len(item.units) == 16


def test_tokens_and_training(place: Place) -> None:
    (tokens,) = place.spikes.tokens
    assert tokens.n_recordings == 2
    assert tokens.by_kind["covariate"] == tokens.by_kind["spike"]  # two covariates, two patches
    assert tokens.left_out is not None
    run = place.spikes.training
    assert run is not None
    assert run.finished
    assert run.train.steps.tolist() == [1, 2, 3]
    rows = MetricsFile(place.workspace.run_folder(run.identity) / "metrics.jsonl").rows()
    assert run.model is not None
    assert run.model.r2 == [row["r2"] for row in rows if row["kind"] == "validation"][-1]
    beside = {r["name"]: r["r2"] for r in rows if r["kind"] == "baseline" and r["split"] != "test"}
    assert {row.name: row.r2 for row in run.baselines} == beside
    (test,) = [row for row in rows if row["kind"] == "test"]
    assert run.test is not None
    assert (run.test.r2, run.test.per_recording) == (test["r2"], test["r2_per_recording"])
    beside = {r["name"]: r["r2"] for r in rows if r["kind"] == "baseline" and r["split"] == "test"}
    assert {row.name: row.r2 for row in run.test_baselines} == beside
    assert set(beside) == {"mean", "ridge"}


def test_decoded_has_units_and_stands_over_the_true_values(place: Place) -> None:
    item = place.spikes.decoded
    assert item is not None
    data = prepared(place, item.recording.partition("/")[2])
    first = int(np.flatnonzero(np.isclose(data.time, item.start_seconds))[0])
    true = data.behaviour.isel(time=slice(first, first + item.true.shape[1])).to_numpy().T
    scale = data.covariate_scale.to_numpy()[:, None]
    np.testing.assert_allclose(item.true, np.clip(true, -scale, scale), rtol=1e-4, atol=1e-4)
    assert item.units == tuple(data.covariate_unit.to_numpy())
    assert np.isfinite(item.decoded).all()
    assert all((r2(a, b) or 0) < 1 for a, b in zip(item.true, item.decoded, strict=True))


def test_random_chunks_hold_out_no_stretch(place: Place) -> None:
    model = TINY_SPIKES["train"]["model"] | {"parity": True}
    train = {"model": model, "split": "random_chunks", "ridge": None, "cpu_threads": 1}
    pipeline = tiny_spike_pipeline(datasets=["own-spikes"], train=train)
    run_stage(place.workspace, pipeline, SELECTION, Stage.TRAIN)
    spikes = collect(place.workspace, pipeline, SELECTION).spikes
    assert spikes is not None
    assert spikes.decoded is not None
    assert spikes.decoded.split == "test"  # the only one that no chunk was drawn from


def test_page_is_the_same_twice_and_changes_nothing(place: Place, tmp_path: Path) -> None:
    before = tree_digests(place.workspace.home / "stores")
    first, second = (
        write_report(place.workspace, place.pipeline, SELECTION, tmp_path / name) for name in ("a.html", "b.html")
    )
    assert first.read_bytes() == second.read_bytes()
    assert tree_digests(place.workspace.home / "stores") == before
    text = first.read_text(encoding="utf-8")
    assert str(place.workspace.home) not in text
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections == ["recordings", "prepared", "rates", "activity", "tokens", "training", "decoded", "identities"]
    assert 'class="missing"' not in text


def test_stores_tell_units_and_hours(place: Place) -> None:
    stores = {store.stage: store for store in list_stores(place.workspace)}
    assert {stage: (s.kind, s.columns, s.n_columns) for stage, s in stores.items()} == {
        "prepare": ("spikes", "units", (16, 16)),
        "tokenize": ("spike_tokens", "units", (16, 16)),
    }
    assert all(store.hours == pytest.approx(2 * 40 / 3600, rel=0.01) for store in stores.values())
    assert notes_of(place.workspace, place.contents.recordings[0].name)


def test_forecast_before_and_after(place: Place, tmp_path: Path) -> None:
    told = {one.stage: one for one in forecast(place.workspace, place.pipeline, SELECTION)}
    assert {stage.value: one.todo for stage, one in told.items()} == dict.fromkeys(
        ("ingest", "prepare", "fit", "tokenize", "train"), 0
    )
    write_sessions(tmp_path)
    with workspace_at(tmp_path / "home") as workspace:
        told = {one.stage: one for one in forecast(workspace, place.pipeline, SELECTION)}
        assert told[Stage.INGEST].bytes_out
        for stage in (Stage.PREPARE, Stage.TOKENIZE):
            assert (told[stage].todo, told[stage].bytes_out) == (2, None)
            assert "only known from the files" in told[stage].note
        one = Selection(where="subject = 'A'")
        for stage in (Stage.INGEST, Stage.PREPARE):
            run_stage(workspace, place.pipeline, one, stage)
        told = {one.stage: one for one in forecast(workspace, place.pipeline, SELECTION)}
        store = next(store for store in list_stores(workspace) if store.stage == "prepare")
        assert told[Stage.PREPARE].todo == 1
        assert told[Stage.PREPARE].bytes_out == pytest.approx(store.n_bytes, rel=0.5)  # one like the one that is done
        assert told[Stage.PREPARE].note == ""


def test_before_anything_ran(place: Place, tmp_path: Path) -> None:
    write_sessions(tmp_path)
    with workspace_at(tmp_path / "home") as workspace:
        contents = collect(workspace, place.pipeline, SELECTION)
        text = write_report(workspace, place.pipeline, SELECTION, tmp_path / "page.html").read_text(encoding="utf-8")
    assert contents.spikes == SpikeContents()
    assert "<code>neuromill prepare tiny-spikes</code>" in text


def test_the_commands_that_look(place: Place) -> None:
    home = ("--home", place.workspace.home)
    stores = neuromill("shards", "ls", "--json", *home).document
    assert [(s["kind"], s["units"], s["recordings"]) for s in stores] == [
        ("spikes", [16, 16], 2), ("spike_tokens", [16, 16], 2),
    ]  # fmt: skip
    assert "16 units" in neuromill("shards", "ls", *home).out
    assert neuromill("shards", "verify", "--json", *home).document["problems"] == []
    for store in stores:
        group = next(Path(store["folder"]).glob("*.zarr"))
        shown = neuromill("shards", "inspect", group, "--json").document
        assert (shown["kind"], shown["columns"]) == (store["kind"], "16 units: 8 M1, 8 PMd")
        assert shown["seconds"] == pytest.approx(40, rel=0.01)
        told = neuromill("shards", "inspect", group).out
        assert "16 units: 8 M1, 8 PMd" in told
        assert "unit_names" not in told
    assert {row["stage"] for row in neuromill("status", "--json", *home).document["stages"]} == {
        "ingest", "prepare", "tokenize",
    }  # fmt: skip
    assert "noted at prepare: " in neuromill("explain", NAMES[0], *home).out
    file = place.workspace.home / "tiny.yaml"
    train = TINY_SPIKES["train"] | {"ridge": {"lags": [3]}, "cpu_threads": 1}
    file.write_text(json.dumps(TINY_SPIKES | {"datasets": ["own-spikes"], "train": train}))
    planned = neuromill("plan", file, "--json", *home).document
    assert [row["todo"] for row in planned] == [0] * 5


def test_columns_in_words() -> None:
    units = {"kind": "spikes", "unit_names": ["1", "2", "3"], "unit_arrays": ["", "M1", "M1"], "bads": {"1": "silent"}}
    assert describe_columns(units) == "3 units: 2 M1, 1 no array; 1 masked"
    channels = {"kind": "tokens", "channel_names": ["A"], "channel_types": ["mag"], "bads": {}}
    assert describe_columns(channels) == "1 channels: 1 mag"
