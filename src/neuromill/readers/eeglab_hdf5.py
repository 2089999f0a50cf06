"""EEGLAB ``.set`` files in MATLAB's version 7.3: the header goes to MNE as version 5, samples are read in place.

MNE 1.13 reads these files only through another library, and then holds a recording whose samples are inside the file
in memory as a whole. What it makes of names, positions and events is kept: the few fields it looks at are written as a
header of version 5 that lives as long as the opening takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.readers.complaints import missing, truncated, unreadable, unsupported
from neuromill.readers.mat_trees import EMPTY_ATTRIBUTE
from neuromill.readers.trees import SIGNATURE, join, open_hdf5, scalar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neuromill.readers.trees import Hdf5Array, Hdf5Tree

MATLAB_73 = b"MATLAB 7.3"
VOLTS = 1e-6  # EEGLAB holds microvolts
SIZES = ("nbchan", "pnts", "trials", "srate", "xmin", "xmax")
NEEDED = ("nbchan", "pnts", "srate")
LOCATION = ("labels", "type", "X", "Y", "Z")
FIDUCIAL = ("type", "description", "X", "Y", "Z")
EVENT = ("type", "latency", "duration")


def is_hdf5(path: Path) -> bool:
    """Whether a ``.set`` file says that it is of version 7.3, or is HDF5 without MATLAB's 512 bytes before it."""
    with path.open("rb") as file:
        return file.read(len(MATLAB_73)).startswith((MATLAB_73, SIGNATURE))


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedSamples:
    """Samples inside the file, [time, channel] as HDF5 has them; only what is asked for is read."""

    tree: Hdf5Tree
    array: Hdf5Array

    def read(self, rows: Sequence[int], start: int, stop: int) -> NDArray[np.float64]:
        """Samples ``start`` to ``stop`` of these channels in volts, float64 [channel, time]."""
        block = self.array.read(start, stop)[:, list(rows)]
        return np.ascontiguousarray(block.T, dtype=np.float64) * VOLTS

    def close(self) -> None:
        """Let go of the file."""
        self.tree.close()


@dataclass(frozen=True, slots=True, eq=False)
class EeglabHdf5:
    """An open ``.set`` file of version 7.3.

    Attributes
    ----------
    header
        What ``EEG`` holds beside the samples, as SciPy writes it.
    file
        Where the samples are: the ``.set`` file itself, or the ``.fdt`` beside it.
    samples
        What reads them where they are inside.
    note
        What the file says wrongly about the name of the ``.fdt``; "" where nothing.
    """

    header: dict[str, Any]
    file: Path
    samples: EmbeddedSamples | None
    note: str = ""

    def write_header(self, path: Path) -> None:
        """Write the header as version 5 whose samples are in ``file``."""
        import scipy.io

        scipy.io.savemat(path, {"EEG": self.header | {"data": str(self.file.absolute())}}, appendmat=False)

    def close(self) -> None:
        """Let go of the file."""
        if self.samples is not None:
            self.samples.close()


def open_eeglab_hdf5(path: Path, where: str) -> EeglabHdf5:
    """Read the header and find the samples.

    Raises
    ------
    RecordingError
        ``unreadable`` (not HDF5, no EEG structure, sizes that contradict each other, samples that are no real numbers),
        ``truncated`` (fewer samples than promised, file cut off), ``missing_member`` (no ``.fdt``),
        ``unsupported_format`` (samples in a ``.dat``).
    """
    tree = open_hdf5(path, where)
    keep = False
    try:
        found = _read(tree, path, where)
        keep = found.samples is not None
        return found
    finally:
        if not keep:
            tree.close()


def _read(tree: Hdf5Tree, path: Path, where: str) -> EeglabHdf5:
    root = "EEG" if tree.kind("EEG") == "group" else ""  # with `-struct` the fields lie at the root
    header = _header(tree, root, where)
    at = join(root, "data")
    if tree.kind(at) != "array":
        raise unreadable("no EEG.data in the file", where)
    array = tree.array(at)
    if _is_text(array):
        file, note = _beside(path, str(_value(array)), where)
        return EeglabHdf5(header, file, None, note)
    if header["trials"] == 1:  # pieces are refused by what reads the header
        _check_samples(array, header["pnts"], header["nbchan"], where)
    return EeglabHdf5(header, path, EmbeddedSamples(tree, array))


def _header(tree: Hdf5Tree, root: str, where: str) -> dict[str, Any]:
    header: dict[str, Any] = {"trials": 1}
    for name in SIZES:
        found = scalar(tree, join(root, name))
        if isinstance(found, int | float):
            header[name] = found
        elif name in NEEDED:
            raise unreadable(f"no EEG.{name} in the file, or no number", where)
    for name in ("nbchan", "pnts", "trials"):
        if not math.isfinite(header[name]) or header[name] != int(header[name]) or header[name] < 1:
            raise unreadable(f"EEG.{name} is {header[name]}", where)
        header[name] = int(header[name])
    if not 0 < header["srate"] < math.inf:
        raise unreadable(f"EEG.srate is {header['srate']}", where)
    header["chanlocs"] = _struct(tree, join(root, "chanlocs"), LOCATION)
    header["event"] = _struct(tree, join(root, "event"), EVENT)
    if header["chanlocs"].size not in (0, header["nbchan"]):
        raise unreadable(f"{header['chanlocs'].size} channel names, EEG.nbchan is {header['nbchan']}", where)
    fiducials = _struct(tree, join(root, "chaninfo/nodatchans"), FIDUCIAL)
    return header | ({"chaninfo": {"nodatchans": fiducials}} if fiducials.size else {})


def _check_samples(array: Hdf5Array, n_times: int, n_channels: int, where: str) -> None:
    if array.values != "number":
        raise unreadable("EEG.data holds no real numbers", where)
    if len(array.shape) != 2 or array.shape[1] != n_channels:  # noqa: PLR2004 - time and channel
        raise unreadable(f"EEG.data is {array.shape[::-1]}, promised are {n_channels} channels", where)
    if array.shape[0] < n_times:
        raise truncated(f"EEG.data has {array.shape[0]} samples per channel, promised are {n_times}", where)
    if array.shape[0] > n_times:
        raise unreadable(f"EEG.data has {array.shape[0]} samples per channel, EEG.pnts is {n_times}", where)


def _beside(path: Path, stated: str, where: str) -> tuple[Path, str]:
    """Return the ``.fdt``: by the name that is stated, never in another folder, else by the name of the ``.set``."""
    name = PureWindowsPath(stated).name  # takes both kinds of slashes
    if name.lower().endswith(".dat"):
        raise unsupported("EEGLAB samples in a .dat file", where, "save it again in EEGLAB with `pop_saveset`")
    own = path.with_suffix(".fdt")
    if name.lower().endswith(".fdt") and (path.parent / name).is_file():
        return path.parent / name, ""
    if own.is_file():
        return own, f"EEG.data names {name!r}, which is not there: {own.name} is used"
    raise missing(f"samples are neither in {name or own.name} nor in {own.name}", where)


def _struct(tree: Hdf5Tree, path: str, fields: tuple[str, ...]) -> NDArray[Any]:
    """Structure array [1, n] of those fields that are there; empty where there is none.

    MATLAB stores a structure array field by field as references, a single structure as its values.
    """
    if tree.kind(path) != "group":
        return np.zeros((0, 0))
    columns = {name: _column(tree, join(path, name)) for name in fields if tree.kind(join(path, name)) == "array"}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise unreadable(f"{path} has fields of {sorted(lengths)} elements", tree.where)
    table = np.empty((1, lengths.pop()), dtype=[(name, object) for name in columns])
    for name, column in columns.items():
        for i, value in enumerate(column):
            table[0, i][name] = value
    return table


def _column(tree: Hdf5Tree, path: str) -> list[Any]:
    array = tree.array(path)
    if array.values != "reference" or array.attribute("MATLAB_class") == "cell":
        return [_value(array)]
    return [_value(one) for one in array.referents()]


def _value(array: Hdf5Array | None) -> Any:
    """Text, a number, or an empty matrix for anything else. Whole numbers are ``int``: event 1 is "1", not "1.0"."""
    empty = np.zeros((0, 0))
    if array is None:
        return empty
    is_text = _is_text(array)
    if array.values != "number" or array.attribute(EMPTY_ATTRIBUTE):
        return "" if is_text else empty
    found = np.ravel(array.read())
    if is_text:
        return found.astype("<u2").tobytes().decode("utf-16-le", "replace")
    if found.size != 1:
        return empty
    number = float(found[0])
    return int(number) if number.is_integer() else number


def _is_text(array: Hdf5Array) -> bool:
    return bool(array.attribute("MATLAB_class") == "char")
