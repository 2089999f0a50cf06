"""Channel names on the 10-20 system."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import ChannelTable, FailureCode, RecordingError
from neuromill.signals.eeg_steps import PickMontage
from neuromill.signals.montage import MONTAGES, match_montage, on_montage, position_of, require_montage

NINETEEN = MONTAGES["10-20-19"]


def eeg(*names: str, types: tuple[str, ...] = (), bads: tuple[str, ...] = ()) -> ChannelTable:
    n = len(names)
    places = np.arange(3.0 * n).reshape(n, 3)
    return ChannelTable(names, types or ("eeg",) * n, ("",) * n, ("V",) * n, places, places, bads or ("",) * n)


def test_order_of_the_montage() -> None:
    assert " ".join(NINETEEN) == "FP1 FP2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T3 T4 T5 T6 FZ CZ PZ"


@pytest.mark.parametrize(
    ("name", "position", "reference"),
    [
        ("EEG FP1-REF", "FP1", "REF"),
        ("EEG Fp1-LE", "FP1", "LE"),
        ("EEG Fp1", "FP1", ""),
        ("EEG Fp2-Ref", "FP2", "REF"),
        ("Fp1.", "FP1", ""),
        ("Fc5.", "FC5", ""),
        ("C3..", "C3", ""),
        ("fp1", "FP1", ""),
        ("  Cz ", "CZ", ""),
        ("T7", "T3", ""),
        ("T8..", "T4", ""),
        ("EEG P7-REF", "T5", "REF"),
        ("P8-LE", "T6", "LE"),
        ("C3-A2", "C3", "A2"),
        ("C4:M1", "C4", "M1"),
        ("EEG_O1_AVG", "O1", "AVG"),
        ("POL Pz", "PZ", ""),
        ("EEG F3 - A1+A2", "F3", "A1+A2"),
        ("Fz-TP9", "FZ", "TP9"),
        ("EEG T7-TP10", "T3", "TP10"),
        ("TP9-TP10", "TP9", "TP10"),
        ("EEG TP9-REF", "TP9", "REF"),
        ("EEG C3-A2A1", "C3", "A2A1"),
        ("EEG C3-CLE", "C3", "CLE"),
        ("EEG C3-LER", "C3", "LER"),
        ("EEG FP1-REF-0", "FP1", "REF"),
        ("EEG FP1-REF-1", "FP1", "REF"),
    ],
)
def test_names_of_one_electrode(name: str, position: str, reference: str) -> None:
    assert position_of(name) == (position, reference)


@pytest.mark.parametrize(
    "name",
    [
        "EEG Fp1-F7",
        "FP1-F3",
        "EEG A2-A1",
        "A1-REF",
        "ECG ECG",
        "EEG",
        "",
        "...",
        "Trigger",
        "C3-0",
        "C3-REF-",
        "C3-REF-AVG",
        "TP9-TP9",
        "EEG A2-TP9",
        "EOG(L)",
        "C3 C4",
        "Ä1",
    ],
)
def test_names_of_none(name: str) -> None:
    assert position_of(name) is None


@given(
    st.sampled_from(NINETEEN),
    st.sampled_from(["{}", "EEG {}", "EEG {}-REF", "{}-LE", "{}.", "{}..", " {} "]),
    st.sampled_from([str.upper, str.lower, str.capitalize]),
)
def test_every_way_of_writing_is_read(position: str, pattern: str, case: object) -> None:
    found = position_of(pattern.format(case(position)))  # type: ignore[operator]
    assert found is not None
    assert found[0] == position


def test_matching_orders_renames_and_tells() -> None:
    table = eeg(
        "Cz", "ECG", "EEG FP2-REF", "Fp1", "T7", "STI", "Oz", types=("eeg", "eeg", "eeg", "eeg", "eeg", "stim", "eeg")
    )
    match = match_montage("10-20-19", table)
    assert match.names == ("FP1", "FP2", "T3", "CZ")
    assert match.indices == (3, 2, 4, 0)
    assert match.sources == ("Fp1", "EEG FP2-REF", "T7", "Cz")
    assert match.references == ("", "REF", "", "")
    assert match.unmatched == ("ECG", "Oz")
    assert len(match.missing) == 15
    placed = on_montage(match, table)
    assert placed.names == match.names
    np.testing.assert_array_equal(placed.positions, table.positions[[3, 2, 4, 0]])


def test_all_nineteen() -> None:
    match = require_montage(PickMontage(), eeg(*reversed(NINETEEN)))
    assert match.names == NINETEEN
    assert match.indices == tuple(range(18, -1, -1))
    assert not match.missing


def test_contacts_in_the_brain_are_not_on_the_scalp() -> None:
    """A grid may have contacts C3 and C4, too."""
    table = eeg("C3", "C4", types=("ecog", "seeg"))
    assert match_montage("10-20-19", table).indices == ()


@pytest.mark.parametrize(
    ("names", "require_all", "code"),
    [
        (NINETEEN[:-1], True, FailureCode.NO_USABLE_CHANNELS),
        (("Oz", "ECG"), False, FailureCode.NO_USABLE_CHANNELS),
        ((*NINETEEN, "T7"), True, FailureCode.DUPLICATE_CHANNELS),
        ((*NINETEEN, "EEG C3-A2"), False, FailureCode.DUPLICATE_CHANNELS),
    ],
)
def test_what_is_refused(names: tuple[str, ...], *, require_all: bool, code: FailureCode) -> None:
    with pytest.raises(RecordingError) as caught:
        require_montage(PickMontage(require_all=require_all), eeg(*names), "sub-01")
    assert caught.value.code is code
    assert caught.value.where == "sub-01"


@pytest.mark.parametrize(
    ("names", "message", "next_step"),
    [
        (
            ("Fp1", "EEG FP1-REF", "F3"),
            "several channels for one place of 10-20-19 (FP1: Fp1, EEG FP1-REF)",
            "leave the others out with a pick step before pick_montage",
        ),
        (
            NINETEEN[1:],
            "18 of the 19 channels of 10-20-19; missing: FP1",
            "use a pipeline without this montage, or require_all: false",
        ),
        (("Oz",), f"0 of the 19 channels of 10-20-19; missing: {', '.join(NINETEEN)}", ""),
    ],
)
def test_refusals_say_what_is_wrong_and_what_to_do(names: tuple[str, ...], message: str, next_step: str) -> None:
    with pytest.raises(RecordingError) as caught:
        require_montage(PickMontage(), eeg(*names))
    assert (caught.value.what, caught.value.next_step) == (message, next_step)


def test_some_channels_are_enough_where_it_says_so() -> None:
    match = require_montage(PickMontage(require_all=False), eeg("Pz", "O1", "Oz"))
    assert match.names == ("O1", "PZ")
    assert match.missing == tuple(name for name in NINETEEN if name not in ("O1", "PZ"))


def test_numbered_channels_of_one_electrode_are_two_claims() -> None:
    """What MNE numbers has one name in the file: which is meant cannot be guessed."""
    match = match_montage("10-20-19", eeg("EEG FP1-REF-0", "EEG FP1-REF-1", "EEG F3-REF"))
    assert match.twice == {"FP1": ("EEG FP1-REF-0", "EEG FP1-REF-1")}
