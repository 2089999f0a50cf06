"""The demo: a synthetic archive, then the very stages a user runs, then a table of what came out, once per road."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from neuromill.records import ConfigError, NeuroMillError
from neuromill.stages.looking import list_stores
from neuromill.stages.outcomes import Stage
from neuromill.stages.refreshing import refresh
from neuromill.stages.running import run_pipeline
from neuromill.stages.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any

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
    until: Stage | None
    """Last stage it walks; None walks all of them."""

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
    """
    from neuromill.stages.reporting import write_report

    if pipeline.datasets != (road.dataset,):
        raise ConfigError(
            "the demo works on its own dataset",
            where=f"datasets: {list(pipeline.datasets)}",
            next_step="use `neuromill run` for others",
        )
    refreshed = refresh(workspace, workspace.dataset(road.dataset))
    results = run_pipeline(workspace, pipeline, Selection(), until=road.until, report=report)
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


def metrics_of(workspace: Workspace, results: tuple[StageResult, ...]) -> list[dict[str, Any]]:
    """Lines of the metrics file of the run that ended a road."""
    file = workspace.run_folder(results[-1].identity) / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _store_of(workspace: Workspace, results: tuple[StageResult, ...], stage: Stage) -> StoreSummary:
    identity = next(result.identity for result in results if result.stage is stage)
    return next(store for store in list_stores(workspace) if store.identity == identity)
