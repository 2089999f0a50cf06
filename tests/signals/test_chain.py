import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.signals.chain import plan_chain
from neuromill.signals.steps import BaseStep, Filter, NotchFilter, Pick, Resample
from support.signals import MEG_STEPS, channel_table

NOTCH = NotchFilter()
MIXED = channel_table(5, types=("mag", "ref_meg", "grad", "stim", "eeg"), names=("M1", "R1", "G1", "STI", "E1"))


def test_the_meg_road():
    chain = plan_chain([Pick(), NOTCH, *MEG_STEPS], MIXED, 1000.0, 80000, 50.0)
    assert chain.picks == (0, 2)
    assert chain.channels.names == ("M1", "G1")
    assert (chain.sfreq, chain.n_times) == (50.0, 4000)
    assert (chain.input_sfreq, chain.input_n_times) == (1000.0, 80000)
    facts = chain.facts
    assert facts.filter_lengths == (6601, 33001)
    assert facts.notch_freqs == tuple(50.0 * k for k in range(1, 10))
    assert facts.passband_end == 22.0
    assert facts.fused
    assert not facts.shorter_than_filter
    assert not facts.upsampled


def test_without_pick_the_data_channels_stay():
    assert plan_chain([Resample(sfreq=50)], MIXED, 1000.0, 8000).picks == (0, 2, 4)


def test_picks_narrow_each_other_and_tell_what_is_missing():
    chain = plan_chain([Pick(picks=("M1", "G1", "M9")), Pick(picks=("mag",))], MIXED, 1000.0, 8000)
    assert chain.picks == (0,)
    assert chain.facts.missing_channels == ("M9",)


@pytest.mark.parametrize(
    ("seconds", "fused", "shorter"), [(80, True, False), (33.0, True, True), (20, False, True), (5, False, True)]
)
def test_what_short_recordings_do(seconds, fused, shorter):
    """All filters together look 16.5 + 3.3 + 2.1 s around: below that each has its own padding."""
    facts = plan_chain([NOTCH, *MEG_STEPS], channel_table(2), 1000.0, int(seconds * 1000), 50.0).facts
    assert (facts.fused, facts.shorter_than_filter) == (fused, shorter)


@pytest.mark.parametrize(
    ("steps", "table", "n_times", "line_freq", "code"),
    [
        (MEG_STEPS, MIXED, 0, None, FailureCode.EMPTY),
        (MEG_STEPS, MIXED, 19, None, FailureCode.TOO_SHORT),
        ([Pick(picks=("seeg",)), *MEG_STEPS], MIXED, 9000, None, FailureCode.NO_USABLE_CHANNELS),
        (MEG_STEPS, channel_table(2, bads=("marked", "flat")), 9000, None, FailureCode.NO_USABLE_CHANNELS),
        (MEG_STEPS, channel_table(0), 9000, None, FailureCode.NO_USABLE_CHANNELS),
        ([NOTCH], MIXED, 9000, None, FailureCode.MISSING_FACT),
    ],
)
def test_recordings_that_cannot_go_on(steps, table, n_times, line_freq, code):
    with pytest.raises(RecordingError) as caught:
        plan_chain(steps, table, 1000.0, n_times, line_freq, where="sub-01")
    assert caught.value.code is code
    assert caught.value.where == "sub-01"


def test_one_output_sample_is_enough():
    assert plan_chain(MEG_STEPS, MIXED, 1000.0, 20).n_times == 1


def test_a_chain_resamples_once():
    with pytest.raises(ConfigError, match="resamples once"):
        plan_chain([Resample(sfreq=100), Resample(sfreq=50)], MIXED, 1000.0, 8000)


def test_a_step_is_never_left_out_silently():
    class Whiten(BaseStep):
        step: str = "whiten"

    with pytest.raises(ConfigError, match="no place for the step Whiten"):
        plan_chain([Whiten()], MIXED, 1000.0, 8000)


def test_resampling_to_the_rate_it_has_is_nothing():
    chain = plan_chain([Resample(sfreq=50), Filter(l_freq=1, h_freq=20), Resample(sfreq=50)], MIXED, 50.0, 8000)
    assert (chain.sfreq, chain.n_times) == (50.0, 8000)
    assert chain.facts.passband_end is None


def test_upsampling_is_told():
    chain = plan_chain([Resample(sfreq=50)], MIXED, 40.0, 400)
    assert chain.n_times == 499  # the last lies at 9.96 s, the recording's last at 9.975 s
    assert chain.facts.upsampled
    assert chain.facts.passband_end == pytest.approx(17.6)


@settings(max_examples=30, deadline=None)
@given(minutes=st.integers(2, 600), n_channels=st.integers(1, 306), block_bytes=st.integers(1, 2**26))
def test_the_estimate_of_memory_does_not_grow_with_the_recording(minutes, n_channels, block_bytes):
    table, steps = channel_table(n_channels), [Resample(sfreq=50)]
    chain, longer = (plan_chain(steps, table, 1000.0, 60_000 * m, block_bytes=block_bytes) for m in (minutes, 60_000))
    fft_lengths = 1.05  # a short recording is one FFT of the next fast length, which may be a little longer
    assert chain.facts.peak_bytes <= fft_lengths * longer.facts.peak_bytes <= 400 * 2**20
    assert chain.read_length == longer.read_length <= max(block_bytes // (8 * n_channels), 1)
