"""BIDS file names and the inheritance principle, over a listing: nothing has to be on disk."""

from __future__ import annotations

import json
import math
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from neuromill.catalog.rules import BIDS_DATATYPES
from neuromill.records import ENTITIES, Entities, FailureCode, FileState, RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from neuromill.records import SourceFile

KEYS = dict(
    zip(("sub", "ses", "task", "acq", "run", "proc", "recording", "space", "split", "desc"), ENTITIES, strict=True)
)
SIDECAR_EXTENSIONS = (".json", ".tsv")
MAX_SIDECAR_BYTES = 4_000_000
CHANNEL_COUNTS = {
    "meg": ("MEGChannelCount",),
    "eeg": ("EEGChannelCount",),
    "ieeg": ("ECOGChannelCount", "SEEGChannelCount"),
}
_FREE_ENTITIES = frozenset({"space"})  # a recording may have several of these: every coordinate space applies


@dataclass(frozen=True, slots=True)
class BidsName:
    """A file name taken apart. ``keys`` are the short keys as written, unknown ones included."""

    keys: Mapping[str, str]
    datatype: str
    suffix: str
    extension: str

    @property
    def entities(self) -> Entities:
        """The entities this package knows, by their long names."""
        return Entities(**{KEYS[key]: value for key, value in self.keys.items() if key in KEYS})


def parse_name(path: str) -> BidsName:
    """Take a path apart with bids2table's parser; Unicode is NFC, the datatype falls back on the suffix."""
    from bids2table import parse_bids_entities

    parts = dict(parse_bids_entities(unicodedata.normalize("NFC", path)))
    datatype, suffix, extension = (str(parts.pop(key, "") or "") for key in ("datatype", "suffix", "ext"))
    if datatype not in BIDS_DATATYPES and suffix in BIDS_DATATYPES:
        datatype = suffix
    return BidsName({str(k): str(v) for k, v in parts.items()}, datatype, suffix, extension)


def parse_dandi_name(path: str) -> BidsName:
    """Take the name of a DANDI asset apart: ``sub-X_ses-CO-20131003_behavior+ecephys.nwb``; Unicode is NFC.

    DANDI's names have key-value pairs as BIDS has, but labels may hold ``-``, the suffix lists modalities joined by
    ``+`` or is absent, and an NWB-Zarr asset ends in ``.nwb.zarr``. The datatype is ``spikes``.
    """
    name = unicodedata.normalize("NFC", PurePosixPath(path).name)
    stem, dot, rest = name.partition(".")
    *pairs, last = stem.split("_")
    pairs, suffix = ([*pairs, last], "") if "-" in last else (pairs, last)
    keys = {key: label for key, _, label in (pair.partition("-") for pair in pairs) if key and label}
    return BidsName(keys, "spikes", suffix, dot + rest)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the merged JSON sidecar says; None where it says nothing usable."""

    n_channels: int | None = None
    sfreq: float | None = None
    duration_seconds: float | None = None
    line_freq: float | None = None


@dataclass(slots=True)
class Sidecars:
    """Sidecars of a snapshot by folder and suffix; each JSON file is read at most once.

    Parameters
    ----------
    files
        Every file of the snapshot that may be a sidecar.
    read
        Reads one small file; may raise RecordingError, which becomes a problem of that file.
    report
        Called once per unreadable sidecar with its path and the error.
    """

    read: Callable[[SourceFile], bytes]
    report: Callable[[str, RecordingError], None]
    _by_place: dict[tuple[str, str], list[tuple[BidsName, SourceFile]]] = field(default_factory=dict)
    _documents: dict[str, dict[str, Any]] = field(default_factory=dict)

    def index(self, files: Iterable[SourceFile]) -> None:
        """Sort the sidecars among ``files`` by folder and suffix."""
        places: dict[tuple[str, str], list[tuple[BidsName, SourceFile]]] = defaultdict(list)
        for file in files:
            if file.path.endswith(SIDECAR_EXTENSIONS):
                name = parse_name(file.path)
                places[str(PurePosixPath(file.path).parent), name.suffix].append((name, file))
        for candidates in places.values():
            candidates.sort(key=lambda pair: (len(pair[0].keys), pair[1].path))
        self._by_place = dict(places)

    def applying(self, path: str, name: BidsName, suffix: str, extension: str) -> Iterator[SourceFile]:
        """Sidecars of one kind that apply to the recording at ``path``: from the root down, general before special."""
        for folder in reversed(PurePosixPath(path).parents):
            for sidecar, file in self._by_place.get((str(folder), suffix), ()):
                if sidecar.extension == extension and _applies(sidecar, name):
                    yield file

    def members(self, path: str, name: BidsName, datatype: str) -> tuple[SourceFile, ...]:
        """Return all sidecars of a recording.

        JSON files add up, so all that apply are members; of the tables the closest one counts, of the electrode
        tables the closest of each coordinate space.
        """
        found: dict[str, SourceFile] = {}
        for suffix in (datatype, "channels", "events", "coordsystem", "electrodes"):
            found |= {file.path: file for file in self.applying(path, name, suffix, ".json")}
        for suffix in ("channels", "events", "electrodes"):
            closest = {parse_name(f.path).keys.get("space", ""): f for f in self.applying(path, name, suffix, ".tsv")}
            found |= {file.path: file for file in closest.values()}
        return tuple(found[key] for key in sorted(found))

    def facts(self, path: str, name: BidsName, datatype: str) -> Facts:
        """Facts of a recording from its JSON sidecars, merged from the root down."""
        merged: dict[str, Any] = {}
        for file in self.applying(path, name, datatype, ".json"):
            merged |= self._document(file)
        counts = [merged[key] for key in CHANNEL_COUNTS.get(datatype, ()) if key in merged]
        n_channels = sum(int(positive_number(count) or 0) for count in counts)
        return Facts(
            n_channels=n_channels or None,
            sfreq=positive_number(merged.get("SamplingFrequency")),
            duration_seconds=positive_number(merged.get("RecordingDuration")),
            line_freq=positive_number(merged.get("PowerLineFrequency")),
        )

    def _document(self, file: SourceFile) -> dict[str, Any]:
        if file.path not in self._documents:
            self._documents[file.path] = {}
            if file.state is FileState.LOST:  # said of every recording it is a member of
                return {}
            try:
                self._documents[file.path] = read_json(file, self.read)
            except RecordingError as error:
                self.report(file.path, error)
        return self._documents[file.path]


def _applies(sidecar: BidsName, recording: BidsName) -> bool:
    return all(recording.keys.get(key) == value for key, value in sidecar.keys.items() if key not in _FREE_ENTITIES)


def read_json(file: SourceFile, read: Callable[[SourceFile], bytes]) -> dict[str, Any]:
    """Read a JSON sidecar: byte-order mark and CR LF are fine.

    Raises
    ------
    RecordingError
        ``too_large``, ``unreadable`` (not UTF-8, not JSON, not an object), or what the source raises.
    """
    if file.size > MAX_SIDECAR_BYTES:
        raise RecordingError(FailureCode.TOO_LARGE, f"sidecar of {file.size} bytes is not read", where=file.path)
    data = read(file)
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"sidecar is not valid JSON: {error}", file.path) from error
    if not isinstance(document, dict):
        raise _unreadable("sidecar is not a JSON object", file.path)
    return document


def _unreadable(what: str, where: str) -> RecordingError:
    step = "its facts are unknown until the recording is opened; correct the sidecar"
    return RecordingError(FailureCode.UNREADABLE, what, where=where, next_step=step)


def positive_number(value: object) -> float | None:
    """Return a finite number above zero, also written as text ("60"); None for anything else ("n/a", true, NaN)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None
