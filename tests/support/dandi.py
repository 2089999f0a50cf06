"""The stand-in of the DANDI archive, and ways it misbehaves."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from neuromill.synthetic.dandi_archive import DandiArchive, Request, Response, ServedAsset

Mangle = Callable[[Response], Response]


@dataclass
class FaultyArchive(DandiArchive):
    """``plan`` changes the answers about content (blobs, objects of a Zarr), one after the other, None leaves one."""

    plan: list[Mangle | None] = field(default_factory=list)

    def respond(self, request: Request) -> Response:
        response = super().respond(request)
        if request.path.startswith("/api/") or not self.plan:
            return response
        mangle = self.plan.pop(0)
        return mangle(response) if mangle else response


def status(code: int, **headers: str) -> Mangle:
    """Answer another status, with a body that must not become content."""
    return lambda _: Response(code, {name.replace("_", "-"): text for name, text in headers.items()}, b"<Error/>")


def header(name: str, text: str) -> Mangle:
    return lambda response: replace(response, headers={**response.headers, name: text})


def wrong_bytes(response: Response) -> Response:
    """Answer one flipped bit."""
    return replace(response, body=response.body[:-1] + bytes([response.body[-1] ^ 1]))


def short_body(response: Response) -> Response:
    """Declare and send one half of the body."""
    return replace(response, body=response.body[: len(response.body) // 2])


def cut_body(response: Response) -> Response:
    """Declare the body and send one half of it, then close."""
    extra = {"Content-Length": str(len(response.body)), "Connection": "close"}
    return replace(short_body(response), headers={**response.headers, **extra})


def real_assets(folder: Path) -> list[ServedAsset]:
    """Assets of a real dandiset from its bundled listing; they cannot be downloaded."""
    rows = json.loads((folder / "metadata" / "assets.json").read_text())
    return [ServedAsset(r["asset_id"], r["path"], r["size"], r["blob"], r["metadata"]["digest"], None) for r in rows]
