"""The MEG road of the demo: a synthetic OpenNeuro snapshot of 306 channels."""

from __future__ import annotations

from functools import partial
from statistics import mean
from typing import TYPE_CHECKING, Any

from neuromill.stages.demo_snapshots import fidelity_lines, fidelity_problems, snapshot_workspace, tokenizer_facts
from neuromill.stages.demonstration import Measured, loss_facts, loss_line, loss_problems, metrics_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from neuromill.stages.outcomes import StageResult
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.settings import Settings
    from neuromill.stages.workspace import Workspace

SNAPSHOT = "snapshot"


class MegRoad:
    """Recordings of a helmet, BioCodec codes, a criss-cross transformer."""

    name = "meg"
    pipeline = "demo"
    dataset = "ds999001"

    def plan(self) -> str:
        """Say what would be written."""
        from neuromill.synthetic.snapshot import SnapshotSpec

        spec = SnapshotSpec()
        return f"a synthetic OpenNeuro snapshot of {spec.subjects * spec.runs} MEG recordings"

    def archive(self, settings: Settings) -> AbstractContextManager[Workspace]:
        """Give a workspace whose OpenNeuro is a snapshot in the home folder, written if it is not there yet."""
        from neuromill.synthetic.repository import SnapshotPlace
        from neuromill.synthetic.snapshot import SnapshotSpec, write_snapshot

        spec = SnapshotSpec()
        place = SnapshotPlace(settings.home / SNAPSHOT, spec.dataset, spec.version)
        return snapshot_workspace(settings, place, partial(write_snapshot, spec=spec))

    def measure(self, workspace: Workspace, pipeline: Pipeline, results: tuple[StageResult, ...]) -> Measured:
        """Codebook usage and reconstruction on held-out windows, the loss, and what the model predicts right."""
        tokenizer, rows = tokenizer_facts(workspace, pipeline), metrics_of(workspace, results)
        accuracies = [row["accuracy"] for row in rows if row["kind"] == "validation"]
        facts = {
            **tokenizer,
            **loss_facts(rows),
            "validation_accuracy": accuracies[-1] if accuracies else None,
            "commonest_share": mean(tokenizer["dominant_share"]),
        }
        return Measured(_lines(facts), facts, (*loss_problems(facts), *fidelity_problems(facts)))


def _lines(facts: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    levels = ", ".join(f"{value:.0f}" for value in facts["perplexity"])
    lines = [
        ("codebook perplexity per level", f"{levels} of {facts['codebook_size']}"),
        *fidelity_lines(facts),
        loss_line(facts),
    ]
    if facts["validation_accuracy"] is not None:
        shown = f"{100 * facts['validation_accuracy']:.2f} %"
        guess = f"always the commonest code: {100 * facts['commonest_share']:.2f} %"
        lines.append(("masked-token accuracy, held-out subject", f"{shown} ({guess})"))
    return tuple(lines)
