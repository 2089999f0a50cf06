"""Which source serves an archive, and where its servers are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import field_validator

from neuromill.records import Config, ConfigError, check_name
from neuromill.sources.attempts import Patience
from neuromill.sources.bucket import Bucket
from neuromill.sources.dandi import DandiSource
from neuromill.sources.git import SCHEMES
from neuromill.sources.local import LocalSource
from neuromill.sources.openneuro import OpenNeuroSource

if TYPE_CHECKING:
    from neuromill.sources.protocol import Source

ARCHIVES = ("openneuro", "local", "dandi")


class Endpoints(Config):
    """Addresses of the archives, so that a stand-in can serve, and where sources keep what they learnt.

    Attributes
    ----------
    git_url
        Git mirror of one OpenNeuro dataset; ``{dataset}`` is replaced.
    bucket_url
        OpenNeuro's public bucket, path style, or ``file:///folder`` (layout: ``sources.bucket``).
    dandi_url
        Address of DANDI's API, or of one that answers like it.
    local_folder
        The folder the archive ``local`` reads.
    cache_folder
        Git mirrors and remembered digests (of files, of assets).
    """

    git_url: str = "https://github.com/OpenNeuroDatasets/{dataset}.git"
    bucket_url: str = "https://s3.amazonaws.com/openneuro.org"
    dandi_url: str = "https://api.dandiarchive.org/api"
    local_folder: Path | None = None
    cache_folder: Path = Path("~/.cache/neuromill/sources")
    patience: Patience = Patience()

    @field_validator("git_url", "bucket_url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if urlsplit(url).scheme not in SCHEMES:
            raise ValueError(f"the address must begin with one of {', '.join(SCHEMES)}")
        return url

    @field_validator("dandi_url")
    @classmethod
    def _over_http(cls, url: str) -> str:
        if urlsplit(url).scheme not in ("https", "http"):
            raise ValueError("the address must begin with https or http")
        return url


def open_source(archive: str, dataset: str, endpoints: Endpoints) -> Source:
    """Open ``dataset`` of ``archive`` (``openneuro``, ``dandi`` or ``local``); nothing is asked or read yet.

    Raises
    ------
    ConfigError
        Unknown archive, ``local`` without a folder, or a dandiset that is not six digits.
    RecordingError
        ``hostile_name`` for a dataset id that cannot be a folder name.
    """
    check_name(dataset)
    cache = endpoints.cache_folder.expanduser()
    if archive == "openneuro":
        url = endpoints.git_url.replace("{dataset}", dataset)
        return OpenNeuroSource(dataset, url, Bucket(endpoints.bucket_url, endpoints.patience), cache / "git")
    if archive == "dandi":
        return DandiSource(dataset, endpoints.dandi_url, cache / "dandi", endpoints.patience)
    if archive == "local":
        if endpoints.local_folder is None:
            raise ConfigError("the archive `local` needs a folder", next_step="give --data FOLDER")
        return LocalSource(dataset, endpoints.local_folder.expanduser(), cache / "local")
    raise ConfigError(
        f"no source for the archive {archive!r}", next_step=f"use one of {', '.join(ARCHIVES)} in the card"
    )
