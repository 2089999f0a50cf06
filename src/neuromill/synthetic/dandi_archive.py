"""A small read-only stand-in of the DANDI archive on loopback: its API and its bucket in one server.

It answers what the ``dandi`` client asks when it lists, reads metadata and downloads: dandisets, versions, paged
assets (also with their metadata), one asset, the files of a Zarr asset, and blobs with ``Range`` and ``If-Match``. Its
links lead to the address the client used, as a web framework makes them, so it also works behind a proxy.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit
from uuid import NAMESPACE_URL, uuid5

from neuromill.records import Digest, new_hasher

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    Body = bytes | Path | Mapping[str, bytes]

PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
_PIECE_BYTES = 16 << 20
_MOMENT = "2026-01-01T00:00:00Z"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_T = TypeVar("_T")
_UUID = r"[0-9a-f-]{36}"


@dataclass(frozen=True, slots=True)
class ServedAsset:
    """One asset: a blob (bytes, or a file that is read when it is asked for) or a Zarr (bytes by key).

    ``digest`` is what its metadata says; ``body`` is None for an asset that is listed but cannot be downloaded.
    """

    asset_id: str
    path: str
    size: int
    content_id: str
    digest: Mapping[str, str]
    body: bytes | Path | Mapping[str, bytes] | None

    @classmethod
    def of(cls, place: str, path: str, body: Body) -> Self:
        """Make an asset of a file; ``place`` is the dandiset's version. The same content gives the same ids."""
        if isinstance(body, Mapping):
            size, digest = sum(map(len, body.values())), {"dandi:dandi-zarr-checksum": _zarr_checksum(body)}
        else:
            size = body.stat().st_size if isinstance(body, Path) else len(body)
            digest = {"dandi:dandi-etag": _hex(body, size, "dandi-etag"), "dandi:sha2-256": _hex(body, size, "sha256")}
        mark = "|".join(digest.values())
        asset = str(uuid5(NAMESPACE_URL, f"{place}|{path}|{mark}"))
        return cls(asset, path, size, str(uuid5(NAMESPACE_URL, mark)), digest, body)

    @property
    def is_zarr(self) -> bool:
        """Whether it is a Zarr."""
        return isinstance(self.body, Mapping)

    def row(self) -> dict[str, Any]:
        """Return its row of a listing."""
        kinds = {"blob": None, "zarr": self.content_id} if self.is_zarr else {"blob": self.content_id, "zarr": None}
        dates = {"created": _MOMENT, "modified": _MOMENT}
        return {"asset_id": self.asset_id, **kinds, "path": self.path, "size": self.size, **dates}

    def metadata(self, site: str) -> dict[str, Any]:
        """Return its metadata, with the addresses of its content."""
        download = f"{site}/api/assets/{self.asset_id}/download/"
        place = f"{site}/zarr/{self.content_id}/" if self.is_zarr else f"{site}/blobs/{self.content_id}"
        return {
            "schemaKey": "Asset",
            "schemaVersion": "0.7.0",
            "id": f"dandiasset:{self.asset_id}",
            "identifier": self.asset_id,
            "path": self.path,
            "contentSize": self.size,
            "contentUrl": [download, place],
            "encodingFormat": "application/x-zarr" if self.is_zarr else "application/x-nwb",
            "digest": dict(self.digest),
            "access": [{"schemaKey": "AccessRequirements", "status": "dandi:OpenAccess"}],
            "dateModified": _MOMENT,
            "blobDateModified": _MOMENT,
        }


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked; ``site`` is the server's address as the client knows it, header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    site: str

    def link(self, **changes: object) -> str:
        """Return the address of this request with other parameters."""
        return f"{self.site}{quote(self.path)}?{urlencode({**self.query, **changes})}"


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered; Content-Length is added."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @classmethod
    def of_json(cls, value: object, status: int = 200) -> Self:
        """Answer a JSON value."""
        return cls(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


_NOT_FOUND = Response.of_json({"detail": "Not found."}, 404)
_NOT_AUTHENTICATED = Response.of_json({"detail": "Authentication credentials were not provided."}, 401)


@dataclass
class DandiArchive:
    """The archive; a context manager that serves on a free port of loopback.

    Parameters
    ----------
    content
        Files by path, by version, by dandiset: ``{"000999": {"0.260101.0000": {"sub-1/sub-1.nwb": b"..."}}}``. The
        version ``draft`` is that of the last version where it is not given.
    embargoed
        Dandisets that answer 401.

    Attributes
    ----------
    assets
        What is served, by dandiset and version; may be changed while it serves.
    requests
        Method and path with parameters of every request, in order.
    """

    content: Mapping[str, Mapping[str, Mapping[str, Body]]]
    embargoed: Collection[str] = ()
    assets: dict[str, dict[str, list[ServedAsset]]] = field(default_factory=dict, init=False)
    requests: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        for dandiset, versions in self.content.items():
            for version, files in versions.items():
                self.add(dandiset, version, [ServedAsset.of(dandiset, path, body) for path, body in files.items()])

    def add(self, dandiset: str, version: str, assets: Sequence[ServedAsset]) -> None:
        """Serve a version, in place of one of this name."""
        versions = self.assets.setdefault(dandiset, {})
        versions[version] = sorted(assets, key=lambda asset: asset.path)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"archive": self}))
        self._server.block_on_close = False  # a client may keep its connection
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """Port it listens on."""
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        """Address of the API, as ``Endpoints.dandi_url`` takes it."""
        return f"http://127.0.0.1:{self.port}/api"

    def respond(self, request: Request) -> Response:
        """Answer one request; tests that need a misbehaving archive wrap this."""
        for pattern, answer in _ROUTES.items():
            if match := re.fullmatch(pattern, request.path):
                try:
                    return answer(self, request, **match.groupdict())
                except LookupError:
                    break
        return _NOT_FOUND

    def _all_assets(self) -> Iterator[ServedAsset]:
        for dandiset, versions in self.assets.items():
            if dandiset not in self.embargoed:
                for assets in versions.values():
                    yield from assets

    def _asset(self, asset: str) -> ServedAsset:
        return _first(found for found in self._all_assets() if found.asset_id == asset)

    def _versions(self, dandiset: str) -> dict[str, list[ServedAsset]]:
        versions = self.assets[dandiset]
        return versions if "draft" in versions else {**versions, "draft": list(versions.values())[-1]}

    def _version(self, dandiset: str, version: str) -> dict[str, Any]:
        assets = self._versions(dandiset)[version]
        return {
            "version": version,
            "name": f"dandiset {dandiset}",
            "asset_count": len(assets),
            "active_uploads": 0,
            "size": sum(asset.size for asset in assets),
            "status": "Valid" if version == "draft" else "Published",
            "created": _MOMENT,
            "modified": _MOMENT,
        }

    def _dandiset(self, dandiset: str) -> dict[str, Any]:
        versions = self._versions(dandiset)
        newest = max((version for version in versions if version != "draft"), default=None)
        return {
            "identifier": dandiset,
            "created": _MOMENT,
            "modified": _MOMENT,
            "contact_person": "",
            "embargo_status": "OPEN",
            "star_count": 0,
            "is_starred": False,
            "most_recent_published_version": newest and self._version(dandiset, newest),
            "draft_version": self._version(dandiset, "draft"),
        }

    def get_info(self, request: Request) -> Response:
        """Answer the handshake."""
        services = {name: {"url": request.site} for name in ("webui", "jupyterhub")} | {
            "api": {"url": f"{request.site}/api"}
        }
        about = {"instance_name": "STANDIN", "instance_identifier": None, "instance_url": request.site}
        return Response.of_json(
            {
                "schema_version": "0.7.0",
                "schema_url": "",
                "version": "stand-in",
                "cli-minimal-version": "0.60.0",
                "cli-bad-versions": [],
                "services": services,
                "instance_config": about | {"doi_prefix": None, "licenses": []},
            }
        )

    def get_dandisets(self, request: Request) -> Response:
        """List or search dandisets."""
        text = request.query.get("search", "").lower()
        found = [name for name in sorted(self.assets) if name not in self.embargoed and text in f"dandiset {name}"]
        return _page(request, [self._dandiset(name) for name in found])

    def get_dandiset(self, request: Request, dandiset: str, rest: str) -> Response:
        """Answer for one dandiset and its versions, unless it is under embargo."""
        if dandiset in self.embargoed:
            return _NOT_AUTHENTICATED
        versions = self._versions(dandiset)
        if rest == "":
            return Response.of_json(self._dandiset(dandiset))
        if rest == "versions/":
            return _page(request, [self._version(dandiset, version) for version in versions])
        version, _, rest = rest.removeprefix("versions/").partition("/")
        assets = versions[version]
        if rest == "info/":
            nothing: dict[str, Any] = {"asset_validation_errors": [], "version_validation_errors": [], "metadata": {}}
            return Response.of_json(self._version(dandiset, version) | nothing)
        if rest == "assets/":
            return self._list_assets(request, assets)
        about = {"id": f"DANDI:{dandiset}/{version}", "identifier": f"DANDI:{dandiset}", "version": version}
        return Response.of_json(about | {"schemaKey": "Dandiset"}) if rest == "" else _NOT_FOUND

    def _list_assets(self, request: Request, assets: Sequence[ServedAsset]) -> Response:
        prefix, pattern = request.query.get("path", ""), request.query.get("glob", "*")
        found = [a for a in assets if a.path.startswith(prefix) and fnmatchcase(a.path, pattern)]
        full = request.query.get("metadata", "").lower() in ("1", "true")
        rows = [a.row() | ({"metadata": a.metadata(request.site)} if full else {}) for a in found]
        return _page(request, rows)

    def get_asset(self, request: Request, asset: str, rest: str) -> Response:
        """Answer an asset's metadata, or lead to its content."""
        found = self._asset(asset)
        if rest == "":
            return Response.of_json(found.metadata(request.site))
        if rest == "info/":
            return Response.of_json(found.row() | {"metadata": found.metadata(request.site)})
        if found.is_zarr:
            return Response.of_json("Unable to provide download link for zarr assets.", 400)
        return Response(302, {"Location": f"{request.site}/blobs/{found.content_id}"})

    def get_zarr_files(self, request: Request, zarr: str) -> Response:
        """List the files of a Zarr asset, or lead to one of them."""
        body = self._zarr(zarr)
        prefix, after = request.query.get("prefix", ""), request.query.get("after", "")
        if request.query.get("download", "").lower() in ("1", "true"):
            return Response(302, {"Location": f"{request.site}/zarr/{zarr}/{quote(prefix)}"})
        keys = [key for key in sorted(body) if key.startswith(prefix) and key > after]
        shown = keys[: min(int(request.query.get("limit", MAX_PAGE_SIZE)), MAX_PAGE_SIZE)]
        rows = [
            {"Key": key, "LastModified": _MOMENT, "ETag": Digest.of(body[key], "md5").hex, "Size": len(body[key])}
            for key in shown
        ]
        return Response.of_json(
            {"next": request.link(after=shown[-1]) if len(keys) > len(shown) else None, "results": rows}
        )

    def get_zarr_object(self, request: Request, zarr: str, key: str) -> Response:
        """Answer one object of a Zarr asset."""
        content = self._zarr(zarr)[key]
        return _object(request, content, len(content), Digest.of(content, "md5").hex)

    def get_blob(self, request: Request, blob: str) -> Response:
        """Answer a blob, or a range of it."""
        found = _first(a for a in self._all_assets() if a.content_id == blob)
        if found.body is None or isinstance(found.body, Mapping):
            return _NOT_FOUND
        return _object(request, found.body, found.size, found.digest.get("dandi:dandi-etag", ""))

    def _zarr(self, zarr: str) -> Mapping[str, bytes]:
        bodies = (a.body for a in self._all_assets() if a.content_id == zarr)
        return _first(body for body in bodies if isinstance(body, Mapping))


_ROUTES: dict[str, Callable[..., Response]] = {
    r"/api/info/": DandiArchive.get_info,
    r"/api/dandisets/": DandiArchive.get_dandisets,
    rf"/api/(?:dandisets/.*/)?assets/(?P<asset>{_UUID})/(?P<rest>|info/|download/)": DandiArchive.get_asset,
    r"/api/dandisets/(?P<dandiset>\d{6})/(?P<rest>.*)": DandiArchive.get_dandiset,
    rf"/api/zarr/(?P<zarr>{_UUID})/files/?": DandiArchive.get_zarr_files,
    rf"/zarr/(?P<zarr>{_UUID})/(?P<key>.+)": DandiArchive.get_zarr_object,
    rf"/blobs/(?P<blob>{_UUID})": DandiArchive.get_blob,
}


class _Handler(BaseHTTPRequestHandler):
    archive: DandiArchive
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that has read enough hangs up
            super().handle()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        site = f"http://{headers.get('host', '')}"
        request = Request(self.command, unquote(parts.path), dict(parse_qsl(parts.query)), headers, site)
        self.archive.requests.append(f"{self.command} {self.path}")
        self._send(self.archive.respond(request))

    do_HEAD = do_GET  # noqa: N815  # the name is the server's

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in {"Content-Length": str(len(response.body)), **response.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(response.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _page(request: Request, rows: Sequence[Mapping[str, Any]]) -> Response:
    size = min(int(request.query.get("page_size", PAGE_SIZE)), MAX_PAGE_SIZE)
    page = int(request.query.get("page", 1))
    shown = rows[(page - 1) * size : page * size]
    if not shown and page > 1:
        return _NOT_FOUND
    return Response.of_json(
        {
            "count": len(rows) if page == 1 else None,
            "next": request.link(page=page + 1) if page * size < len(rows) else None,
            "previous": request.link(page=page - 1) if page > 1 else None,
            "results": shown,
        }
    )


def _object(request: Request, body: bytes | Path, size: int, etag: str) -> Response:
    """Answer as a bucket does."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": f'"{etag}"'}
    if request.headers.get("if-match", headers["ETag"]) != headers["ETag"]:
        return Response(412, {})
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None:
        return Response(200, headers, _part(body, 0, size))
    start, stop = int(match[1]), min(int(match[2] or size) + 1, size)
    if start >= size:
        return Response(416, {"Content-Range": f"bytes */{size}"})
    return Response(206, headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}, _part(body, start, stop))


def _part(body: bytes | Path, start: int, stop: int) -> bytes:
    if not isinstance(body, Path):
        return body[start:stop]
    with body.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _hex(body: bytes | Path, size: int, algorithm: str) -> str:
    hasher = new_hasher(algorithm, size)
    for start in range(0, size, _PIECE_BYTES):
        hasher.update(_part(body, start, start + _PIECE_BYTES))
    return hasher.hexdigest()


def _first(found: Iterator[_T]) -> _T:
    for item in found:
        return item
    raise LookupError


def _zarr_checksum(body: Mapping[str, bytes]) -> str:
    from zarr_checksum.tree import ZarrChecksumTree

    tree = ZarrChecksumTree()
    for key, content in body.items():
        tree.add_leaf(Path(key), len(content), Digest.of(content, "md5").hex)
    return str(tree.process())
