"""From a manifest to recordings: which files are one recording, which sidecars apply, what they say.

Pure apart from ``read_sidecar``; nothing but sidecars (and BrainVision headers with foreign names) is read.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from neuromill.catalog.bids import Facts, Sidecars, parse_dandi_name, parse_name
from neuromill.catalog.grouping import (
    FORMATS,
    PATTERN_FORMATS,
    SPIKE_FORMATS,
    Group,
    extension_of,
    group_files,
)
from neuromill.catalog.path_patterns import match_path
from neuromill.catalog.rules import BIDS_DATATYPES
from neuromill.records import Entities, FailureCode, FileState, Recording, RecordingError, RecordingId, safe_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from neuromill.catalog.bids import BidsName
    from neuromill.catalog.rules import RecordingRules
    from neuromill.records import DatasetVersion, Manifest, SourceFile

NOT_RAW = frozenset({"derivatives", "sourcedata", "code", "stimuli"})
CALIBRATION = frozenset({"calibration", "crosstalk"})


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or folder that is there and gives no recording, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a file.

    ``recording`` names a listed recording that cannot go on as it is; "" for a warning, and where nothing is listed.
    """

    path: str
    code: FailureCode
    message: str
    next_step: str = ""
    recording: str = ""


@dataclass(frozen=True, slots=True)
class Discovery:
    """Recordings sorted by name, what was left out and why, and what is wrong with which file."""

    recordings: tuple[Recording, ...]
    left_out: tuple[LeftOut, ...]
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class _Findings:
    left_out: list[LeftOut] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def report(self, path: str, error: RecordingError, recording: str = "") -> None:
        self.problems.append(Problem(path, error.code, error.what, error.next_step, recording))


def discover(manifest: Manifest, rules: RecordingRules, read_sidecar: Callable[[SourceFile], bytes]) -> Discovery:
    """List the recordings of a snapshot.

    Parameters
    ----------
    manifest
        Every file of the snapshot.
    rules
        What counts as a recording (see `RecordingRules`).
    read_sidecar
        Returns the bytes of one small file; each is asked for at most once. May raise RecordingError.

    Returns
    -------
    Discovery
        A recording whose member the archive lost is listed, with a problem ``unreachable_upstream``; so is one
        that lacks a file it needs (``missing_member``). One whose name cannot be used is not (``hostile_name``).
    """
    findings = _Findings()
    files, not_raw = _raw_files(manifest.files)
    findings.left_out += not_raw
    sidecars = Sidecars(read_sidecar, findings.report)
    if rules.layout == "bids":
        sidecars.index(files)
    recordings = [
        recording
        for group in _groups(files, rules, read_sidecar, findings)
        if (recording := _recording(manifest.dataset_version, group, rules, sidecars, findings)) is not None
    ]
    unique = _unique(recordings, findings)
    return Discovery(
        recordings=tuple(sorted(unique, key=lambda r: r.id.name)),
        left_out=tuple(sorted(findings.left_out, key=lambda left: left.path)),
        problems=tuple(sorted(findings.problems, key=lambda p: (p.path, p.code, p.message))),
    )


def _raw_files(files: Iterable[SourceFile]) -> tuple[list[SourceFile], list[LeftOut]]:
    """Split off what is no raw data: one `LeftOut` per folder, not per file."""
    raw: list[SourceFile] = []
    dropped: dict[str, str] = {}
    for file in files:
        parts = file.path.split("/")
        zarr = next((i for i, part in enumerate(parts) if extension_of(part).lower() == ".nwb.zarr"), len(parts))
        hidden = next((i for i, part in enumerate(parts[:zarr]) if part.startswith(".")), None)
        other = next((i for i, part in enumerate(parts[:-1]) if part.lower() in NOT_RAW), None)
        if other is not None:
            dropped["/".join(parts[: other + 1])] = "not raw data"
        elif hidden is not None:
            dropped["/".join(parts[: hidden + 1])] = "hidden file"
        else:
            raw.append(file)
    return raw, [LeftOut(path, reason) for path, reason in dropped.items()]


def _groups(
    files: list[SourceFile], rules: RecordingRules, read: Callable[[SourceFile], bytes], findings: _Findings
) -> tuple[Group, ...]:
    def read_header(file: SourceFile) -> bytes:
        try:
            return read(file)
        except RecordingError as error:
            findings.report(file.path, error)
            return b""

    ending = extension_of(rules.path_pattern)
    named = {ending: PATTERN_FORMATS[ending]} if ending in PATTERN_FORMATS else {}
    groups = group_files(files, read_header, (SPIKE_FORMATS if rules.asks_for_spikes else FORMATS) | named)
    if rules.path_pattern:
        grouped = {file.path for group in groups for file in group.files}
        findings.left_out += [
            LeftOut(file.path, f"no reader opens {extension_of(file.name) or 'files without an extension'}")
            for file in files
            if file.path not in grouped and match_path(rules.path_pattern, file.path) is not None
        ]
    return groups


def _recording(
    version: DatasetVersion, group: Group, rules: RecordingRules, sidecars: Sidecars, findings: _Findings
) -> Recording | None:
    """Turn a group into a recording, or say in ``findings`` why not."""
    bids = _parsed(group, rules)
    datatype = _datatype(group, bids, rules)
    entities = match_path(rules.path_pattern, group.path) if rules.path_pattern else _entities(bids)
    reason = _refusal(group, bids, datatype, entities, rules)
    if reason is not None or entities is None:
        findings.left_out += [LeftOut(group.path, reason)] if reason else []
        return None
    try:
        name = _name(group, rules)
        identity = RecordingId(version.dataset, version.version, name)
    except RecordingError as error:
        findings.report(group.path, error)
        return None
    members, facts = group.files, Facts()
    if rules.layout == "bids":
        members = [*members, *sidecars.members(group.path, bids, datatype)]
        facts = sidecars.facts(group.path, bids, datatype)
    recording = Recording(
        id=identity,
        path=group.path,
        members=tuple({member.path: member for member in members}.values()),
        entities=entities,
        datatype=datatype,
        suffix=bids.suffix if rules.layout != "plain" else "",
        format=group.format,
        n_channels=facts.n_channels,
        sfreq=facts.sfreq,
        duration_seconds=facts.duration_seconds,
        line_freq=facts.line_freq,
    )
    findings.problems += _member_problems(recording, group) + _folder_problems(recording)
    return recording


def _named_part(group: Group) -> str:
    """Return the path that bears the BIDS name: of BTi it is the folder."""
    folder = PurePosixPath(group.path).parent
    return str(folder) if group.format == "bti" and folder.name.endswith("_meg") else group.path


def _parsed(group: Group, rules: RecordingRules) -> BidsName:
    return parse_dandi_name(group.path) if rules.layout == "dandi" else parse_name(_named_part(group))


def _datatype(group: Group, bids: BidsName, rules: RecordingRules) -> str:
    """Datatype of a group: what its name says, else its format, else the only one that a path pattern is for."""
    if bids.datatype in BIDS_DATATYPES:
        return bids.datatype
    if rules.layout != "bids" and group.format in ("nwb", "mat"):
        return "spikes"
    return rules.datatypes[0] if rules.path_pattern and len(rules.datatypes) == 1 else ""


def _refusal(
    group: Group, bids: BidsName, datatype: str, entities: Entities | None, rules: RecordingRules
) -> str | None:
    """Why a group is no recording: a reason, "" where it is a companion nobody asks about, None where it is one."""
    if group.format == "kit" and group.stem.lower().endswith(("_markers", "-markers", "_marker", "-marker")):
        return ""
    if entities is None:
        return f"path pattern {rules.path_pattern} does not match"
    by_name = "" if rules.layout == "plain" else _name_refusal(group, bids, datatype, rules)
    return by_name or rules.refusal(group.path, datatype, entities) or None


def _name_refusal(group: Group, bids: BidsName, datatype: str, rules: RecordingRules) -> str:
    """Why a file whose name must carry entities is no recording, "" where it is one."""
    if rules.layout == "dandi" and group.format != "nwb":
        return "no NWB file"
    if not bids.keys.get("sub"):
        return "no subject in its name"
    if rules.layout == "bids" and bids.keys.get("acq") in CALIBRATION:
        return "calibration of the device"
    if rules.layout == "bids" and (not datatype or bids.suffix != datatype):
        return f"suffix {bids.suffix!r} is no recording"
    return ""


def _entities(bids: BidsName) -> Entities:
    """Entities of the whole recording: without ``split``; none where the name has no subject."""
    return replace(bids.entities, split="") if bids.keys.get("sub") else Entities()


def _name(group: Group, rules: RecordingRules) -> str:
    """Return the stem of a name with entities as it is, or the safe form of a plain path."""
    return safe_name(group.path) if rules.layout == "plain" else unicodedata.normalize("NFC", group.stem)


def _member_problems(recording: Recording, group: Group) -> list[Problem]:
    problems = [
        Problem(
            member.path, FailureCode.UNREACHABLE_UPSTREAM, "the archive lost this file",
            "ask the archive; the rest of the dataset goes on", recording.id.name,
        )
        for member in recording.members if member.state is FileState.LOST
    ]  # fmt: skip
    return problems + [
        Problem(
            group.path, FailureCode.MISSING_MEMBER, f"a file of the recording is not in the snapshot: {missing}",
            "fetch the dataset again, or tell its authors", recording.id.name,
        )
        for missing in group.missing
    ]  # fmt: skip


def _folder_problems(recording: Recording) -> list[Problem]:
    """Warn where the folder names another subject than the file: a split by subject goes by the file name."""
    folders = [part.removeprefix("sub-") for part in recording.path.split("/")[:-1] if part.startswith("sub-")]
    subject = recording.entities.subject
    if not subject or not folders or unicodedata.normalize("NFC", folders[0]) == subject:
        return []
    what = f"the folder says subject {folders[0]}, the file name {subject}; the file name counts"
    return [Problem(recording.path, FailureCode.HOSTILE_NAME, what, "rename the one that is wrong")]


def _unique(recordings: Iterable[Recording], findings: _Findings) -> list[Recording]:
    """Keep the first recording of each name; names that differ in case only are one name on many file systems."""
    taken: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        taken[recording.id.name.casefold()].append(recording)
    for first, *others in taken.values():
        for other in others:
            what = f"the name {other.id.name} is taken by {first.path}"
            findings.left_out.append(LeftOut(other.path, what))
            findings.problems.append(
                Problem(other.path, FailureCode.HOSTILE_NAME, what, "leave one out with 'exclude'", other.id.name)
            )
    return [group[0] for group in taken.values()]
