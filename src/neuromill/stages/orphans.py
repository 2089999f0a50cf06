"""Sidecars whose recording is not in the snapshot: they are listed, and fail, so that the loss is counted."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from neuromill.catalog.bids import parse_name
from neuromill.catalog.rules import BIDS_DATATYPES
from neuromill.records import Recording, RecordingError, RecordingId

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from neuromill.catalog.bids import BidsName
    from neuromill.catalog.discovery import Discovery
    from neuromill.catalog.rules import RecordingRules
    from neuromill.records import Manifest, SourceFile

NOT_RAW = frozenset({"derivatives", "sourcedata", "code", "stimuli"})
SIDECARS = frozenset({".json", ".tsv", ".tsv.gz"})


def recordings_without_data(manifest: Manifest, rules: RecordingRules, found: Discovery) -> tuple[Recording, ...]:
    """List what a JSON sidecar describes (``sub-01/eeg/sub-01_task-rest_eeg.json``) and no file of the snapshot holds.

    The path of such a recording is its name without extension, its members are the sidecars of its folder; whatever
    opens it fails with ``missing_member``. Sidecars above the folders of data describe nothing by themselves.
    """
    if rules.layout != "bids":
        return ()
    folders = _data_folders(manifest.files)
    taken = {recording.id.name.casefold() for recording in found.recordings}
    made = []
    for folder, files in folders.items():
        names = {part: parse_name(f"{folder}/{part}") for part in _parts(folder, files)}
        data = [name for name in names.values() if name.extension not in SIDECARS]
        for file in files:
            orphan = _orphan(manifest, rules, file, names.get(file.name), data)
            if orphan is not None and orphan.id.name.casefold() not in taken:
                made.append(replace(orphan, members=_beside(orphan, files)))
    return tuple(sorted(made, key=lambda recording: recording.id.name))


def _data_folders(files: Iterable[SourceFile]) -> Mapping[str, list[SourceFile]]:
    """Files below each folder that is named after a datatype and holds raw data."""
    folders: dict[str, list[SourceFile]] = defaultdict(list)
    for file in files:
        parts = file.path.split("/")
        raw = not any(part.startswith(".") or part.lower() in NOT_RAW for part in parts)
        depth = next((i for i, part in enumerate(parts[:-1]) if part in BIDS_DATATYPES), None)
        if raw and depth is not None:
            folders["/".join(parts[: depth + 1])].append(file)
    return folders


def _parts(folder: str, files: Iterable[SourceFile]) -> set[str]:
    """Names directly in a folder: files, and folders that are one recording (CTF, BTi)."""
    return {file.path.removeprefix(f"{folder}/").split("/")[0] for file in files}


def _orphan(
    manifest: Manifest, rules: RecordingRules, file: SourceFile, name: BidsName | None, data: Iterable[BidsName]
) -> Recording | None:
    datatype = PurePosixPath(file.path).parent.name
    if name is None or name.extension != ".json" or name.suffix != datatype or not name.keys.get("sub"):
        return None
    if any(one.suffix == datatype and name.keys.items() <= one.keys.items() for one in data):
        return None
    path, entities = file.path.removesuffix(".json"), name.entities
    if rules.refusal(path, datatype, entities):
        return None
    stem = unicodedata.normalize("NFC", PurePosixPath(path).name)
    try:
        identity = RecordingId(manifest.dataset_version.dataset, manifest.dataset_version.version, stem)
    except RecordingError:
        return None  # discovery has told of a name like this
    return Recording(id=identity, path=path, members=(file,), entities=entities, datatype=datatype, suffix=name.suffix)


def _beside(orphan: Recording, files: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    """Return the sidecars that bear the name of the recording."""
    stem = orphan.path.removesuffix(orphan.suffix)
    return tuple(file for file in files if file.path.startswith(stem))
