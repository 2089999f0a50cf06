"""The probes that a report shows: those the ledger knows of what a pipeline prepares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuromill.reports.contents import Probed
from neuromill.stages.identities import prepare_identity
from neuromill.stages.probing import PROBE

if TYPE_CHECKING:
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.workspace import Workspace


def collect_probes(workspace: Workspace, pipeline: Pipeline) -> tuple[Probed, ...]:
    """Finished probes on signals prepared as by this pipeline, oldest first; of a repeated one the last."""
    prepared = prepare_identity(pipeline)
    runs = [run for run in workspace.ledger.runs(PROBE) if run.facts.get("prepare") == prepared]
    last = {run.identity: run.number for run in runs}
    kept = ("mode", "model", "classes", "n_subjects", "split", "n_folds", "tested", "chance", "scores")
    return tuple(
        Probed(task=run.facts["name"], notes=tuple(run.facts["notes"]), **{name: run.facts[name] for name in kept})
        for run in runs
        if last[run.identity] == run.number
    )
