"""The spike road of the demo: synthetic sessions, served by a DANDI archive on this machine."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from neuromill.stages.demonstration import Measured, metrics_of
from neuromill.stages.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from neuromill.stages.outcomes import Stage, StageResult
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.settings import Settings
    from neuromill.synthetic.nwb import SessionsSpec

ASSETS = "dandi-assets"
BEATS_CHANCE = 0.4  # R2; predicting the mean of the training blocks gets 0 or less


class SpikeRoad:
    """NWB sessions over the DANDI API, counts in bins of 20 ms, NDT3 tokens, a decoder of cursor velocity."""

    name = "spikes"
    pipeline = "demo-spikes"
    dataset = "999002"
    until: Stage | None = None

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
        with DandiArchive({spec.dandiset: {spec.version: files}}) as server:
            endpoints = settings.endpoints.model_copy(update={"dandi_url": server.url})
            yield Workspace(settings.model_copy(update={"endpoints": endpoints}))

    def measure(self, workspace: Workspace, pipeline: Pipeline, results: tuple[StageResult, ...]) -> Measured:  # noqa: ARG002
        """R2 of decoded velocity on held-out blocks, beside ridge."""
        rows = metrics_of(workspace, results)
        losses = [row["loss"] for row in rows if row["kind"] == "train"]
        r2 = [row["r2"] for row in rows if row["kind"] == "validation"]
        ridge = [row["r2"] for row in rows if row["kind"] == "baseline" and row["split"] != "test"]
        facts = {"first_loss": losses[0], "last_loss": losses[-1], "r2": r2[-1], "ridge_r2": ridge[-1]}
        return Measured(_lines(facts), facts, _problems(facts))


def _lines(facts: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return (
        ("training loss", f"{facts['first_loss']:.3f} -> {facts['last_loss']:.3f}"),
        ("decoded velocity, held-out blocks", f"R2 {facts['r2']:.3f} (ridge {facts['ridge_r2']:.3f}, the mean 0)"),
    )


def _problems(facts: dict[str, Any]) -> tuple[str, ...]:
    problems = []
    if not facts["last_loss"] < facts["first_loss"]:
        problems.append(f"the training loss did not go down ({facts['first_loss']:.3f} -> {facts['last_loss']:.3f})")
    if not facts["r2"] > BEATS_CHANCE:
        problems.append(f"the decoder (R2 {facts['r2']:.3f}) does not clearly beat chance ({BEATS_CHANCE})")
    return tuple(problems)


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
