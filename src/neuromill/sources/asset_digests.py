"""Digests that DANDI publishes with an asset, and those of them that are remembered on this machine."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from neuromill.records import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SHAPES = {
    "dandi:sha2-256": re.compile(r"[0-9a-f]{64}"),
    "dandi:dandi-etag": re.compile(r"[0-9a-f]{32}-\d{1,5}"),
    "dandi:dandi-zarr-checksum": re.compile(r"[0-9a-f]{32}-\d+--\d+"),
}


@dataclass(frozen=True, slots=True)
class AssetDigests:
    """What an asset's metadata says about its content; "" where it says nothing that has the shape of a digest."""

    sha256: str = ""
    etag: str = ""
    zarr_checksum: str = ""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Self:
        """Read them from an asset's metadata."""
        stated = metadata.get("digest") or {}
        values = (str(stated.get(key) or "") for key in _SHAPES)
        return cls(*(v if shape.fullmatch(v) else "" for v, shape in zip(values, _SHAPES.values(), strict=True)))

    @property
    def best(self) -> Digest | None:
        """SHA-256 where it is there (the archive computes it some time after an upload), else the dandi-etag."""
        if self.sha256:
            return Digest("sha256", self.sha256)
        return Digest("dandi-etag", self.etag) if self.etag else None


class KnownDigests:
    """Digests by asset id in an SQLite file. An asset of a blob is immutable, so what is known stays true.

    Parameters
    ----------
    path
        The file; its folder is made.
    api_url
        Archive the ids belong to.
    """

    def __init__(self, path: Path, api_url: str) -> None:
        self._path, self._api_url = path, api_url

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(self._path, timeout=60.0, isolation_level=None)
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS assets "
            "(api TEXT, id TEXT, sha256 TEXT, etag TEXT, PRIMARY KEY (api, id)) WITHOUT ROWID"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def of(self, asset: str) -> AssetDigests | None:
        """Digests of an asset, None where they are not known."""
        row = self._connection.execute(
            "SELECT sha256, etag FROM assets WHERE api = ? AND id = ?", (self._api_url, asset)
        ).fetchone()
        return AssetDigests(*row) if row else None

    def add(self, digests: Mapping[str, AssetDigests]) -> None:
        """Remember digests by asset id; those that are not complete yet are left for the next time."""
        rows = [(self._api_url, asset, d.sha256, d.etag) for asset, d in digests.items() if d.sha256 and d.etag]
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR REPLACE INTO assets VALUES (?, ?, ?, ?)", rows)
        self._connection.execute("COMMIT")
