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


class Hasher(Protocol):
    """What ``hashlib`` objects have in common."""

    def update(self, data: bytes, /) -> None: ...  # noqa: D102
    def hexdigest(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A content digest that says its algorithm. ``git-sha1`` is git's blob id, which also covers the size."""

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
    """Return a fresh hasher for content of ``size`` bytes (git's blob id needs the size first)."""
    if algorithm == "git-sha1":
        hasher = hashlib.sha1(usedforsecurity=False)
        hasher.update(b"blob %d\0" % size)
        return hasher
    return hashlib.new(algorithm, usedforsecurity=False)


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
