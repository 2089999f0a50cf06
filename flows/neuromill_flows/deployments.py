"""The ready deployments, defined once: ``flows setup`` and ``flows serve`` make them, prefect.yaml states the same.

Entrypoints are module paths, so a deployment works wherever the package is installed, with or without a checkout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from neuromill.records import Config
from neuromill_flows.parameters import DEFAULT_PIPELINE

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

WORK_POOL = "neuromill"
HEARTBEAT_SECONDS = 30
# In the environment of every flow process: no telemetry, and a sign of life every 30 s (Prefect's default is 180).
JOB_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "NO_ET": "1",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
}
FLOWS_MODULE = "neuromill_flows.flows"
NAME = DEFAULT_PIPELINE


class DeploymentSpec(Config):
    """One deployment: a flow with parameters, and a schedule where ``cron`` says one (UTC)."""

    flow: str
    name: str
    description: str
    parameters: dict[str, Any] = Field(default_factory=lambda: {"pipeline": DEFAULT_PIPELINE})
    cron: str = ""
    tags: tuple[str, ...] = ("neuromill",)

    @property
    def full_name(self) -> str:
        """Name as Prefect knows it: flow/deployment."""
        return f"{self.flow}/{self.name}"

    @property
    def entrypoint(self) -> str:
        """Module path of the flow."""
        return f"{FLOWS_MODULE}.{self.flow}"

    def as_prefect_yaml(self) -> dict[str, Any]:
        """Return the entry of prefect.yaml."""
        return {
            "name": self.name,
            "description": self.description,
            "entrypoint": self.entrypoint,
            "parameters": self.parameters,
            "tags": list(self.tags),
            "schedules": [{"cron": self.cron, "timezone": "UTC"}] if self.cron else [],
            "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
            "work_pool": {"name": WORK_POOL, "job_variables": {"env": dict(JOB_ENVIRONMENT)}},
        }

    def to_prefect(self, work_pool: str | None) -> RunnerDeployment:
        """Return Prefect's deployment, for a work pool or (None) for serving from this process.

        Two runs of one deployment would do the same work twice, so the limit is 1 and the second waits.
        """
        from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
        from prefect.deployments.runner import RunnerDeployment
        from prefect.schedules import Cron
        from prefect.types.entrypoint import EntrypointType

        from neuromill_flows.flows import FLOWS

        return RunnerDeployment.from_flow(
            FLOWS[self.flow],
            name=self.name if work_pool else f"{self.name}-served",
            description=self.description,
            parameters=self.parameters,
            tags=list(self.tags),
            schedules=[Cron(self.cron, timezone="UTC")] if self.cron else [],
            concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
            work_pool_name=work_pool,
            job_variables={"env": dict(JOB_ENVIRONMENT)} if work_pool else None,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )


def ready_deployments() -> tuple[DeploymentSpec, ...]:
    """Return the deployments that come with NeuroMill."""
    return (
        DeploymentSpec(flow="ingest", name=NAME, description="Fetch raw files, each digest checked."),
        DeploymentSpec(flow="prepare", name=NAME, description="Filter and resample; one Zarr group per recording."),
        DeploymentSpec(flow="fit_tokenizer", name=NAME, description="Fit the tokenizer on the train split."),
        DeploymentSpec(flow="tokenize", name=NAME, description="Encode prepared recordings into codes."),
        DeploymentSpec(flow="train", name=NAME, description="Train the model on the token stores."),
        DeploymentSpec(flow="pipeline", name=NAME, description="All stages in order."),
        DeploymentSpec(
            flow="pipeline",
            name="nightly",
            description="Every night at 02:00 UTC: fetch and prepare what is new or missing.",
            parameters={"pipeline": DEFAULT_PIPELINE, "until": "prepare"},
            cron="0 2 * * *",
        ),
    )


def prefect_yaml() -> dict[str, Any]:
    """Return what prefect.yaml at the root of the project says."""
    return {
        "name": "neuromill",
        "prefect-version": "3.8.8",
        # The package is installed where the worker runs: nothing to pull.
        "pull": [],
        "deployments": [spec.as_prefect_yaml() for spec in ready_deployments()],
    }
