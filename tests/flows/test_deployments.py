"""The definitions: prefect.yaml says the same, and the parameters make a form."""

import ast
import inspect
from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from neuromill_flows.deployments import JOB_ENVIRONMENT, WORK_POOL, DeploymentSpec, Job, prefect_yaml, ready_deployments
from neuromill_flows.flows import FLOWS
from neuromill_flows.parameters import Selection
from support.paths import PROJECT


def test_prefect_yaml_states_the_definitions() -> None:
    assert yaml.safe_load((PROJECT / "prefect.yaml").read_text()) == prefect_yaml()


def test_every_flow_has_a_deployment_and_one_is_on_a_schedule() -> None:
    assert {spec.flow for spec in ready_deployments()} == set(FLOWS)
    scheduled = [spec for spec in ready_deployments() if spec.cron]
    assert [(spec.full_name, spec.parameters["until"]) for spec in scheduled] == [("pipeline/nightly", "prepare")]


@pytest.mark.parametrize("spec", ready_deployments(), ids=lambda spec: spec.full_name)
def test_a_deployment_can_be_loaded_and_its_parameters_are_valid(spec: DeploymentSpec) -> None:
    flow = load_flow_from_entrypoint(spec.entrypoint)
    assert flow.name == spec.flow
    assert flow.validate_parameters(spec.parameters)


@pytest.mark.parametrize("spec", ready_deployments(), ids=lambda spec: spec.full_name)
def test_prefect_gets_what_the_definition_says(spec: DeploymentSpec) -> None:
    deployment = spec.to_prefect(WORK_POOL)
    assert deployment.entrypoint == spec.entrypoint
    assert deployment.concurrency_limit == 1
    assert deployment.concurrency_options.collision_strategy == "ENQUEUE"
    assert deployment.job_variables == {"env": JOB_ENVIRONMENT}
    assert [schedule.schedule.cron for schedule in deployment.schedules] == ([spec.cron] if spec.cron else [])
    served = spec.to_prefect(None)
    assert served.work_pool_name is None
    assert served.name != deployment.name  # else serving would take the deployment away from the work pool


def test_a_lab_serves_its_own_folder_on_its_own_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bids").mkdir()
    (tmp_path / "mine.yaml").write_text("name: mine")
    monkeypatch.chdir(tmp_path)
    selection = Selection(data=Path("bids"), where="subject = '01'")
    job = Job(pipeline="mine.yaml", selection=selection, cron="30 4 * * 1", until="tokenize").checked()
    specs = {spec.full_name: spec for spec in ready_deployments(job)}
    assert set(specs) == {*(f"{flow}/mine-bids" for flow in FLOWS), "pipeline/nightly-mine-bids"}
    nightly = specs["pipeline/nightly-mine-bids"]
    assert nightly.cron == "30 4 * * 1"
    chosen = {"data": str(tmp_path / "bids"), "where": "subject = '01'"}
    pipeline = str(tmp_path / "mine.yaml")
    assert nightly.parameters == {"pipeline": pipeline, "selection": chosen, "until": "tokenize"}
    read = FLOWS["pipeline"].validate_parameters(nightly.parameters)
    assert read["selection"] == Selection(data=tmp_path / "bids", where="subject = '01'")
    assert specs["prepare/mine-bids"].parameters == {"pipeline": pipeline, "selection": chosen}
    assert {spec.cron for name, spec in specs.items() if spec is not nightly} == {""}


def test_the_parameters_of_a_stage_flow_have_names_and_defaults() -> None:
    assert inspect.signature(FLOWS["ingest"].fn) == inspect.signature(FLOWS["train"].fn)
    assert FLOWS["fit_tokenizer"].fn.__name__ == "fit_tokenizer"
    assert len({flow.description for flow in FLOWS.values()}) == len(FLOWS)


@pytest.mark.parametrize("name", sorted(FLOWS))
def test_the_form_has_the_fields(name: str) -> None:
    schema = parameter_schema(FLOWS[name]).model_dump()
    common = {"pipeline", "selection", "engine", "options"}
    assert set(schema["properties"]) == (common | {"until"} if name == "pipeline" else common)
    fields = schema["definitions"]
    assert set(fields["Selection"]["properties"]) == {"where", "data", "part"}
    assert {"kind", "workers", "address", "shards_at_once", "task_runner"} <= set(fields["Engine"]["properties"])
    assert fields["EngineChoice"]["enum"] == ["processes", "dask", "serial"]
    assert "required" not in schema or not schema["required"]
    described = [*fields["Selection"]["properties"].values(), *fields["Engine"]["properties"].values()]
    assert all("description" in field for field in described)


@pytest.mark.parametrize("path", sorted((PROJECT / "flows").rglob("*.py")), ids=lambda path: path.name)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"
