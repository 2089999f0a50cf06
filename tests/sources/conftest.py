"""The stand-in for OpenNeuro, shared by the tests of this room."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from neuromill.sources.opening import Endpoints, open_source
from neuromill.sources.openneuro import OpenNeuroSource
from support.annexed import MirrorWriter, annex_key, rmet_line
from support.patience import FAST
from support.s3 import PublicBucket, public_bucket

DATASET = "ds000042"


@dataclass
class StandIn:
    """A dataset on disk and in the bucket, and a source that reads it."""

    folder: Path
    bucket: PublicBucket
    mirror: MirrorWriter

    def store(self, path: str, content: bytes, *, pointer: bool = False, algorithm: str = "md5") -> tuple[str, str]:
        """Put a large file into the bucket and into the tree; returns its key and its version."""
        key = annex_key(content, path, algorithm)
        version = self.bucket.put(f"{DATASET}/{path}", content)
        self.mirror.annexed(path, key, pointer=pointer)
        self.mirror.stored(key, rmet_line(f"{DATASET}/{path}", version))
        return key, version

    def open(self, *, port: int | None = None, filters: bool = True) -> OpenNeuroSource:
        url = self.mirror.write(self.folder / "upstream", filters=filters)
        endpoints = Endpoints(
            git_url=url.replace(DATASET, "{dataset}"),
            bucket_url=self.bucket.url_through(port) if port else self.bucket.url,
            cache_folder=self.folder / "cache",
            patience=FAST,
        )
        source = open_source("openneuro", DATASET, endpoints)
        assert isinstance(source, OpenNeuroSource)
        return source


@pytest.fixture(scope="session")
def bucket() -> Iterator[PublicBucket]:
    with public_bucket() as opened:
        yield opened


@pytest.fixture
def stand_in(tmp_path: Path, bucket: PublicBucket) -> StandIn:
    (tmp_path / "upstream").mkdir()
    return StandIn(tmp_path, bucket, MirrorWriter(DATASET))


@pytest.fixture
def no_sleep() -> Callable[[float], None]:
    return lambda _: None
