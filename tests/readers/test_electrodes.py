"""Places of electrodes: in metres as stated, or not at all."""

import shutil
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from neuromill.readers.electrodes import ElectrodeTable, Places, coordinate_system, place_electrodes
from neuromill.readers.members import read_sidecars, space_of
from neuromill.readers.opening import open_recording
from neuromill.records import ChannelTable
from support.eeglab import small_eeg, write_eeglab_5
from support.recordings import dataset_root, recording_from_folder

NAMES = ("Fp1", "Fp2", "C3", "C4", "P3", "P4", "O1", "O2", "T7", "T8")
SYSTEM = b'{"EEGCoordinateSystem": "CapTrak", "EEGCoordinateUnits": "%s"}'
INTRACRANIAL = b'{"iEEGCoordinateSystem": "ACPC", "iEEGCoordinateUnits": "%s"}'
FACTORS = {"m": 1.0, "cm": 100.0, "mm": 1000.0}


def channels(*names: str, types: tuple[str, ...] = ()) -> ChannelTable:
    n = len(names)
    nowhere = np.full((n, 3), np.nan)
    return ChannelTable(names, types or ("eeg",) * n, ("",) * n, ("V",) * n, nowhere, nowhere, ("",) * n)


def on_a_head(n: int = len(NAMES), radius: float = 0.095, seed: int = 0) -> NDArray[np.float64]:
    """Places in metres, all over the upper half of a sphere."""
    places = np.random.default_rng(seed).standard_normal((n, 3))
    places[:, 2] = np.abs(places[:, 2])
    return radius * places / np.linalg.norm(places, axis=1, keepdims=True)


def table(
    places: NDArray[np.float64],
    names: tuple[str, ...] = NAMES,
    unit: str = "m",
    system: bytes = SYSTEM,
    name: str = "e",
) -> ElectrodeTable:
    lines = ["name\tx\ty\tz"]
    for row, place in zip(names, places, strict=True):
        lines.append("\t".join([row, *("n/a" if np.isnan(value) else repr(float(value)) for value in place)]))
    return ElectrodeTable(name, "\n".join(lines).encode(), (system % unit.encode(),) if system else ())


@pytest.mark.parametrize("unit", FACTORS)
def test_the_unit_is_followed(unit: str) -> None:
    places = on_a_head()
    found = place_electrodes(channels(*reversed(NAMES)), [table(places * FACTORS[unit], unit=unit)])
    np.testing.assert_allclose(found.positions, places[::-1], rtol=1e-12)
    assert (found.frame, found.notes) == ("head", ())


@pytest.mark.parametrize(
    ("system", "unit", "frame"),
    [
        (SYSTEM, "mm", "head"),
        (SYSTEM.replace(b"CapTrak", b"ElektaNeuromag"), "mm", "head"),
        (SYSTEM.replace(b"CapTrak", b"CTF"), "mm", "ctf"),
        (INTRACRANIAL, "mm", "acpc"),
        (b'{"iEEGCoordinateUnits": "%s"}', "mm", "unknown"),
    ],
)
def test_the_frame_is_named(system: bytes, unit: str, frame: str) -> None:
    assert place_electrodes(channels(*NAMES), [table(on_a_head() * 1000, unit=unit, system=system)]).frame == frame


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e-2, 0.1, 10, 100, 1e3, 1e6])
@pytest.mark.parametrize("unit", FACTORS)
def test_a_wrong_unit_of_a_cap_is_told_and_nothing_is_rescaled(unit: str, factor: float) -> None:
    found = place_electrodes(channels(*NAMES), [table(on_a_head() * FACTORS[unit] * factor, unit=unit)])
    assert np.isnan(found.positions).all()
    assert found.frame == ""
    assert len(found.notes) == 1
    assert f"in {unit} as stated" in found.notes[0]


@given(
    st.integers(1, 30),
    st.floats(-3.5, -0.7).map(lambda power: 10**power),
    st.sampled_from([1e-6, 1e-3, 1e3, 1e6]),
    st.integers(0, 99),
)
def test_no_factor_of_1000_passes(n: int, size: float, factor: float, seed: int) -> None:
    """Micro-wires, leads, grids, caps: whatever is taken as it is, is not taken with the factor."""
    names = tuple(f"E{i}" for i in range(n))
    places, where = on_a_head(n, size, seed), channels(*names, types=("seeg",) * n)
    taken, spoiled = (
        np.isfinite(place_electrodes(where, [table(places * by, names, system=INTRACRANIAL)]).positions).any()
        for by in (1.0, factor)
    )
    assert not (taken and spoiled)


@pytest.mark.parametrize("size", [1e-3, 3e-3, 0.02, 0.1])
def test_leads_grids_and_depth_electrodes_are_possible(size: float) -> None:
    places, names = on_a_head(4, size), ("L0", "L1", "L2", "L3")
    found = place_electrodes(channels(*names, types=("dbs",) * 4), [table(places, names, system=INTRACRANIAL)])
    np.testing.assert_array_equal(found.positions, places)


@pytest.mark.parametrize(
    ("unit", "system", "words"),
    [
        ("n/a", SYSTEM, "its unit is n/a"),
        ("pixels", INTRACRANIAL, "its unit is pixels"),
        ("", SYSTEM, "its unit is not stated"),
        ("m", b"", "its unit is not stated"),
        ("m", b'{"EEGCoordinateUnits": "%s"', "its unit is not stated"),
        ("m", b'["EEGCoordinateUnits", "%s"]', "its unit is not stated"),
        ("m", b'{"MEGCoordinateUnits": "%s"}', "its unit is not stated"),
    ],
)
def test_without_a_unit_there_is_no_place(unit: str, system: bytes, words: str) -> None:
    found = place_electrodes(channels(*NAMES), [table(on_a_head(), unit=unit, system=system)])
    assert np.isnan(found.positions).all()
    assert found.notes == (f"e is not used: {words}",)


def test_the_special_sidecar_stands_over_the_general_one() -> None:
    assert coordinate_system([SYSTEM % b"cm", b'{"EEGCoordinateUnits": "mm"}']).unit == "mm"
    assert coordinate_system([SYSTEM % b"cm", b"{"]).unit == "cm"


@pytest.mark.parametrize("value", ["n/a", "nan", "inf", "-Infinity", "", "left"])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_place_that_is_no_number_is_unknown(value: str, axis: int) -> None:
    lines = table(on_a_head()).content.decode().splitlines()
    cells = lines[3].split("\t")
    cells[axis] = value
    lines[3] = "\t".join(cells)
    found = place_electrodes(channels(*NAMES), [ElectrodeTable("e", "\n".join(lines).encode(), (SYSTEM % b"m",))])
    np.testing.assert_array_equal(np.isnan(found.positions).all(axis=1), np.arange(len(NAMES)) == 2)
    assert np.isnan(found.positions).sum() == 3


def test_nothing_is_told_where_nothing_is_claimed() -> None:
    nowhere = table(np.full((len(NAMES), 3), np.nan), unit="n/a")
    for tables in ([], [nowhere], [ElectrodeTable("e", b"")], [ElectrodeTable("e", b"name\nFp1\n")]):
        found = place_electrodes(channels(*NAMES), tables)
        assert np.isnan(found.positions).all()
        assert (found.frame, found.notes) == ("", ())


def test_all_zeros_is_no_place() -> None:
    places = on_a_head()
    places[4] = 0
    found = place_electrodes(channels(*NAMES), [table(places)])
    assert np.flatnonzero(np.isnan(found.positions).all(axis=1)).tolist() == [4]


def test_one_slip_of_the_pen_does_not_lose_the_others() -> None:
    places = on_a_head()
    places[4] = [80.0, 0, 0]  # mm among metres
    found = place_electrodes(channels(*NAMES), [table(places)])
    assert np.flatnonzero(np.isnan(found.positions).all(axis=1)).tolist() == [4]
    assert found.notes == ("e: P3 would lie outside any head and are left out",)


def test_a_name_that_stands_twice_has_no_place() -> None:
    found = place_electrodes(channels(*NAMES), [table(on_a_head(), (*NAMES[:-1], "C3"))])
    assert np.flatnonzero(np.isnan(found.positions).all(axis=1)).tolist() == [2, 9]
    assert found.notes == ("e: C3 stand more than once and are left out",)


@pytest.mark.parametrize(
    ("recorded", "stated", "is_found"),
    [
        ("Fp1", "Fp1", True),
        ("FP1", "Fp1", True),
        ("Fp1.", "Fp1", True),
        ("EEG Fp1", "FP1", True),
        ("Fp1", "EEG Fp1", True),
        ("Fp10", "Fp1", False),
        ("Fp1-REF", "Fp1", False),
    ],
)
def test_names_that_are_the_same(recorded: str, stated: str, *, is_found: bool) -> None:
    found = place_electrodes(channels(recorded, *NAMES[1:]), [table(on_a_head(), (stated, *NAMES[1:]))])
    assert np.isfinite(found.positions[0]).all() == is_found


def test_names_that_could_be_two_are_neither() -> None:
    exact = place_electrodes(channels("C3", "c3", *NAMES[4:]), [table(on_a_head(7), ("C3", *NAMES[4:]))])
    assert np.flatnonzero(np.isnan(exact.positions).all(axis=1)).tolist() == [1]
    either = place_electrodes(channels("C3.", *NAMES[4:]), [table(on_a_head(8), ("C3", "c3", *NAMES[4:]))])
    assert np.flatnonzero(np.isnan(either.positions).all(axis=1)).tolist() == [0]


def test_only_electrodes_have_places() -> None:
    types = ("eog", "ecg", *("eeg",) * 8)
    found = place_electrodes(channels(*NAMES, types=types), [table(on_a_head())])
    assert np.flatnonzero(np.isnan(found.positions).all(axis=1)).tolist() == [0, 1]
    none = place_electrodes(channels("X", "Y"), [table(on_a_head())])
    assert none.notes == ("e names no electrode of the recording",)


def test_the_first_table_that_can_be_used_is() -> None:
    bad, good, other = (table(on_a_head(seed=s), unit=u, name=f"t{s}") for s, u in ((1, "n/a"), (2, "m"), (3, "m")))
    found = place_electrodes(channels(*NAMES), [bad, good, other])
    np.testing.assert_array_equal(found.positions, on_a_head(seed=2))
    assert found.notes == ("t1 is not used: its unit is n/a", "positions are those of t2; not looked at: t3")


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_any_bytes_are_places_or_notes(content: bytes, system: bytes) -> None:
    for documents in ((system,), (SYSTEM % b"m",)):
        found = place_electrodes(channels("a", "b"), [ElectrodeTable("e", b"name\tx\ty\tz\n" + content, documents)])
        assert isinstance(found, Places)
        assert found.positions.shape == (2, 3)


# In a recording


@pytest.mark.parametrize(
    ("path", "space"),
    [
        ("sub-1/eeg/sub-1_space-CapTrak_electrodes.tsv", "CapTrak"),
        ("sub-1/space-no/sub-1_electrodes.tsv", ""),
        ("electrodes.tsv", ""),
    ],
)
def test_spaces(path: str, space: str) -> None:
    assert space_of(path) == space


def bids_recording(folder: Path, eeg: dict[str, object], unit: bytes = b"mm") -> tuple[Path, str]:
    """Return an EEGLAB recording of ``eeg`` beside electrodes on a head, names in the files' own."""
    place = folder / "sub-01" / "eeg"
    place.mkdir(parents=True)
    write_eeglab_5(place / "sub-01_task-rest_eeg.set", eeg)
    names = tuple(row["labels"] for row in eeg["chanlocs"])  # type: ignore[attr-defined]
    (place / "sub-01_electrodes.tsv").write_bytes(table(on_a_head(len(names)) * 1000, names).content)
    (place / "sub-01_coordsystem.json").write_bytes(SYSTEM % unit)
    return folder, "sub-01/eeg/sub-01_task-rest_eeg.set"


def without_places(n: int = 8) -> dict[str, object]:
    eeg = small_eeg(n)
    return eeg | {"chanlocs": [{"labels": row["labels"], "type": "EEG"} for row in eeg["chanlocs"]]}


def test_a_recording_without_places_gets_those_of_its_sidecar(tmp_path: Path) -> None:
    root, path = bids_recording(tmp_path, without_places())
    with open_recording(recording_from_folder(root, path), root) as signal:
        np.testing.assert_allclose(signal.channels.positions, on_a_head(8), rtol=1e-12)
        assert signal.facts.position_frame == "head"
        assert not [note for note in signal.facts.notes if "electrodes" in note]


def test_places_of_the_file_stand(tmp_path: Path) -> None:
    root, path = bids_recording(tmp_path, small_eeg(8))
    recording = recording_from_folder(root, path)
    with open_recording(recording, root) as signal:
        with open_recording(replace(recording, members=recording.members[-1:]), root) as alone:
            np.testing.assert_array_equal(signal.channels.positions, alone.channels.positions)
        assert abs(np.linalg.norm(signal.channels.positions, axis=1) - 0.085).max() < 0.02
        assert np.abs(signal.channels.positions - on_a_head(8)).max() > 0.01


def test_a_unit_that_cannot_be_is_a_note_of_the_recording(tmp_path: Path) -> None:
    root, path = bids_recording(tmp_path, without_places(), b"m")
    with open_recording(recording_from_folder(root, path), root) as signal:
        assert np.isnan(signal.channels.positions).all()
        assert signal.facts.position_frame == ""
        assert any("sub-01_electrodes.tsv is not used" in note for note in signal.facts.notes)


@pytest.mark.data
def test_a_real_cap_lies_where_mne_puts_it(data: Path) -> None:
    path = "bids/eeg-captrak/sub-01/ses-eeg/eeg/sub-01_ses-eeg_task-rest_eeg.vhdr"
    root, main = dataset_root(data, path)
    recording = recording_from_folder(root, main)
    assert [one.name for one in read_sidecars(recording, root).electrodes] == [
        "sub-01_ses-eeg_electrodes.tsv", "sub-01_ses-eeg_space-CapTrak_electrodes.tsv",
    ]  # fmt: skip
    with open_recording(recording, root) as signal:
        table = signal.channels
        assert signal.facts.position_frame == "head"
    known = np.isfinite(table.positions).all(axis=1)
    assert [kind for kind, here in zip(table.types, known, strict=True) if here] == ["eeg"] * 64
    montage = mne.channels.make_standard_montage("standard_1020").get_positions()["ch_pos"]
    both = [row for row, name in enumerate(table.names) if known[row] and name in montage]
    assert len(both) > 20
    template = np.array([montage[table.names[row]] for row in both])
    ours, theirs = (x - x.mean(axis=0) for x in (table.positions[both], template))
    correlation = (ours * theirs).sum() / np.sqrt((ours**2).sum() * (theirs**2).sum())
    assert correlation > 0.9  # another head in the same axes
    assert 0.8 < np.linalg.norm(ours) / np.linalg.norm(theirs) < 1.3


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "kind", "words", "frame"),
    [
        ("ds004194/sub-p01/ses-umcuiemu01/ieeg", "ecog", "", "acpc"),
        ("ds003645/sub-002/eeg", "eeg", "its unit is not stated", ""),
        ("ds004362/sub-001/eeg", "eeg", "m from their centre, in mm as stated", ""),
    ],
)
def test_tables_of_real_datasets(data: Path, folder: str, kind: str, words: str, frame: str) -> None:
    tables = sorted((data / "openneuro" / folder).glob("*electrodes.tsv"))
    assert tables
    for path in tables:
        systems = [path.with_name(path.name.replace("electrodes.tsv", "coordsystem.json"))]
        names = tuple(line.split("\t")[0] for line in path.read_text().splitlines()[1:])
        given = ElectrodeTable(path.name, path.read_bytes(), tuple(one.read_bytes() for one in systems if one.exists()))
        found = place_electrodes(channels(*names, types=(kind,) * len(names)), [given])
        assert found.frame == frame
        assert np.isfinite(found.positions).any() == bool(frame)
        assert words in " ".join(found.notes)
        assert bool(words) == bool(found.notes)


@pytest.mark.data
def test_the_folder_of_electrodes_may_be_missing_its_system(data: Path, tmp_path: Path) -> None:
    path = "bids/eeg-captrak/sub-01/ses-eeg/eeg/sub-01_ses-eeg_task-rest_eeg.vhdr"
    root, main = dataset_root(data, path)
    shutil.copytree(root, tmp_path / "ds", symlinks=False)
    for one in (tmp_path / "ds").rglob("*coordsystem.json"):
        one.unlink()
    with open_recording(recording_from_folder(tmp_path / "ds", main), tmp_path / "ds") as signal:
        assert np.isnan(signal.channels.positions).all()
        assert sum("its unit is not stated" in note for note in signal.facts.notes) == 2
