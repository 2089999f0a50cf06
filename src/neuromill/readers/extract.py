"""The part of an NWB file that a layout needs, as a small HDF5 file of its own.

For files too large to fetch (raw voltage, pictures) and for Zarr stores: what ``open_nwb`` would read is copied array
by array, in blocks, under the same paths, so that the copy opens exactly as the whole does.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.readers.complaints import too_large
from neuromill.readers.nwb_behaviour import declared, series_below, why_not
from neuromill.readers.nwb_trials import TIMES, column_names
from neuromill.readers.nwb_units import ELECTRODES, PREFIX
from neuromill.readers.trees import MAX_READ_BYTES, join
from neuromill.records import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from neuromill.readers.trees import Tree
    from neuromill.records import SpikeLayout, UnitsLayout

# Part of the name of every kept extract: raise it with any change to what is copied, or old extracts stay in use.
EXTRACT_CODE = "1"
BLOCK_BYTES = 8 * 2**20
FACTS = (
    "nwb_version", "session_description", "session_start_time", "timestamps_reference_time", "identifier",
    "general/session_id",
)  # fmt: skip
WHOLE = ("general/subject", "general/devices")
SERIES = ("data", "timestamps", "starting_time")
UNIT_COLUMNS = ("id", "spike_times", "obs_intervals", "electrodes", "electrode_group", *SERIES)
ELECTRODE_COLUMNS = ("id", "group_name", "location")
MAX_ATTRIBUTE_BYTES = 32 * 1024  # HDF5 keeps attributes of up to 64 KiB beside their object


def extract_nwb(source: Tree, layout: SpikeLayout, to: Path) -> None:
    """Copy what a layout needs into an HDF5 file that ``open_nwb`` reads as it reads the source.

    Parameters
    ----------
    source
        An open tree: ``open_hdf5(file, where)`` over a path or any seekable file object, ``open_zarr(store, where)``
        over any store of objects. It stays open.
    layout
        Of the ``nwb`` format.
    to
        The file to write; it appears whole or not at all.

    Raises
    ------
    RecordingError
        ``missing_member``, ``unreadable`` or ``unsupported_format`` where the source is damaged. What the source lacks
        is not copied, and opening the copy says so.
    ConfigError
        For a layout of another format.
    """
    import h5py

    if layout.format != "nwb":
        raise ConfigError(f"only NWB is read in part, not {layout.format}", next_step="fetch the file whole")
    partial = to.with_name(f"{to.name}.partial")
    try:
        with h5py.File(partial, "w") as file:
            _copy_attributes(source, "", file)
            for path in dict.fromkeys(needed(source, layout)):
                _copy(source, path, file)
        os.replace(partial, to)  # noqa: PTH105 - one atomic step
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def needed(tree: Tree, layout: SpikeLayout) -> Iterator[str]:
    """Paths of the groups and arrays that a layout needs, so far as the tree has them."""
    yield from FACTS
    for group in WHOLE:
        yield group
        for name in tree.children(group):
            yield join(group, name)
    yield from _of_units(tree, layout.units)
    if layout.trials is not None:
        conditions = [one.column for one in (layout.trials.success, layout.trials.discard) if one]
        for name in (*TIMES, *conditions, *column_names(tree, layout.trials)):
            yield join(layout.trials.path, name)
    for one in declared(tree, layout):
        for path in series_below(tree, one.path.strip("/")):
            if layout.covariates != "auto" or not why_not(tree, path):
                yield from (join(path, part) for part in SERIES)
    for mask in layout.masks:
        yield mask.path.strip("/")
        if tree.kind(mask.path) == "group":
            yield from (join(mask.path, part) for part in SERIES)


def _of_units(tree: Tree, layout: UnitsLayout) -> Iterator[str]:
    yield layout.path.strip("/")
    named = [layout.sorted_column, layout.area_column, layout.array_column, *(one.column for one in layout.keep)]
    own = [name for name in named if name and not name.startswith(PREFIX)]
    for name in (*UNIT_COLUMNS, *own):
        yield join(layout.path, name)
        yield f"{join(layout.path, name)}_index"
    table = str(tree.attributes(join(layout.path, "electrodes")).get("table") or ELECTRODES).strip("/")
    yield table
    for name in (*ELECTRODE_COLUMNS, *(name.removeprefix(PREFIX) for name in named if name.startswith(PREFIX))):
        yield join(table, name)


def _copy(tree: Tree, path: str, file: Any) -> None:
    kind = tree.kind(path)
    if not kind or path in file:
        return
    parts = path.split("/")
    for depth in range(1, len(parts) + (kind == "group")):
        above = "/".join(parts[:depth])
        if above not in file:
            file.create_group(above)
            _copy_attributes(tree, above, file[above])
    if kind == "array" and _copy_array(tree, path, file):
        _copy_attributes(tree, path, file[path])


def _copy_array(tree: Tree, path: str, file: Any) -> bool:
    """Copy an array block by block; False for one that is stored in a way that is not read."""
    import h5py

    array = tree.array(path)
    if array.values == "other":
        return False
    if array.values in ("text", "reference"):
        file.create_dataset(path, data=array.read(), dtype=h5py.string_dtype())
        return True
    if not array.shape:
        file.create_dataset(path, data=array.read())
        return True
    row_bytes = 8 * int(np.prod(array.shape[1:], dtype=np.int64))
    step = max(array.chunk_rows, BLOCK_BYTES // max(1, row_bytes), 1)
    block = array.read(0, step)
    size = int(block.dtype.itemsize) * math.prod(array.shape)
    if size > MAX_READ_BYTES:  # a sparse array would become a full one
        raise too_large(f"{path} would take {size / 2**30:.1f} GiB of an extract", tree.where)
    copy = file.create_dataset(path, shape=array.shape, dtype=block.dtype)
    copy[: len(block)] = block
    for start in range(step, array.shape[0], step):
        copy[start : start + step] = array.read(start, start + step)
    return True


def _copy_attributes(tree: Tree, path: str, node: Any) -> None:
    for name, value in tree.attributes(path).items():
        plain = isinstance(value, str | bool | int | float | np.ndarray) or (isinstance(value, tuple) and value)
        size = len(value.encode()) if isinstance(value, str) else np.asarray(value).nbytes
        if plain and not name.startswith(".") and size <= MAX_ATTRIBUTE_BYTES:
            node.attrs[name] = value
