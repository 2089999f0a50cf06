"""A real server with a real worker: schedules, `prefect deploy`, kill -9, serving from a laptop, the UI."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from neuromill.synthetic.snapshot import SnapshotSpec, write_snapshot
from support.prefect_service import PrefectService, kill_tree, prefect_service, wait_for
from support.stages import write_bids

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectService]:
    """Server set up twice: the first time writes the profile that the server then starts with."""
    folder = tmp_path_factory.mktemp("service")
    before = PrefectService(folder)
    written = before.run("neuromill.cli.main", "flows", "setup", cwd=folder)
    assert written.returncode == 1
    assert "prefect server start" in " ".join(written.stdout.split())
    with prefect_service(folder) as running:
        running.set_up()
        yield running


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a worker whose archive is a small snapshot on disk."""
    place = write_snapshot(tmp_path_factory.mktemp("snapshot"), SnapshotSpec(subjects=1, runs=2, seconds=6.0))
    return {
        "NEUROMILL_ENDPOINTS__GIT_URL": place.git_url,
        "NEUROMILL_ENDPOINTS__BUCKET_URL": place.bucket_url,
        "NEUROMILL_HOME": str(tmp_path_factory.mktemp("home")),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def silent_bucket() -> Iterator[str]:
    """An archive that accepts connections and never answers."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_setup_is_idempotent(service: PrefectService) -> None:
    assert {step["change"] for step in service.set_up()} == {"unchanged"}


def test_telemetry_switches_are_set(service: PrefectService) -> None:
    settings = service.get("/admin/settings")
    assert settings["server"]["analytics_enabled"] is False
    assert settings["server"]["services"]["task_run_recorder"]["batch_size"] == 100
    deployment = service.get("/deployments/name/pipeline/nightly")
    assert deployment["job_variables"]["env"]["DO_NOT_TRACK"] == "1"


def test_a_cron_deployment_produces_scheduled_runs(service: PrefectService) -> None:
    assert not service.get("/deployments/name/pipeline/nightly")["schedules"][0]["active"]
    assert service.runs_of("pipeline/nightly") == []
    switched_on = service.run("neuromill.cli.main", "flows", "setup", "--schedule", cwd=service.folder)
    assert switched_on.returncode == 0, switched_on.stderr
    runs = wait_for(lambda: service.runs_of("pipeline/nightly"), 150, "scheduled run")
    assert {run["state"]["name"] for run in runs} == {"Scheduled"}
    assert {datetime.fromisoformat(run["expected_start_time"]).hour for run in runs} == {2}
    assert all(run["auto_scheduled"] and run["parameters"]["until"] == "prepare" for run in runs)


def test_prefect_deploy_exits_0_and_makes_what_setup_makes(service: PrefectService) -> None:
    deployed = service.run("prefect", "--no-prompt", "deploy", "--all")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert "Traceback" not in deployed.stdout + deployed.stderr
    assert {step["change"] for step in service.set_up()} == {"unchanged"}


def test_killed_flow_process_and_worker_do_not_leave_a_running_flow(
    service: PrefectService, sources: dict[str, str], silent_bucket: str, record_testsuite_property: object
) -> None:
    worker = service.start_worker({**sources, "NEUROMILL_ENDPOINTS__BUCKET_URL": silent_bucket})
    run = service.trigger("ingest/meg-xl", {"pipeline": "demo", "engine": {"workers": 1}})
    service.wait_for_state(run, "Running", 90)
    time.sleep(5)  # the first heartbeat is on its way, the download hangs
    assert kill_tree(worker)
    killed = time.monotonic()
    service.wait_for_state(run, "Crashed", 240)
    record_testsuite_property("seconds_until_crashed", round(time.monotonic() - killed))

    # The slot of the deployment is free again, the ledger takes the recordings back, a new worker goes on.
    service.start_worker(sources)
    again = service.trigger("ingest/meg-xl", {"pipeline": "demo", "engine": {"workers": 1}})
    service.wait_for_state(again, "Completed", 180)
    assert service.get(f"/flow_runs/{again}")["name"] == "ingest demo"
    artifacts = service.post("/artifacts/filter", {"artifacts": {"key": {"any_": ["ingest-summary"]}}})
    assert "| 2 | 0 | 2 | 0 |" in artifacts[0]["data"]


def stop(service: PrefectService, name: str, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    os.kill(process.pid, number)
    assert process.wait(90) == 0, service.log(name)
    for trouble in ("RuntimeWarning", "Traceback"):
        assert trouble not in service.log(name)


def test_serving_from_a_laptop(service: PrefectService, sources: dict[str, str]) -> None:
    served = service.start("serve", "neuromill.cli.main", "flows", "serve", more=sources)
    wait_for(
        lambda: service.runs_of("pipeline/nightly-served") if "nightly-served" in names(service) else [], 150, "run"
    )
    run = service.trigger("prepare/meg-xl-served", {"pipeline": "demo", "engine": {"kind": "serial"}})
    service.wait_for_state(run, "Completed", 120)
    stop(service, "serve", served, signal.SIGTERM)
    assert service.state(run) == "Completed"
    assert service.get("/deployments/name/pipeline/nightly-served")["paused"]
    assert not service.get("/deployments/name/pipeline/nightly")["paused"]


def test_a_lab_serves_its_own_folder_until_ctrl_c(
    service: PrefectService, sources: dict[str, str], tmp_path: Path
) -> None:
    data = write_bids(tmp_path / "lab", subjects=("01", "02"))
    words = ("--data", str(data), "--where", "subject = '02'", "--cron", "30 4 * * *")
    served = service.start("serve-lab", "neuromill.cli.main", "flows", "serve", "demo", *words, more=sources)
    name = "pipeline/nightly-demo-lab-served"
    runs = wait_for(lambda: service.runs_of(name) if name.partition("/")[2] in names(service) else [], 150, "run")
    starts = {datetime.fromisoformat(run["expected_start_time"]) for run in runs}
    assert {(start.hour, start.minute) for start in starts} == {(4, 30)}
    run = service.trigger(name, {"engine": {"kind": "serial"}})
    service.wait_for_state(run, "Completed", 180)
    assert service.get(f"/flow_runs/{run}")["name"] == f"pipeline demo from {data} where subject = '02' until prepare"
    assert len(list(Path(sources["NEUROMILL_HOME"]).glob("stores/*lab*/prepare/*/*.zarr"))) == 1
    stop(service, "serve-lab", served, signal.SIGINT)
    assert service.get(f"/deployments/name/{name}")["paused"]


def test_a_signal_while_a_flow_runs_ends_the_run_and_pauses_the_schedules(
    service: PrefectService, sources: dict[str, str], silent_bucket: str
) -> None:
    more = {**sources, "NEUROMILL_ENDPOINTS__BUCKET_URL": silent_bucket, "NEUROMILL_HOME": f"{service.folder}/hangs"}
    served = service.start("serve-busy", "neuromill.cli.main", "flows", "serve", more=more)
    name = "pipeline/nightly-served"
    wait_for(
        lambda: name.partition("/")[2] in names(service) and not service.get(f"/deployments/name/{name}")["paused"],
        60,
        "deployment that goes on after its pause",
    )
    wait_for(lambda: "Ctrl-C" in service.log("serve-busy"), 60, "word that all is served")
    run = service.trigger("ingest/meg-xl-served", {"pipeline": "demo", "engine": {"kind": "serial"}})
    service.wait_for_state(run, "Running", 120)
    stop(service, "serve-busy", served, signal.SIGTERM)
    assert service.get(f"/deployments/name/{name}")["paused"]
    assert service.state(run) == "Cancelled"


def names(service: PrefectService) -> set[str]:
    return {deployment["name"] for deployment in service.post("/deployments/filter", {})}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_ui_draws_a_flow_run(service: PrefectService, sources: dict[str, str], tmp_path: Path) -> None:
    command = ("neuromill.cli.main", "flows", "run", "prepare", "demo", "--engine", "serial", "--where", "run = '02'")
    done = service.run(*command, more=sources)
    assert done.returncode == 0, done.stderr
    runs = service.post("/flow_runs/filter", {"flow_runs": {"name": {"like_": "run = '02'"}}})
    run = next(run for run in runs if run["state"]["name"] == "Completed")
    picture = tmp_path / "flow-run.png"
    address = f"http://127.0.0.1:{service.port}/runs/flow-run/{run['id']}"
    browser = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=20000",
    ]  # fmt: skip
    subprocess.run([*browser, f"--screenshot={picture}", address], check=True, capture_output=True, timeout=120)
    assert picture.read_bytes().startswith(b"\x89PNG")
    page = subprocess.run([*browser, "--dump-dom", address], check=True, capture_output=True, text=True, timeout=120)
    assert "prepare demo where run = " in page.stdout
