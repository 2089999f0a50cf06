"""List, inspect and verify what is published: every byte against the manifest, the manifest against the index."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from neuromill.store.contents import IndexedRecording, describe_group, describe_whole, list_recordings
from neuromill.store.errors import StoreError
from neuromill.store.filesystem import open_file_system
from neuromill.store.index import read_index
from neuromill.store.layout import INDEX_FILE, MANIFEST_FILE, group_name, metadata_bytes
from neuromill.store.publishing import GroupFile, file_sha256, manifest_document, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from neuromill.store.filesystem import FileSystem


class ProblemKind(StrEnum):
    """What can be wrong with a published group."""

    UNREADABLE = "unreadable"
    MISSING_FILE = "missing_file"
    EXTRA_FILE = "extra_file"
    WRONG_SIZE = "wrong_size"
    WRONG_DIGEST = "wrong_digest"
    NOT_CANONICAL = "not_canonical"
    NOT_INDEXED = "not_indexed"
    STALE_INDEX = "stale_index"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, with the file it is wrong with (relative to the store)."""

    recording: str
    kind: ProblemKind
    file: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ArraySummary:
    """One array of a group; ``n_bytes`` are those of its shard files."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    chunk_rows: int
    shard_rows: int | None
    n_shards: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """What ``shards inspect`` shows of one group."""

    recording: str
    kind: str
    n_files: int
    n_bytes: int
    arrays: tuple[ArraySummary, ...]
    attributes: Mapping[str, Any]


def list_groups(store: str | Path) -> tuple[str, ...]:
    """Names of the published recordings of a store, sorted; staging folders do not count."""
    return tuple(list_recordings(open_file_system(store)))


def clean_leftovers(store: str | Path) -> tuple[str, ...]:
    """Remove what killed writers left behind; returns the names. Folders of living writers stay."""
    return tuple(open_file_system(store).clean_leftovers())


def inspect_group(store: str | Path, recording: str) -> GroupSummary:
    """Shapes, chunks, bytes and attributes of one group; ``StoreError`` where it is missing or cannot be read."""
    fs = open_file_system(store)
    found = describe_group(fs, recording)
    files = read_manifest(fs, group_name(recording))
    arrays = tuple(
        ArraySummary(
            array.spec.name,
            array.dims,
            array.shape,
            array.spec.dtype,
            array.spec.chunk_rows,
            array.spec.shard_rows,
            len(array.shards),
            sum(shard.file_bytes for shard in array.shards),
        )
        for array in found.arrays.values()
    )
    n_bytes = sum(file.size for file in files)
    return GroupSummary(recording, found.kind, len(files) + 1, n_bytes, arrays, found.attributes)


def group_damage(store: str | Path, recording: str) -> StoreError | None:
    """Return what keeps one group from being used, None where nothing does; see ``contents.describe_whole``."""
    fs = open_file_system(store)
    try:
        describe_whole(fs, recording)
    except StoreError as error:
        return error
    finally:
        fs.close()
    return None


def verify_group(store: str | Path, recording: str) -> tuple[Problem, ...]:
    """Compare every byte of one group with its manifest; an empty tuple means it is whole."""
    fs = open_file_system(store)
    problems = tuple(sorted(_group_problems(fs, recording)))
    fs.close()
    return problems


def verify_store(store: str | Path) -> tuple[Problem, ...]:
    """``verify_group`` for every group, and the index against the groups where there is an index."""
    fs = open_file_system(store)
    found = [problem for name in list_recordings(fs) for problem in _group_problems(fs, name)]
    damaged = {problem.recording for problem in found}
    if fs.exists(INDEX_FILE):
        found += _index_problems(fs, store, damaged)
    fs.close()
    return tuple(sorted(found))


def _group_problems(fs: FileSystem, recording: str) -> Iterator[Problem]:
    group = group_name(recording)
    try:
        listed = {file.path: file for file in read_manifest(fs, group)}
    except StoreError as error:
        yield Problem(recording, ProblemKind.UNREADABLE, f"{group}/{MANIFEST_FILE}", error.what)
        return
    if fs.read_bytes(f"{group}/{MANIFEST_FILE}") != metadata_bytes(manifest_document(sorted(listed.values()))):
        yield Problem(recording, ProblemKind.NOT_CANONICAL, f"{group}/{MANIFEST_FILE}", "not the bytes we write")
    present = set(fs.files(group)) - {MANIFEST_FILE}
    for path in sorted(present - set(listed)):
        yield Problem(recording, ProblemKind.EXTRA_FILE, f"{group}/{path}")
    for path, file in sorted(listed.items()):
        if path not in present:
            yield Problem(recording, ProblemKind.MISSING_FILE, f"{group}/{path}")
        else:
            yield from _file_problems(fs, recording, f"{group}/{path}", file)


def _file_problems(fs: FileSystem, recording: str, path: str, file: GroupFile) -> Iterator[Problem]:
    size = fs.size(path)
    if size != file.size:
        yield Problem(recording, ProblemKind.WRONG_SIZE, path, f"{size} bytes, manifest says {file.size}")
    elif (digest := file_sha256(fs, path, size)) != file.sha256:
        yield Problem(recording, ProblemKind.WRONG_DIGEST, path, f"sha256 is {digest}, manifest says {file.sha256}")


def _index_problems(fs: FileSystem, store: str | Path, damaged: set[str]) -> Iterator[Problem]:
    try:
        indexed = {recording.name: recording for recording in read_index(store)}
    except StoreError as error:
        yield Problem("", ProblemKind.UNREADABLE, INDEX_FILE, error.what)
        return
    published = set(list_recordings(fs))
    for name in sorted((published ^ set(indexed)) - damaged):
        kind = ProblemKind.NOT_INDEXED if name in published else ProblemKind.STALE_INDEX
        yield Problem(name, kind, INDEX_FILE, "published, not in the index" if name in published else "not published")
    for name in sorted(published & set(indexed) - damaged):
        if not _same(describe_group(fs, name), indexed[name]):
            yield Problem(name, ProblemKind.STALE_INDEX, INDEX_FILE, "rows differ from the group")


def _same(group: IndexedRecording, indexed: IndexedRecording) -> bool:
    """Whether the index says what the group says; compared as JSON, which both come from."""
    attributes = [json.dumps(r.attributes, sort_keys=True) for r in (group, indexed)]
    return attributes[0] == attributes[1] and dict(group.arrays) == dict(indexed.arrays)
