"""``participants.tsv`` of a data set: kept beside its index, so that a probe needs no archive."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from neuromill.records import ConfigError, RecordingError

if TYPE_CHECKING:
    from pathlib import Path

    from neuromill.records import Manifest
    from neuromill.sources.protocol import Source
    from neuromill.stages.datasets import Dataset
    from neuromill.stages.workspace import Workspace

PARTICIPANTS = "participants.tsv"


def keep_participants(workspace: Workspace, dataset: Dataset, manifest: Manifest, source: Source) -> None:
    """Keep the table of a version that is just being listed; that of a folder of this machine is read where it is.

    One that cannot be had is no reason to lose the recordings: it is said, and asked for again when it is needed.
    """
    if _is_local(dataset):
        return
    kept = _place(workspace, dataset)
    kept.unlink(missing_ok=True)
    try:
        content = _table(manifest, source)
    except RecordingError as error:
        workspace.say(f"{PARTICIPANTS} of {dataset.card.dataset_version} is not kept: {error}")
        return
    if content is not None:
        _write(kept, content)


def read_participants(workspace: Workspace, dataset: Dataset) -> bytes:
    """Return the table as it was when the version was listed; that of a folder as it is now.

    Where it is not kept (in a home folder older than this) the archive is asked, once.

    Raises
    ------
    ConfigError
        The data set has none.
    RecordingError
        It is not kept, and the archive cannot be asked.
    """
    kept = _place(workspace, dataset)
    if not _is_local(dataset) and kept.is_file():
        return kept.read_bytes()
    source = dataset.origin.open(workspace.settings)
    content = _table(source.manifest(dataset.card.version), source)
    if content is None:
        raise ConfigError(f"no {PARTICIPANTS} in this dataset", where=dataset.card.id, next_step="take other labels")
    if not _is_local(dataset):
        _write(kept, content)
    return content


def _is_local(dataset: Dataset) -> bool:
    return dataset.origin.archive == "local"


def _place(workspace: Workspace, dataset: Dataset) -> Path:
    return workspace.index_path(dataset.card.dataset_version).with_suffix(f".{PARTICIPANTS}")


def _table(manifest: Manifest, source: Source) -> bytes | None:
    file = next((file for file in manifest.files if file.path == PARTICIPANTS), None)
    return None if file is None else source.read(file)


def _write(kept: Path, content: bytes) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(kept)
