"""The demo: a synthetic archive, then the very stages a user runs, then a table of what came out, once per road."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from neuromill.records import ConfigError, NeuroMillError
from neuromill.stages.looking import list_stores
from neuromill.stages.outcomes import Stage
from neuromill.stages.refreshing import refresh
from neuromill.stages.running import PIPELINE_STAGES, run_pipeline
from neuromill.stages.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from neuromill.stages.looking import StoreSummary
    from neuromill.stages.outcomes import StageResult
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.report import Report
    from neuromill.stages.settings import Settings
    from neuromill.stages.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Measured:
    """What a road shows of itself, read back from what the stages wrote.

    Attributes
    ----------
    lines
        (label, text) for people.
    facts
        The same as JSON values, for programs.
    problems
        What did not work: the demo must be able to fail.
    """

    lines: tuple[tuple[str, str], ...]
    facts: Mapping[str, Any]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One road of the demo, walked to its end.

    Attributes
    ----------
    stores
        Folders of the prepared recordings and of their tokens.
    bytes_raw, bytes_prepared, bytes_tokens
        On disk.
    """

    road: str
    results: tuple[StageResult, ...]
    stores: tuple[Path, Path]
    recordings: int
    hours: float
    bytes_raw: int
    bytes_prepared: int
    bytes_tokens: int
    measured: Measured
    report: Path

    def check(self) -> None:
        """Raise where something did not work."""
        problems = list(self.measured.problems)
        if any(result.failed for result in self.results):
            problems.insert(0, "a recording failed")
        if problems:
            raise NeuroMillError(
                f"the demo ({self.road}) did not work: {'; '.join(problems)}", next_step="`neuromill doctor`"
            )


class Road(Protocol):
    """One modality of the demo."""

    name: str
    pipeline: str
    """Name of the shipped pipeline it runs."""
    dataset: str

    def plan(self) -> str:
        """Say in a sentence what would be written."""

    def archive(self, settings: Settings) -> AbstractContextManager[Workspace]:
        """Serve the synthetic archive (written if it is not there yet) and give a workspace that uses it."""

    def measure(self, workspace: Workspace, pipeline: Pipeline, results: tuple[StageResult, ...]) -> Measured:
        """Read back what came out."""


def roads() -> dict[str, Road]:
    """Every road by name, in the order they are walked."""
    from neuromill.stages.demo_eeg import EegRoad
    from neuromill.stages.demo_meg import MegRoad
    from neuromill.stages.demo_spikes import SpikeRoad

    found: tuple[Road, ...] = (MegRoad(), SpikeRoad(), EegRoad())
    return {road.name: road for road in found}


def demonstrate(road: Road, workspace: Workspace, pipeline: Pipeline, report: Report) -> Demonstration:
    """Run every stage of the pipeline on the road's archive and measure what is there afterwards.

    Raises
    ------
    ConfigError
        The pipeline is about other data.
    NeuroMillError
        A stage left nothing for the next one.
    """
    from neuromill.stages.reporting import write_report

    if pipeline.datasets != (road.dataset,):
        raise ConfigError(
            "the demo works on its own dataset",
            where=f"datasets: {list(pipeline.datasets)}",
            next_step="use `neuromill run` for others",
        )
    refreshed = refresh(workspace, workspace.dataset(road.dataset))
    results = run_pipeline(workspace, pipeline, Selection(), report=report)
    _require_end(road, results)
    prepared, tokens = (_store_of(workspace, results, stage) for stage in (Stage.PREPARE, Stage.TOKENIZE))
    return Demonstration(
        road=road.name,
        results=results,
        stores=(prepared.folder, tokens.folder),
        recordings=prepared.n_recordings,
        hours=prepared.hours,
        bytes_raw=refreshed.size,
        bytes_prepared=prepared.n_bytes,
        bytes_tokens=tokens.n_bytes,
        measured=road.measure(workspace, pipeline, results),
        report=write_report(workspace, pipeline, Selection(), workspace.home / f"report-{road.name}.html"),
    )


@contextmanager
def workspace_at(settings: Settings, **endpoints: str) -> Iterator[Workspace]:
    """Workspace of these settings with some archives at other addresses."""
    from neuromill.stages.workspace import Workspace

    there = settings.endpoints.model_copy(update=endpoints)
    workspace = Workspace(settings.model_copy(update={"endpoints": there}))
    try:
        yield workspace
    finally:
        workspace.close()


def metrics_of(workspace: Workspace, results: tuple[StageResult, ...]) -> list[dict[str, Any]]:
    """Lines of the metrics file of the run that ended a road."""
    file = workspace.run_folder(results[-1].identity) / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def loss_facts(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """First and last training loss among lines of a metrics file."""
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    return {"first_loss": losses[0], "last_loss": losses[-1]}


def loss_line(facts: Mapping[str, Any]) -> tuple[str, str]:
    """Where the training loss began and ended."""
    return ("training loss", f"{facts['first_loss']:.3f} -> {facts['last_loss']:.3f}")


def loss_problems(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Complain about a training that learned nothing."""
    if facts["last_loss"] < facts["first_loss"]:
        return ()
    return (f"the training loss did not go down ({facts['first_loss']:.3f} -> {facts['last_loss']:.3f})",)


def _require_end(road: Road, results: tuple[StageResult, ...]) -> None:
    last = results[-1]
    if last.stage is not PIPELINE_STAGES[-1]:
        raise NeuroMillError(
            f"the demo ({road.name}) ended with {last.stage.value}: {last.note}",
            next_step="`neuromill status` names the failures, `neuromill doctor` what is missing here",
        )


def _store_of(workspace: Workspace, results: tuple[StageResult, ...], stage: Stage) -> StoreSummary:
    identity = next(result.identity for result in results if result.stage is stage)
    return next(store for store in list_stores(workspace) if store.identity == identity)
