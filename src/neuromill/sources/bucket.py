"""A public, versioned bucket: an S3 address read anonymously, or a folder in its place.

Folder layout behind a ``file://`` address: ``<folder>/<object version>/<key>``; objects without a version lie under
``null``, S3's own name for "no version".
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, unquote, urlsplit

from neuromill.records import FailureCode, RecordingError, check_name, check_relative_path
from neuromill.sources.download import Download, Wanted, digest_of, mismatch, publish

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuromill.records import Digest, SourceFile
    from neuromill.sources.attempts import Patience

UNVERSIONED = "null"


@dataclass(frozen=True, slots=True)
class ObjectAddress:
    """One object version; as text ``s3:<version>#<key>``, the spelling git-annex uses. Version "" is the newest."""

    version: str
    key: str

    def __post_init__(self) -> None:
        check_relative_path(self.key)

    def __str__(self) -> str:
        return f"s3:{self.version}#{self.key}"

    @classmethod
    def parse(cls, locator: str) -> Self:
        """Read back ``str(address)``."""
        version, _, key = locator.removeprefix("s3:").partition("#")
        return cls(version, key)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket's address (path style: ``https://host/bucket``) or ``file:///folder``."""

    url: str
    patience: Patience
    sleep: Callable[[float], None] = field(default=time.sleep, compare=False, repr=False)

    def address_url(self, address: ObjectAddress) -> str:
        """Public URL of one object version, quoted once."""
        version = f"?versionId={quote(address.version, safe='')}" if address.version else ""
        return f"{self.url.rstrip('/')}/{quote(address.key)}{version}"

    def place(self, address: ObjectAddress) -> Path | None:
        """Path of the object where the bucket is a folder, else None."""
        parts = urlsplit(self.url)
        if parts.scheme != "file":
            return None
        return Path(unquote(parts.path), check_name(address.version or UNVERSIONED), address.key)

    def fetch(self, file: SourceFile, to: Path, progress: Callable[[int], None] | None) -> Digest:
        """Bring one object to ``to``; see ``protocol.Source.fetch``."""
        address = ObjectAddress.parse(file.locator)
        if (place := self.place(address)) is not None:
            return copy_file(place, file, to, progress)
        wanted = Wanted(self.address_url(address), file.size, file.digest)
        return Download(wanted, to, patience=self.patience, sleep=self.sleep, progress=progress).run()


def copy_file(place: Path, file: SourceFile, to: Path, progress: Callable[[int], None] | None) -> Digest:
    """Copy a file of this machine to ``to`` as a download would: size and digest checked, then renamed."""
    if not place.is_file():
        raise RecordingError(FailureCode.UNREACHABLE_UPSTREAM, "the file is not there", where=str(place))
    if (size := place.stat().st_size) != file.size:
        raise RecordingError(
            FailureCode.CHANGED_UPSTREAM,
            f"it has {size} bytes, the manifest says {file.size}",
            where=str(place),
            next_step="refresh the catalog and plan again",
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(to.name + ".part")
    shutil.copyfile(place, part)
    digest = digest_of(part, file.digest)
    if file.digest and digest != file.digest:
        part.unlink()
        raise mismatch(file.digest, digest, str(place))
    publish(part, to)
    if progress:
        progress(file.size)
    return digest
