"""Open files with MNE, quietly: its warnings become notes or codes, its errors become codes.

What MNE 1.13 raises on damaged files, seen with the damaged copies of real recordings: ``ValueError`` (FIF header cut
off, KIT samples cut off, EDF without records), ``AttributeError`` (empty FIF), ``IndexError`` (CTF ``.res4`` cut off),
``RuntimeError`` (CTF samples cut off, EEGLAB ``.fdt`` too short), ``OSError`` / ``FileNotFoundError`` (parts absent),
``KeyError`` and ``struct.error`` (BTi header), ``TypeError`` (KIT epochs), ``ZeroDivisionError`` (BrainVision sampling
interval 0), ``EOFError`` (gzip cut off). All of them mean the file, at this one boundary and nowhere else.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neuromill.readers.brainvision_file import check_brainvision
from neuromill.readers.bti_files import BtiFiles, check_bti_header, check_bti_samples, find_bti_files
from neuromill.readers.complaints import duplicates, missing, not_continuous, truncated, unreadable, unsupported
from neuromill.readers.ctf_folder import SYSTEM_CLOCK, check_clock, check_ctf
from neuromill.readers.edf_file import annotation_encoding, check_edf
from neuromill.readers.edf_rates import mixed_rates
from neuromill.readers.eeglab_hdf5 import is_hdf5, open_eeglab_hdf5
from neuromill.readers.fif_file import check_fif
from neuromill.readers.kit_file import check_kit, check_kit_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from neuromill.readers.edf_file import EdfHeader
    from neuromill.records import Recording

DAMAGE = (
    ValueError, RuntimeError, OSError, KeyError, IndexError, TypeError, AttributeError, AssertionError,
    ArithmeticError, MemoryError, EOFError, struct.error, zlib.error,
)  # fmt: skip
ABSENT = ("does not exist", "not found", "No such file")
SHORT = ("Incorrect number of samples", "not an even multiple of the trial size")
FDT_SAMPLE_BYTES = 4
EPOCHS = "must be 1 for raw"  # EEGLAB
DUPLICATES = "Channel names are not unique, found duplicates for:"


class Samples(Protocol):
    """What reads samples where MNE does not."""

    def read(self, rows: Sequence[int], start: int, stop: int) -> NDArray[np.float64]:
        """Samples ``start`` to ``stop`` of these channels in SI units, float64 [channel, time]."""

    def close(self) -> None:
        """Let go of the files."""


@dataclass(frozen=True, slots=True)
class OpenedRaw:
    """An ``mne.io.BaseRaw`` (not preloaded), what MNE warned of, and channels that the header itself makes useless."""

    raw: Any
    notes: tuple[str, ...] = ()
    bads: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)  # what the file states of a channel; MNE has divided it out
    samples: Samples | None = None  # what reads in place of ``raw``: several rates, samples inside HDF5


@contextmanager
def damage_as_codes(where: str, folder: Path) -> Iterator[None]:
    """Turn what MNE raises into ``missing_member``, ``truncated``, ``not_continuous`` or ``unreadable``."""
    try:
        yield
    except DAMAGE as error:
        words = f"{type(error).__name__}: {error}".replace(f"{folder}/", "")
        if isinstance(error, FileNotFoundError) or any(text in words for text in ABSENT):
            raise missing(words, where) from error
        if EPOCHS in words:
            raise not_continuous(words, where) from error
        if isinstance(error, EOFError) or any(text in words for text in SHORT):
            raise truncated(words, where) from error
        raise unreadable(words, where) from error


def open_quietly(opener: Callable[[], Any], where: str, folder: Path, copies: Collection[str] = ()) -> OpenedRaw:
    """Run an MNE reader; its warnings are kept as notes.

    Channels of equal names fail, but for those that are known to be ``copies`` of each other: MNE numbers them.

    Raises
    ------
    RecordingError
        ``duplicate_channels`` where MNE had to number channels of the same name; else as ``damage_as_codes``.
    """
    with warnings.catch_warnings(record=True) as caught, damage_as_codes(where, folder):
        warnings.simplefilter("always")
        raw = opener()
    messages = dict.fromkeys(" ".join(str(w.message).replace(f"{folder}/", "").split()) for w in caught)
    for message in messages:
        if DUPLICATES in message and not copies:
            raise duplicates(message.split(DUPLICATES)[1].split(". Applying")[0].strip(), where)
    return OpenedRaw(raw, tuple(message for message in messages if DUPLICATES not in message))


def open_fif(recording: Recording, root: Path) -> OpenedRaw:
    """Open a FIF recording with all its parts; every part must be a member, every FIF member must be a part.

    Raises
    ------
    RecordingError
        ``missing_member`` where that does not hold, and what ``check_fif`` and ``open_quietly`` raise.
    """
    import mne

    path = root / recording.path
    parts = sorted(m.path for m in recording.members if m.name.lower().endswith((".fif", ".fif.gz")))
    for part in parts or [recording.path]:
        check_fif(root / part, part)
    opened = open_quietly(
        lambda: mne.io.read_raw_fif(path, preload=False, verbose="warning"), recording.path, path.parent
    )
    names = {filename.name for filename in opened.raw.filenames}
    listed = {part.rsplit("/", 1)[-1] for part in parts or [recording.path]}
    if names - listed:
        raise missing(f"the split parts {', '.join(sorted(names - listed))} are not members", recording.path)
    if listed - names:
        lost = ", ".join(sorted(listed - names))
        raise missing(f"the first part does not lead to {lost}: parts renamed after splitting", recording.path)
    return opened


def open_ctf(recording: Recording, root: Path) -> OpenedRaw:
    """Open a CTF folder whose trials, if it has several, follow on from each other."""
    import mne

    path, where = root / recording.path, recording.path
    header = check_ctf(path, where)
    opened = open_quietly(lambda: mne.io.read_raw_ctf(path, preload=False, verbose="warning"), where, path.parent)
    with damage_as_codes(where, path.parent):
        steps = clock_steps(opened.raw, header.samples_per_trial, header.n_trials)
    check_clock(steps, header.sfreq, header.n_trials, where)
    left_out = header.samples_per_trial * header.n_trials - opened.raw.n_times
    if left_out:
        return replace(opened, notes=(*opened.notes, f"{left_out} samples at the end were never recorded (clock 0)"))
    return opened


def clock_steps(raw: Any, samples_per_trial: int, n_trials: int) -> Any:
    """Seconds of the system clock between adjacent trials, float64 [n_trials - 1]; None without clock channel."""
    if SYSTEM_CLOCK not in raw.ch_names:
        return None
    clock = raw.ch_names.index(SYSTEM_CLOCK)
    starts = [t * samples_per_trial for t in range(1, n_trials) if t * samples_per_trial < raw.n_times]
    pairs = [raw.get_data(picks=[clock], start=at - 1, stop=at + 1, verbose="error")[0] for at in starts]
    return np.array([after - before for before, after in pairs], dtype=np.float64)


def open_kit(recording: Recording, root: Path) -> OpenedRaw:
    """Open a KIT file with its own channels only (no synthetic stim channel).

    Sensor positions are in the device frame, so markers and head shape are not needed to place them; as members they
    must be there, and what they hold (the head position) is not used.

    Raises
    ------
    RecordingError
        ``not_continuous`` for epochs, ``unsupported_format`` for a version that MNE does not read, ``unreadable`` for a
        damaged header, and what ``check_kit``, ``check_kit_samples`` and ``open_quietly`` raise.
    """
    import mne
    from mne.io.kit.constants import KIT
    from mne.io.kit.kit import UnsupportedKITFormat, get_kit_info

    path, where = root / recording.path, recording.path
    check_kit(path, where)
    try:
        _, header = get_kit_info(path, allow_unknown_format=False, verbose="error")
    except UnsupportedKITFormat as error:
        raise unsupported(str(error), where, "save it again with the software of the KIT laboratory") from error
    except DAMAGE as error:
        raise unreadable(f"{type(error).__name__}: {error}", where) from error
    if header["acq_type"] != KIT.CONTINUOUS:
        raise not_continuous("KIT file of epochs, not of continuous signal", where)
    check_kit_samples(path, header["nchan"], int(header["n_samples"]), header["dtype"].itemsize, where)
    return open_quietly(lambda: mne.io.read_raw_kit(path, stim=None, verbose="warning"), where, path.parent)


def open_bti(recording: Recording, root: Path) -> OpenedRaw:
    """Open a 4D/BTi recording: data file, ``config``, and the head shape where it is a member."""
    import mne

    where = recording.path
    files: BtiFiles = find_bti_files(recording, root)
    check_bti_header(files.pdf, where)
    opened = open_quietly(
        lambda: mne.io.read_raw_bti(files.pdf, files.config, files.head_shape, preload=False, verbose="warning"),
        where,
        files.pdf.parent,
    )
    header = opened.raw._raw_extras[0]  # noqa: SLF001 - MNE gives the size of a slice nowhere else
    check_bti_samples(files.pdf, int(header["bytes_per_slice"]), int(header["total_slices"]), where)
    return opened


def open_edf(recording: Recording, root: Path) -> OpenedRaw:
    """Open EDF(+)."""
    return _open_edf_or_bdf(recording, root, "edf")


def open_bdf(recording: Recording, root: Path) -> OpenedRaw:
    """Open BDF(+)."""
    return _open_edf_or_bdf(recording, root, "bdf")


def _open_edf_or_bdf(recording: Recording, root: Path, kind: str) -> OpenedRaw:
    from mne.io.edf.edf import RawBDF, RawEDF

    path, where = root / recording.path, recording.path
    header = check_edf(path, kind, where)
    encoding = annotation_encoding(path, header)
    reader = RawEDF if kind == "edf" else RawBDF  # read_raw_edf refuses the names of ISRUC, .rec, and does no more
    copies = {header.labels[i] for i in header.copies}
    opened = open_quietly(lambda: reader(path, encoding=encoding, verbose="warning"), where, path.parent, copies)
    if copies:
        opened = _without_copies(opened, header, where)
    if len(header.signals) != len(opened.raw.ch_names):
        raise unreadable(f"{len(header.signals)} signals in the header, {len(opened.raw.ch_names)} are read", where)
    units = {name: header.dimensions[i] for name, i in zip(opened.raw.ch_names, header.signals, strict=True)}
    rates = mixed_rates(
        opened.raw,
        header,
        lambda names: (
            open_quietly(
                lambda: reader(path, encoding=encoding, include=names, verbose="error"), where, path.parent
            ).raw
        ),
    )
    return replace(opened, bads=dict.fromkeys(header.unscaled, "no_scale"), units=units, samples=rates)


def _without_copies(opened: OpenedRaw, header: EdfHeader, where: str) -> OpenedRaw:
    """Leave out the channels that repeat another one; it gets the name back that MNE has numbered."""
    raw, recorded = opened.raw, header.recorded
    if len(raw.ch_names) != len(recorded):
        raise unreadable(f"{len(recorded)} signals in the header, {len(raw.ch_names)} are read", where)
    by_signal = dict(zip(recorded, raw.ch_names, strict=True))
    raw.drop_channels([by_signal[i] for i in header.copies])
    copies = {header.labels[i] for i in header.copies}
    raw.rename_channels({by_signal[i]: header.labels[i] for i in header.signals if header.labels[i] in copies})
    note = f"{', '.join(sorted(copies))}: recorded more than once with equal samples, kept once"
    return replace(opened, notes=(*opened.notes, note))


def open_brainvision(recording: Recording, root: Path) -> OpenedRaw:
    """Open a BrainVision header with its samples and markers."""
    import mne

    path = root / recording.path
    check_brainvision(path, recording.path)
    opened = open_quietly(lambda: mne.io.read_raw_brainvision(path, verbose="warning"), recording.path, path.parent)
    return replace(opened, units=dict(opened.raw._orig_units))  # noqa: SLF001 - MNE has them nowhere else


def open_eeglab(recording: Recording, root: Path) -> OpenedRaw:
    """Open an EEGLAB ``.set`` of any version with its ``.fdt``, or with its samples inside.

    Raises
    ------
    RecordingError
        ``truncated`` where the ``.fdt`` is too short, and what ``open_eeglab_hdf5`` and ``open_quietly`` raise.
    """
    import mne

    path, where = root / recording.path, recording.path
    if is_hdf5(path):
        opened = _open_eeglab_hdf5(path, where)
    else:
        opened = open_quietly(lambda: mne.io.read_raw_eeglab(path, verbose="warning"), where, path.parent)
    samples = opened.raw.filenames[0]
    promised = len(opened.raw.ch_names) * opened.raw.n_times * FDT_SAMPLE_BYTES
    if samples.suffix == ".fdt" and samples.stat().st_size < promised:
        raise truncated(f"{samples.name} has {samples.stat().st_size} bytes, the .set file promises {promised}", where)
    return opened


def _open_eeglab_hdf5(path: Path, where: str) -> OpenedRaw:
    """Open version 7.3: MNE gets the header in version 5, and reads samples only out of an ``.fdt``."""
    import mne

    found = open_eeglab_hdf5(path, where)
    with ExitStack() as on_error:
        on_error.callback(found.close)
        with TemporaryDirectory() as folder:
            header = Path(folder) / path.name
            found.write_header(header)
            opened = open_quietly(lambda: mne.io.read_raw_eeglab(header, verbose="warning"), where, header.parent)
        on_error.pop_all()
    notes = (*opened.notes, found.note) if found.note else opened.notes
    return replace(opened, notes=notes, samples=found.samples)


OPENERS: dict[str, Callable[[Recording, Path], OpenedRaw]] = {
    "fif": open_fif,
    "ctf": open_ctf,
    "kit": open_kit,
    "bti": open_bti,
    "edf": open_edf,
    "bdf": open_bdf,
    "brainvision": open_brainvision,
    "eeglab": open_eeglab,
}
