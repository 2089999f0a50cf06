import numpy as np
import pytest

from neuromill.records import FailureCode, NeuroMillError, RecordingError
from neuromill.signals.chain import plan_chain, run_chain
from neuromill.signals.quality import QualityWatch
from support.signals import MEG_STEPS, channel_table, run_array


def recording(n_channels=6, n=5000):
    return 1e-12 * np.random.default_rng(0).standard_normal((n_channels, n))


def run(x, **settings):
    chain = plan_chain(MEG_STEPS, channel_table(len(x)), 1000.0, x.shape[1], **settings)
    blocks = run_chain(chain, lambda start, stop: x[:, start:stop])
    return np.concatenate(list(blocks), axis=1), blocks.report


@pytest.mark.parametrize("block_bytes", [6 * 8 * 7, 6 * 8 * 999, 2**25])
def test_bad_channels_are_found_whatever_the_blocks(block_bytes):
    x = recording()
    x[0, 4321] = np.nan
    x[1, 0] = np.inf
    x[1, -1] = -np.inf
    x[2] = 3.7e-9
    x[3] = 0.0
    x[4] = 1e-6 * (1 + 1e-9 * np.sign(x[4]))
    y, report = run(x, block_bytes=block_bytes)
    assert report.bads == {0: "non_finite", 1: "non_finite", 2: "flat", 3: "flat", 4: "flat"}
    assert report.n_non_finite == {0: 1, 1: 2}
    assert report.n_times == y.shape[1] == 250
    assert np.isfinite(y).all()


def test_a_bad_channel_leaves_the_others_as_they_were():
    clean, spoilt = recording(), recording()
    spoilt[2, 100:200] = np.nan
    (y, _), (z, _) = run(clean), run(spoilt)
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(y[others], z[others])


def test_a_small_signal_on_a_large_offset_is_not_flat():
    x = recording() + 1e-6  # a million times the signal
    assert run(x)[1].bads == {}


def test_values_no_float_can_filter_are_not_finite():
    x = recording()
    x[5, 17] = 1.7e308
    y, report = run(x)
    assert report.bads == {5: "non_finite"}
    assert np.isfinite(y).all()


def test_no_good_channel_left():
    x = recording(2)
    x[0], x[1, 5] = 0.0, np.nan
    chain = plan_chain(MEG_STEPS, channel_table(2), 1000.0, 5000, where="sub-01")
    with pytest.raises(RecordingError, match="1 flat, 1 non_finite") as caught:
        run_array(chain, x)
    assert caught.value.code is FailureCode.NO_USABLE_CHANNELS
    assert caught.value.where == "sub-01"


def test_marked_channels_count_as_bad():
    x = recording(2)
    x[0] = 0.0
    chain = plan_chain(MEG_STEPS, channel_table(2, bads=("", "marked")), 1000.0, 5000)
    with pytest.raises(RecordingError, match="no good channel"):
        run_array(chain, x)


def test_the_report_comes_after_the_last_block():
    x = recording()
    blocks = run_chain(plan_chain(MEG_STEPS, channel_table(6), 1000.0, 5000), lambda start, stop: x[:, start:stop])
    with pytest.raises(NeuroMillError, match="not run to its end"):
        _ = blocks.report


def test_samples_seen_twice_count_once():
    x = np.array([[np.nan, 1.0, np.nan, 2.0], [0.0, 1.0, 2.0, 3.0]])
    watch = QualityWatch(2)
    for start, stop in [(0, 1), (2, 4), (1, 3), (0, 4), (3, 4)]:
        watch.clean(x[:, start:stop], start)
    assert watch.report(channel_table(2), 1).n_non_finite == {0: 2}
