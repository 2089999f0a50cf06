"""The text files of the synthetic BIDS dataset."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from neuromill.synthetic.brain import EVENT_NAMES
from neuromill.synthetic.fif import STIM
from neuromill.synthetic.helmet import MAGNETOMETER, helmet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from neuromill.synthetic.brain import Trials

README = """Synthetic MEG for the NeuroMill demo. No person was measured.

Two gradiometers and a magnetometer at each of 102 sites of a helmet; a head that sits differently in every run;
1/f background, alpha, responses to two kinds of events, mains hum, sensor noise. Made from a seed.
"""
CHANGES = "{version} 2020-01-01\n  - First version.\n"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Tab-separated values with a header line."""
    return "".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]).encode()


def document(value: dict[str, Any]) -> bytes:
    """Indented JSON."""
    return (json.dumps(value, indent=2) + "\n").encode()


def description() -> bytes:
    """Make ``dataset_description.json``."""
    return document(
        {
            "Name": "Synthetic MEG of NeuroMill's demo",
            "BIDSVersion": "1.9.0",
            "DatasetType": "raw",
            "License": "CC0",
            "Authors": ["NeuroMill"],
        }
    )


def participants(subjects: Iterable[str]) -> bytes:
    """Make ``participants.tsv``."""
    return table(("participant_id", "age", "sex"), ((f"sub-{subject}", "n/a", "n/a") for subject in subjects))


def channels(sfreq: float) -> bytes:
    """Make ``channels.tsv``."""
    coils = helmet()
    rows: list[tuple[object, ...]] = [
        (name, "MEGMAG", "T", sfreq, "good") if coil == MAGNETOMETER else (name, "MEGGRADPLANAR", "T/m", sfreq, "good")
        for name, coil in zip(coils.names, coils.coils, strict=True)
    ]
    rows.append((STIM, "TRIG", "V", sfreq, "good"))
    return table(("name", "type", "units", "sampling_frequency", "status"), rows)


def meg(task: str, sfreq: float, seconds: float, line_freq: float) -> bytes:
    """Make ``*_meg.json``."""
    return document(
        {
            "TaskName": task,
            "Manufacturer": "NeuroMill (synthetic)",
            "SamplingFrequency": sfreq,
            "PowerLineFrequency": line_freq,
            "DewarPosition": "upright",
            "SoftwareFilters": "n/a",
            "DigitizedLandmarks": False,
            "DigitizedHeadPoints": False,
            "MEGChannelCount": len(helmet().names),
            "TriggerChannelCount": 1,
            "RecordingDuration": seconds,
            "RecordingType": "continuous",
            "ContinuousHeadLocalization": False,
        }
    )


def coordinates() -> bytes:
    """Make ``*_coordsystem.json``."""
    return document(
        {
            "MEGCoordinateSystem": "ElektaNeuromag",
            "MEGCoordinateUnits": "m",
            "HeadCoilCoordinateSystem": "ElektaNeuromag",
            "HeadCoilCoordinateUnits": "m",
        }
    )


def events(trials: Trials, sfreq: float) -> bytes:
    """Make ``*_events.tsv``."""
    rows = (
        (f"{sample / sfreq:.6f}", 0.02, EVENT_NAMES[kind], kind + 1, sample)
        for sample, kind in zip(trials.samples.tolist(), trials.kinds.tolist(), strict=True)
    )
    return table(("onset", "duration", "trial_type", "value", "sample"), rows)
