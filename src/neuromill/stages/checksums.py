"""Checksums that a folder of recordings brings along: SHA256SUMS, as ``sha256sum`` writes it and PhysioNet ships it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from neuromill.records import FailureCode, RecordingError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from neuromill.records import Recording

NAMES = ("SHA256SUMS", "SHA256SUMS.txt")
MAX_BYTES = 256 * 2**20
_LINE = re.compile(r"(?P<sum>[0-9a-fA-F]{64})[ \t]+\*?(?:\./)?(?P<path>.+?)\s*")


def require_stated_sums(folder: Path | None, recording: Recording) -> None:
    """Compare the files of a recording with the checksums that its folder states; files it does not list pass.

    Raises
    ------
    RecordingError
        ``digest_mismatch``: the folder states another digest for one of them.
    """
    if folder is None:
        return
    for name in NAMES:
        path = folder / name
        if path.is_file() and (size := path.stat().st_size) <= MAX_BYTES:
            _compare(recording, name, _stated(path, size, path.stat().st_mtime_ns))


def _compare(recording: Recording, name: str, stated: Mapping[str, str]) -> None:
    for member in recording.members:
        digest, wanted = member.digest, stated.get(member.path)
        if wanted is not None and digest is not None and digest.algorithm == "sha256" and digest.hex != wanted:
            raise RecordingError(
                FailureCode.DIGEST_MISMATCH,
                f"{name} states sha256 {wanted[:12]}..., the file has {digest.hex[:12]}...",
                where=member.path,
                next_step=f"fetch the file again; where the file is right, correct {name}",
            )


@lru_cache(maxsize=8)
def _stated(path: Path, size: int, mtime_ns: int) -> Mapping[str, str]:  # noqa: ARG001 - a file that changed is read again
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = (_LINE.fullmatch(line) for line in lines)
    return {match["path"]: match["sum"].lower() for match in found if match}
