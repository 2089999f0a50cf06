"""Writes a small OpenNeuro snapshot of BIDS EEG, made from a seed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from neuromill.records import Config
from neuromill.synthetic import eeg
from neuromill.synthetic.edf import write_edf
from neuromill.synthetic.repository import SnapshotPlace, SnapshotWriter
from neuromill.synthetic.sidecars import CHANGES, document, participants, table

if TYPE_CHECKING:
    from neuromill.synthetic.eeg import Person

README = """Synthetic EEG for the NeuroMill demo. No person was measured.

The 19 electrodes of the 10-20 system, one channel of the eyes and one of the heart; 1/f background, alpha that is
strong while the eyes are closed, blinks, muscle, electrodes that lose contact, mains hum. Made from a seed.
"""
MINIMUM_SFREQ = 160


class EegSnapshotSpec(Config):
    """What to write: 19 electrodes, VEOG and ECG, one EDF file per subject; the same fields give the same bytes."""

    dataset: str = "ds999003"
    version: str = "1.0.0"
    task: str = "eyes"
    subjects: int = Field(default=3, ge=1, le=99)
    seconds: int = Field(default=240, ge=5)
    sfreq: int = Field(default=250, ge=MINIMUM_SFREQ)
    line_freq: float = 50.0
    seed: int = 0


def write_eeg_snapshot(folder: Path, spec: EegSnapshotSpec) -> SnapshotPlace:
    """Write the snapshot below ``folder``: ``git/<dataset>.git`` and ``objects``. One recording is in memory at a time.

    Raises
    ------
    ConfigError
        ``folder`` holds a snapshot already, or git is missing.
    """
    place = SnapshotPlace(folder, spec.dataset, spec.version)
    writer = SnapshotWriter(place)
    subjects = [f"{number:02d}" for number in range(1, spec.subjects + 1)]
    _write_dataset_files(writer, spec, subjects)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as scratch:
        for number, subject in enumerate(subjects):
            _write_subject(writer, spec, subject, Path(scratch), pointer=number % 2 == 1)
    writer.write()
    return place


def _write_dataset_files(writer: SnapshotWriter, spec: EegSnapshotSpec, subjects: list[str]) -> None:
    description = {
        "Name": "Synthetic EEG of NeuroMill's demo", "BIDSVersion": "1.9.0", "DatasetType": "raw", "License": "CC0",
        "Authors": ["NeuroMill"],
    }  # fmt: skip
    writer.small("README", README.encode())
    writer.small("CHANGES", CHANGES.format(version=spec.version).encode())
    writer.small("dataset_description.json", document(description))
    writer.small("participants.tsv", participants(subjects))


def _write_subject(
    writer: SnapshotWriter, spec: EegSnapshotSpec, subject: str, scratch: Path, *, pointer: bool
) -> None:
    # Streams of their own: another number of subjects leaves the others as they are.
    somebody: Person = eeg.person(np.random.default_rng([spec.seed, 0, int(subject)]))
    rng = np.random.default_rng([spec.seed, 1, int(subject)])
    signal = eeg.record(rng, somebody, spec.seconds * spec.sfreq, spec.sfreq, spec.line_freq)
    folder = f"sub-{subject}/eeg/sub-{subject}"
    name = f"{folder}_task-{spec.task}_eeg.edf"
    write_edf(scratch / Path(name).name, signal, (*eeg.SCALP, *eeg.EXTRA), spec.sfreq, prefilter="HP:0.1Hz")
    writer.large(name, scratch / Path(name).name, algorithm="sha256", pointer=pointer)
    stem = f"{folder}_task-{spec.task}"
    writer.small(f"{stem}_eeg.json", _about(spec))
    writer.small(f"{stem}_channels.tsv", _channels(spec))
    writer.small(f"{stem}_events.tsv", _events(spec))
    writer.small(f"{folder}_electrodes.tsv", _electrodes())
    writer.small(f"{folder}_coordsystem.json", document({"EEGCoordinateSystem": "CapTrak", "EEGCoordinateUnits": "m"}))


def _about(spec: EegSnapshotSpec) -> bytes:
    """Make ``*_eeg.json``."""
    return document(
        {
            "TaskName": spec.task,
            "Manufacturer": "NeuroMill (synthetic)",
            "SamplingFrequency": spec.sfreq,
            "PowerLineFrequency": spec.line_freq,
            "SoftwareFilters": "n/a",
            "EEGReference": "linked ears",
            "EEGChannelCount": len(eeg.SCALP),
            "EOGChannelCount": 1,
            "ECGChannelCount": 1,
            "RecordingDuration": spec.seconds,
            "RecordingType": "continuous",
        }
    )


def _channels(spec: EegSnapshotSpec) -> bytes:
    rows = [(name, "EEG", "uV", spec.sfreq, "good") for name in eeg.SCALP]
    rows += [("VEOG", "VEOG", "uV", spec.sfreq, "good"), ("ECG", "ECG", "uV", spec.sfreq, "good")]
    return table(("name", "type", "units", "sampling_frequency", "status"), rows)


def _electrodes() -> bytes:
    at = eeg.places() * eeg.HEAD_METRES
    rows = [(name, *(f"{value:.5f}" for value in place)) for name, place in zip(eeg.SCALP, at, strict=True)]
    return table(("name", "x", "y", "z"), rows)


def _events(spec: EegSnapshotSpec) -> bytes:
    """Eyes open and closed, block by block."""
    starts = np.arange(0, spec.seconds, eeg.BLOCK_SECONDS)
    rows = [
        (f"{start:.6f}", min(eeg.BLOCK_SECONDS, spec.seconds - start), eeg.CONDITIONS[i % 2], int(start * spec.sfreq))
        for i, start in enumerate(starts.tolist())
    ]
    return table(("onset", "duration", "trial_type", "sample"), rows)
