"""A bare mirror of a git repository, kept as small as the server allows; git runs as a subprocess, never a shell."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.sources.children import run_child
from neuromill.sources.locking import exclusive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

SCHEMES = ("https", "http", "file")
_REMOTE = "origin"
_OID = re.compile(r"[0-9a-f]{40}")
_WANTS_PER_FETCH = 20_000
# What servers and git itself say where partial or shallow clones are not to be had.
_NO_PARTIAL = re.compile(r"filter|shallow|not our ref|unadvertised object|dumb http", re.IGNORECASE)
_NOT_FOUND = re.compile(r"not found|does not exist|does not appear to be a git repository|could not read Username")


class GitError(Exception):
    """A git command that failed; holds what it said."""


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One line of ``git ls-tree``; ``size`` is None for a submodule or where it was not asked for."""

    mode: str
    oid: str
    size: int | None
    path: bytes

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return self.mode == "120000"

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.mode.startswith("100")


@dataclass(frozen=True, slots=True)
class GitMirror:
    """Bare repository in ``folder`` that mirrors some references of ``url``."""

    folder: Path
    url: str

    def refs(self) -> frozenset[str]:
        """Full names of the references the server has now."""
        lines = self._remote("ls-remote", "--refs", "--", self.url, in_mirror=False).decode().splitlines()
        return frozenset(line.partition("\t")[2] for line in lines)

    def has(self, ref: str) -> bool:
        """Whether the mirror holds this reference."""
        return self.folder.is_dir() and self._try("rev-parse", "--verify", "--quiet", ref + "^{commit}") is not None

    def commit(self, ref: str) -> str:
        """Commit a reference points to."""
        return self._run("rev-parse", "--verify", "--quiet", ref + "^{commit}").decode().strip()

    def update(self, refs: Sequence[str]) -> None:
        """Fetch ``refs`` at depth 1 without blobs; with them where the server knows no filters."""
        with exclusive(self.folder.with_suffix(".lock")) as lock:
            try:
                self._fetch(lock, refs, "--depth=1", "--filter=blob:none")
            except GitError as error:
                if not _NO_PARTIAL.search(str(error)):
                    raise _unreachable(self.url, error) from error
                self._start_over(lock, refs)

    def _start_over(self, lock: int, refs: Sequence[str]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self._fetch(lock, refs, "--depth=1")
        except GitError:
            self._remote("fetch", *self._fetch_options(), _REMOTE, *_refspecs(refs), lock=lock)

    def _fetch(self, lock: int, refs: Sequence[str], *options: str) -> None:
        if not self.folder.is_dir():
            self._init()
        self._break_stale_locks()
        self._run("fetch", *self._fetch_options(), *options, _REMOTE, *_refspecs(refs), network=True, lock=lock)

    def _break_stale_locks(self) -> None:
        """Remove what a killed git left.

        Our own lock is held, and a git that writes here inherits it: none of ours is at work, not even one that
        outlived the process which started it.
        """
        for lock in [*self.folder.glob("*.lock"), *self.folder.glob("refs/**/*.lock")]:
            lock.unlink(missing_ok=True)

    @staticmethod
    def _fetch_options() -> tuple[str, ...]:
        return ("--quiet", "--no-tags", "--no-auto-maintenance", "--no-write-fetch-head", "--recurse-submodules=no")

    def _init(self) -> None:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        new = self.folder.with_suffix(f".new-{os.getpid()}")
        shutil.rmtree(new, ignore_errors=True)
        _call(["init", "--quiet", "--bare", "--template=", str(new)])
        _call(["-C", str(new), "remote", "add", _REMOTE, self.url])
        new.rename(self.folder)

    def tree(self, ref: str, *, sizes: bool = False) -> tuple[TreeEntry, ...]:
        """All entries below a reference; sizes need the blobs, so these are fetched first, in one request."""
        if sizes:
            self.prefetch(ref)
        listing = self._run("ls-tree", "-r", "-z", "--full-tree", *(["-l"] if sizes else []), ref + "^{tree}")
        return tuple(_entry(line) for line in listing.split(b"\0") if line)

    def prefetch(self, ref: str, wanted: Iterable[str] | None = None) -> None:
        """Bring the blobs of a reference that the mirror lacks (only those in ``wanted``, if given)."""
        lines = self._run("rev-list", "--objects", "--no-object-names", "--missing=print", ref).decode().split()
        missing = {line[1:] for line in lines if line.startswith("?")}
        wants = sorted(missing if wanted is None else missing & set(wanted))
        with exclusive(self.folder.with_suffix(".lock")) as lock:
            for start in range(0, len(wants), _WANTS_PER_FETCH):
                text = "\n".join(wants[start : start + _WANTS_PER_FETCH]) + "\n"
                # The options of git's own lazy fetch; that one asks for one blob at a time.
                options = ("-c", "fetch.negotiationAlgorithm=noop", "fetch", *self._fetch_options())
                self._remote(*options, "--filter=blob:none", "--stdin", _REMOTE, feed=text.encode(), lock=lock)

    def blobs(self, oids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Contents of blobs, through one ``git cat-file --batch``."""
        for oid in oids:
            if not _OID.fullmatch(oid):
                raise RecordingError(FailureCode.UNREADABLE, "not a git object name", where=repr(oid))
        output = self._remote("cat-file", "--batch", feed="".join(oid + "\n" for oid in oids).encode())
        position = 0
        for oid in oids:
            end = output.index(b"\n", position)
            header = output[position:end].split()
            if header[1:2] != [b"blob"]:
                raise RecordingError(FailureCode.UNREACHABLE_UPSTREAM, "git object is missing", where=oid)
            size = int(header[2])
            yield oid, output[end + 1 : end + 1 + size]
            position = end + size + 2

    def _remote(self, *arguments: str, feed: bytes = b"", in_mirror: bool = True, lock: int | None = None) -> bytes:
        try:
            return self._run(*arguments, feed=feed, network=True, in_mirror=in_mirror, lock=lock)
        except GitError as error:
            raise _unreachable(self.url, error) from error

    def _try(self, *arguments: str) -> bytes | None:
        try:
            return self._run(*arguments)
        except GitError:
            return None

    def _run(
        self,
        *arguments: str,
        feed: bytes = b"",
        network: bool = False,
        in_mirror: bool = True,
        lock: int | None = None,
    ) -> bytes:
        place = ["--git-dir", str(self.folder)] if in_mirror else []
        scheme = urlsplit(self.url).scheme
        # Only the address's own protocol, and never one that runs a program (ext::, ssh).
        protocol = ["-c", f"protocol.{scheme}.allow=always"] if network and scheme in SCHEMES else []
        return _call([*protocol, *place, *arguments], feed=feed, holding=() if lock is None else (lock,))


def _refspecs(refs: Sequence[str]) -> list[str]:
    return [f"+{ref}:{ref}" for ref in refs]


def _entry(line: bytes) -> TreeEntry:
    meta, _, path = line.partition(b"\t")
    mode, _, oid, *size = meta.decode().split()
    return TreeEntry(mode, oid, int(size[0]) if size and size[0] != "-" else None, path)


def _call(arguments: Sequence[str], *, feed: bytes = b"", holding: Sequence[int] = ()) -> bytes:
    settings = (
        "protocol.allow=never",
        f"core.hooksPath={os.devnull}",
        "core.fsmonitor=false",
        "credential.helper=",
        "http.lowSpeedLimit=1000",
        "http.lowSpeedTime=60",
        "gc.auto=0",
    )
    command = ["git", *(word for setting in settings for word in ("-c", setting)), *arguments]
    try:
        done = run_child(command, feed=feed, env=_environment(), holding=holding)
    except FileNotFoundError as error:
        raise ConfigError("the program git is not installed", next_step="install git 2.36 or newer") from error
    if done.returncode:
        raise GitError(done.stderr.decode(errors="replace").strip() or f"git ended with {done.returncode}")
    return done.stdout


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "LC_ALL": "C"}


def _unreachable(url: str, error: GitError) -> RecordingError:
    said = str(error).splitlines()
    missing = _NOT_FOUND.search(str(error))
    return RecordingError(
        FailureCode.UNREACHABLE_UPSTREAM,
        f"git cannot read the dataset's mirror: {said[-1] if said else 'no reason given'}",
        where=url,
        next_step="check the dataset's id" if missing else "check the network and try again",
    )
