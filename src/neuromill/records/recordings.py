"""The nouns: a dataset version, a recording in it, the files it is made of."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Self

from neuromill.records.failures import FailureCode, RecordingError

if TYPE_CHECKING:
    from neuromill.records.digests import Digest

ENTITIES = (
    "subject", "session", "task", "acquisition", "run", "processing", "recording", "space", "split", "description",
)  # fmt: skip
MAX_NAME_BYTES = 200
_NAME = re.compile(r"[\w][\w.+=,@-]*")


class FileState(StrEnum):
    """Whether the archive can still hand a file out."""

    AVAILABLE = "available"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """One pinned version of one dataset; as text ``ds004078@1.2.1``."""

    dataset: str
    version: str

    def __post_init__(self) -> None:
        check_name(self.dataset)
        check_name(self.version)

    def __str__(self) -> str:
        return f"{self.dataset}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read back ``str(version)``."""
        dataset, _, version = text.partition("@")
        return cls(dataset, version)


@dataclass(frozen=True, slots=True)
class RecordingId:
    """One recording of one dataset version; ``name`` is a safe file name, unique in the version."""

    dataset: str
    version: str
    name: str

    def __post_init__(self) -> None:
        for part in (self.dataset, self.version, self.name):
            check_name(part)

    def __str__(self) -> str:
        return f"{self.dataset}@{self.version}/{self.name}"

    @property
    def dataset_version(self) -> DatasetVersion:
        """The dataset version it belongs to."""
        return DatasetVersion(self.dataset, self.version)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a snapshot, before it is fetched.

    ``locator`` is the source's own address of exactly these bytes (object version, git blob); only the source
    that wrote it reads it. ``digest`` is None where the archive publishes none.
    """

    path: str
    size: int
    digest: Digest | None = None
    locator: str = ""
    state: FileState = FileState.AVAILABLE

    def __post_init__(self) -> None:
        check_relative_path(self.path)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every file of one dataset version, sorted by path."""

    dataset_version: DatasetVersion
    files: tuple[SourceFile, ...]
    revision: str = ""  # git commit, or whatever else pins the listing


@dataclass(frozen=True, slots=True)
class Entities:
    """BIDS entities under their long names; labels are strings ("01", never 1), "" where absent."""

    subject: str = ""
    session: str = ""
    task: str = ""
    acquisition: str = ""
    run: str = ""
    processing: str = ""
    recording: str = ""
    space: str = ""
    split: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """One row of the recording index.

    ``path`` is the file or folder a reader opens; ``members`` are all files it needs (every part of a split FIF,
    every file of a CTF folder, the markers of a KIT run, the sidecars that apply). Numbers are what the sidecars
    say before anything is fetched, None where they say nothing; the card may state the line frequency in their place.
    ``layout`` is the digest of the card's ``SpikeLayout`` where one says how the file is read.
    """

    id: RecordingId
    path: str
    members: tuple[SourceFile, ...]
    entities: Entities = field(default_factory=Entities)
    datatype: str = ""
    suffix: str = ""
    format: str = ""  # fif, ctf, kit, bti, edf, bdf, brainvision, eeglab, nwb, mat
    n_channels: int | None = None
    sfreq: float | None = None
    duration_seconds: float | None = None
    line_freq: float | None = None
    layout: str = ""

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(member.size for member in self.members)

    @property
    def input_digest(self) -> str:
        """SHA-256 over the members' paths, sizes and digests, line frequency and layout: changes when the input does.

        The last two may come from the card, that is from outside the members: a notch filter and a reader use them.
        """
        from neuromill.records.digests import Digest, canonical_json

        rows = [[m.path, m.size, str(m.digest or m.locator)] for m in sorted(self.members, key=lambda m: m.path)]
        outside = {"line_freq": self.line_freq} | ({"layout": self.layout} if self.layout else {})
        return Digest.of(canonical_json({**outside, "members": rows})).hex


def check_name(name: str) -> str:
    """Return ``name`` if it can safely be one path component everywhere, else raise ``hostile_name``."""
    ok = _NAME.fullmatch(name) and len(name.encode()) <= MAX_NAME_BYTES and ".." not in name
    if not ok or unicodedata.normalize("NFC", name) != name:
        raise RecordingError(
            FailureCode.HOSTILE_NAME, "name cannot be used as a file name", where=repr(name), next_step="rename it"
        )
    return name


def check_relative_path(path: str) -> str:
    """Return ``path`` if it stays below its root and has no control characters, else raise ``hostile_name``."""
    parts = path.split("/")
    bad = any(part in ("", ".", "..") for part in parts) or any(ord(c) < ord(" ") for c in path) or "\\" in path
    if bad or len(path.encode()) > 4 * MAX_NAME_BYTES:
        raise RecordingError(
            FailureCode.HOSTILE_NAME, "path leaves its folder or holds control characters", where=repr(path)
        )
    return path


def safe_name(path: str) -> str:
    """Turn a relative path into a recording name: separators and blanks become ``-``, Unicode is NFC."""
    text = unicodedata.normalize("NFC", path).replace("/", "__")
    return check_name(re.sub(r"[^\w.+=,@-]", "-", text).strip("-."))
