"""Settings of the machine: from the environment, from arguments, never part of an identity."""

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from neuromill.records import PartId
from neuromill.stages.selection import Selection
from neuromill.stages.settings import EngineKind, EngineSettings, Settings, ShardSettings


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "LEDGER_URL", "CATALOGS", "ENGINE__KIND", "ENGINE__WORKERS"):
        monkeypatch.delenv(f"NEUROMILL_{name}", raising=False)


def test_defaults() -> None:
    settings = Settings.at()
    assert settings.home == Path.home() / ".neuromill"
    assert settings.engine == EngineSettings(kind=EngineKind.PROCESSES, workers=0, threads_per_worker=1)
    assert settings.engine.n_workers >= 1


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEUROMILL_HOME", str(tmp_path))
    monkeypatch.setenv("NEUROMILL_ENGINE__KIND", "serial")
    monkeypatch.setenv("NEUROMILL_ENGINE__WORKERS", "3")
    monkeypatch.setenv("NEUROMILL_SHARDS__MAX_RECORDINGS", "5")
    settings = Settings.at()
    assert (settings.home, settings.engine.kind, settings.engine.n_workers) == (tmp_path, EngineKind.SERIAL, 3)
    assert settings.shards == ShardSettings(max_recordings=5)


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEUROMILL_HOME", "/somewhere")
    assert Settings.at(tmp_path).home == tmp_path
    assert Settings.at(tmp_path, engine=None).engine.kind is EngineKind.PROCESSES


def test_home_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.at(Path("home")).home == tmp_path / "home"
    assert Settings.at(Path("~/x")).home == Path.home() / "x"


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (EngineSettings, {"workers": -1}),
        (EngineSettings, {"threads_per_worker": 0}),
        (EngineSettings, {"kind": "threads"}),
        (EngineSettings, {"worker": 2}),
        (EngineSettings, {"recording_seconds": float("inf")}),
        (EngineSettings, {"recording_seconds": 1e10}),
        (Settings, {"listing_seconds": float("inf")}),
        (ShardSettings, {"max_recordings": 0}),
        (ShardSettings, {"max_failed_share": 1.5}),
        (Selection, {"were": "x"}),
    ],
)
def test_wrong_values_are_refused(model: type, values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        model(**values)


def test_settings_travel_to_workers(tmp_path: Path) -> None:
    settings = Settings.at(tmp_path, engine=EngineSettings(kind=EngineKind.DASK, workers=2))
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_selection_survives_json() -> None:
    selection = Selection(where="run = '1'", data=Path("/data"), part=PartId(2, 8))
    assert Selection.model_validate_json(selection.model_dump_json()) == selection
