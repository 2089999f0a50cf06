"""Steps of electrodes in a chain: order, montage, reference, trimming, rejection, amplitudes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from neuromill.records import ChannelTable, ConfigError, FailureCode, RecordingError
from neuromill.records.rejection import KEPT
from neuromill.signals.chain import ChainFacts, EegFacts, plan_chain, run_chain
from neuromill.signals.montage import MONTAGES
from neuromill.signals.rejection import AMPLITUDE, FLAT
from neuromill.signals.steps import (
    Crop,
    ExpectAmplitude,
    Filter,
    NotchFilter,
    Pick,
    PickMontage,
    Reference,
    Reject,
    Resample,
    Step,
    code_versions,
)
from support.signals import channel_table

NINETEEN = MONTAGES["10-20-19"]
RATE = 100.0


def electrodes(n: int = 3, *, names: tuple[str, ...] = (), bads: tuple[str, ...] = ()) -> ChannelTable:
    names = names or tuple(f"E{i}" for i in range(n))
    n = len(names)
    nowhere = np.full((n, 3), np.nan)
    return ChannelTable(names, ("eeg",) * n, ("",) * n, ("V",) * n, nowhere, nowhere, bads or ("",) * n)


def noise(n: int, seconds: float, scale: float = 10e-6) -> np.ndarray:
    return scale * np.random.default_rng(1).standard_normal((n, round(seconds * RATE)))


def run(steps, x, table=None, **plan):
    chain = plan_chain(steps, table or electrodes(len(x)), RATE, x.shape[1], 50.0, **plan)
    going = run_chain(chain, lambda start, stop: x[list(chain.picks), start:stop])
    made = np.concatenate(list(going), axis=1)
    assert made.shape == (len(chain.channels), chain.n_times)
    return chain, made, going.report


def test_steps_are_read_by_their_name_and_have_versions():
    steps = TypeAdapter(list[Step]).validate_python(
        [
            {"step": "pick_montage", "montage": "10-20-19", "require_all": False},
            {"step": "reference", "ref_channels": "average"},
            {"step": "crop", "first_seconds": 60, "last_seconds": 60, "multiple_of_seconds": 30},
            {"step": "reject", "threshold_volts": 100e-6, "window_seconds": 30},
            {"step": "expect_amplitude"},
        ]
    )
    assert steps == [
        PickMontage(require_all=False), Reference(), Crop(first_seconds=60, last_seconds=60, multiple_of_seconds=30),
        Reject(), ExpectAmplitude(),
    ]  # fmt: skip
    assert set(code_versions(steps)) == {"chain", *(step.step for step in steps)}


@pytest.mark.parametrize(
    "step",
    [
        {"step": "pick_montage", "montage": "10-5"},
        {"step": "reference", "ref_channels": "A1"},
        {"step": "crop", "first_seconds": -1},
        {"step": "crop", "multiple_of_seconds": 0},
        {"step": "reject", "threshold_volts": 0},
        {"step": "reject", "window_seconds": 0},
        {"step": "expect_amplitude", "low_volts": 1e-3},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(step):
    with pytest.raises(ValidationError):
        TypeAdapter(Step).validate_python(step)


def test_a_montage_comes_in_its_order_and_under_its_names():
    names = ("ECG", *(f"EEG {name}-REF" for name in reversed(NINETEEN)))
    x = noise(20, 5)
    chain, made, _ = run([PickMontage()], x, electrodes(names=names))
    assert chain.channels.names == NINETEEN
    assert chain.picks == tuple(range(19, 0, -1))
    np.testing.assert_array_equal(made, x[:0:-1].astype(np.float32))
    assert isinstance(chain.facts, EegFacts)
    assert chain.facts.montage is not None
    assert chain.facts.montage.unmatched == ("ECG",)
    assert set(chain.facts.montage.references) == {"REF"}


def test_a_pick_before_a_montage_settles_who_is_who():
    names = (*NINETEEN, "EEG C3-A2")
    with pytest.raises(RecordingError) as caught:
        run([PickMontage()], noise(20, 2), electrodes(names=names))
    assert caught.value.code is FailureCode.DUPLICATE_CHANNELS
    chain, _, _ = run(
        [Pick(picks=("eeg",), exclude=("EEG C3-A2",)), PickMontage()], noise(20, 2), electrodes(names=names)
    )
    assert chain.channels.names == NINETEEN


def test_bad_channels_of_a_montage_stay_bad():
    chain, _, _ = run([PickMontage()], noise(19, 2), electrodes(names=NINETEEN, bads=("marked",) + ("",) * 18))
    assert chain.channels.bads[0] == "marked"
    with pytest.raises(RecordingError) as caught:
        run([PickMontage()], noise(19, 2), electrodes(names=NINETEEN, bads=("marked",) * 19))
    assert caught.value.code is FailureCode.NO_USABLE_CHANNELS


def test_average_reference_leaves_out_what_is_marked():
    x = noise(4, 30)
    x[3] *= 1000
    filters = [Filter(l_freq=1.0, h_freq=40.0)]
    table = electrodes(4, bads=("", "", "", "marked"))
    _, plain, _ = run(filters, x, table)
    for steps in ([*filters, Reference()], [Reference(), *filters]):
        _, made, _ = run(steps, x, table)
        np.testing.assert_allclose(made, plain - plain[:3].astype(np.float64).mean(axis=0), atol=1e-9)
        assert np.abs(made[:3].sum(axis=0)).max() < 1e-9


@pytest.mark.parametrize(
    ("crop", "kept"),
    [
        (Crop(), (0, 1050)),
        (Crop(first_seconds=2), (200, 1050)),
        (Crop(last_seconds=1.5), (0, 900)),
        (Crop(first_seconds=1, last_seconds=1, multiple_of_seconds=3), (100, 700)),
        (Crop(multiple_of_seconds=10.5), (0, 1050)),
    ],
    ids=str,
)
def test_crop(crop, kept):
    x = noise(2, 10.5)
    filters = [Filter(l_freq=None, h_freq=20.0)]
    _, whole, _ = run(filters, x)
    chain, made, report = run([*filters, crop], x)
    np.testing.assert_array_equal(made, whole[:, slice(*kept)])  # filters saw what was cut
    assert chain.start_seconds == kept[0] / RATE
    assert report.n_times == chain.n_times
    facts = chain.facts
    if isinstance(facts, EegFacts):
        assert (facts.start_seconds, facts.cut_seconds) == (kept[0] / RATE, (1050 - kept[1]) / RATE)
    else:
        assert kept == (0, 1050)


@pytest.mark.parametrize("crop", [Crop(first_seconds=5, last_seconds=5), Crop(multiple_of_seconds=11)], ids=str)
def test_nothing_is_left(crop):
    with pytest.raises(RecordingError) as caught:
        run([crop], noise(1, 10))
    assert caught.value.code is FailureCode.TOO_SHORT


@pytest.mark.parametrize(
    "steps",
    [
        [Crop(), Filter(l_freq=1.0, h_freq=None)],
        [Reject(), Resample(sfreq=50)],
        [Reject(), Reference()],
        [Reject(), Crop()],
        [ExpectAmplitude(), Crop()],
        [Crop(), PickMontage(require_all=False)],
        [Reference(), Reference()],
        [Reject(), Reject()],
        [PickMontage(), PickMontage()],
    ],
    ids=str,
)
def test_an_order_that_cannot_be_kept_is_refused(steps):
    with pytest.raises(ConfigError):
        plan_chain(steps, electrodes(names=NINETEEN), RATE, 9000)


def test_rejection_marks_windows_of_channels_and_touches_nothing():
    x = noise(4, 9.5)
    x[0, 250] = 150e-6
    x[0, 450] = -150e-6
    x[1, 800:] = 0
    x[2, 940] = 100e-6
    table = electrodes(4, bads=("", "", "", "marked"))
    step = Reject(window_seconds=2, flat_volts=1e-6)
    chain, made, report = run([step], x, table)
    np.testing.assert_array_equal(made, x.astype(np.float32))
    rejection = report.rejection
    assert rejection.reasons.dtype == np.uint8
    assert rejection.window_samples == 200
    np.testing.assert_array_equal(
        rejection.reasons,
        [
            [KEPT, KEPT, KEPT, KEPT],
            [AMPLITUDE, KEPT, KEPT, KEPT],
            [AMPLITUDE, KEPT, KEPT, KEPT],
            [KEPT, KEPT, KEPT, KEPT],
            [KEPT, FLAT, AMPLITUDE, KEPT],  # 1.5 s long
        ],
    )
    statistics = rejection.statistics(chain.channels)
    assert statistics["by_reason"] == {"amplitude": 3, "flat": 1}
    assert statistics["windows_kept_whole"] == 2
    assert statistics["windows_lost_whole"] == 0
    assert statistics["share_rejected"] == pytest.approx(4 / 20)
    assert statistics["share_by_channel"] == {"E0": 0.4, "E1": 0.2, "E2": 0.2, "E3": 0.0}


@settings(max_examples=25)
@given(seconds=st.floats(0.5, 30), window=st.floats(0.1, 40), block=st.integers(1, 4000), cut=st.floats(0, 0.4))
def test_windows_do_not_depend_on_how_the_recording_is_read(seconds, window, block, cut):
    x = noise(2, seconds, 40e-6)
    steps = [Crop(first_seconds=cut), Reject(window_seconds=window, threshold_volts=110e-6), ExpectAmplitude()]
    _, made, report = run(steps, x, block_bytes=max(block, 2 * 8 * 97))
    samples = report.rejection.window_samples
    windows = [made[:, i : i + samples] for i in range(0, made.shape[1], samples)]
    expected = [np.abs(part).max(axis=1) >= 110e-6 for part in windows]
    np.testing.assert_array_equal(report.rejection.reasons, np.array(expected, dtype=np.uint8))
    pieces = [made[:, i : i + 100].astype(float).std(axis=1) for i in range(0, made.shape[1], 100)]
    assert report.typical_volts == pytest.approx(np.median(pieces), rel=1e-6)


def test_without_these_steps_a_report_has_none():
    _, _, report = run([], noise(1, 2))
    assert report.rejection is None
    assert report.typical_volts is None
    assert type(plan_chain([], electrodes(), RATE, 100).facts) is ChainFacts


def test_volts_only():
    for step in (Reject(), ExpectAmplitude()):
        with pytest.raises(ConfigError, match="volts"):
            plan_chain([step], channel_table(2), RATE, 1000)


def test_channels_of_two_types_have_no_common_average():
    table = channel_table(2, types=("eeg", "ecog"))
    with pytest.raises(ConfigError, match="several types"):
        plan_chain([Reference()], table, RATE, 1000)


@pytest.mark.parametrize("factor", [1e-6, 1e-2, 1e2, 1e3, 1e6])
def test_amplitudes_of_another_unit_fail(factor):
    x = noise(3, 12, 15e-6)
    _, _, report = run([ExpectAmplitude()], x)
    assert report.typical_volts == pytest.approx(15e-6, rel=0.05)
    with pytest.raises(RecordingError, match="typical amplitude") as caught:
        run([ExpectAmplitude()], factor * x, where="sub-01")
    assert caught.value.code is FailureCode.UNIT_CONFLICT
    assert caught.value.where == "sub-01"


def one_fault(k: int, n: int) -> bool:
    return 2 * k >= n or (k > 1 and 4 * k > n)


@pytest.mark.parametrize("factor", [1e-6, 1e-2, 1e2, 1e6])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 19])
@pytest.mark.parametrize("seconds", [12, 1])
def test_amplitudes_of_another_unit_in_some_channels_are_seen(n, factor, seconds):
    """Natural differences between channels (a factor of 6 at most) do not hide it."""
    x = noise(n, seconds, 12e-6) * np.geomspace(0.5, 3, n)[:, None]
    for k in range(1, n + 1):
        wrong = x.copy()
        wrong[np.random.default_rng(k).permutation(n)[:k]] *= factor
        apart = set(np.random.default_rng(k).permutation(n)[:k].tolist())
        if one_fault(k, n):
            with pytest.raises(RecordingError) as caught:
                run([ExpectAmplitude()], wrong)
            assert caught.value.code is FailureCode.UNIT_CONFLICT, k
        else:
            assert run([ExpectAmplitude()], wrong)[2].bads == dict.fromkeys(apart, "implausible"), k


def test_the_message_names_the_channels_and_their_amplitudes():
    x = noise(8, 12, 12e-6)
    x[[1, 4, 6]] *= 100
    with pytest.raises(
        RecordingError, match=r"3 of 8 channels .* 10 times .*: E1 1\.\d+e\+03 uV, E4 .*, E6 "
    ) as caught:
        run([ExpectAmplitude()], x, where="sub-01")
    assert caught.value.where == "sub-01"


def test_a_channel_that_is_dead_half_of_the_time_or_moves_is_of_the_same_unit():
    x = noise(8, 12, 12e-6)
    x[1, :600] = 0
    x[2, 300:500] *= 1000
    assert run([ExpectAmplitude()], x)[2].bads == {}
    assert run([ExpectAmplitude(channel_ratio=None)], 1e-2 ** (np.arange(8) == 3)[:, None] * x)[2].bads == {}


def test_an_average_reference_does_not_hide_the_channel_that_is_in_it():
    """It would give every channel a part of it: one of 19 times 100 makes all others five times larger."""
    x = noise(19, 12, 12e-6)
    small, large = x.copy(), x.copy()
    small[3] *= 1e-2
    large[3] *= 1e2
    assert run([Reference(), ExpectAmplitude()], small)[2].bads == {3: "implausible"}
    with pytest.raises(RecordingError, match=r"average reference.*E3 ") as caught:
        run([Reference(), ExpectAmplitude()], large)
    assert caught.value.code is FailureCode.UNIT_CONFLICT
    assert run([Reference(), ExpectAmplitude()], large, electrodes(19, bads=("",) * 3 + ("marked",) + ("",) * 15))
    assert run([Reference(), ExpectAmplitude()], x)[2].bads == {}


@pytest.mark.parametrize(
    "step",
    [
        {"step": "reject", "threshold_volts": 100}, {"step": "reject", "flat_volts": 0.5},
        {"step": "expect_amplitude", "high_volts": 500}, {"step": "expect_amplitude", "low_volts": 2},
    ],
)  # fmt: skip
def test_microvolts_are_no_volts(step):
    with pytest.raises(ValidationError, match="the unit is volts"):
        TypeAdapter(Step).validate_python(step)


def test_bad_channels_say_nothing_about_the_unit():
    x = noise(5, 12, 15e-6)
    x[:3] = 1e-12 * np.arange(1200)
    x[3, 5] = np.nan
    x[2] = 0
    table = electrodes(5, bads=("marked", "marked", "", "", ""))
    _, _, report = run([ExpectAmplitude()], x, table)
    assert report.bads == {2: "flat", 3: "non_finite"}
    assert report.typical_volts == pytest.approx(15e-6, rel=0.1)


def test_the_road_of_the_paper_can_be_declared():
    steps = [
        PickMontage(), Resample(sfreq=200.0), Filter(l_freq=0.3, h_freq=75.0), NotchFilter(freqs=(60.0,)),
        Crop(first_seconds=60, last_seconds=60, multiple_of_seconds=30), Reject(), ExpectAmplitude(),
    ]  # fmt: skip
    chain = plan_chain(steps, electrodes(names=NINETEEN), 250.0, 250 * 400)
    assert (chain.sfreq, chain.n_times) == (200.0, 9 * 6000)
    assert chain.start_seconds == 60
    assert chain.facts.fused
    assert chain.facts.filter_lengths == (2201, 1321)  # designed at 200 Hz: resampling comes first
