"""The ready deployments, defined once: ``flows setup`` and ``flows serve`` make them, prefect.yaml states the same.

Entrypoints are module paths, so a deployment works wherever the package is installed, with or without a checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from neuromill.records import Config, ConfigError
from neuromill_flows.parameters import DEFAULT_PIPELINE, Selection

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
EVERY_NIGHT = "0 2 * * *"


class Job(Config):
    """What the deployments work on; when the scheduled one starts (cron, UTC), and its last stage."""

    pipeline: str = DEFAULT_PIPELINE
    selection: Selection = Selection()
    cron: str = EVERY_NIGHT
    until: str = "prepare"

    @property
    def name(self) -> str:
        """Pipeline, and the folder where there is one: the job of a lab stands beside the others."""
        folder = self.selection.data
        return Path(self.pipeline).stem + (f"-{folder.name}" if folder else "")

    @property
    def scheduled_name(self) -> str:
        """Name of the deployment with the schedule."""
        return "nightly" if self.name == DEFAULT_PIPELINE else f"nightly-{self.name}"

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of its flow runs, as JSON holds them."""
        chosen = self.selection.model_dump(mode="json", exclude_defaults=True)
        return {"pipeline": self.pipeline, **({"selection": chosen} if chosen else {})}

    def checked(self) -> Job:
        """Return the job with absolute paths: a flow run starts in a folder of its own.

        Raises
        ------
        ConfigError
            There is no such pipeline or folder, or the schedule is no cron line.
        """
        from prefect.client.schemas.schedules import CronSchedule

        from neuromill.stages.shipped import find_pipeline

        find_pipeline(self.pipeline)
        file, folder = Path(self.pipeline), self.selection.data
        if folder and not folder.is_dir():
            raise ConfigError("no such folder", where=f"--data {folder}", next_step="give a folder of recordings")
        try:
            CronSchedule(cron=self.cron)
        except ValidationError:
            raise ConfigError(
                "no cron line", where=f"--cron {self.cron}", next_step='five fields in UTC: "0 2 * * *" is 02:00'
            ) from None
        return self.model_copy(
            update={
                "pipeline": str(file.resolve()) if file.is_file() else self.pipeline,
                "selection": self.selection.model_copy(update={"data": folder.resolve() if folder else None}),
            }
        )


SHIPPED = Job()


class DeploymentSpec(Config):
    """One deployment: a flow with parameters, and a schedule where ``cron`` says one (UTC)."""

    flow: str
    name: str
    description: str
    parameters: dict[str, Any] = Field(default_factory=dict)
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
            "schedules": [{"cron": self.cron, "timezone": "UTC", "active": False}] if self.cron else [],
            "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
            "work_pool": {"name": WORK_POOL, "job_variables": {"env": dict(JOB_ENVIRONMENT)}},
        }

    def to_prefect(self, work_pool: str | None, *, active: bool = True) -> RunnerDeployment:
        """Return Prefect's deployment, for a work pool or (None) for serving from this process.

        A schedule that is not ``active`` is there, to be switched on. Two runs of one deployment would do the same
        work twice, so the limit is 1 and the second waits.
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
            schedules=[Cron(self.cron, timezone="UTC", active=active)] if self.cron else [],
            concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
            work_pool_name=work_pool,
            job_variables={"env": dict(JOB_ENVIRONMENT)} if work_pool else None,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )


PURPOSES = {
    "ingest": "Fetch raw files, each digest checked.",
    "prepare": "Filter and resample; one Zarr group per recording.",
    "fit_tokenizer": "Fit the tokenizer on the train split.",
    "tokenize": "Encode prepared recordings into codes.",
    "train": "Train the model on the token stores.",
    "pipeline": "All stages in order.",
}


def ready_deployments(job: Job = SHIPPED) -> tuple[DeploymentSpec, ...]:
    """Return one deployment per flow, and the one with the schedule; by default those that come with NeuroMill."""
    return (
        *(
            DeploymentSpec(flow=flow, name=job.name, description=purpose, parameters=job.parameters)
            for flow, purpose in PURPOSES.items()
        ),
        DeploymentSpec(
            flow="pipeline",
            name=job.scheduled_name,
            description=f"On a schedule: the stages up to {job.until}, for what is new or missing.",
            parameters={**job.parameters, "until": job.until},
            cron=job.cron,
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
