"""A real Prefect server and workers on loopback, each with a home of its own; everything ends with the block."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from support.paths import PROJECT

T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(look: Callable[[], T | None], seconds: float, what: str) -> T:
    """Look once a second until there is something; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(1)
    raise AssertionError(f"no {what} after {seconds:g} s")


@dataclass
class PrefectService:
    """Processes, their environment, and questions to the API."""

    folder: Path
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "NEUROMILL_"))}
        return {
            **inherited,
            "HOME": str(self.folder),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "DO_NOT_TRACK": "1",
            "NO_ET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **(more or {}),
        }

    def start(self, name: str, *command: str, more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self.environment(more), cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def start_server(self) -> None:
        self.start("server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        wait_for(self._healthy, 120, "Prefect server")

    def start_worker(self, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return self.start("worker", "prefect", "worker", "start", "--pool", "neuromill", "--type", "process", more=more)

    def run(
        self, *command: str, cwd: Path = PROJECT, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *command],
            env=self.environment(more), cwd=cwd, check=False, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    def set_up(self) -> list[dict[str, str]]:
        done = self.run("neuromill.cli.main", "flows", "setup", "--json", cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return httpx.post(self.api + path, json=dict(body or {}), timeout=30).raise_for_status().json()

    def get(self, path: str) -> Any:
        return httpx.get(self.api + path, timeout=30).raise_for_status().json()

    def runs_of(self, deployment: str) -> list[dict[str, Any]]:
        found = self.get(f"/deployments/name/{deployment}")
        return self.post("/flow_runs/filter", {"deployments": {"id": {"any_": [found["id"]]}}, "limit": 200})

    def trigger(self, deployment: str, parameters: Mapping[str, Any]) -> str:
        found = self.get(f"/deployments/name/{deployment}")
        return self.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": dict(parameters)})["id"]

    def state(self, run: str) -> str:
        return str(self.get(f"/flow_runs/{run}")["state"]["name"])

    def wait_for_state(self, run: str, name: str, seconds: float) -> None:
        wait_for(lambda: self.state(run) == name, seconds, f"{name} flow run (it is {self.state(run)})")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _healthy(self) -> bool:
        assert self.processes[0].poll() is None, self.log("server")
        try:
            return httpx.get(f"{self.api}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


def kill_tree(process: subprocess.Popen[bytes]) -> list[int]:
    """``kill -9`` of a process and all below it, children first; returns their ids."""
    below = psutil.Process(process.pid).children(recursive=True)
    for victim in reversed(below):
        victim.kill()
    process.kill()
    process.wait(30)
    return [victim.pid for victim in below]


@contextmanager
def prefect_service(folder: Path) -> Iterator[PrefectService]:
    """Start a server; stop it and everything that was started beside it."""
    service = PrefectService(folder)
    try:
        service.start_server()
        yield service
    finally:
        for process in reversed(service.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in reversed(service.processes):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)
