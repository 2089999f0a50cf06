"""The door of the readers: a recording whose files are on disk in, an open lazy signal out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from neuromill.readers.complaints import empty
from neuromill.readers.electrodes import Places, place_electrodes
from neuromill.readers.members import Sidecars, check_members, check_subject, format_of, read_sidecars
from neuromill.readers.plausibility import check_plausible
from neuromill.readers.protocol import SignalFacts
from neuromill.readers.raws import OPENERS, damage_as_codes
from neuromill.readers.sidecars import from_rows, no_events, number, read_events
from neuromill.readers.tables import channel_table, position_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.readers.protocol import SignalRecording, Transform
    from neuromill.readers.raws import OpenedRaw
    from neuromill.records import ChannelTable, Events, Recording

SFREQ_TOLERANCE = 1e-3  # relative: sidecars round (300.3 for 300.307), a wrong rate is further off
CTF_GRADE_SHIFT = 16


def open_recording(recording: Recording, root: Path) -> SignalRecording:
    """Open a recording for reading; nothing of the signal stays in memory.

    Where a sidecar contradicts the file (sampling rate, channels, mains frequency) the measurement wins, except that
    the sidecar's mains frequency and its bad channels stand; what was not followed is in ``facts.notes``. Single
    channels whose values cannot be in their unit are bad (``implausible``); more of them fail the recording.

    Parameters
    ----------
    recording
        What to open; its members lie at ``root / member.path``.
    root
        Folder of the dataset, or of a tree of links with the dataset's paths.

    Raises
    ------
    RecordingError
        ``missing_member, missing_fact, empty, truncated, unreadable, unsupported_format, maxshield, not_continuous,
        duplicate_channels, unit_conflict``: see ``docs/failures``.
    """
    check_members(recording, root)
    check_subject(recording)
    kind = format_of(recording)
    sidecars = read_sidecars(recording, root)
    signal = MneSignal(recording, kind, OPENERS[kind](recording, root), sidecars, root)
    signal.mark_bads(check_plausible(signal, recording.path))
    return signal


class MneSignal:
    """A recording that MNE reads; see ``SignalRecording``."""

    def __init__(self, recording: Recording, kind: str, opened: OpenedRaw, sidecars: Sidecars, root: Path) -> None:
        raw = opened.raw
        if raw.n_times == 0 or not raw.ch_names:
            raise empty("recording without samples", recording.path)
        self._raw: Any = raw
        self._samples = opened.samples
        self._where, self._folder = recording.path, (root / recording.path).parent
        channels, table_notes = channel_table(raw.info, sidecars.channels, recording.path, opened.units)
        channels = channels.with_bads({channels.names.index(n): why for n, why in opened.bads.items()})
        places = Places(channels.positions, position_frame(raw.info, channels))
        if not places.frame:  # the file has none
            places = place_electrodes(channels, sidecars.electrodes)
            channels = replace(channels, positions=places.positions)
        self._channels = channels
        self._channels.require_unique_names(recording.path)
        self._events, event_notes = _events(raw, sidecars, self.n_times / self.sfreq)
        notes = (*opened.notes, *table_notes, *places.notes, *event_notes, *_rate_notes(self.sfreq, sidecars))
        self._facts = _facts(kind, raw, sidecars, recording, places.frame, notes)

    @property
    def channels(self) -> ChannelTable:
        """The channels, in file order."""
        return self._channels

    @property
    def sfreq(self) -> float:
        """Sampling frequency in Hz."""
        return float(self._raw.info["sfreq"])

    @property
    def n_times(self) -> int:
        """Number of samples per channel."""
        return int(self._raw.n_times)

    @property
    def events(self) -> Events:
        """Events of ``events.tsv`` where there is one, else the annotations of the file."""
        return self._events

    @property
    def facts(self) -> SignalFacts:
        """What the recording says about itself."""
        return self._facts

    def mark_bads(self, reasons: Mapping[int, str]) -> None:
        """Channels at these indices are bad for the reason given; earlier reasons stay."""
        self._channels = self._channels.with_bads(reasons)

    def read(self, start: int, stop: int, picks: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Samples ``start`` to ``stop`` as float64 [channel, time] in SI units.

        Raises
        ------
        RecordingError
            ``truncated`` or ``unreadable`` where the file turns out to be damaged there.
        """
        if not 0 <= start <= stop <= self.n_times:
            raise ValueError(f"samples {start}..{stop} are not within 0..{self.n_times}")
        rows = list(range(len(self._channels))) if picks is None else list(picks)
        if start == stop or not rows:
            return np.empty((len(rows), stop - start))
        with damage_as_codes(self._where, self._folder):
            if self._samples is not None:
                return self._samples.read(rows, start, stop)
            block = self._raw.get_data(picks=rows, start=start, stop=stop, verbose="error")
        return np.asarray(block, dtype=np.float64)

    def close(self) -> None:
        """Let go of the files."""
        self._raw.close()
        if self._samples is not None:
            self._samples.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _events(raw: Any, sidecars: Sidecars, duration: float) -> tuple[Events, tuple[str, ...]]:
    if sidecars.events is not None:
        return read_events(sidecars.events, duration)
    annotations = raw.annotations
    if not len(annotations):
        return no_events(), ()
    onsets = annotations.onset - raw.first_time  # MNE counts from the start of acquisition, we from the first sample
    return from_rows(zip(onsets, annotations.duration, annotations.description, strict=True), duration, "annotations")


def _rate_notes(sfreq: float, sidecars: Sidecars) -> tuple[str, ...]:
    stated = number(sidecars.facts.get("SamplingFrequency"))
    if stated is None or math.isclose(stated, sfreq, rel_tol=SFREQ_TOLERANCE):
        return ()
    return (f"sidecar states {stated:g} Hz, the file is sampled at {sfreq:g} Hz: the file's rate is used",)


def _facts(
    kind: str, raw: Any, sidecars: Sidecars, recording: Recording, frame: str, notes: tuple[str, ...]
) -> SignalFacts:
    info, stated = raw.info, sidecars.facts
    in_file, in_sidecar = number(info.get("line_freq")), number(stated.get("PowerLineFrequency"))
    if in_file is not None and in_sidecar is not None and in_file != in_sidecar:
        notes = (*notes, f"line frequency is {in_sidecar:g} Hz in the sidecar, {in_file:g} Hz in the file")
    return SignalFacts(
        format=kind,
        device=_device(info, stated),
        line_freq=next((f for f in (in_sidecar, in_file, recording.line_freq) if f is not None), None),
        highpass=number(info.get("highpass")),
        lowpass=number(info.get("lowpass")),
        reference=next((str(stated[key]) for key in ("EEGReference", "iEEGReference") if key in stated), ""),
        sss_applied=_sss_applied(info),
        compensation_grade=max((int(ch["coil_type"]) >> CTF_GRADE_SHIFT for ch in info["chs"]), default=0),
        position_frame=frame,
        dev_head_t=_transform(info.get("dev_head_t")),
        notes=notes,
    )


def _device(info: Any, stated: dict[str, Any]) -> str:
    words = [str(stated.get(key, "")).strip() for key in ("Manufacturer", "ManufacturersModelName")]
    if not any(words):
        device = info.get("device_info") or {}
        words = [str(device.get(key) or "") for key in ("type", "model")]
    return " ".join(word for word in words if word and word.lower() != "n/a")


def _sss_applied(info: Any) -> bool:
    return any(entry.get("max_info", {}).get("sss_info") for entry in info.get("proc_history") or [])


def _transform(dev_head_t: Any) -> Transform | None:
    if dev_head_t is None:
        return None
    rows = np.asarray(dev_head_t["trans"], dtype=np.float64).tolist()
    return tuple((row[0], row[1], row[2], row[3]) for row in rows)
