"""Digests of content and identities of work."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALGORITHMS = ("md5", "sha1", "sha256", "git-sha1", "dandi-etag")
IDENTITY_HEX_DIGITS = 16
DANDI_PART_BYTES = 64 << 20
DANDI_MAX_PARTS = 10_000


class Hasher(Protocol):
    """What ``hashlib`` objects have in common."""

    def update(self, data: bytes, /) -> None: ...  # noqa: D102
    def hexdigest(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content digest that says its algorithm.

    ``git-sha1`` is git's blob id, which also covers the size; ``dandi-etag`` is the ETag of DANDI's multipart uploads.
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"unknown digest algorithm {self.algorithm!r}")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read back ``str(digest)``; raises ValueError for anything else."""
        algorithm, _, hexdigits = text.partition(":")
        return cls(algorithm, hexdigits)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Self:
        """Digest of bytes in memory."""
        hasher = new_hasher(algorithm, len(data))
        hasher.update(data)
        return cls(algorithm, hasher.hexdigest())


def new_hasher(algorithm: str, size: int) -> Hasher:
    """Return a fresh hasher for content of ``size`` bytes (git's blob id and DANDI's ETag need the size first)."""
    if algorithm == "git-sha1":
        hasher = hashlib.sha1(usedforsecurity=False)
        hasher.update(b"blob %d\0" % size)
        return hasher
    if algorithm == "dandi-etag":
        return _DandiEtagHasher(size)
    return hashlib.new(algorithm, usedforsecurity=False)


class _DandiEtagHasher:
    """MD5 over the MD5s of parts of equal size, and the number of parts.

    A part has 64 MiB, or a 10 000th of the size where that would make 10 000 parts or more (the limit of S3).
    """

    def __init__(self, size: int) -> None:
        parts = -(-size // DANDI_PART_BYTES)
        self._part_size = DANDI_PART_BYTES if parts < DANDI_MAX_PARTS else -(-size // DANDI_MAX_PARTS)
        self._digests: list[bytes] = []
        self._part, self._room = hashlib.md5(usedforsecurity=False), self._part_size

    def update(self, data: bytes, /) -> None:
        rest = memoryview(data)
        while rest:
            piece, rest = rest[: self._room], rest[self._room :]
            self._part.update(piece)
            self._room -= len(piece)
            if not self._room:
                self._digests.append(self._part.digest())
                self._part, self._room = hashlib.md5(usedforsecurity=False), self._part_size

    def hexdigest(self) -> str:
        digests = self._digests + ([self._part.digest()] if self._room < self._part_size else [])
        return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN: the one text that stands for a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def identity(
    stage: str,
    *,
    config: Mapping[str, Any],
    code_versions: Mapping[str, str],
    inputs: Sequence[str] = (),
) -> str:
    """Name of a piece of work: same identity, same bytes.

    Made of the non-default fields of the pipeline that matter to the stage, the code version of each step
    used, and the digests or identities of what goes in. 16 hex digits (64 bits) of SHA-256.
    """
    document = {"stage": stage, "config": config, "code": code_versions, "inputs": sorted(inputs)}
    return hashlib.sha256(canonical_json(document)).hexdigest()[:IDENTITY_HEX_DIGITS]
