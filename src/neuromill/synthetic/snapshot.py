"""Writes a small OpenNeuro snapshot of BIDS MEG, made from a seed."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from neuromill.records import Config
from neuromill.synthetic import brain, sidecars
from neuromill.synthetic.repository import SnapshotPlace, SnapshotWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MINIMUM_SFREQ = 60.0


class SnapshotSpec(Config):
    """What to write: 306 MEG channels and a stimulus channel per run; the same fields give the same bytes."""

    dataset: str = "ds999001"
    version: str = "1.0.0"
    task: str = "listening"
    subjects: int = Field(default=2, ge=1, le=99)
    runs: int = Field(default=2, ge=1, le=99)
    seconds: float = Field(default=90.0, ge=5.0)
    sfreq: float = Field(default=250.0, ge=MINIMUM_SFREQ)
    line_freq: float = 50.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Run:
    subject: str
    run: str

    @property
    def folder(self) -> str:
        return f"sub-{self.subject}/meg"

    def path(self, task: str, ending: str) -> str:
        return f"{self.folder}/sub-{self.subject}_task-{task}_run-{self.run}_{ending}"


def write_snapshot(folder: Path, spec: SnapshotSpec) -> SnapshotPlace:
    """Write the snapshot below ``folder``: ``git/<dataset>.git`` and ``objects``. One run is in memory at a time.

    Raises
    ------
    ConfigError
        ``folder`` holds a snapshot already, or git is missing.
    """
    place = SnapshotPlace(folder, spec.dataset, spec.version)
    writer = SnapshotWriter(place)
    _write_dataset_files(writer, spec)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as scratch:
        for number, run in enumerate(_runs(spec)):
            _write_run(writer, spec, run, number, Path(scratch))
    writer.write()
    return place


def _runs(spec: SnapshotSpec) -> Iterator[_Run]:
    for subject in _subjects(spec):
        for run in range(1, spec.runs + 1):
            yield _Run(subject, f"{run:02d}")


def _subjects(spec: SnapshotSpec) -> tuple[str, ...]:
    return tuple(f"{number:02d}" for number in range(1, spec.subjects + 1))


def _write_dataset_files(writer: SnapshotWriter, spec: SnapshotSpec) -> None:
    writer.small("README", sidecars.README.encode())
    writer.small("CHANGES", sidecars.CHANGES.format(version=spec.version).encode())
    writer.small("dataset_description.json", sidecars.description())
    writer.small("participants.tsv", sidecars.participants(_subjects(spec)))
    for subject in _subjects(spec):
        writer.small(f"sub-{subject}/meg/sub-{subject}_coordsystem.json", sidecars.coordinates())


def _write_run(writer: SnapshotWriter, spec: SnapshotSpec, run: _Run, number: int, scratch: Path) -> None:
    from neuromill.synthetic.fif import write_run

    # Streams of their own: another number of runs or subjects leaves the others as they are.
    rng = np.random.default_rng([spec.seed, 1, int(run.subject), int(run.run)])
    background = brain.person(np.random.default_rng([spec.seed, 0, int(run.subject)]))
    n_times = round(spec.seconds * spec.sfreq)
    trials = brain.draw_trials(rng, n_times, spec.sfreq)
    position = brain.head_position(rng)
    signal: NDArray[np.float64] = brain.record(
        rng, position, brain.activity(rng, background, trials, n_times, spec.sfreq), spec.sfreq, spec.line_freq
    )
    name = run.path(spec.task, "meg.fif")
    write_run(scratch / Path(name).name, signal, position, trials, sfreq=spec.sfreq, line_freq=spec.line_freq)
    algorithm = ("md5", "sha256")[(int(run.subject) - 1) % 2]  # older and newer datasets differ in this
    writer.large(name, scratch / Path(name).name, algorithm=algorithm, pointer=number % 2 == 1)
    writer.small(run.path(spec.task, "meg.json"), sidecars.meg(spec.task, spec.sfreq, spec.seconds, spec.line_freq))
    writer.small(run.path(spec.task, "channels.tsv"), sidecars.channels(spec.sfreq))
    writer.small(run.path(spec.task, "events.tsv"), sidecars.events(trials, spec.sfreq))
