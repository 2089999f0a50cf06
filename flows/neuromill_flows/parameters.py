"""What a flow can be told: pydantic models, from which Prefect's UI draws the form. Ids and paths, never arrays."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from neuromill.records import Config, PartId

if TYPE_CHECKING:
    from neuromill.stages.selection import Selection as StageSelection
    from neuromill.stages.settings import Settings

DEFAULT_PIPELINE = "meg-xl"


class Selection(Config):
    """Which recordings; empty means all that the pipeline names."""

    where: str = Field(default="", description="SQL condition over the recording index, e.g. subject = '01'")
    data: Path | None = Field(
        default=None, description="Folder of recordings on the worker's machine, in place of the pipeline's datasets"
    )
    part: PartId | None = Field(
        default=None, description="Part index of count: every machine runs its own part of the same list"
    )

    def to_stages(self) -> StageSelection:
        """Return the selection as the stages take it."""
        from neuromill.stages.selection import Selection as StageSelection

        return StageSelection(where=self.where, data=self.data, part=self.part)


class EngineChoice(StrEnum):
    """What drives the recordings of a shard: a pool of spawned processes, or Dask."""

    PROCESSES = "processes"
    DASK = "dask"
    SERIAL = "serial"


class TaskRunnerChoice(StrEnum):
    """What carries the task runs: threads of the flow's process (cheap), or Dask workers (95-175 ms a task run)."""

    THREADS = "threads"
    DASK = "dask"


class Engine(Config):
    """How much runs at a time, and where."""

    kind: EngineChoice = Field(default=EngineChoice.PROCESSES, description="What drives the recordings of a shard")
    workers: int = Field(default=0, ge=0, description="Worker processes per shard; 0 is one per core")
    threads_per_worker: int = Field(default=1, ge=1, description="Cap on BLAS, FFT and torch threads of a worker")
    address: str = Field(
        default="", description="Dask scheduler, e.g. tcp://10.0.0.5:8786; empty starts a cluster for this flow run"
    )
    shards_at_once: int = Field(default=1, ge=1, description="Task runs at a time; each has its own workers")
    task_runner: TaskRunnerChoice = Field(default=TaskRunnerChoice.THREADS, description="What carries the task runs")


class Options(Config):
    """What is seldom needed."""

    overrides: tuple[str, ...] = Field(default=(), description="Changes to the pipeline file, e.g. train.steps=1000")
    home: Path | None = Field(
        default=None, description="Folder of cache, stores and ledger; empty: NEUROMILL_HOME of the worker"
    )
    max_failed_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="A shard fails where more than this share of its recordings failed; empty: the worker's setting",
    )


class Request(Config):
    """The parameters of one flow run, together: what the flows, the tasks and the CLI hand on."""

    pipeline: str = DEFAULT_PIPELINE
    selection: Selection = Selection()
    engine: Engine = Engine()
    options: Options = Options()

    def to_settings(self) -> Settings:
        """Return the settings of this machine (``NEUROMILL_*``) with the engine and home of the request."""
        from neuromill.stages.settings import EngineKind, EngineSettings, Settings

        engine = EngineSettings(
            kind=EngineKind(self.engine.kind.value),
            workers=self.engine.workers,
            threads_per_worker=self.engine.threads_per_worker,
            dask_address=self.engine.address,
        )
        return Settings.at(home=self.options.home, engine=engine)

    def at_dask(self, address: str) -> Request:
        """Return the request with the address of a running Dask scheduler."""
        return self.model_copy(update={"engine": self.engine.model_copy(update={"address": address})})
