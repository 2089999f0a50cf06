import mne
import numpy as np
import pytest

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.signals.fir import Fir, combine, design_filter, design_notch, notch_freqs
from neuromill.signals.steps import Filter, NotchFilter

BAND = Filter(l_freq=0.1, h_freq=40.0)


def impulse_response_of_mne(sfreq, n, apply):
    raw = mne.io.RawArray(np.zeros((1, n)), mne.create_info(1, sfreq, "mag"))
    raw._data[0, n // 2] = 1.0
    return apply(raw).get_data()[0]


@pytest.mark.parametrize(("sfreq", "n_taps"), [(1000.0, 33001), (1200.0, 39601)])
def test_band_pass_has_the_published_length(sfreq, n_taps):
    fir = design_filter(BAND, sfreq)
    assert len(fir.taps) == n_taps
    np.testing.assert_allclose(fir.taps, fir.taps[::-1], rtol=0, atol=1e-17)


@pytest.mark.parametrize("step", [BAND, Filter(l_freq=1.0, h_freq=None), Filter(l_freq=None, h_freq=30.0)], ids=str)
def test_filter_taps_are_those_of_mne(step):
    fir = design_filter(step, 250.0)
    response = impulse_response_of_mne(250.0, 40001, lambda raw: raw.filter(step.l_freq, step.h_freq))
    around = slice(20000 - fir.reach, 20000 + fir.reach + 1)
    np.testing.assert_allclose(fir.taps, response[around], atol=1e-15)
    assert np.abs(np.delete(response, np.arange(40001)[around])).max() < 1e-15


def test_notch_taps_are_those_of_mne():
    step = NotchFilter()
    freqs = notch_freqs(step, 1000.0, 60.0)
    assert freqs == (60, 120, 180, 240, 300, 360, 420, 480)
    fir = design_notch(step, 1000.0, freqs)
    response = impulse_response_of_mne(1000.0, 20001, lambda raw: raw.notch_filter(freqs))
    np.testing.assert_allclose(fir.taps, response[10000 - fir.reach : 10000 + fir.reach + 1], atol=1e-15)


@pytest.mark.parametrize(
    ("freqs", "sfreq", "line_freq", "kept"),
    [
        ("line", 1000.0, 50.0, tuple(50.0 * k for k in range(1, 10))),  # 500 Hz is the Nyquist frequency
        ("line", 90.0, 60.0, ()),
        ("line", 101.0, 50.0, ()),  # 50 Hz lies below Nyquist, its stop-band does not
        ((50.0, 100.0, 150.0), 250.0, None, (50.0, 100.0)),
    ],
)
def test_frequencies_beyond_nyquist_are_left_out(freqs, sfreq, line_freq, kept):
    step = NotchFilter(freqs=freqs)
    assert notch_freqs(step, sfreq, line_freq) == kept
    assert (len(design_notch(step, sfreq, kept).taps) == 1) == (not kept)


def test_unknown_line_frequency():
    with pytest.raises(RecordingError) as caught:
        notch_freqs(NotchFilter(), 1000.0, None, where="sub-01")
    assert caught.value.code is FailureCode.MISSING_FACT
    assert caught.value.where == "sub-01"


def test_low_pass_beyond_nyquist_is_met_already():
    high_pass = design_filter(Filter(l_freq=0.1, h_freq=None), 50.0)
    np.testing.assert_array_equal(design_filter(BAND, 50.0).taps, high_pass.taps)
    assert design_filter(Filter(l_freq=None, h_freq=40.0), 80.0).taps.tolist() == [1.0]


def test_impossible_designs():
    with pytest.raises(ConfigError, match="Nyquist"):
        design_filter(Filter(l_freq=30.0, h_freq=40.0), 50.0)
    with pytest.raises(ConfigError, match="cannot be designed"):
        design_filter(Filter(l_freq=1.0, h_freq=40.0, h_trans_bandwidth=50.0), 100.0)


def test_combined_filter_does_both():
    rng = np.random.default_rng(0)
    a, b = (Fir(taps + taps[::-1]) for taps in (rng.standard_normal(11), rng.standard_normal(5)))
    x = rng.standard_normal(100)
    np.testing.assert_allclose(
        np.convolve(x, combine([a, b]).taps), np.convolve(np.convolve(x, a.taps), b.taps), atol=1e-12
    )
    assert combine([]).taps.tolist() == [1.0]
