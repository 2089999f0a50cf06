"""``neuromill shards``: what is published, and whether it is whole."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads the annotations
from typing import TYPE_CHECKING, Any

from cyclopts import App

from neuromill.cli.options import Common
from neuromill.cli.output import duration, print_json, print_table, say, size

if TYPE_CHECKING:
    from neuromill.stages.looking import StoreSummary

shards = App(name="shards", help="Published stores: ls, inspect, verify.")
COMMON = Common()
DAMAGED = 4
LONG = frozenset({
    "channel_names", "channel_types", "channel_coils", "channel_units", "event_descriptions",
    "unit_names", "unit_electrodes", "unit_arrays", "unit_areas", "unit_is_sorted", "trial_columns",
})  # fmt: skip
"""Attributes with a value for each channel, unit, event or trial: `--json` shows them."""


def register(app: App) -> None:
    """Add the verbs of this file."""
    app.command(shards)


@shards.command
def ls(*, common: Common = COMMON) -> None:
    """List the stores of the home folder; a damaged group is told and not counted."""
    from neuromill.stages.looking import list_stores, require_home

    stores = list_stores(require_home(common.workspace()))
    if common.json:
        print_json([_summary(store) for store in stores])
        return
    rows = [
        (
            s.dataset_version,
            s.stage,
            s.identity,
            s.n_recordings,
            _width(s),
            f"{s.hours:.2f}",
            size(s.n_bytes),
            "yes" if s.indexed else "no",
            f"{len(s.damaged)} damaged" if s.damaged else "",
        )
        for s in stores
    ]
    print_table(
        "", ("dataset", "stage", "identity", "recordings", "of each", "hours", "bytes", "indexed", "problem"), rows
    )
    for store in stores:
        for problem in store.damaged:
            say(f"{store.dataset_version} {store.stage} {store.identity} {problem}")


@shards.command
def inspect(group: Path, /, *, common: Common = COMMON) -> None:
    """Show one published group: length, channels or units, arrays, chunks, bytes, attributes.

    Parameters
    ----------
    group
        Path of a RECORDING.zarr folder.
    """
    from neuromill.records import ConfigError
    from neuromill.stages.looking import describe_columns, seconds_of
    from neuromill.store.contents import MAIN_ARRAYS
    from neuromill.store.verify import inspect_group

    if group.suffix != ".zarr" or not group.is_dir():
        raise ConfigError("no such group", where=str(group), next_step="give the path of a RECORDING.zarr folder")
    summary = inspect_group(group.parent, group.name.removesuffix(".zarr"))
    arrays = [
        (a.name, " x ".join(a.dims), " x ".join(map(str, a.shape)), a.dtype, a.chunk_rows, a.n_shards, a.n_bytes)
        for a in summary.arrays
    ]
    n_rows = next(a.shape[0] for a in summary.arrays if a.name == MAIN_ARRAYS[summary.kind])
    seconds, width = seconds_of(summary.kind, n_rows, summary.attributes), describe_columns(summary.attributes)
    columns = ("array", "dims", "shape", "dtype", "chunk rows", "shards", "bytes")
    if common.json:
        named = [dict(zip(columns, row, strict=True)) for row in arrays]
        print_json({
            "group": str(group), "kind": summary.kind, "seconds": seconds, "columns": width,
            "arrays": named, "attributes": dict(summary.attributes),
        })  # fmt: skip
        return
    print_table(str(group), columns, arrays)
    say(f"{duration(seconds)} of {width}")
    shown = [(name, value) for name, value in summary.attributes.items() if name not in LONG]
    print_table("", ("attribute", "value"), shown)


@shards.command
def verify(*stores: Path, common: Common = COMMON) -> None:
    """Check every file of stores against their manifests; exit code 4 where something is damaged.

    Parameters
    ----------
    stores
        Folders of store identities; without any, every store of the home folder.
    """
    from neuromill.records import ConfigError
    from neuromill.stages.looking import require_home, store_folders
    from neuromill.store.layout import INDEX_FILE
    from neuromill.store.verify import list_groups, verify_store

    for folder in stores:
        if not folder.is_dir() or not (list_groups(folder) or (folder / INDEX_FILE).is_file()):
            raise ConfigError(
                "no store is here", where=str(folder), next_step="`neuromill shards ls --json` tells the folders"
            )
    folders = stores or store_folders(require_home(common.workspace()))
    found = {folder: verify_store(folder) for folder in folders}
    problems = [
        {"store": str(folder), "group": p.recording, "file": p.file, "kind": p.kind.value, "detail": p.detail}
        for folder, ps in found.items()
        for p in ps
    ]
    if common.json:
        print_json({"stores": [str(folder) for folder in folders], "problems": problems})
    else:
        for problem in problems:
            say(" ".join(str(value) for value in problem.values()))
        say(f"{len(folders)} stores, {len(problems)} problems")
    if problems:
        sys.exit(DAMAGED)


def _width(store: StoreSummary) -> str:
    fewest, most = store.n_columns
    number = str(most) if fewest == most else f"{fewest}-{most}"
    return f"{number} {store.columns}" if store.kind else ""


def _summary(store: StoreSummary) -> dict[str, Any]:
    return {
        "dataset": store.dataset_version,
        "stage": store.stage,
        "identity": store.identity,
        "folder": str(store.folder),
        "kind": store.kind,
        "recordings": store.n_recordings,
        store.columns: list(store.n_columns),
        "hours": round(store.hours, 4),
        "bytes": store.n_bytes,
        "indexed": store.indexed,
        "damaged": list(store.damaged),
    }
