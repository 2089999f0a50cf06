"""The channel table: what the file says about its sensors, corrected by what ``channels.tsv`` says about the rest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.readers.complaints import unit_conflict
from neuromill.records import ChannelTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from neuromill.readers.sidecars import ChannelRow

MEG_TYPES = frozenset({"mag", "grad", "ref_meg"})
BIDS_TYPES = {
    "EEG": "eeg", "EOG": "eog", "VEOG": "eog", "HEOG": "eog", "ECG": "ecg", "EMG": "emg", "SEEG": "seeg",
    "ECOG": "ecog", "DBS": "dbs", "TRIG": "stim", "MISC": "misc", "REF": "misc", "AUDIO": "misc", "PD": "misc",
    "EYEGAZE": "misc", "PUPIL": "misc", "SYSCLOCK": "misc", "ADC": "misc", "DAC": "misc",
    "OTHER": "misc", "GSR": "misc", "PPG": "misc",
    "RESP": "misc", "TEMP": "misc", "ACCEL": "misc", "GYRO": "misc", "MAGN": "misc",
}  # fmt: skip
VOLT_TYPES = frozenset({"eeg", "seeg", "ecog", "dbs"})
# Labels of channels beside EEG: the signal types of EDF+ and what Temple University and sleep laboratories add.
LABEL_TYPES = {
    "ECG": "ecg", "EKG": "ecg", "EOG": "eog", "HEOG": "eog", "VEOG": "eog", "EMG": "emg", "TRIGGER": "misc",
    "PHOTIC": "misc", "IBI": "misc", "BURSTS": "misc", "SUPPR": "misc", "RESP": "misc", "SAO2": "misc", "TEMP": "misc",
    "PULSE": "misc", "DC": "misc",
}  # fmt: skip
NO_EEG = re.compile(rf"(?:EEG[ _-])?(?P<word>{'|'.join(LABEL_TYPES)})(?![a-z])", re.IGNORECASE)
NO_VOLTAGE = re.compile(
    r"(?:m?g|m/s\^?2|deg(?:/s)?|°|%|percent|boolean|bpm|rpm|hz|deg ?c|°c|mmhg|cmh2o|k?ohms?|lu?x|l/min|ml/s|m?s|[cm]m)",
    re.IGNORECASE,
)
FACTORS = {
    "": 1.0,
    "m": 1e-3,
    "milli": 1e-3,
    "u": 1e-6,
    "micro": 1e-6,
    "µ": 1e-6,
    "μ": 1e-6,
    "n": 1e-9,
    "p": 1e-12,
    "k": 1e3,
}
DIMENSIONS = {"V": "V", "T": "T", "T/m": "T/m", "T/cm": "T/m", "T/mm": "T/m"}
PREFIXES = ("", "f", "p", "n", "u", "µ", "μ", "m", "k")
UNIT_NAMES = {107: "V", 112: "T", 201: "T/m"}  # FIFF_UNIT_V, _T, _T_M
DEVICE_FRAME, HEAD_FRAME = 1, 4  # FIFFV_COORD_DEVICE, FIFFV_COORD_HEAD
COIL_PREFIX = "FIFFV_COIL_"
COIL_MASK = 0xFFFF  # the upper half of the number is the CTF compensation grade
PLANAR_COILS = frozenset({2, 3011, 3012, 3013, 3014})  # NM_122, VV_PLANAR_W, VV_PLANAR_T1 .. T3
MAX_COIL_LENGTH = 100.0  # metres; NaN and fill values are beyond


def channel_table(
    info: Any, rows: Sequence[ChannelRow], where: str, file_units: Mapping[str, str] | None = None
) -> tuple[ChannelTable, tuple[str, ...]]:
    """Return the channel table of an ``mne.Info`` and notes on where ``channels.tsv`` disagrees with the file.

    The file decides which channels there are, their order, and which are MEG sensors; the sidecar decides the type of
    the others (EDF calls every channel EEG) and adds its bad channels to those of the header. Where no sidecar speaks
    of a channel that the file calls EEG, its label and its unit do: ``ECG``, ``EMG chin`` and what is measured in G
    are no EEG.

    Parameters
    ----------
    info
        ``mne.Info``; values are in volts, tesla, tesla per metre.
    rows
        Rows of ``channels.tsv``.
    where
        The recording, for messages.
    file_units
        Unit that the file states, by channel; MNE has divided it out.

    Raises
    ------
    RecordingError
        ``unit_conflict`` where ``channels.tsv`` gives a signal channel another physical dimension than the file, or
        another factor: mV for what the file calls uV. V in ``channels.tsv`` is no conflict with uV in the file: that
        is how mne-bids writes what it has read.
    """
    by_name, stated_units = {row.name: row for row in rows}, file_units or {}
    names = tuple(info["ch_names"])
    types = tuple(
        _type(name, kind, by_name.get(name), stated_units.get(name, ""))
        for name, kind in zip(names, info.get_channel_types(), strict=True)
    )
    table = ChannelTable(
        names=names,
        types=types,
        coils=tuple(coil_name(int(ch["coil_type"])) for ch in info["chs"]),
        units=tuple(UNIT_NAMES.get(int(ch["unit"]), "") for ch in info["chs"]),
        positions=np.array([_position(ch, info.get("dev_head_t")) for ch in info["chs"]]).reshape(-1, 3),
        orientations=np.array([_orientation(ch) for ch in info["chs"]]).reshape(-1, 3),
        bads=tuple(
            "marked" if name in info["bads"] or (name in by_name and by_name[name].bad) else "" for name in names
        ),
    )
    _check_dimensions(table, by_name, where)
    _check_factors(table, by_name, stated_units, where)
    return table, _disagreements(names, by_name)


def _type(name: str, kind: str, row: ChannelRow | None, unit: str) -> str:
    if kind in MEG_TYPES or (row is not None and row.type.startswith("MEG")):
        return kind
    if row is not None and row.type:
        return BIDS_TYPES.get(row.type, kind)
    if kind != "eeg":
        return kind
    if NO_VOLTAGE.fullmatch(unit):
        return "misc"
    label = NO_EEG.match(name)
    return LABEL_TYPES[label["word"].upper()] if label else kind


def _disagreements(names: Sequence[str], by_name: Mapping[str, ChannelRow]) -> tuple[str, ...]:
    if not by_name:
        return ()
    counts = (
        (len(set(names) - set(by_name)), "channels of the file have no row"),
        (len(set(by_name) - set(names)), "rows name no channel of the file"),
    )
    return tuple(f"channels.tsv: {count} {what}" for count, what in counts if count)


def _check_dimensions(table: ChannelTable, by_name: Mapping[str, ChannelRow], where: str) -> None:
    """Prefixes are no conflict: EDF is read into volts whether the sidecar repeats the file's uV or says V."""
    for name, kind, unit in zip(table.names, table.types, table.units, strict=True):
        stated = dimension(by_name[name].units) if name in by_name else ""
        if kind in MEG_TYPES | VOLT_TYPES and stated and unit and stated != unit:
            raise unit_conflict(f"{name} is in {unit} in the file and in {by_name[name].units} in channels.tsv", where)


def _check_factors(
    table: ChannelTable, by_name: Mapping[str, ChannelRow], file_units: Mapping[str, str], where: str
) -> None:
    for name, kind in zip(table.names, table.types, strict=True):
        if kind not in VOLT_TYPES or name not in by_name:
            continue
        ours, theirs = factor(file_units.get(name, "")), factor(by_name[name].units)
        if ours is not None and theirs is not None and theirs not in (1.0, ours):
            raise unit_conflict(
                f"{name} is in {file_units[name]} in the file and in {by_name[name].units} in channels.tsv", where
            )


def factor(unit: str) -> float | None:
    """Volts in a unit (``uV`` -> 1e-6), None where it is no voltage."""
    return FACTORS.get(unit[:-1]) if unit.endswith("V") else None


def dimension(unit: str) -> str:
    """Physical dimension of a unit as BIDS writes it (``fT/cm`` -> ``T/m``), "" where it is none we compare."""
    for prefix in PREFIXES:
        if unit.startswith(prefix) and unit[len(prefix) :] in DIMENSIONS:
            return DIMENSIONS[unit[len(prefix) :]]
    return ""


def coil_name(coil: int) -> str:
    """Name of a FIFF coil without its prefix (``VV_PLANAR_T1``), "" for a channel without coil."""
    from mne._fiff.constants import FIFF

    base = coil & COIL_MASK
    if base == 0:
        return ""
    names = sorted(name for name, value in FIFF.items() if name.startswith(COIL_PREFIX) and value == base)
    return names[0].removeprefix(COIL_PREFIX) if names else str(base)


def _position(channel: Any, dev_head_t: Any) -> NDArray[np.float64]:
    """Sensor position in the device frame; of electrodes in the head frame where no head position is known."""
    position = np.asarray(channel["loc"][:3], dtype=np.float64)
    frame = int(channel["coord_frame"])
    if frame not in (DEVICE_FRAME, HEAD_FRAME) or not _is_place(position):
        return np.full(3, np.nan)
    if frame == HEAD_FRAME and dev_head_t is not None:
        head_to_device = np.linalg.inv(np.asarray(dev_head_t["trans"], dtype=np.float64))
        return np.asarray(head_to_device[:3, :3] @ position + head_to_device[:3, 3])
    return position


def _orientation(channel: Any) -> NDArray[np.float64]:
    """X axis of planar gradiometers, coil normal of the other MEG sensors, unit length; NaN where unknown."""
    loc = np.asarray(channel["loc"], dtype=np.float64)
    coil = int(channel["coil_type"]) & COIL_MASK
    axis = loc[3:6] if coil in PLANAR_COILS else loc[9:12]
    length = float(np.linalg.norm(axis))
    if int(channel["unit"]) not in (112, 201) or not _is_place(loc[:3]) or not 0 < length < np.inf:
        return np.full(3, np.nan)
    return np.asarray(axis / length)


def _is_place(position: NDArray[np.float64]) -> bool:
    """All zeros is how FIFF says "unknown"; anything not finite or out of the building is a fill value."""
    return bool(np.all(np.isfinite(position)) and np.any(position) and np.abs(position).max() < MAX_COIL_LENGTH)


def position_frame(info: Any, table: ChannelTable) -> str:
    """``device``, ``head``, or "" where no channel has a position."""
    known = [bool(np.isfinite(position).all()) for position in table.positions]
    if not any(known):
        return ""
    frames = {int(ch["coord_frame"]) for ch, here in zip(info["chs"], known, strict=True) if here}
    return "head" if frames == {HEAD_FRAME} and info.get("dev_head_t") is None else "device"
