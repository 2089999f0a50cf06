"""The files of a recording: are they there, are they data, which of them are its sidecars."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from neuromill.readers.complaints import empty, missing, missing_fact, unsupported
from neuromill.readers.electrodes import ElectrodeTable
from neuromill.readers.sidecars import ChannelRow, read_channels, read_json

if TYPE_CHECKING:
    from neuromill.records import Recording

FORMATS = {
    ".fif": "fif", ".fif.gz": "fif", ".ds": "ctf", ".con": "kit", ".sqd": "kit", ".edf": "edf", ".bdf": "bdf",
    ".vhdr": "brainvision", ".set": "eeglab",
}  # fmt: skip
DATA_SUFFIXES = ("meg", "eeg", "ieeg")
POINTER_PREFIX, POINTER_MAX_BYTES = b"/annex/objects/", 32 * 1024  # git-annex never writes a longer pointer


@dataclass(frozen=True, slots=True)
class Sidecars:
    """What stands beside a recording.

    Merged JSON facts, channel rows, the raw ``events.tsv`` (None where absent), tables of electrodes in the order of
    preference.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    channels: tuple[ChannelRow, ...] = ()
    events: bytes | None = None
    electrodes: tuple[ElectrodeTable, ...] = ()


def format_of(recording: Recording) -> str:
    """Format of a recording: what the index says, else by the name of its main file; raises ``unsupported_format``."""
    if recording.format:
        return recording.format
    name = PurePosixPath(recording.path).name.lower()
    for ending, known in FORMATS.items():
        if name.endswith(ending):
            return known
    if any("config" in member.name for member in recording.members):
        return "bti"
    raise unsupported(f"no reader for {name}", recording.path, "convert it to a format that BIDS allows")


def check_members(recording: Recording, root: Path) -> None:
    """Check that all files of a recording are there and that its main file holds something.

    Raises
    ------
    RecordingError
        ``missing_member`` (absent, or a git-annex link or pointer whose content was never fetched), ``empty``
        (main file of 0 bytes).
    """
    for member in recording.members:
        check_file(root / member.path, member.path)
    main = root / recording.path
    if not main.exists():
        raise missing("the recording itself is not there", recording.path)
    if main.is_file():
        check_file(main, recording.path)
        if main.stat().st_size == 0:
            raise empty("file of 0 bytes", recording.path)


def check_subject(recording: Recording) -> None:
    """Raise ``missing_fact`` where folder and file name different subjects: its split by subject is unknown then."""
    folders = [part.removeprefix("sub-") for part in recording.path.split("/")[:-1] if part.startswith("sub-")]
    named, folder = recording.entities.subject, normalize("NFC", folders[0]) if folders else ""
    if named and folder and named != folder:
        raise missing_fact(f"the folder is of subject {folder}, the file of subject {named}", recording.path)


def check_file(path: Path, where: str) -> None:
    """Raise ``missing_member`` where a file is absent or only git-annex's stand-in for it is there."""
    if path.is_symlink() and not path.exists():
        raise missing("link to content that was never fetched", where)
    if not path.is_file():
        raise missing("file is not there", where)
    if path.stat().st_size <= POINTER_MAX_BYTES:
        with path.open("rb") as file:
            if file.read(len(POINTER_PREFIX)) == POINTER_PREFIX:
                raise missing("git-annex pointer in place of the content, which was never fetched", where)


def read_sidecars(recording: Recording, root: Path) -> Sidecars:
    """Read the sidecars among the members; of several that apply, the one nearest to the recording wins (BIDS)."""
    by_depth = sorted((member.path for member in recording.members), key=lambda path: (path.count("/"), len(path)))
    facts: dict[str, Any] = {}
    for path in by_depth:
        if is_data_json(path):
            facts |= read_json((root / path).read_bytes(), path)
    channels = [path for path in by_depth if ends_with(path, "channels.tsv")]
    events = [path for path in by_depth if ends_with(path, "events.tsv")]
    return Sidecars(
        facts,
        read_channels((root / channels[-1]).read_bytes(), channels[-1]) if channels else (),
        (root / events[-1]).read_bytes() if events else None,
        _electrodes(by_depth, root),
    )


def _electrodes(by_depth: list[str], root: Path) -> tuple[ElectrodeTable, ...]:
    """Tables of electrodes, that of no particular space first, each with the coordinate systems of its space."""
    nearest = {space_of(path): path for path in by_depth if ends_with(path, "electrodes.tsv")}
    systems = [path for path in by_depth if ends_with(path, "coordsystem.json")]
    return tuple(
        ElectrodeTable(
            PurePosixPath(path).name,
            (root / path).read_bytes(),
            tuple((root / one).read_bytes() for one in systems if space_of(one) == space),
        )
        for space, path in sorted(nearest.items())
    )


def space_of(path: str) -> str:
    """Coordinate space that a file name says (BIDS ``space-``), "" for none."""
    parts = PurePosixPath(path).name.split("_")
    return next((part.removeprefix("space-") for part in parts if part.startswith("space-")), "")


def is_data_json(path: str) -> bool:
    """Whether a path is the JSON sidecar of data (``..._meg.json``), at any level of the dataset."""
    return any(ends_with(path, f"{suffix}.json") for suffix in DATA_SUFFIXES)


def ends_with(path: str, ending: str) -> bool:
    """Whether the last part of a path is ``ending``, bare or after entities."""
    name = PurePosixPath(path).name
    return name == ending or name.endswith(f"_{ending}")
