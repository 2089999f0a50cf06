"""The demo: a synthetic snapshot, then the very stages a user runs, then a table of what came out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from neuromill.records import ConfigError, NeuroMillError
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.looking import list_stores
from neuromill.stages.outcomes import Stage, StageResult
from neuromill.stages.refreshing import refresh
from neuromill.stages.reporting import write_report
from neuromill.stages.running import run_pipeline
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.report import Report
    from neuromill.stages.settings import Settings
    from neuromill.synthetic.snapshot import SnapshotSpec


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What the demo shows. Everything in it was read back from what the stages wrote.

    Attributes
    ----------
    bytes_raw, bytes_prepared, bytes_tokens
        On disk.
    perplexity
        Of each quantizer level, on held-out windows.
    correlation, si_sdr_db, mse, baseline_mse
        Of reconstruction and input on held-out windows; the baseline predicts each row's mean.
    first_loss, last_loss
        Of training; chance is ln(codebook size).
    validation_accuracy, commonest_share
        Masked codes of the held-out subject predicted right, and what always naming each level's commonest code gets.
    """

    results: tuple[StageResult, ...]
    stores: tuple[Path, ...]
    recordings: int
    hours: float
    bytes_raw: int
    bytes_prepared: int
    bytes_tokens: int
    codebook_size: int
    perplexity: tuple[float, ...]
    correlation: float
    si_sdr_db: float
    mse: float
    baseline_mse: float
    first_loss: float
    last_loss: float
    validation_accuracy: float | None
    commonest_share: float
    report: Path

    def check(self) -> None:
        """Raise where something did not work: the demo must be able to fail."""
        problems = []
        if any(result.failed for result in self.results):
            problems.append("a recording failed")
        if not self.last_loss < self.first_loss:
            problems.append(f"the training loss did not go down ({self.first_loss:.3f} -> {self.last_loss:.3f})")
        if not self.mse < self.baseline_mse:
            problems.append(
                f"the reconstruction (error {self.mse:.3f}) is no better than the mean ({self.baseline_mse:.3f})"
            )
        if problems:
            raise NeuroMillError(f"the demo did not work: {'; '.join(problems)}", next_step="`neuromill doctor`")


def demo_spec() -> SnapshotSpec:
    """What the demo's snapshot holds."""
    from neuromill.synthetic.snapshot import SnapshotSpec

    return SnapshotSpec()


def demo_workspace(settings: Settings) -> Workspace:
    """Workspace whose OpenNeuro is a synthetic snapshot in the home folder, written if it is not there yet."""
    from neuromill.synthetic.snapshot import write_snapshot

    spec, folder = demo_spec(), settings.home / "snapshot"
    place = folder / "place.json"
    if not place.is_file():
        written = write_snapshot(folder, spec)
        place.write_text(json.dumps({"git_url": written.git_url, "bucket_url": written.bucket_url}))
    endpoints = settings.endpoints.model_copy(update=json.loads(place.read_text()))
    return Workspace(settings.model_copy(update={"endpoints": endpoints}))


def demonstrate(workspace: Workspace, pipeline: Pipeline, report: Report) -> Demonstration:
    """Run every stage of the pipeline and measure what is there afterwards."""
    if pipeline.datasets != (demo_spec().dataset,):
        raise ConfigError(
            "the demo works on its own dataset", where=f"datasets: {list(pipeline.datasets)}",
            next_step="use `neuromill run` for others",
        )  # fmt: skip
    refreshed = refresh(workspace, workspace.dataset(pipeline.datasets[0]))
    results = run_pipeline(workspace, pipeline, Selection(), report=report)
    quality, codebook_size = _quality(workspace, pipeline)
    losses, accuracy = _training(workspace.run_folder(results[-1].identity))
    stores = {store.identity: store for store in list_stores(workspace)}
    prepared, tokens = (stores[results[i].identity] for i in (1, 3))
    return Demonstration(
        results=results,
        stores=(prepared.folder, tokens.folder),
        recordings=prepared.n_recordings,
        hours=prepared.hours,
        bytes_raw=refreshed.size,
        bytes_prepared=prepared.n_bytes,
        bytes_tokens=tokens.n_bytes,
        codebook_size=codebook_size,
        perplexity=tuple(quality["usage"]["perplexity"]),
        correlation=quality["correlation"],
        si_sdr_db=quality["si_sdr_db"],
        mse=quality["mse"],
        baseline_mse=quality["baseline_mse"],
        first_loss=losses[0],
        last_loss=losses[-1],
        validation_accuracy=accuracy,
        commonest_share=mean(quality["usage"]["dominant_share"]),
        report=write_report(workspace, pipeline, Selection(), workspace.home / "report.html"),
    )


def _quality(workspace: Workspace, pipeline: Pipeline) -> tuple[dict[str, Any], int]:
    from neuromill.tokenizers.files import read_facts

    chosen = choose(workspace, pipeline, Selection())
    context = work_context(workspace, pipeline, chosen, Stage.TOKENIZE)
    quality: dict[str, Any] = read_facts(context.tokenizer_source)["quality"]
    return quality, context.tokenizer().codebook_size


def _training(folder: Path) -> tuple[list[float], float | None]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    accuracies = [row["accuracy"] for row in rows if row["kind"] == "validation"]
    return [row["loss"] for row in rows if row["kind"] == "train"], accuracies[-1] if accuracies else None
