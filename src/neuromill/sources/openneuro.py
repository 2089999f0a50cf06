"""OpenNeuro: the listing from the dataset's git mirror at the version tag, the bytes from the public bucket.

The bucket's head holds the newest snapshot only; older ones are older object versions, which the mirror's
``git-annex`` branch names. So every file of a snapshot has a size, a digest and one exact object.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from neuromill.records import (
    ConfigError,
    DatasetVersion,
    Digest,
    FailureCode,
    FileState,
    Manifest,
    RecordingError,
    SourceFile,
    check_name,
)
from neuromill.sources import annex
from neuromill.sources.bucket import Bucket, ObjectAddress
from neuromill.sources.download import mismatch, publish
from neuromill.sources.git import GitMirror, TreeEntry
from neuromill.sources.protocol import Listing, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from neuromill.sources.annex import AnnexKey, KeyLogs

_TAGS = "refs/tags/"
_ANNEX_REF = f"refs/heads/{annex.BRANCH}"
_NUMBERED = re.compile(r"\d+(\.\d+)*")
_GIT_LOCATOR = re.compile(r"git:(?P<oid>[0-9a-f]{40})@(?P<version>.+)")


def newest(tags: Iterable[str]) -> str | None:
    """Return the newest snapshot tag by version sort; numbered tags (``1.10.0``) go before any other kind."""

    def rank(tag: str) -> tuple[bool, list[int], str]:
        return bool(_NUMBERED.fullmatch(tag)), [int(part) for part in re.findall(r"\d{1,18}", tag)], tag

    return max(tags, key=rank, default=None)


@dataclass(frozen=True, slots=True)
class OpenNeuroSource:
    """One OpenNeuro dataset; ``folder`` keeps its git mirror between calls."""

    dataset: str
    git_url: str
    bucket: Bucket
    folder: Path
    _small: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)  # blob id -> content

    def __post_init__(self) -> None:
        check_name(self.dataset)

    def __reduce__(self) -> tuple[object, ...]:
        """Travel to a worker without the remembered files."""
        return type(self), (self.dataset, self.git_url, self.bucket, self.folder)

    @property
    def mirror(self) -> GitMirror:
        """The dataset's git mirror; another address is another mirror."""
        mark = hashlib.sha256(self.git_url.encode()).hexdigest()[:8]
        return GitMirror(self.folder / f"{self.dataset}-{mark}.git", self.git_url)

    def manifest(self, version: str | None = None) -> Manifest:
        """See ``protocol.Source``."""
        return self.listing(version).manifest

    def listing(self, version: str | None = None) -> Listing:
        """See ``protocol.Source``; always asks the mirror's server."""
        mirror = self.mirror
        if version is not None:
            check_name(version)
        refs = mirror.refs()
        version = version or self._newest(refs)
        tag = f"{_TAGS}{version}"
        self._update(mirror, version, refs)
        entries = mirror.tree(tag, sizes=True)
        return _Assembly(self.dataset, version, mirror.commit(tag), entries, self._remember(mirror, entries)).listing(
            lambda keys: read_logs(mirror, keys)
        )

    def _newest(self, refs: Iterable[str]) -> str:
        version = newest(ref.removeprefix(_TAGS) for ref in refs if ref.startswith(_TAGS))
        if version is None:
            raise RecordingError(
                FailureCode.UNREACHABLE_UPSTREAM, "the dataset has no published version", where=self.git_url
            )
        return check_name(version)

    def _update(self, mirror: GitMirror, version: str, refs: frozenset[str]) -> None:
        tag = f"{_TAGS}{version}"
        if tag not in refs:
            known = ", ".join(sorted(ref.removeprefix(_TAGS) for ref in refs if ref.startswith(_TAGS))[-8:]) or "none"
            raise ConfigError(
                f"{self.dataset} has no version {version}",
                where=self.git_url,
                next_step=f"choose one of its versions: {known}",
            )
        mirror.update([tag, *({_ANNEX_REF} & refs)])

    def _remember(self, mirror: GitMirror, entries: Iterable[TreeEntry]) -> dict[str, bytes]:
        small = (e for e in entries if e.size is not None and e.size <= annex.POINTER_MAX_BYTES)
        self._small.update(mirror.blobs(sorted({e.oid for e in small if e.is_file or e.is_link})))
        return self._small

    def read(self, file: SourceFile) -> bytes:
        """See ``protocol.Source``; small git blobs are remembered from the listing."""
        if match := _GIT_LOCATOR.fullmatch(file.locator):
            return self._blob(file, match["oid"], match["version"])
        with tempfile.TemporaryDirectory() as folder:
            self.fetch(file, Path(folder, "file"))
            return Path(folder, "file").read_bytes()

    def _blob(self, file: SourceFile, oid: str, version: str) -> bytes:
        content = self._small.get(oid)
        if content is None:
            mirror, tag = self.mirror, f"{_TAGS}{version}"
            if not mirror.has(tag):
                self._update(mirror, version, mirror.refs())
                mirror.prefetch(tag)
            content = dict(mirror.blobs([oid]))[oid]
        if file.digest and (found := Digest.of(content, file.digest.algorithm)) != file.digest:
            raise mismatch(file.digest, found, file.path)
        return content

    def fetch(self, file: SourceFile, to: Path, *, progress: Callable[[int], None] | None = None) -> Digest:
        """See ``protocol.Source``."""
        if file.state is FileState.LOST or not file.locator:
            raise RecordingError(
                FailureCode.UNREACHABLE_UPSTREAM,
                "the archive's records name no copy of this file",
                where=f"{self.dataset}/{file.path}",
                next_step="take another version of the dataset, or ask its maintainers",
            )
        if not file.locator.startswith("git:"):
            return self.bucket.fetch(file, to, progress)
        content = self.read(file)
        to.parent.mkdir(parents=True, exist_ok=True)
        part = to.with_name(to.name + ".part")
        part.write_bytes(content)
        publish(part, to)
        if progress:
            progress(len(content))
        return file.digest or Digest.of(content)

    def place(self, file: SourceFile) -> Path | None:  # noqa: ARG002
        """See ``protocol.Source``: always None, the archive is elsewhere."""
        return None


def read_logs(mirror: GitMirror, keys: set[str]) -> tuple[dict[str, KeyLogs], dict[str, str]]:
    """Read what the git-annex branch says about these keys, and the remotes that export the tree."""
    if not mirror.has(_ANNEX_REF):
        return {}, {}
    named = {entry.path.decode(errors="replace"): entry.oid for entry in mirror.tree(_ANNEX_REF)}
    logs = {path: name for path in named if (name := annex.LogName.parse(path)) and name.key in keys}
    wanted = {path: named[path] for path in (*logs, "remote.log") if path in named}
    mirror.prefetch(_ANNEX_REF, wanted.values())
    contents = dict(mirror.blobs(sorted(set(wanted.values()))))
    metadata, locations = {}, {}
    for path, name in logs.items():
        if name.remote_metadata:
            metadata[name.key] = annex.parse_remote_metadata(contents[wanted[path]])
        else:
            locations[name.key] = annex.parse_locations(contents[wanted[path]])
    exports = annex.parse_exports(contents[wanted["remote.log"]]) if "remote.log" in wanted else {}
    return {key: annex.KeyLogs(metadata.get(key, ()), locations.get(key, {})) for key in keys}, exports


@dataclass(frozen=True, slots=True)
class _Assembly:
    """Turns git's tree into a listing; knows nothing of where the tree came from."""

    dataset: str
    version: str
    commit: str
    entries: tuple[TreeEntry, ...]
    contents: dict[str, bytes]

    def listing(self, logs_of: Callable[[set[str]], tuple[dict[str, KeyLogs], dict[str, str]]]) -> Listing:
        keys = {entry.path: key for entry in self.entries if (key := self._key(entry))}
        logs, exports = logs_of({key.text for key in keys.values()})
        made = [
            self._annexed(e, keys[e.path], logs.get(keys[e.path].text, annex.KeyLogs()), exports)
            if e.path in keys
            else self._plain(e)
            for e in self.entries
        ]
        files = {file.path: file for file in made if isinstance(file, SourceFile)}
        skipped = [item for item in made if isinstance(item, Skipped)]
        for found in self._links(keys, files):
            if isinstance(found, SourceFile):
                files[found.path] = found
            else:
                skipped.append(found)
        ordered = tuple(files[path] for path in sorted(files))
        manifest = Manifest(DatasetVersion(self.dataset, self.version), ordered, revision=self.commit)
        return Listing(manifest, tuple(sorted(skipped, key=lambda item: item.path)))

    def _key(self, entry: TreeEntry) -> AnnexKey | None:
        content = self.contents.get(entry.oid, b"")
        if entry.is_link:
            return annex.AnnexKey.from_link(content.decode(errors="replace"))
        return annex.AnnexKey.from_pointer(content) if entry.is_file else None

    def _plain(self, entry: TreeEntry) -> SourceFile | Skipped | None:
        if entry.is_link:
            return None
        if not entry.is_file or entry.size is None:
            return Skipped(_text(entry.path), FailureCode.UNSUPPORTED_FORMAT, "a submodule, not a file")
        locator = f"git:{entry.oid}@{self.version}"
        return _file(entry.path, entry.size, Digest("git-sha1", entry.oid), locator, FileState.AVAILABLE)

    def _annexed(self, entry: TreeEntry, key: AnnexKey, logs: KeyLogs, exports: dict[str, str]) -> SourceFile | Skipped:
        if key.size is None:
            return Skipped(_text(entry.path), FailureCode.MISSING_FACT, f"its key {key.text} does not say its size")
        found = logs.locate(entry.path.decode(errors="replace"), exports if key.digest else {})
        try:
            locator = str(ObjectAddress(found.version, found.key)) if found else ""
        except RecordingError:
            return Skipped(_text(entry.path), FailureCode.HOSTILE_NAME, f"object name {found and found.key!r}")
        state = FileState.AVAILABLE if found else FileState.LOST
        return _file(entry.path, key.size, key.digest, locator, state)

    def _links(self, keys: dict[bytes, AnnexKey], files: dict[str, SourceFile]) -> Iterator[SourceFile | Skipped]:
        """Resolve plain links to a file of the same tree (one step); every other link is left out."""
        for entry in self.entries:
            if not entry.is_link or entry.path in keys:
                continue
            target = self.contents.get(entry.oid, b"").decode(errors="replace")
            path = entry.path.decode(errors="replace")
            aimed = files.get(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))
            if aimed is None:
                yield Skipped(_text(entry.path), FailureCode.UNSUPPORTED_FORMAT, "a link to no file of this snapshot")
            else:
                yield _file(entry.path, aimed.size, aimed.digest, aimed.locator, aimed.state)


def _file(path: bytes, size: int, digest: Digest | None, locator: str, state: FileState) -> SourceFile | Skipped:
    try:
        return SourceFile(path.decode(), size, digest, locator, state)
    except (UnicodeDecodeError, RecordingError):
        return Skipped(_text(path), FailureCode.HOSTILE_NAME, "its name cannot be used as a path")


def _text(path: bytes) -> str:
    text = path.decode(errors="backslashreplace")
    return text if text.isprintable() else repr(text)
