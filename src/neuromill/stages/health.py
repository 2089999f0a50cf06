"""``neuromill doctor``: what a run needs and whether it is there."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from neuromill.records import NeuroMillError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from neuromill.stages.workspace import Workspace

ASKED = {"openneuro": "ds004078", "dandi": "000140"}  # small listings
GIB = 2**30
LEAST_FREE_BYTES = 5 * GIB
LEAST_FREE_INODES = 100_000
# Bounds that the resolver cannot know; each was found by running (docs/decisions/0001-versions.md).
BOUNDS = {"sqlalchemy": ((2, 0), (2, 1)), "fastapi": ((0, 139), (0, 151)), "zarr": ((3, 1), (3, 1, 6))}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check, what was found, what to do where it is not ok."""

    check: str
    ok: bool
    found: str
    next_step: str = ""


def check_health(workspace: Workspace, *, network: bool = False) -> tuple[Finding, ...]:
    """Run every check; ``network`` also asks each archive for the listing of one dataset."""
    return tuple(_checks(workspace, network=network))


def _checks(workspace: Workspace, *, network: bool) -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), python, "use Python 3.11 or newer")
    yield from (_check_bound(name, *bounds) for name, bounds in BOUNDS.items())
    yield _check_torch()
    git = shutil.which("git")
    yield Finding("git", git is not None, git or "not found", "install git: snapshots are listed from git mirrors")
    yield from _check_disk(_existing(workspace.home))
    yield _check_ledger(workspace)
    if network:
        yield from (_check_archive(workspace, archive, dataset) for archive, dataset in ASKED.items())


def _check_bound(package: str, least: tuple[int, ...], below: tuple[int, ...]) -> Finding:
    words = f">={'.'.join(map(str, least))},<{'.'.join(map(str, below))}"
    try:
        found = version(package)
    except PackageNotFoundError:
        return Finding(package, ok=False, found="not installed", next_step=f"pip install '{package}{words}'")
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    return Finding(package, least <= numbers < below, found, f"pip install '{package}{words}'")


def _check_torch() -> Finding:
    import torch

    place = f"{torch.cuda.device_count()} GPU" if torch.cuda.is_available() else "CPU only"
    return Finding("torch", ok=True, found=f"{torch.__version__}, {place}")


def _check_disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    step = "free some, or put the home elsewhere with --home"
    yield Finding("disk", free >= LEAST_FREE_BYTES, f"{free / GIB:.0f} GiB free at {folder}", step)
    inodes = os.statvfs(folder).f_favail
    unlimited = os.statvfs(folder).f_files == 0
    yield Finding("inodes", unlimited or inodes >= LEAST_FREE_INODES, "unlimited" if unlimited else f"{inodes}", step)


def _check_ledger(workspace: Workspace) -> Finding:
    if not workspace.settings.ledger_url and not (workspace.home / "ledger.sqlite").is_file():
        return Finding("ledger", ok=True, found="no ledger yet")  # to open it would create it
    try:
        counts = workspace.ledger.counts()
    except NeuroMillError as error:
        return Finding("ledger", ok=False, found=error.what, next_step=error.next_step)
    return Finding("ledger", ok=True, found=f"{counts.found} = {counts.done} + {counts.failed} + {counts.waiting}")


def _check_archive(workspace: Workspace, archive: str, dataset: str) -> Finding:
    from neuromill.sources.opening import open_source

    endpoints = workspace.settings.endpoints.model_copy(update={"cache_folder": workspace.home / "cache" / "sources"})
    try:
        manifest = open_source(archive, dataset, endpoints).manifest()
    except NeuroMillError as error:
        return Finding(archive, ok=False, found=error.what, next_step="check the network, proxy and firewall")
    return Finding(archive, ok=True, found=f"{manifest.dataset_version}: {len(manifest.files)} files")


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())
