"""Writes what OpenNeuro serves for one snapshot: a git repository with annex keys, and a folder of objects.

Some large files are annex links, some are pointer files, as in the archive; the ``git-annex`` branch names the
object version of each. The repository is written with one ``git fast-import``, dates fixed, so the commit is the same
every time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from neuromill.records import ConfigError, Digest, check_name, new_hasher

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_REMOTE = "8f4e7a52-6c1b-4c07-9d43-0d5c2f0a9001"  # uuid of the public bucket in the git-annex branch
_WHEN = 1_577_836_800  # 2020-01-01
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SnapshotPlace:
    """Where a snapshot is, or will be: ``git/<dataset>.git`` and ``objects`` below a folder."""

    folder: Path
    dataset: str
    version: str

    def __post_init__(self) -> None:
        check_name(self.dataset)
        check_name(self.version)

    @property
    def repository(self) -> Path:
        """Written last, and whole or not at all: where it is, the snapshot is."""
        return self.folder / "git" / f"{self.dataset}.git"

    @property
    def objects(self) -> Path:
        """Large files by object version."""
        return self.folder / "objects"

    @property
    def git_url(self) -> str:
        """Address a source takes, with ``{dataset}`` for the name."""
        return self.folder.resolve().as_uri() + "/git/{dataset}.git"

    @property
    def bucket_url(self) -> str:
        """Address a source takes."""
        return self.folder.resolve().as_uri() + "/objects"


@dataclass
class SnapshotWriter:
    """Collects small files, takes large ones into the object folder, then writes the repository.

    Objects are laid out ``<object version>/<dataset>/<path>``, as a ``file://`` bucket address expects.

    Raises
    ------
    ConfigError
        The place holds a snapshot already.
    """

    place: SnapshotPlace
    _tree: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    _logs: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.place.repository.exists():
            raise ConfigError(
                "a snapshot is there already", where=str(self.place.folder), next_step="choose an empty folder"
            )

    def small(self, path: str, content: bytes) -> None:
        """Add a file that git keeps itself."""
        self._tree[path] = ("100644", content)

    def large(self, path: str, content: Path, *, algorithm: str, pointer: bool) -> None:
        """Move a file into the object folder and put its key into the tree, as a link or as a pointer file."""
        digest = _digest(content, algorithm)
        suffix = content.suffix
        key = f"{algorithm.upper()}E-s{content.stat().st_size}--{digest.hex}{suffix}"
        object_version = digest.hex[:24]
        kept = self.place.objects / object_version / self.place.dataset / path
        kept.parent.mkdir(parents=True, exist_ok=True)
        content.replace(kept)
        if pointer:
            self.small(path, f"/annex/objects/{key}\n".encode())
        else:
            target = "../" * path.count("/") + f".git/annex/objects/{_log_folder(key)}/{key}/{key}"
            self._tree[path] = ("120000", target.encode())
        stated = f"{_WHEN}s {_REMOTE}:V +{object_version}#{self.place.dataset}/{path}\n"
        self._logs[f"{_log_folder(key)}/{key}.log.rmet"] = stated.encode()
        self._logs[f"{_log_folder(key)}/{key}.log"] = f"{_WHEN}s 1 {_REMOTE}\n".encode()

    def write(self) -> None:
        """Write the bare repository: branch ``main``, branch ``git-annex``, tag of the version."""
        settings = f"type=S3 bucket=openneuro.org exporttree=yes versioning=yes fileprefix={self.place.dataset}/"
        logs = self._logs | {"remote.log": f"{_REMOTE} name=s3-PUBLIC {settings} timestamp={_WHEN}s\n".encode()}
        stream = _commit("main", self._tree) + _commit(
            "git-annex", {path: ("100644", log) for path, log in logs.items()}
        )
        stream += f"reset refs/tags/{self.place.version}\nfrom refs/heads/main\n\n".encode()
        repository = self.place.repository
        started = repository.with_name(f".{repository.name}.partial")
        shutil.rmtree(started, ignore_errors=True)  # of a process that was killed
        started.parent.mkdir(parents=True, exist_ok=True)
        _git("init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(started))
        _git("-C", str(started), "config", "uploadpack.allowFilter", "true")
        _git("-C", str(started), "fast-import", "--quiet", feed=stream)
        started.rename(repository)


def _commit(branch: str, tree: Mapping[str, tuple[str, bytes]]) -> bytes:
    message = b"Synthetic snapshot\n"
    head = f"commit refs/heads/{branch}\ncommitter NeuroMill <demo@localhost> {_WHEN} +0000\ndata {len(message)}\n"
    parts = [head.encode() + message]
    for path, (mode, content) in sorted(tree.items()):
        parts.append(f"M {mode} inline {path}\ndata {len(content)}\n".encode() + content + b"\n")
    return b"".join(parts) + b"\n"


def _log_folder(key: str) -> str:
    digest = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    return f"{digest[:3]}/{digest[3:6]}"


def _digest(path: Path, algorithm: str) -> Digest:
    hasher = new_hasher(algorithm, path.stat().st_size)
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return Digest(algorithm, hasher.hexdigest())


def _git(*arguments: str, feed: bytes = b"") -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # The user's settings (signing, default branches, hooks) must not change the bytes.
    environment = kept | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    try:
        subprocess.run(["git", *arguments], input=feed, capture_output=True, check=True, env=environment)
    except FileNotFoundError as error:
        raise ConfigError("the program git is not installed", next_step="install git 2.36 or newer") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise ConfigError(f"git cannot write the snapshot: {said}", next_step="choose another folder") from error
