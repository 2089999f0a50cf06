"""DANDI: the listing from the archive's API, the bytes from its public bucket.

A published version never changes, and each of its assets has an id, a size and digests, so it is pinned as it is. A
draft does change: it is listed only when it is asked for by name, and ``draft-<digest>`` asks for one state of it.
"""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote
from uuid import UUID

from pydantic import BaseModel, ValidationError

from neuromill.records import (
    ConfigError,
    DatasetVersion,
    Digest,
    FailureCode,
    Manifest,
    RecordingError,
    SourceFile,
    canonical_json,
    check_name,
    check_relative_path,
)
from neuromill.sources.asset_digests import AssetDigests, KnownDigests
from neuromill.sources.download import Download, Wanted
from neuromill.sources.objects import ObjectEntry, ObjectStore, checksum_of, key_below
from neuromill.sources.protocol import Listing, Skipped
from neuromill.sources.remote import RangeReader, RemoteFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dandi.dandiapi import RemoteDandiset

    from neuromill.sources.attempts import Patience
    from neuromill.sources.dandi_client import PatientClient

DRAFT = "draft"
Kind = Literal["blob", "zarr"]
_DANDISET = re.compile(r"\d{6}")
_PINNED = re.compile(r"draft-([0-9a-f]{12,64})")
_LOCATOR = re.compile(
    r"dandi:(?P<asset>[0-9a-f-]{36})/(?P<kind>blob|zarr)/(?P<content>[0-9a-f-]{36})/(?P<mark>[0-9a-f-]*)"
)


@dataclass(frozen=True, slots=True)
class AssetAddress:
    """One asset and the very content behind it; as text ``dandi:<asset id>/blob/<blob id>/<dandi-etag>``.

    ``zarr`` and the Zarr checksum stand in place of ``blob`` and the ETag where the asset is a Zarr.
    """

    asset: str
    kind: Kind
    content: str
    mark: str

    def __str__(self) -> str:
        return f"dandi:{self.asset}/{self.kind}/{self.content}/{self.mark}"

    @classmethod
    def of(cls, file: SourceFile, kind: Kind) -> Self:
        """Read a file's locator; ``unsupported_format`` where it is not of this kind."""
        match = _LOCATOR.fullmatch(file.locator)
        if match is None:
            raise RecordingError(FailureCode.INTERNAL, "no locator of the archive dandi", where=file.locator)
        if match["kind"] != kind:
            what = (
                "a Zarr asset is many objects, not one file" if kind == "blob" else "the asset is one file, not a Zarr"
            )
            raise RecordingError(FailureCode.UNSUPPORTED_FORMAT, what, where=file.path)
        return cls(match["asset"], kind, match["content"], match["mark"])


@dataclass(frozen=True, slots=True)
class DandiSource:
    """One dandiset; ``folder`` keeps the digests of its assets between calls."""

    dataset: str
    api_url: str
    folder: Path
    patience: Patience
    sleep: Callable[[float], None] = field(default=time.sleep, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_url", self.api_url.rstrip("/"))
        if not _DANDISET.fullmatch(self.dataset):
            raise ConfigError(
                f"{self.dataset!r} is no dandiset", next_step="give its six digits, as in `dataset: '000128'`"
            )

    def manifest(self, version: str | None = None) -> Manifest:
        """See ``protocol.Source``."""
        return self.listing(version).manifest

    def listing(self, version: str | None = None) -> Listing:
        """See ``protocol.Source``; a Zarr asset is one file.

        Parameters
        ----------
        version
            A published version, None for the newest of them, ``draft``, or ``draft-<first digits of a revision>`` for
            the draft as it was.

        Raises
        ------
        ConfigError
            There is no such version, or nothing is published.
        RecordingError
            ``changed_upstream`` where a pinned draft is another one now.
        """
        pinned = _PINNED.fullmatch(version or "")
        with self._client() as client, _understood(self._page):
            found = self._find(client, DRAFT if pinned else version)
            assets = self._assets(client, found)
        made = [_source_file(asset) for asset in assets]
        files = tuple(sorted((file for file in made if isinstance(file, SourceFile)), key=lambda file: file.path))
        skipped = tuple(sorted((item for item in made if isinstance(item, Skipped)), key=lambda item: item.path))
        revision = _revision(files)
        if pinned and not revision.startswith(pinned[1]):
            raise RecordingError(
                FailureCode.CHANGED_UPSTREAM,
                f"the draft is not {version} any more, its manifest is {revision[:12]}",
                where=self._page,
                next_step=f"set `version: draft-{revision[:12]}` in the card, or take a published version",
            )
        named = DatasetVersion(self.dataset, version or found.version_id)
        return Listing(Manifest(named, files, revision=revision), skipped)

    def read(self, file: SourceFile) -> bytes:
        """See ``protocol.Source``."""
        with tempfile.TemporaryDirectory() as folder:
            self.fetch(file, Path(folder, "file"))
            return Path(folder, "file").read_bytes()

    def fetch(self, file: SourceFile, to: Path, *, progress: Callable[[int], None] | None = None) -> Digest:
        """See ``protocol.Source``; ``unsupported_format`` for a Zarr asset."""
        wanted = Wanted(self._download_url(AssetAddress.of(file, "blob")), file.size, file.digest)
        try:
            return Download(wanted, to, patience=self.patience, sleep=self.sleep, progress=progress).run()
        except RecordingError as error:
            if error.code is not FailureCode.UNREACHABLE_UPSTREAM:
                raise
            step = "refresh the catalog: the dandiset may have gone under embargo, or the asset out of the archive"
            raise RecordingError(error.code, error.what, where=f"{self._page}: {file.path}", next_step=step) from error

    def place(self, file: SourceFile) -> Path | None:  # noqa: ARG002
        """See ``protocol.Source``: always None, the archive is elsewhere."""
        return None

    def open_stream(self, file: SourceFile) -> RemoteFile:
        """Open a file in place: only what is read is transferred; ``unsupported_format`` for a Zarr asset."""
        address = AssetAddress.of(file, "blob")
        etag = f'"{address.mark}"' if address.mark else ""  # the bucket's ETag of a blob is its dandi-etag
        url = self._download_url(address)
        return RemoteFile(RangeReader(url, file.size, etag=etag, patience=self.patience, sleep=self.sleep))

    def open_objects(self, file: SourceFile) -> ObjectStore:
        """Open a Zarr asset: lists its objects, whose digests must add up to the checksum in the manifest.

        Raises
        ------
        RecordingError
            ``changed_upstream`` where they do not, ``unsupported_format`` where the asset is one file.
        """
        address = AssetAddress.of(file, "zarr")
        with self._client() as client, _understood(f"{self._page}: {file.path}"):
            asset = client.get_asset(address.asset)
            entries = {str(e): ObjectEntry.of_etag(e.size, e.digest.value) for e in asset.iterfiles()}
            addresses = [
                url for url in asset.get_raw_metadata().get("contentUrl", []) if not url.startswith(self.api_url)
            ]
        if (found := checksum_of(entries)) != address.mark:
            raise RecordingError(
                FailureCode.CHANGED_UPSTREAM,
                f"its checksum is {found}, the manifest says {address.mark}",
                where=f"{self._page}: {file.path}",
                next_step="refresh the catalog and plan again",
            )
        below = key_below(addresses[0]) if addresses else self._zarr_url(address)
        return ObjectStore(below, entries, patience=self.patience, sleep=self.sleep)

    @property
    def _page(self) -> str:
        return f"{self.api_url}/dandisets/{self.dataset}/"

    def _download_url(self, address: AssetAddress) -> str:
        return f"{self.api_url}/assets/{address.asset}/download/"

    def _zarr_url(self, address: AssetAddress) -> Callable[[str], str]:
        files = f"{self.api_url}/zarr/{address.content}/files/"
        return lambda key: f"{files}?prefix={quote(key, safe='')}&download=true"

    def _client(self) -> PatientClient:
        from neuromill.sources.dandi_client import PatientClient

        return PatientClient(self.api_url, self.patience, self.sleep)

    def _find(self, client: PatientClient, version: str | None) -> RemoteDandiset:
        from dandi.exceptions import NotFoundError

        dandiset = client.get_dandiset(self.dataset, lazy=False)
        if version is None and dandiset.most_recent_published_version is None:
            raise ConfigError(
                f"dandiset {self.dataset} has no published version",
                where=self._page,
                next_step="set `version: draft` in the card if its draft is wanted",
            )
        if version is None:
            return dandiset
        try:
            return dandiset.for_version(check_name(version))
        except NotFoundError as error:
            known = ", ".join(sorted(known.identifier for known in dandiset.get_versions())[-8:])
            raise ConfigError(
                f"dandiset {self.dataset} has no version {version}",
                where=self._page,
                next_step=f"choose one of its versions: {known}",
            ) from error

    def _assets(self, client: PatientClient, found: RemoteDandiset) -> list[_Asset | Skipped]:
        """List with the digests that are known here; with the metadata of all assets where one is not."""
        path = f"{found.version_api_path}assets/"
        with KnownDigests(self.folder / "assets.sqlite", self.api_url) as known:
            assets = _parse(client.paginate(path, params={"order": "path"}), known.of)
            if any(isinstance(asset, _Asset) and asset.digests is None for asset in assets):
                rows = client.paginate(path, params={"order": "path", "metadata": "true"})
                assets = _parse(rows, lambda _: None)
                fresh = [a for a in assets if isinstance(a, _Asset) and a.kind == "blob" and a.digests is not None]
                known.add({asset.id: asset.digests for asset in fresh if asset.digests})
        if len(assets) != found.version.asset_count:
            raise RecordingError(
                FailureCode.UNREACHABLE_UPSTREAM,
                f"the archive lists {len(assets)} of {found.version.asset_count} assets",
                where=self._page,
                next_step="list it again: it may have changed in the meantime",
            )
        return assets


class _Row(BaseModel):
    """What is read of a row of the archive's listing; names of files are judged later, one by one."""

    asset_id: UUID
    blob: UUID | None = None
    zarr: UUID | None = None
    path: Any
    size: int
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Asset:
    """One row of the archive's listing; ``digests`` is None where they are not known yet."""

    id: str
    path: str
    size: int
    kind: Kind
    content: str
    digests: AssetDigests | None

    @classmethod
    def of(cls, row: Mapping[str, Any], known: Callable[[str], AssetDigests | None]) -> Self:
        read = _Row.model_validate(row)
        asset = str(read.asset_id)
        kind: Kind = "zarr" if read.zarr else "blob"
        digests = AssetDigests.of(read.metadata) if read.metadata else known(asset)
        return cls(asset, str(read.path), read.size, kind, str(read.zarr or read.blob), digests)


def _parse(rows: Iterable[Mapping[str, Any]], known: Callable[[str], AssetDigests | None]) -> list[_Asset | Skipped]:
    """Read the rows of a listing; a second asset of the same path is left out."""
    seen: set[str] = set()
    made: list[_Asset | Skipped] = []
    for row in rows:
        asset = _Asset.of(row, known)
        again = asset.path in seen
        made.append(_skip(asset.path, FailureCode.HOSTILE_NAME, "another asset has this path") if again else asset)
        seen.add(asset.path)
    return made


def _source_file(asset: _Asset | Skipped) -> SourceFile | Skipped:
    if isinstance(asset, Skipped):
        return asset
    digests = asset.digests or AssetDigests()
    mark = digests.zarr_checksum if asset.kind == "zarr" else digests.etag
    if asset.size < 0 or (asset.kind == "zarr" and not mark):
        return _skip(asset.path, FailureCode.MISSING_FACT, "the archive does not say its checksum and size (yet)")
    locator = str(AssetAddress(asset.id, asset.kind, asset.content, mark))
    try:
        return SourceFile(check_relative_path(asset.path), asset.size, digests.best, locator)
    except (RecordingError, UnicodeEncodeError):
        return _skip(asset.path, FailureCode.HOSTILE_NAME, "its name cannot be used as a path")


def _skip(path: str, code: FailureCode, reason: str) -> Skipped:
    return Skipped(path if path.isprintable() else repr(path), code, reason)


def _revision(files: Iterable[SourceFile]) -> str:
    """Digest of the canonical manifest: paths, sizes, and which asset and content stands behind each.

    Without the SHA-256, which the archive computes some time after an upload.
    """
    return Digest.of(canonical_json([[file.path, file.size, file.locator] for file in files])).hex


@contextmanager
def _understood(where: str) -> Iterator[None]:
    """Say what an answer of the archive means that its client does not expect."""
    from dandi.exceptions import HTTP404Error, NotFoundError

    try:
        yield
    except (HTTP404Error, NotFoundError) as error:
        raise RecordingError(
            FailureCode.UNREACHABLE_UPSTREAM,
            "the archive has nothing of this id",
            where=where,
            next_step="check the dataset id in the card; what is under embargo is not shown",
        ) from error
    except ValidationError as error:
        raise RecordingError(
            FailureCode.UNREACHABLE_UPSTREAM,
            f"the archive's answer is not the one of a DANDI API: {error.error_count()} fields of a {error.title}",
            where=where,
            next_step="check `dandi_url` in the settings",
        ) from error
