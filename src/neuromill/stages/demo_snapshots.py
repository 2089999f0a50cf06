"""What the roads of the demo have in common that walk a synthetic OpenNeuro snapshot through a fitted tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.demonstration import workspace_at
from neuromill.stages.outcomes import Stage
from neuromill.stages.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.settings import Settings
    from neuromill.stages.workspace import Workspace
    from neuromill.synthetic.repository import SnapshotPlace

FIDELITY = ("correlation", "si_sdr_db", "mse", "baseline_mse")
"""Facts of a tokenizer's quality that every road shows."""


def snapshot_workspace(
    settings: Settings, place: SnapshotPlace, write: Callable[[Path], object]
) -> AbstractContextManager[Workspace]:
    """Workspace whose OpenNeuro is the snapshot at ``place``; ``write(folder)`` makes it if it is not there yet."""
    if not place.repository.is_dir():
        write(place.folder)
    return workspace_at(settings, git_url=place.git_url, bucket_url=place.bucket_url)


def tokenizer_facts(workspace: Workspace, pipeline: Pipeline) -> dict[str, Any]:
    """Quality on held-out windows, as the fit wrote it: use of the codebooks per level, ``FIDELITY``."""
    from neuromill.tokenizers.files import read_facts

    context = work_context(workspace, pipeline, choose(workspace, pipeline, Selection()), Stage.TOKENIZE)
    quality = read_facts(context.tokenizer_source)["quality"]
    use = {name: list(quality["usage"][name]) for name in ("perplexity", "used_share", "dominant_share")}
    return {"codebook_size": context.tokenizer().codebook_size, **use, **{name: quality[name] for name in FIDELITY}}


def fidelity_lines(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """How well held-out windows come back."""
    return (
        ("reconstruction correlation", f"{facts['correlation']:.3f} (predicting the mean: 0)"),
        ("reconstruction SI-SDR", f"{facts['si_sdr_db']:.2f} dB"),
        ("reconstruction error", f"{facts['mse']:.4f} (predicting the mean: {facts['baseline_mse']:.4f})"),
    )


def fidelity_problems(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Complain about a tokenizer that is no better than the mean."""
    if facts["mse"] < facts["baseline_mse"]:
        return ()
    error, mean = facts["mse"], facts["baseline_mse"]
    return (f"the reconstruction (error {error:.4f}) is no better than the mean ({mean:.4f})",)
