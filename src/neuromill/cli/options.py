"""Options that several verbs share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from neuromill.cli.progress import tell

if TYPE_CHECKING:
    from neuromill.records import PartId
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.selection import Selection
    from neuromill.stages.workspace import Workspace

Flag = Parameter(negative="")


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every verb takes."""

    home: Path | None = None
    "Folder for cache, stores, tokenizers, runs and ledger (NEUROMILL_HOME)."
    json: Annotated[bool, Flag] = False
    "Print JSON for programs instead of tables for people."

    def workspace(self) -> Workspace:
        """Open the workspace that the options and the environment name."""
        from neuromill.stages.settings import Settings
        from neuromill.stages.workspace import Workspace

        return Workspace(Settings.at(self.home), say=tell)


@Parameter(name="*")
@dataclass(frozen=True)
class Overrides:
    """Changes to the pipeline file."""

    set: Annotated[tuple[str, ...], Parameter(negative="")] = ()
    "Override of the pipeline file, repeatable: --set prepare.steps.filter.l_freq=0.5."

    def pipeline(self, name: str) -> Pipeline:
        """Load the pipeline of this name or path, with the overrides."""
        from neuromill.stages.pipeline import load_pipeline
        from neuromill.stages.shipped import find_pipeline

        return load_pipeline(find_pipeline(name), self.set)


@Parameter(name="*")
@dataclass(frozen=True)
class Choice(Overrides):
    """Which recordings, and which changes to the pipeline file."""

    where: str = ""
    "SQL condition over the recording index: --where \"subject = '01' and run = '1'\"."
    data: Path | None = None
    "A folder of recordings (BIDS or plain) in place of the pipeline's datasets; no card needed."
    part: str = ""
    "Work on part i of N: --part 2/8."

    def selection(self) -> Selection:
        """Which recordings of it."""
        from neuromill.stages.selection import Selection

        return Selection(where=self.where, data=self.data, part=parse_part(self.part))


@Parameter(name="*")
@dataclass(frozen=True)
class Running:
    """How the work is driven."""

    engine: Literal["processes", "dask", "serial"] | None = None
    "What drives the recordings (NEUROMILL_ENGINE__KIND)."
    workers: Annotated[int | None, Parameter(validator=Number(gte=0))] = None
    "Workers; 0 is one per core (NEUROMILL_ENGINE__WORKERS)."
    dry_run: Annotated[bool, Flag] = False
    "Show what would be done and do nothing."

    def apply(self, workspace: Workspace) -> Workspace:
        """Return the workspace with this engine."""
        from neuromill.stages.settings import EngineKind
        from neuromill.stages.workspace import Workspace

        changes: dict[str, object] = {}
        if self.engine is not None:
            changes["kind"] = EngineKind(self.engine)
        if self.workers is not None:
            changes["workers"] = self.workers
        engine = workspace.settings.engine.model_copy(update=changes)
        return Workspace(workspace.settings.model_copy(update={"engine": engine}), say=workspace.say)


def parse_part(text: str) -> PartId | None:
    """Read ``i/N``; "" is None. Raises ConfigError for anything else."""
    from neuromill.records import ConfigError, PartId

    if not text:
        return None
    index, _, count = text.partition("/")
    try:
        return PartId(int(index), int(count))
    except ValueError:
        raise ConfigError(
            "there is no such part", where=f"--part {text}", next_step="--part 2/8 is the second of eight"
        ) from None
