"""The frozen TFDual tokenizer: shapes, exactness, channels and units as agreed, files."""

import numpy as np
import pytest
import torch

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.tokenizers.config import TokenizeConfig
from neuromill.tokenizers.encoding import encode_segments, grid_for
from neuromill.tokenizers.files import from_pretrained, open_tokenizer, save_pretrained
from neuromill.tokenizers.metrics import evaluate
from neuromill.tokenizers.protocol import RowTokenizer, Tokenizer
from neuromill.tokenizers.rejection import Rejection
from neuromill.tokenizers.tfdual import scale_windows
from neuromill.tokenizers.tfdual_config import TfDualInputConfig, TfDualTokenizerConfig
from neuromill.tokenizers.tfdual_network import TfDual
from support.tfdual import CONFIG, NAMES, WINDOW, eeg_like, random_tokenizer, table


@pytest.fixture(scope="module")
def tokenizer():
    return random_tokenizer()


@pytest.fixture(scope="module")
def signal():
    """Seven windows and a tail of two patches and a half: float32 [time, channel]."""
    return np.ascontiguousarray(eeg_like(1, 8, 7 * WINDOW + 100)[0].T)


def encode(tokenizer, signal, rows=16, channels=None, segments=None):
    config = TokenizeConfig(rows_per_forward=rows)
    chosen = grid_for(tokenizer, config, len(signal)).segments if segments is None else segments
    known = table() if channels is None else channels
    return list(encode_segments(tokenizer, lambda a, b: signal[a:b], chosen, config, known))


def assert_same(part, other):
    assert part.segment == other.segment
    assert np.array_equal(part.codes, other.codes)
    assert np.array_equal(part.scale, other.scale, equal_nan=True)


def test_follows_the_protocol(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert not isinstance(tokenizer, RowTokenizer)
    assert (tokenizer.hop_samples, tokenizer.window_samples, tokenizer.n_quantizers) == (40, 240, 2)


def test_published_sizes():
    """9.15 M learned and 0.54 M codebook numbers in the published tokenizer, which stores its codes twice."""
    network = TfDual(TfDualTokenizerConfig(parity=True))
    assert sum(p.numel() for p in network.parameters()) == 9_146_448
    assert sum(q.embed.numel() for q in network.quantizers) == 2 * 4096 * 32
    assert sum(p.numel() for p in TfDual(TfDualTokenizerConfig()).parameters()) == 9_126_951


def test_shapes(tokenizer, signal):
    parts = encode(tokenizer, signal)
    assert [part.codes.shape for part in parts] == [(6, 2, 8)] * 7 + [(3, 2, 8)]
    assert all(part.codes.dtype == np.uint8 for part in parts)
    assert all((part.scale == np.float32(100e-6)).all() for part in parts)
    assert len(np.unique(np.concatenate([part.codes[:, 0] for part in parts]))) > 8


def test_large_codebooks_have_16_bits():
    network = CONFIG.network.model_copy(update={"codebook_size": 300})
    (part,) = encode(random_tokenizer(CONFIG.model_copy(update={"network": network})), eeg_like(1, 8, WINDOW)[0].T)
    assert part.codes.dtype == np.uint16


@pytest.mark.parametrize("rows", [8, 24, 56])
def test_a_window_depends_on_no_other(tokenizer, signal, rows):
    """Alone, in another order, or beside others in the same pass: the same codes."""
    parts = encode(tokenizer, signal, rows)
    for i in (0, 4, 7):
        assert_same(encode(tokenizer, signal, rows, segments=[parts[i].segment])[0], parts[i])
    backwards = encode(tokenizer, signal, rows, segments=[part.segment for part in parts][::-1])
    for part, other in zip(parts, backwards[::-1], strict=True):
        assert_same(part, other)


def test_batch_size_does_not_matter(tokenizer, signal):
    """A pass of 1, 2 or 7 windows: another shape, the same codes here (no two cosines are as near as rounding)."""
    parts = [encode(tokenizer, signal, rows) for rows in (8, 16, 56)]
    for some in zip(*parts, strict=True):
        assert_same(some[0], some[1])
        assert_same(some[0], some[2])


@pytest.mark.parametrize("quantizer", ["vq", "fsq"])
def test_full_size_windows_do_not_depend_on_companions(quantizer):
    config = TfDualTokenizerConfig(quantizer=quantizer)
    full = random_tokenizer(config)
    windows = eeg_like(3, 19, 2 * 200)
    channels = table(config.channels)
    together = full.encode_segments(windows, channels, 57)
    shuffled = full.encode_segments(windows[[2, 0, 1]], channels, 57)
    alone = full.encode_segments(windows[1:2], channels, 57)
    assert together.codes.dtype == np.uint16
    assert np.array_equal(together.codes[[2, 0, 1]], shuffled.codes)
    assert np.array_equal(together.codes[1:2], alone.codes)


def test_columns_are_found_by_name_whatever_their_order(tokenizer, signal):
    order = [5, 0, 7, 1, 6, 2, 4, 3]
    plain = encode(tokenizer, signal)[0]
    shuffled = encode(tokenizer, signal[:, order], channels=table(tuple(NAMES[i].lower() for i in order)))[0]
    assert np.array_equal(plain.codes[:, :, order], shuffled.codes)


def test_columns_without_a_position_have_no_codes(tokenizer, signal):
    wide = np.concatenate([signal[:, :1] * 3, signal], axis=1)
    part = encode(tokenizer, wide, channels=table(("EKG", *NAMES)))[0]
    assert np.isnan(part.scale[0])
    assert (part.codes[:, :, 0] == 0).all()
    assert np.array_equal(part.codes[:, :, 1:], encode(tokenizer, signal)[0].codes)


def test_bad_and_damaged_channels_are_zeros_and_marked(tokenizer, signal):
    damaged, silent = signal.copy(), signal.copy()
    damaged[100, 3] = np.nan
    silent[:WINDOW, 3] = 0
    marked = encode(tokenizer, signal, channels=table(bads=("D",)))[0]
    holed, zeroed = encode(tokenizer, damaged), encode(tokenizer, silent)[0]
    for part in (marked, holed[0]):
        assert np.array_equal(part.codes, zeroed.codes)
        assert np.isnan(part.scale).tolist() == [i == 3 for i in range(8)]
    assert_same(holed[1], encode(tokenizer, signal)[1])  # damaged in the first window only


def test_what_is_rejected_counts_as_missing(tokenizer, signal):
    """From a sample before the third window to the second of the fifth, on one channel; nothing of it is seen."""
    marks = np.zeros((len(signal), 8), bool)
    marks[2 * WINDOW - 1 : 4 * WINDOW + 2, 3] = True
    missing, huge = signal.copy(), signal.copy()
    missing[marks], huge[marks] = np.nan, 1.0
    config = TokenizeConfig(rows_per_forward=16)
    segments = grid_for(tokenizer, config, len(signal)).segments
    found = encode_segments(tokenizer, lambda a, b: huge[a:b], segments, config, table(), Rejection(marks, 1))
    for i, (part, other) in enumerate(zip(found, encode(tokenizer, missing), strict=True)):
        assert_same(part, other)
        assert np.isnan(part.scale[3]) == (1 <= i <= 4)


def test_any_montage_in_groups():
    config = CONFIG.model_copy(
        update={"channels": (), "group_channels": 5, "input": TfDualInputConfig(scaling="robust")}
    )
    tokenizer = random_tokenizer(config)
    signal, channels = eeg_like(2, 8, WINDOW) * 1e-9, table(kind="mag", unit="T")
    block = tokenizer.encode_segments(signal, channels, 16)
    alone = tokenizer.encode_segments(signal[:, :4], channels.pick(range(4)), 16)
    assert np.array_equal(block.codes[..., :4], alone.codes)  # groups do not see each other
    tokenizer.require(channels, WINDOW, lambda a, b: signal[0].T[a:b])
    louder = tokenizer.encode_segments(signal * 1024, channels, 16)
    assert np.array_equal(louder.codes, block.codes)
    np.testing.assert_allclose(louder.scale, 1024 * block.scale)


def refusal(signal, channels, config=CONFIG):
    with pytest.raises(RecordingError) as caught:
        random_tokenizer(config).require(channels, len(signal), lambda a, b: signal[a:b])
    return caught.value.code


@pytest.mark.parametrize("factor", [1e-6, 0.01, 100, 1e6])
def test_wrong_units_are_caught(signal, factor):
    assert refusal(signal * np.float32(factor), table()) is FailureCode.UNIT_CONFLICT


@pytest.mark.parametrize("factor", [1e-6, 0.01, 100, 1e6])
@pytest.mark.parametrize("n_wrong", range(1, len(NAMES) + 1))
def test_wrong_units_of_some_channels_are_caught(signal, factor, n_wrong):
    wrong = signal.copy()
    wrong[:, :n_wrong] *= np.float32(factor)
    assert refusal(wrong, table()) is FailureCode.UNIT_CONFLICT
    if n_wrong < len(NAMES):  # bad ones are not looked at
        random_tokenizer(CONFIG).require(table(bads=NAMES[:n_wrong]), len(wrong), lambda a, b: wrong[a:b])


@pytest.mark.parametrize("factor", [0.2, 1, 5])
def test_quiet_and_loud_recordings_are_none(tokenizer, signal, factor):
    tokenizer.require(table(), len(signal), lambda a, b: signal[a:b] * np.float32(factor))


def test_what_is_refused(signal):
    assert refusal(signal, table(unit="T")) is FailureCode.UNIT_CONFLICT
    assert refusal(signal[: WINDOW - 1], table()) is FailureCode.TOO_SHORT
    assert refusal(signal, table((*NAMES[:7], "X"))) is FailureCode.NO_USABLE_CHANNELS
    assert refusal(signal, table(bads=NAMES)) is FailureCode.NO_USABLE_CHANNELS


def test_the_window_is_the_tokenizers(tokenizer):
    assert grid_for(tokenizer, TokenizeConfig(), 1000).segment_samples == WINDOW
    assert grid_for(tokenizer, TokenizeConfig(segment_seconds=1.2), 1000).segment_samples == WINDOW
    with pytest.raises(ConfigError, match=r"windows of 1\.2 s, not of 30 s"):
        grid_for(tokenizer, TokenizeConfig(segment_seconds=30), 1000)


def test_a_table_is_needed(tokenizer):
    with pytest.raises(ConfigError, match="which channels"):
        tokenizer.encode_segments(eeg_like(1, 8, WINDOW), None, 16)


def test_decoding_from_the_store_is_the_round_trip(tokenizer):
    windows = eeg_like(2, 8, WINDOW)
    block = tokenizer.encode_segments(windows, table(), 16)
    output = tokenizer.decode_segments(block, table(), WINDOW, 16)
    trip = tokenizer.round_trip(torch.from_numpy(windows))
    np.testing.assert_allclose(output.reshape(16, -1), trip.output.numpy() * 100e-6, rtol=1e-4, atol=1e-10)
    np.testing.assert_allclose(trip.target.numpy() * 100e-6, windows.reshape(16, -1), rtol=1e-6)
    assert np.array_equal(trip.codes.numpy(), block.codes.transpose(0, 3, 2, 1).reshape(16, 2, 6))
    assert evaluate(tokenizer, [torch.from_numpy(windows)]).n_rows == 16


def magnitudes(windows, there):
    """Oracle: [window, channel, time] to z-scored magnitudes [window, channel, patch, bin] over channels ``there``."""
    spectrum = np.abs(np.fft.rfft(windows.reshape(*windows.shape[:2], -1, 40).astype(np.float64)))
    out = np.full(spectrum.shape, np.nan)
    for one, found, known in zip(out, spectrum, there, strict=True):
        one[known] = (found[known] - found[known].mean()) / found[known].std(ddof=1)
    return out


def test_magnitudes_that_both_codebooks_give_back(tokenizer):
    windows = eeg_like(2, 8, WINDOW)
    windows[1, 2, 5] = np.nan
    there = np.isfinite(windows).all(axis=-1)
    block = tokenizer.encode_segments(windows, table(), 16)
    found = tokenizer.amplitudes(windows, block, table(), 16)
    decoded = tokenizer.decode_segments(block, table(), WINDOW, 16)
    np.testing.assert_allclose(found.target, magnitudes(windows, there), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.temporal, magnitudes(decoded, there), rtol=1e-3, atol=1e-3)
    scaled = scale_windows(torch.from_numpy(windows), CONFIG.input, 40)
    with torch.no_grad():
        expected = tokenizer.network(scaled.x, None, scaled.valid).amplitude.numpy()
    np.testing.assert_allclose(found.frequency[there], expected[there], rtol=1e-4, atol=1e-5)
    assert np.isnan(found.frequency[~there]).all()
    assert found.freqs.tolist() == [5.0 * i for i in range(21)]


def test_decoding_leaves_out_what_was_not_there(tokenizer):
    windows = eeg_like(1, 8, WINDOW)
    windows[0, 2, 5] = np.nan
    output = tokenizer.decode_segments(tokenizer.encode_segments(windows, table(), 16), table(), WINDOW - 7, 16)
    assert output.shape == (1, 8, WINDOW - 7)
    assert np.isnan(output).all(axis=2)[0].tolist() == [i == 2 for i in range(8)]


def test_scaling_fills_the_last_patch_with_zeros():
    x = torch.from_numpy(eeg_like(1, 2, 50))
    scaled = scale_windows(x, TfDualInputConfig(clip=0.1), 40)
    assert scaled.x.shape == (1, 2, 2, 40)
    assert scaled.x.abs().max() <= 0.1
    assert (scaled.x[:, :, 1, 10:] == 0).all()


@pytest.mark.parametrize("config", [CONFIG, CONFIG.model_copy(update={"quantizer": "fsq"})], ids=["vq", "fsq"])
def test_files(tmp_path, config):
    tokenizer = random_tokenizer(config)
    again = open_tokenizer(save_pretrained(tokenizer, tmp_path / "tok", facts={"a": 1}))
    windows = eeg_like(1, 8, WINDOW)
    assert (again.config, again.digest) == (tokenizer.config, tokenizer.digest)
    assert np.array_equal(
        again.encode_segments(windows, table(), 8).codes, tokenizer.encode_segments(windows, table(), 8).codes
    )
    assert random_tokenizer(config, seed=1).digest != tokenizer.digest
    with pytest.raises(ConfigError, match="BioCodec is needed"):
        from_pretrained(tmp_path / "tok")


def test_an_unfitted_tokenizer_encodes_nothing():
    tokenizer = random_tokenizer()
    tokenizer.network.quantizers[1].inited.zero_()
    with pytest.raises(ConfigError, match="never initialised"):
        tokenizer.encode_segments(eeg_like(1, 8, WINDOW), table(), 8)


@pytest.mark.parametrize(
    "settings",
    [
        {"parity": True, "phase": "sincos"},
        {"channels": ("A", "a")},
        {"quantizer": "fsq", "levels": (256, 256, 256)},
        {"quantizer": "fsq", "levels": ()},
        {"network": {"width": 30}},
        {"network": {"stem_kernel": 4}},
        {"network": {"window_patches": 61}},
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings):
    with pytest.raises(ValueError, match="validation error"):
        TfDualTokenizerConfig.model_validate(settings)
