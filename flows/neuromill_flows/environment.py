"""Settings a Prefect server and its clients need, with the measurements they come from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from neuromill_flows.deployments import HEARTBEAT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class Setting:
    """One variable, why it is set, and where the server's settings document shows it ("" where it does not)."""

    name: str
    value: str
    why: str
    shown_at: str = ""


SERVER = (
    Setting(
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE",
        "100",
        "one transaction per task-run event collides with the API's own writes on SQLite: flows stalled 62-65 s",
        "server.services.task_run_recorder.batch_size",
    ),
    Setting(
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE",
        "100",
        "6 ms of server CPU per task run, not 20",
        "server.services.task_run_recorder.read_batch_size",
    ),
    # An integer of at least 1: Prefect 3.8.8 truncates it, and 0 means never.
    Setting(
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL",
        "1",
        "seconds until the UI shows an event",
        "server.services.task_run_recorder.flush_interval",
    ),
    Setting(
        "PREFECT_SERVER_ANALYTICS_ENABLED",
        "false",
        "no anonymous heartbeat to Prefect every 600 s",
        "server.analytics_enabled",
    ),
    Setting(
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY", str(HEARTBEAT_SECONDS), "sign of life; the automation waits for three"
    ),
)
# Prefect settings can stand in a profile; these are read from the environment only.
ENVIRONMENT = (
    Setting("DO_NOT_TRACK", "1", "Prefect's client analytics"),
    Setting("NO_ET", "1", "version check of the dandi client"),
    Setting("HF_HUB_DISABLE_TELEMETRY", "1", "telemetry of the Hugging Face client"),
)


def environment_lines() -> tuple[str, ...]:
    """Lines for a service's environment file, comments included."""
    return tuple(line for each in (*SERVER, *ENVIRONMENT) for line in (f"# {each.why}", f"{each.name}={each.value}"))


def set_defaults() -> None:
    """Set what is not set yet in this process, before Prefect is imported and for the processes it starts."""
    for each in (*SERVER, *ENVIRONMENT):
        os.environ.setdefault(each.name, each.value)


def names_given() -> Collection[str]:
    """Names of the variables this process was started with: ``os.environ`` also has the defaults it gave itself."""
    return frozenset(psutil.Process().environ())
