"""Bipolar channels: which names make a pair, what is subtracted, and what becomes of bad electrodes."""

from itertools import pairwise
from pathlib import Path

import mne
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from neuromill.readers.opening import open_recording
from neuromill.records import ChannelTable, ConfigError, FailureCode, RecordingError
from neuromill.signals.bipolar import (
    BIPOLAR_MONTAGES,
    BipolarMatch,
    bipolar_channels,
    derivation_of,
    match_bipolar,
    require_bipolar,
    require_pair,
)
from neuromill.signals.chain import EegFacts, plan_chain, run_chain
from neuromill.signals.montage import MONTAGES, bipolar_of, position_of
from neuromill.signals.quality import ChainReport
from neuromill.signals.steps import (
    BaseStep,
    Filter,
    NotchFilter,
    Pick,
    PickBipolar,
    PickMontage,
    Reference,
    Reject,
    Resample,
    Step,
)
from support.recordings import dataset_root, recording_from_folder

SIXTEEN = BIPOLAR_MONTAGES["double-banana-16"]
NINETEEN = MONTAGES["10-20-19"]
RATE = 100.0
TWO = ("F3-C3", "C3-P3")


def eeg(*names: str, types: tuple[str, ...] = (), bads: tuple[str, ...] = ()) -> ChannelTable:
    n = len(names)
    places = np.arange(3.0 * n).reshape(n, 3)
    return ChannelTable(names, types or ("eeg",) * n, ("EEG",) * n, ("V",) * n, places, places, bads or ("",) * n)


def referenced(pattern: str = "EEG {}-REF") -> ChannelTable:
    return eeg(*(pattern.format(name) for name in NINETEEN))


def test_the_sixteen_pairs_are_four_chains_from_front_to_back() -> None:
    assert len(set(SIXTEEN)) == 16
    chains = [SIXTEEN[at : at + 4] for at in range(0, 16, 4)]
    for chain, (first, last) in zip(chains, [("FP1", "O1"), ("FP2", "O2")] * 2, strict=True):
        ends = [pair.split("-") for pair in chain]
        assert (ends[0][0], ends[-1][1]) == (first, last)
        assert all(one[1] == other[0] for one, other in pairwise(ends))
    assert {end for pair in SIXTEEN for end in pair.split("-")} == set(NINETEEN) - {"FZ", "CZ", "PZ"}


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("FP1-F7", ("FP1", "F7")),
        ("EEG Fp1-F7", ("FP1", "F7")),
        ("fp1 - f7", ("FP1", "F7")),
        ("T7-P7", ("T3", "T5")),
        ("P8-O2", ("T6", "O2")),
        ("FC5-C5", ("FC5", "C5")),
        ("C3:CZ", ("C3", "CZ")),
        ("F3-A2", None),
        ("EEG F3-REF", None),
        ("A1-T3", None),
        ("A2-A1", None),
        ("F3", None),
        ("F3-F3", None),
        ("T7-T3", None),
        ("F3-C3-P3", None),
        ("F3-", None),
        ("ECG-F3", None),
        ("", None),
    ],
)
def test_names_of_pairs(name: str, pair: tuple[str, str] | None) -> None:
    assert bipolar_of(name) == pair
    assert pair is None or position_of(name) is None


@given(
    st.sampled_from(NINETEEN), st.sampled_from(NINETEEN), st.sampled_from(["{}-{}", "EEG {}-{}", " {} - {}", "{}:{}"])
)
def test_any_two_electrodes_are_a_pair_and_no_electrode(one: str, other: str, pattern: str) -> None:
    name = pattern.format(one, other)
    assert bipolar_of(name) == ((one, other) if one != other else None)
    assert position_of(name) is None


def test_matching_tells_what_it_used_and_what_not() -> None:
    table = eeg("EEG P3-REF", "ECG", "EEG C3-REF", "EEG CZ-REF", "STI", types=("eeg", "ecg", "eeg", "eeg", "stim"))
    match = match_bipolar(("F3-C3", "C3-P3"), table)
    assert match == BipolarMatch(
        names=("C3-P3",),
        indices=((2, 0),),
        sources=(("EEG C3-REF", "EEG P3-REF"),),
        references=("REF",),
        missing=("F3-C3",),
        mixed=(),
        unmatched=("EEG CZ-REF",),
        twice={},
    )


@pytest.mark.parametrize(
    ("names", "indices", "mixed"),
    [
        (("F3", "C3", "P3"), ((0, 1), (1, 2)), ()),
        (("P3-LE", "C3-LE", "F3-LE"), ((2, 1), (1, 0)), ()),
        (("F3-A2", "C3-A2", "P3-A1"), ((0, 1),), ("C3-P3",)),
        (("F3-A2", "C3-A1", "P3"), (), TWO),
        (("F3-C3", "C3-P3"), ((0,), (1,)), ()),
        (("C3-P3", "F3-REF", "C3-REF"), ((1, 2), (0,)), ()),
        (("F3-C3", "F3", "C3", "P3"), ((0,), (2, 3)), ()),
        (("C3-F3", "P3-C3"), (), ()),
        (("F3-TP9", "C3-TP9", "P3-TP10"), ((0, 1),), ("C3-P3",)),
        ((), (), ()),
    ],
    ids=str,
)
def test_what_pairs_are_made_of(
    names: tuple[str, ...], indices: tuple[tuple[int, ...], ...], mixed: tuple[str, ...]
) -> None:
    match = match_bipolar(TWO, eeg(*names))
    assert match.indices == indices
    assert match.mixed == mixed
    assert len(match.names) + len(match.missing) == len(TWO)


def test_a_mastoid_behind_a_name_is_a_reference_or_the_other_electrode_of_a_pair_that_is_asked_for() -> None:
    assert match_bipolar(("FZ-TP9",), eeg("Fz-TP9", "Cz-TP9")).indices == ((0,),)
    assert match_bipolar(("FZ-CZ",), eeg("Fz-TP9", "Cz-TP9")).indices == ((0, 1),)


def test_other_units_are_no_difference() -> None:
    table = eeg("F3", "C3", "P3")
    other = ChannelTable(
        table.names, table.types, table.coils, ("V", "V", ""), table.positions, table.orientations, table.bads
    )
    assert match_bipolar(TWO, other).mixed == ("C3-P3",)


def test_contacts_in_the_brain_are_not_on_the_scalp() -> None:
    assert match_bipolar(TWO, eeg("F3", "C3", "P3", types=("ecog",) * 3)).names == ()


@pytest.mark.parametrize(
    ("table", "require_all", "code", "words"),
    [
        (eeg("F3", "C3"), True, FailureCode.NO_USABLE_CHANNELS, "1 of 2 bipolar channels; missing: C3-P3"),
        (eeg("Oz"), False, FailureCode.NO_USABLE_CHANNELS, "0 of 2"),
        (eeg("F3-A2", "C3-A1", "P3-A1"), True, FailureCode.NO_USABLE_CHANNELS, "different references: F3-C3"),
        (eeg("F3", "C3", "P3", "EEG C3-REF"), False, FailureCode.DUPLICATE_CHANNELS, "C3: C3, EEG C3-REF"),
        (eeg("F3-C3", "EEG F3-C3", "C3-P3"), True, FailureCode.DUPLICATE_CHANNELS, "F3-C3: F3-C3, EEG F3-C3"),
    ],
)
def test_what_is_refused(table: ChannelTable, code: FailureCode, words: str, *, require_all: bool) -> None:
    with pytest.raises(RecordingError, match=words) as caught:
        require_bipolar(PickBipolar(pairs=TWO, require_all=require_all), table, "sub-01")
    assert caught.value.code is code
    assert caught.value.where == "sub-01"


def test_an_electrode_that_no_pair_needs_may_be_there_twice() -> None:
    table = eeg("F3", "C3", "P3", "Oz", "Oz-REF")
    assert require_bipolar(PickBipolar(pairs=TWO), table).unmatched == ("Oz", "Oz-REF")


def test_the_channel_table_of_pairs() -> None:
    table = eeg("F3", "C3", "P3", bads=("", "", "marked"))
    made = bipolar_channels(match_bipolar(TWO, table), table)
    assert (made.names, made.types, made.units) == (TWO, ("eeg", "eeg"), ("V", "V"))
    assert made.bads == ("", "marked")
    np.testing.assert_array_equal(made.positions, [[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]])
    assert np.isnan(made.orientations).all()


def test_a_place_that_is_not_known_is_not_made_up() -> None:
    table = eeg("F3", "C3", "P3")
    table.positions[2] = np.nan
    np.testing.assert_array_equal(
        np.isnan(bipolar_channels(match_bipolar(TWO, table), table).positions).all(axis=1), [False, True]
    )


@given(st.permutations(NINETEEN), st.integers(0, 2**32 - 1))
def test_chains_of_pairs_telescope(order: list[str], seed: int) -> None:
    """FP1-F7 + F7-T3 + T3-T5 + T5-O1 is FP1-O1, in whatever order the file has its electrodes."""
    table = eeg(*order)
    needed, derivation = derivation_of(require_bipolar(PickBipolar(), table))
    assert list(needed) == sorted(set(needed))
    whole = np.random.default_rng(seed).integers(-1000, 1000, (19, 5)).astype(np.float64)
    made = derivation.of(whole[list(needed)])
    for at, (first, last) in enumerate([("FP1", "O1"), ("FP2", "O2")] * 2):
        expected = whole[order.index(first)] - whole[order.index(last)]
        np.testing.assert_array_equal(made[4 * at : 4 * at + 4].sum(axis=0), expected)


@pytest.mark.parametrize(
    "step",
    [
        {"pairs": "double-banana"},
        {"pairs": []},
        {"pairs": ["F3"]},
        {"pairs": ["F3-C3", "C3-REF"]},
        {"pairs": ["T7-P7", "F3-C3", "T3-T5"]},
        {"pairs": ["F3-F3"]},
    ],
    ids=str,
)
def test_steps_that_say_nothing_sensible(step: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Step).validate_python({"step": "pick_bipolar"} | step)


def test_the_step_is_read_by_its_name() -> None:
    read = TypeAdapter(Step).validate_python
    assert read({"step": "pick_bipolar"}) == PickBipolar(pairs="double-banana-16", require_all=True)
    assert read({"step": "pick_bipolar", "pairs": ["F3-C3"]}) == PickBipolar(pairs=("F3-C3",))
    with pytest.raises(ConfigError, match="FP1-F7"):
        require_pair("F3")


# In a chain


def run(
    steps: tuple[BaseStep, ...], x: NDArray[np.float64], table: ChannelTable, **plan: int
) -> tuple[NDArray[np.float32], ChainReport, EegFacts]:
    chain = plan_chain(steps, table, RATE, x.shape[1], 50.0, **plan)
    going = run_chain(chain, lambda start, stop: x[list(chain.picks), start:stop])
    made = np.concatenate(list(going), axis=1)
    assert made.shape == (len(chain.channels), chain.n_times)
    assert isinstance(chain.facts, EegFacts)
    return made, going.report, chain.facts


def noise(n: int, seconds: float = 30.0) -> NDArray[np.float64]:
    return 10e-6 * np.random.default_rng(1).standard_normal((n, round(seconds * RATE)))


LINEAR: tuple[BaseStep, ...] = (Filter(l_freq=1.0, h_freq=30.0), NotchFilter(freqs=(20.0,)), Resample(sfreq=50.0))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("seconds", [30.0, 2.0], ids=["fused", "step by step"])
def test_filters_see_the_difference(place: int, seconds: float) -> None:
    """The oracle is a recording that has the differences as channels; an offset of 100 mV on both electrodes goes."""
    x = noise(3, seconds) + 0.1
    steps = (*LINEAR[:place], PickBipolar(pairs=TWO), *LINEAR[place:])
    made, _, facts = run(steps, x, eeg("P3", "F3", "C3"))
    differences = np.stack([x[1] - x[2], x[2] - x[0]])
    expected, _, _ = run((PickBipolar(pairs=TWO), *LINEAR), differences, eeg("F3-C3", "C3-P3"))
    np.testing.assert_array_equal(made, expected)
    assert isinstance(facts.montage, BipolarMatch)
    assert facts.montage.sources == (("F3", "C3"), ("C3", "P3"))


def test_blocks_do_not_matter() -> None:
    x, table = noise(19), referenced()
    whole, _, _ = run((PickBipolar(), *LINEAR), x, table)
    pieces, _, _ = run((PickBipolar(), *LINEAR), x, table, block_bytes=19 * 8 * 37)
    np.testing.assert_array_equal(pieces, whole)
    assert whole.shape[0] == 16


@pytest.mark.parametrize(
    ("spoil", "bads", "n_non_finite"),
    [
        ({}, {}, {}),
        ({1: np.nan}, {0: "non_finite", 1: "non_finite"}, {0: 1, 1: 1}),
        ({2: np.inf}, {1: "non_finite"}, {1: 1}),
        ({1: np.inf, 2: np.inf}, {0: "non_finite", 1: "non_finite"}, {0: 1, 1: 1}),
        ({0: 2e30, 1: 2e30}, {0: "non_finite", 1: "non_finite"}, {1: 1}),
    ],
    ids=str,
)
def test_one_sample_that_is_no_number(
    spoil: dict[int, float], bads: dict[int, str], n_non_finite: dict[int, int]
) -> None:
    x = noise(5)
    for row, value in spoil.items():
        x[row, 1234] = value
    made, report, _ = run((PickBipolar(pairs=(*TWO, "O1-O2")),), x, eeg("F3", "C3", "P3", "O1", "O2"))
    assert report.bads == bads
    assert report.n_non_finite == n_non_finite
    assert np.isfinite(made).all()


def test_a_flat_electrode_is_no_reference() -> None:
    """F3-C3 with C3 fallen off is F3 against the reference: it looks alive and is something else."""
    x = noise(4)
    x[1] = 3e-6
    _, report, _ = run((PickBipolar(pairs=("F3-C3", "P3-O1")),), x, eeg("F3", "C3", "P3", "O1"))
    assert report.bads == {0: "flat"}


def test_a_bridge_between_electrodes_is_flat() -> None:
    x = noise(4)
    x[1] = x[0]
    _, report, _ = run((PickBipolar(pairs=("F3-C3", "P3-O1")),), x, eeg("F3", "C3", "P3", "O1"))
    assert report.bads == {0: "flat"}


def test_rejection_sees_the_difference() -> None:
    """Both electrodes are at 1 mV together: the pair is quiet."""
    x = noise(3)
    x[:2, 100:200] += 1e-3
    made, report, _ = run((PickBipolar(pairs=TWO), Reject(window_seconds=10.0)), x, eeg("F3", "C3", "P3"))
    assert report.rejection is not None
    np.testing.assert_array_equal(report.rejection.reasons[:, 0] > 0, [False, False, False])
    np.testing.assert_array_equal(report.rejection.reasons[:, 1] > 0, [True, False, False])
    assert np.abs(made[0]).max() < 100e-6


@pytest.mark.parametrize(
    "steps",
    [(PickBipolar(), PickMontage()), (PickBipolar(), PickBipolar(pairs=TWO)), (PickBipolar(), Reference())],
    ids=["two montages", "twice", "reference"],
)
def test_what_cannot_stand_beside_it(steps: tuple[BaseStep, ...]) -> None:
    with pytest.raises(ConfigError):
        plan_chain(steps, referenced(), RATE, 1000, 50.0)


def test_a_pick_before_it_settles_who_is_meant() -> None:
    table = eeg("F3", "C3", "P3", "C3-0", "EEG C3")
    steps = (Pick(picks=("eeg",), exclude=("EEG C3",)), PickBipolar(pairs=TWO))
    assert plan_chain(steps, table, RATE, 1000).channels.names == TWO
    with pytest.raises(RecordingError):
        plan_chain(steps[1:], table, RATE, 1000)


def test_pairs_of_bad_electrodes_only() -> None:
    with pytest.raises(RecordingError) as caught:
        plan_chain((PickBipolar(pairs=TWO),), eeg("F3", "C3", "P3", bads=("", "marked", "")), RATE, 1000)
    assert caught.value.code is FailureCode.NO_USABLE_CHANNELS


REAL = (
    "bids/eeg-arithmetic/sub-00/eeg/sub-00_task-rest_eeg.edf",
    "bids/eeg-motorimagery/sub-001/eeg/sub-001_task-motion_run-4_eeg.edf",
)


@pytest.mark.data
@pytest.mark.parametrize("path", REAL)
def test_real_recordings_against_mne(data: Path, path: str) -> None:
    root, main = dataset_root(data, path)
    with open_recording(recording_from_folder(root, main), root) as signal:
        chain = plan_chain((PickBipolar(),), signal.channels, signal.sfreq, signal.n_times, where=path)
        made = np.concatenate(list(run_chain(chain, lambda a, b: signal.read(a, b, chain.picks))), axis=1)
    assert chain.channels.names == SIXTEEN
    assert isinstance(chain.facts, EegFacts)
    assert isinstance(chain.facts.montage, BipolarMatch)
    first, second = zip(*chain.facts.montage.sources, strict=True)
    raw = mne.io.read_raw_edf(data / path, preload=True)
    oracle = mne.set_bipolar_reference(raw, list(first), list(second), list(SIXTEEN)).get_data(list(SIXTEEN))
    np.testing.assert_allclose(made, oracle, rtol=1e-6, atol=1e-12)
    assert 1e-6 < np.median(np.std(made, axis=1)) < 50e-6
