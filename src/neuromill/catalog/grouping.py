"""Which files are one recording: split FIF, CTF folders, KIT runs, BTi, BrainVision and EEGLAB families."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from neuromill.records import FileState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from neuromill.records import SourceFile

FORMATS = {
    ".fif": "fif", ".fif.gz": "fif", ".con": "kit", ".sqd": "kit", ".edf": "edf", ".bdf": "bdf", ".vhdr": "brainvision",
    ".set": "eeglab", ".nwb": "nwb", ".nwb.zarr": "nwb",
}  # fmt: skip
SPIKE_FORMATS = FORMATS | {".mat": "mat"}  # elsewhere .mat is anything: results, montages, stimuli
PATTERN_FORMATS = {".rec": "edf"}  # only where a card's path pattern ends so: of TUEV it is a table of events
FOLDERS = {".ds": "ctf", ".mefd": "mefd", ".nwb.zarr": "nwb"}
WHOLE_EXTENSIONS = (".fif.gz", ".nwb.zarr")
MAX_HEADER_BYTES = 1_000_000
_DERIVED_FIF = re.compile(r"[-_](?:eve|epo|ave|cov|trans|fwd|inv|src|bem|ico|proj|ecg|eog|annot|ica)\.fif(?:\.gz)?$")
_MNE_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{1,3})(?P<ext>\.fif(?:\.gz)?)$")
_BIDS_PART = re.compile(r"_split-(?P<part>\d+)(?=_)")
_BTI_PDF = re.compile(r"(?:^|[_-])pdf(?:[_-]|$)|^[ce],rf", re.IGNORECASE)
_HEADER_LINK = re.compile(rb"^[ \t]*(DataFile|MarkerFile)[ \t]*=[ \t]*(.+?)[ \t\r]*$", re.MULTILINE)


@dataclass(slots=True)
class Group:
    """Files that are one recording: ``path`` is what a reader opens."""

    path: str
    format: str
    files: list[SourceFile] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # what should be there and is not

    @property
    def stem(self) -> str:
        """File name without extension and without the split entity."""
        name = PurePosixPath(self.path).name
        parent = PurePosixPath(self.path).parent.name
        if self.format == "bti" and parent.endswith("_meg"):
            return parent
        return _BIDS_PART.sub("", name[: len(name) - len(extension_of(name))])


def extension_of(name: str) -> str:
    """Extension as written, ``.fif.gz`` and ``.nwb.zarr`` in one piece."""
    whole = next((ending for ending in WHOLE_EXTENSIONS if name.lower().endswith(ending)), "")
    return name[-len(whole) :] if whole else PurePosixPath(name).suffix


def group_files(
    files: Iterable[SourceFile], read: Callable[[SourceFile], bytes], formats: Mapping[str, str] = FORMATS
) -> tuple[Group, ...]:
    """Find the recordings among files, sorted by path; files that belong to none are not mentioned.

    ``read`` is called for a BrainVision header whose companions do not bear its name, and for nothing else.
    ``formats`` names the format of an extension; an NWB-Zarr asset is one file in an archive, a folder on disk.
    """
    loose, groups = _take_folders(files)
    groups += _fif_families(loose)
    siblings = _by_folder(loose.values())
    for path, file in loose.items():
        kind = formats.get(extension_of(file.name).lower(), "")
        if not kind and _BTI_PDF.search(file.name) and _bti_config(file.name) in siblings[_folder(path)]:
            kind = "bti"
        if kind and kind != "fif":
            groups.append(_with_companions(Group(path, kind, [file]), siblings[_folder(path)], read))
    return tuple(sorted(groups, key=lambda group: group.path))


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _by_folder(files: Iterable[SourceFile]) -> dict[str, dict[str, SourceFile]]:
    folders: dict[str, dict[str, SourceFile]] = defaultdict(dict)
    for file in files:
        folders[_folder(file.path)][file.name] = file
    return folders


def _take_folders(files: Iterable[SourceFile]) -> tuple[dict[str, SourceFile], list[Group]]:
    """Put the files below ``.ds``, ``.mefd`` and ``.nwb.zarr`` folders into groups; everything else is loose."""
    loose: dict[str, SourceFile] = {}
    groups: dict[str, Group] = {}
    for file in sorted(files, key=lambda f: f.path):
        parts = file.path.split("/")
        kinds = [FOLDERS.get(extension_of(part).lower(), "") for part in parts[:-1]]
        if not any(kinds):
            loose[file.path] = file
            continue
        depth = next(i for i, kind in enumerate(kinds) if kind)
        folder = "/".join(parts[: depth + 1])
        groups.setdefault(folder, Group(folder, kinds[depth])).files.append(file)
    for folder, group in groups.items():
        if group.format == "ctf":
            present = {extension_of(file.name).lower() for file in group.files}
            group.missing += [f"{folder}/*{suffix}" for suffix in (".res4", ".meg4") if suffix not in present]
        elif group.format == "nwb" and not {f"{folder}/.zgroup", f"{folder}/zarr.json"} & {f.path for f in group.files}:
            group.missing.append(f"{folder}/.zgroup")
    return loose, list(groups.values())


def _fif_families(loose: dict[str, SourceFile]) -> list[Group]:
    """One group per FIF recording: ``split-01, split-02`` of BIDS, and ``x.fif, x-1.fif`` of MNE."""
    families: dict[tuple[str, str], dict[int, SourceFile]] = defaultdict(dict)
    for path, file in loose.items():
        if FORMATS.get(extension_of(file.name).lower()) == "fif" and not _DERIVED_FIF.search(file.name):
            style, base, number = _fif_part(path, loose)
            families[style, base][number] = file
    return [_fif_group(style, parts) for (style, _), parts in families.items()]


def _fif_part(path: str, loose: dict[str, SourceFile]) -> tuple[str, str, int]:
    """Style of the family a FIF file is in, the path all its parts share, and the number of this part."""
    part = _MNE_PART.match(path)
    if part and part["stem"] + part["ext"] in loose:
        return "mne", part["stem"] + part["ext"], int(part["part"])
    split = _BIDS_PART.search(PurePosixPath(path).name)
    if split:
        return "bids", _BIDS_PART.sub("", path), int(split["part"])
    return "mne", path, 0


def _fif_group(style: str, parts: dict[int, SourceFile]) -> Group:
    numbers = sorted(parts)
    first = min(numbers[0], 1 if style == "bids" else 0)
    missing = [f"part {n} of {parts[numbers[0]].path}" for n in range(first, numbers[-1]) if n not in parts]
    return Group(parts[numbers[0]].path, "fif", [parts[n] for n in numbers], missing)


def _bti_config(pdf: str) -> str:
    return "config" if re.match("[ce],rf", pdf, re.IGNORECASE) else re.sub("pdf", "config", pdf, flags=re.IGNORECASE)


def _with_companions(group: Group, siblings: dict[str, SourceFile], read: Callable[[SourceFile], bytes]) -> Group:
    """Add the files that a recording in one format needs beside its main file."""
    main = group.files[0]
    stem = main.name[: len(main.name) - len(extension_of(main.name))]
    wanted: list[str] = []
    if group.format == "brainvision":
        wanted = _brainvision_names(main, stem, siblings, read)
        group.missing += [main.path.removesuffix(main.name) + name for name in wanted if name not in siblings]
    elif group.format == "eeglab":
        wanted = [f"{stem}.fdt"]
    elif group.format == "bti":
        head_shape = "hs_file" if _bti_config(main.name) == "config" else re.sub("(?i)pdf", "hs", main.name)
        wanted = [_bti_config(main.name), head_shape]
    elif group.format == "kit":
        wanted = sorted(name for name in siblings if name != main.name and _belongs_to_kit(name, stem))
    group.files += [siblings[name] for name in wanted if name in siblings]
    return group


def _brainvision_names(
    main: SourceFile, stem: str, siblings: dict[str, SourceFile], read: Callable[[SourceFile], bytes]
) -> list[str]:
    """Return the names of the data and marker file: those of the header's own name, else what the header says."""
    names = [f"{stem}.eeg", f"{stem}.vmrk"]
    if all(name in siblings for name in names) or main.size > MAX_HEADER_BYTES or main.state is FileState.LOST:
        return names
    links = {key: value.replace(b"$b", stem.encode()) for key, value in _HEADER_LINK.findall(read(main))}
    found = [links[key].decode("utf-8", "replace") for key in (b"DataFile", b"MarkerFile") if links.get(key)]
    return found or names


def _belongs_to_kit(name: str, stem: str) -> bool:
    """Whether a file beside a KIT run is its markers or digitised head: by BIDS entities, or by a shared stem."""
    lower = name.lower()
    if lower.endswith(("_markers.sqd", "_markers.con", "_markers.mrk")):
        return name.startswith(f"{stem.removesuffix('_meg')}_markers.")
    session = re.split("_(?:task|acq)-", stem, maxsplit=1)[0]
    return name.startswith(session) and (lower.endswith((".mrk", ".elp", ".hsp")) or "_headshape." in lower)
