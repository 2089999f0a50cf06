"""``neuromill flows``: what the verbs print, and runs with no server."""

import json

import pytest

from neuromill_flows import cli
from neuromill_flows.environment import environment_lines
from support.fake_work import FakeWork


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
