"""``participants.tsv`` of a data set: kept beside its index, so that a probe needs no archive."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from neuromill.records import ConfigError, RecordingError
from neuromill.stages.asking import ask_archive

if TYPE_CHECKING:
    from pathlib import Path

    from neuromill.records import Manifest, SourceFile
    from neuromill.sources.protocol import Source
    from neuromill.stages.datasets import Dataset
    from neuromill.stages.workspace import Workspace

PARTICIPANTS = "participants.tsv"
MAX_KEPT_BYTES = 8 * 2**20
"""A larger table is not kept beside the index: 8 MiB are a hundred thousand rows of 80 characters."""


def keep_participants(workspace: Workspace, dataset: Dataset, manifest: Manifest, source: Source) -> None:
    """Keep the table of a version that is just being listed; that of a folder of this machine is read where it is.

    One that cannot be had is no reason to lose the recordings, nor one that was kept before: it is said.
    """
    if _is_local(dataset):
        return
    file = _entry(manifest)
    if file is None:
        _place(workspace, dataset).unlink(missing_ok=True)
        return
    try:
        if _may_be_kept(workspace, dataset, file):
            _write(_place(workspace, dataset), _read(workspace, dataset, source, file))
    except RecordingError as error:
        workspace.say(f"{PARTICIPANTS} of {dataset.card.dataset_version} could not be read anew: {error}")


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
    asked = f"asking the archive what is in {dataset.card.dataset_version}"
    file = _entry(ask_archive(workspace, dataset, asked, partial(source.manifest, dataset.card.version)))
    if file is None:
        raise ConfigError(f"no {PARTICIPANTS} in this dataset", where=dataset.card.id, next_step="take other labels")
    content = _read(workspace, dataset, source, file)
    if not _is_local(dataset) and _may_be_kept(workspace, dataset, file):
        _write(kept, content)
    return content


def _is_local(dataset: Dataset) -> bool:
    return dataset.origin.archive == "local"


def _place(workspace: Workspace, dataset: Dataset) -> Path:
    return workspace.index_path(dataset.card.dataset_version).with_suffix(f".{PARTICIPANTS}")


def _entry(manifest: Manifest) -> SourceFile | None:
    return next((file for file in manifest.files if file.path == PARTICIPANTS), None)


def _may_be_kept(workspace: Workspace, dataset: Dataset, file: SourceFile) -> bool:
    if file.size <= MAX_KEPT_BYTES:
        return True
    workspace.say(
        f"{PARTICIPANTS} of {dataset.card.dataset_version} is not kept: its {file.size} bytes are more than "
        f"{MAX_KEPT_BYTES}; labels from it need the archive"
    )
    return False


def _read(workspace: Workspace, dataset: Dataset, source: Source, file: SourceFile) -> bytes:
    what = f"reading {PARTICIPANTS} of {dataset.card.dataset_version}"
    return ask_archive(workspace, dataset, what, partial(source.read, file))


def _write(kept: Path, content: bytes) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(kept)
