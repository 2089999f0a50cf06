"""The MEG road of the demo: a synthetic OpenNeuro snapshot of 306 channels."""

from __future__ import annotations

import json
from contextlib import contextmanager
from statistics import mean
from typing import TYPE_CHECKING, Any

from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.demonstration import Measured, metrics_of
from neuromill.stages.outcomes import Stage
from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuromill.stages.outcomes import StageResult
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.settings import Settings

SNAPSHOT = "snapshot"


class MegRoad:
    """Recordings of a helmet, BioCodec codes, a criss-cross transformer."""

    name = "meg"
    pipeline = "demo"
    dataset = "ds999001"
    until: Stage | None = None

    def plan(self) -> str:
        """Say what would be written."""
        from neuromill.synthetic.snapshot import SnapshotSpec

        spec = SnapshotSpec()
        return f"a synthetic OpenNeuro snapshot of {spec.subjects * spec.runs} MEG recordings"

    @contextmanager
    def archive(self, settings: Settings) -> Iterator[Workspace]:
        """Give a workspace whose OpenNeuro is a snapshot in the home folder, written if it is not there yet."""
        from neuromill.synthetic.snapshot import SnapshotSpec, write_snapshot

        folder = settings.home / SNAPSHOT
        place = folder / "place.json"
        if not place.is_file():
            written = write_snapshot(folder, SnapshotSpec())
            place.write_text(json.dumps({"git_url": written.git_url, "bucket_url": written.bucket_url}))
        endpoints = settings.endpoints.model_copy(update=json.loads(place.read_text()))
        yield Workspace(settings.model_copy(update={"endpoints": endpoints}))

    def measure(self, workspace: Workspace, pipeline: Pipeline, results: tuple[StageResult, ...]) -> Measured:
        """Codebook usage and reconstruction on held-out windows, the loss, and what the model predicts right."""
        quality, codebook_size = _quality(workspace, pipeline)
        rows = metrics_of(workspace, results)
        losses = [row["loss"] for row in rows if row["kind"] == "train"]
        accuracies = [row["accuracy"] for row in rows if row["kind"] == "validation"]
        facts = {
            "codebook_size": codebook_size,
            "perplexity": list(quality["usage"]["perplexity"]),
            "correlation": quality["correlation"],
            "si_sdr_db": quality["si_sdr_db"],
            "mse": quality["mse"],
            "baseline_mse": quality["baseline_mse"],
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "validation_accuracy": accuracies[-1] if accuracies else None,
            "commonest_share": mean(quality["usage"]["dominant_share"]),
        }
        return Measured(_lines(facts), facts, _problems(facts))


def _lines(facts: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    levels = ", ".join(f"{value:.0f}" for value in facts["perplexity"])
    lines = [
        ("codebook perplexity per level", f"{levels} of {facts['codebook_size']}"),
        ("reconstruction correlation", f"{facts['correlation']:.3f} (predicting the mean: 0)"),
        ("reconstruction SI-SDR", f"{facts['si_sdr_db']:.2f} dB"),
        ("reconstruction error", f"{facts['mse']:.3f} (predicting the mean: {facts['baseline_mse']:.3f})"),
        ("training loss", f"{facts['first_loss']:.3f} -> {facts['last_loss']:.3f}"),
    ]
    if facts["validation_accuracy"] is not None:
        shown = f"{100 * facts['validation_accuracy']:.2f} %"
        guess = f"always the commonest code: {100 * facts['commonest_share']:.2f} %"
        lines.append(("masked-token accuracy, held-out subject", f"{shown} ({guess})"))
    return tuple(lines)


def _problems(facts: dict[str, Any]) -> tuple[str, ...]:
    problems = []
    if not facts["last_loss"] < facts["first_loss"]:
        problems.append(f"the training loss did not go down ({facts['first_loss']:.3f} -> {facts['last_loss']:.3f})")
    if not facts["mse"] < facts["baseline_mse"]:
        problems.append(
            f"the reconstruction (error {facts['mse']:.3f}) is no better than the mean ({facts['baseline_mse']:.3f})"
        )
    return tuple(problems)


def _quality(workspace: Workspace, pipeline: Pipeline) -> tuple[dict[str, Any], int]:
    from neuromill.tokenizers.files import read_facts

    chosen = choose(workspace, pipeline, Selection())
    context = work_context(workspace, pipeline, chosen, Stage.TOKENIZE)
    quality: dict[str, Any] = read_facts(context.tokenizer_source)["quality"]
    return quality, context.tokenizer().codebook_size
