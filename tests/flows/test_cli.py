"""``neuromill flows``: what the verbs print, and runs with no server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from neuromill.records import ConfigError
from neuromill_flows import cli
from neuromill_flows.environment import environment_lines
from support.fake_work import FakeWork
from support.stages import TINY, bids_path, write_bids, write_fif


def call(*words: str) -> object:
    return cli.app(words, exit_on_error=False, result_action="return_value")


def test_env_prints_lines_that_a_service_file_takes(capsys: pytest.CaptureFixture[str]) -> None:
    call("env")
    lines = capsys.readouterr().out.splitlines()
    settings = [line for line in lines if not line.startswith("#")]
    assert "DO_NOT_TRACK=1" in settings
    assert "PREFECT_SERVER_ANALYTICS_ENABLED=false" in settings
    assert "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL=1" in settings
    assert len(lines) == len(environment_lines())


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_setup_dry_run_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("setup", "--dry-run", "--json") == 0
    steps = json.loads(capsys.readouterr().out)
    assert {"what", "change", "detail"} == set(steps[0])
    assert any(step["what"] == "deployment pipeline/nightly" for step in steps)


@pytest.mark.parametrize(
    ("words", "stages"),
    [
        (("prepare", "demo"), ["prepare"]),
        (("fit_tokenizer", "demo"), ["fit"]),
        (("pipeline", "demo", "--until", "tokenize"), ["tokenize"]),
    ],
)
def test_without_a_server_the_plain_stages_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], stages: list[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    fake = FakeWork().install(monkeypatch)
    monkeypatch.setattr(cli, "_run_with_prefect", lambda *_: pytest.fail("Prefect was used"))
    with temporary_settings({PREFECT_API_URL: None}):
        call("run", *words, "--json")
    assert [result["stage"] for result in json.loads(capsys.readouterr().out)] == stages
    assert [stage.value for stage, _ in fake.ran] == stages


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_with_a_server_the_flow_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeWork(n_shards=2).install(monkeypatch)
    call("run", "prepare", "demo", "--where", "run = '1'", "--engine", "serial", "--json")
    assert len(fake.ran) == 2
    assert fake.requests[0].selection.where == "run = '1'"
    assert fake.requests[0].engine.kind == "serial"
    assert json.loads(capsys.readouterr().out)[0]["done"] == 8


def test_setup_names_a_variable_that_is_missing(tmp_path: Path) -> None:
    given = {name: value for name, value in os.environ.items() if name != "DO_NOT_TRACK"}
    ended = subprocess.run(
        [sys.executable, "-m", "neuromill.cli.main", "flows", "setup", "--dry-run", "--json"],
        env={**given, "PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:9/api", "NO_ET": "1"},
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr  # no server
    steps = {step["what"]: step for step in json.loads(ended.stdout)}
    assert steps["variable DO_NOT_TRACK"]["change"] == "missing"
    assert "export DO_NOT_TRACK=1" in steps["variable DO_NOT_TRACK"]["detail"]
    assert steps["variable NO_ET"]["change"] == "unchanged"


@pytest.fixture
def lab(tmp_path: Path) -> tuple[str, ...]:
    """Pipeline, folder and home of a lab, as arguments; its second recording is too short to filter."""
    data = write_bids(tmp_path / "lab", subjects=("01",))
    write_fif(bids_path(data, "02"), seconds=0.5)
    pipeline = tmp_path / "tiny.yaml"
    pipeline.write_text(yaml.safe_dump(TINY))
    return (str(pipeline), "--data", str(data), "--home", str(tmp_path / "home"), "--engine", "serial")


def test_a_rehearsal_leaves_no_stores(lab: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("run", "prepare", *lab, "--dry-run", "--json")
    (forecast,) = json.loads(capsys.readouterr().out)
    assert (forecast["stage"], forecast["todo"]) == ("prepare", 2)
    assert not list((tmp_path / "home").glob("stores/**/*.zarr"))


def test_a_recording_that_fails_makes_exit_code_3(
    lab: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: None}), pytest.raises(SystemExit) as ended:
        call("run", "pipeline", *lab, "--until", "prepare", "--json")
    assert ended.value.code == 3
    prepared = json.loads(capsys.readouterr().out)[-1]
    assert (prepared["stage"], prepared["done"], prepared["failed"]) == ("prepare", 1, 1)
    assert len(list((tmp_path / "home").glob("stores/*/prepare/*/*.zarr"))) == 1


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("demo", "--data", "/nowhere"), "no such folder"),
        (("nothing.yaml",), "no such pipeline"),
        (("demo", "--cron", "at night"), "no cron line"),
    ],
)
def test_serve_refuses_what_cannot_run(words: tuple[str, ...], fragment: str) -> None:
    with pytest.raises(ConfigError, match=fragment):
        call("serve", *words)
