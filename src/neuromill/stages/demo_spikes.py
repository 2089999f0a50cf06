"""The spike road of the demo: synthetic sessions, served by a DANDI archive on this machine."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from neuromill.stages.demonstration import Measured, loss_facts, loss_line, loss_problems, metrics_of, workspace_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from neuromill.stages.outcomes import StageResult
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.settings import Settings
    from neuromill.stages.workspace import Workspace
    from neuromill.synthetic.nwb import SessionsSpec

ASSETS = "dandi-assets"
BEATS_CHANCE = 0.4  # R2; predicting the mean of the training blocks gets 0 or less


class SpikeRoad:
    """NWB sessions over the DANDI API, counts in bins of 20 ms, NDT3 tokens, a decoder of cursor velocity."""

    name = "spikes"
    pipeline = "demo-spikes"
    dataset = "999002"

    def plan(self) -> str:
        """Say what would be written."""
        from neuromill.synthetic.nwb import SessionsSpec

        return f"{SessionsSpec().subjects} synthetic NWB sessions, served by a DANDI archive on this machine"

    @contextmanager
    def archive(self, settings: Settings) -> Iterator[Workspace]:
        """Serve the sessions from the home folder, written if they are not there yet."""
        from neuromill.synthetic.dandi_archive import DandiArchive
        from neuromill.synthetic.nwb import SessionsSpec

        spec = SessionsSpec()
        files = _written(settings.home / ASSETS, spec)
        with (
            DandiArchive({spec.dandiset: {spec.version: files}}) as server,
            workspace_at(settings, dandi_url=server.url) as workspace,
        ):
            yield workspace

    def measure(self, workspace: Workspace, pipeline: Pipeline, results: tuple[StageResult, ...]) -> Measured:  # noqa: ARG002
        """R2 of decoded velocity on held-out blocks, beside ridge."""
        rows = metrics_of(workspace, results)
        r2 = [row["r2"] for row in rows if row["kind"] == "validation"]
        ridge = [row["r2"] for row in rows if row["kind"] == "baseline" and row["split"] != "test"]
        facts = loss_facts(rows) | {"r2": r2[-1], "ridge_r2": ridge[-1]}
        return Measured(_lines(facts), facts, _problems(facts))


def _lines(facts: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return (
        loss_line(facts),
        ("decoded velocity, held-out blocks", f"R2 {facts['r2']:.3f} (ridge {facts['ridge_r2']:.3f}, the mean 0)"),
    )


def _problems(facts: dict[str, Any]) -> tuple[str, ...]:
    problems = loss_problems(facts)
    if facts["r2"] > BEATS_CHANCE:
        return problems
    return (*problems, f"the decoder (R2 {facts['r2']:.3f}) does not clearly beat chance ({BEATS_CHANCE})")


def _written(folder: Path, spec: SessionsSpec) -> dict[str, Path]:
    """Files of the sessions below ``folder``: written under another name, then renamed, so that each is whole."""
    from neuromill.synthetic.nwb import session_files, session_path

    places = {session_path(subject): folder / session_path(subject) for subject in range(spec.subjects)}
    if not all(place.is_file() for place in places.values()):
        for path, content in session_files(spec).items():
            places[path].parent.mkdir(parents=True, exist_ok=True)
            part = places[path].with_suffix(".part")
            part.write_bytes(content)
            part.replace(places[path])
    return places
