"""The segment grid, and codes that depend on nothing but their own row."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.tokenizers.config import BioCodecConfig, TokenizeConfig
from neuromill.tokenizers.encoding import encode_rows, encode_segments, grid_for, usage_of
from neuromill.tokenizers.protocol import Tokenizer
from neuromill.tokenizers.segments import plan_segments
from support.codec import SMALL, meg_like, small_tokenizer

CONFIG = TokenizeConfig(segment_seconds=6, rows_per_forward=8)


@given(n_times=st.integers(1, 40_000), seconds=st.floats(0.1, 200), hop=st.integers(1, 30))
def test_grid_covers_every_sample_once(n_times, seconds, hop):
    grid = plan_segments(n_times, sfreq=50, segment_seconds=seconds, hop_samples=hop)
    segments = grid.segments
    assert [i for s in segments for i in (s.span.start, s.span.stop)][1:-1:2] == [s.span.stop for s in segments[:-1]]
    assert (segments[0].span.start, segments[-1].span.stop) == (0, n_times)
    assert segments[-1].frames.stop == grid.n_frames == -(-n_times // hop)
    assert all(len(s.span) == grid.segment_samples for s in segments[:-1])
    assert all(s.frames.start * hop == s.span.start for s in segments)
    assert all(len(s.frames) == -(-s.n_valid_samples // hop) for s in segments)
    assert all(a.frames.stop == b.frames.start for a, b in pairwise(segments))


@pytest.mark.parametrize(
    ("n_times", "lengths"),
    [(7500, [7500]), (7501, [7500, 1]), (7499, [7499]), (20_000, [7500, 7500, 5000]), (1, [1])],
)
def test_published_grid_keeps_the_tail(n_times, lengths):
    grid = plan_segments(n_times, sfreq=50, segment_seconds=150, hop_samples=12)
    assert [s.n_valid_samples for s in grid.segments] == lengths
    assert len(grid.segments[0].frames) == -(-lengths[0] // 12)


def test_segments_hold_whole_frames():
    assert plan_segments(10_000, sfreq=50, segment_seconds=1, hop_samples=12).segment_samples == 48
    assert plan_segments(10_000, sfreq=50, segment_seconds=0.01, hop_samples=12).segment_samples == 12


def test_an_empty_recording_is_refused():
    with pytest.raises(RecordingError) as caught:
        plan_segments(0, sfreq=50, segment_seconds=150, hop_samples=12)
    assert caught.value.code is FailureCode.EMPTY


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def signal():
    """17 s of 11 channels, so that neither channels nor samples divide evenly; [time, channel]."""
    return np.ascontiguousarray(meg_like(11, 850).T)


def codes_of(tokenizer, signal, config=CONFIG, segments=None):
    chosen = grid_for(tokenizer, config, len(signal)).segments if segments is None else segments
    return list(encode_segments(tokenizer, lambda start, stop: signal[start:stop], chosen, config))


def test_tokenizer_follows_the_protocol(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.hop_samples, tokenizer.n_quantizers, tokenizer.codebook_size) == (12, 3, 16)


def test_shapes(tokenizer, signal):
    parts = codes_of(tokenizer, signal)
    assert [p.codes.shape for p in parts] == [(25, 3, 11), (25, 3, 11), (21, 3, 11)]
    assert all(p.codes.dtype == np.uint8 and p.scale.dtype == np.float32 and p.scale.shape == (11,) for p in parts)
    assert all(len(p.codes) == len(p.segment.frames) for p in parts)


def assert_same(part, other):
    assert part.segment == other.segment
    assert np.array_equal(part.codes, other.codes)
    assert np.array_equal(part.scale, other.scale)


def test_any_single_segment_gives_the_same_codes(tokenizer, signal):
    for part in codes_of(tokenizer, signal):
        (alone,) = codes_of(tokenizer, signal, segments=[part.segment])
        assert_same(part, alone)


def test_order_of_segments_does_not_matter(tokenizer, signal):
    parts = codes_of(tokenizer, signal)
    for part, other in zip(parts, reversed(codes_of(tokenizer, signal, segments=[p.segment for p in parts][::-1])),
                           strict=True):  # fmt: skip
        assert_same(part, other)


@pytest.mark.parametrize("channels", [[0], [10], [3, 7], [5, 4, 3, 2, 1, 0], list(range(11))])
def test_channels_do_not_see_each_other(tokenizer, signal, channels):
    for part, some in zip(codes_of(tokenizer, signal), codes_of(tokenizer, signal[:, channels]), strict=True):
        assert np.array_equal(part.codes[:, :, channels], some.codes)
        assert np.array_equal(part.scale[channels], some.scale)


@pytest.mark.parametrize("n_times", [7500, 601])
def test_full_size_network_is_independent_of_companions(n_times):
    """The published sizes: other kernels than the small network's. Bitwise, for every position in the batch."""
    tokenizer = small_tokenizer(config=BioCodecConfig())
    rows = torch.from_numpy(meg_like(6, n_times))
    together = encode_rows(tokenizer, rows, 4)
    shuffled = encode_rows(tokenizer, rows[[5, 3, 1, 0, 2, 4]], 4)
    alone = encode_rows(tokenizer, rows[2:3], 4)
    assert torch.equal(together.codes[[5, 3, 1, 0, 2, 4]], shuffled.codes)
    assert torch.equal(together.scale[[5, 3, 1, 0, 2, 4]], shuffled.scale)
    assert torch.equal(together.codes[2:3], alone.codes)


def test_bad_channels_are_silence_and_touch_no_other(tokenizer, signal):
    damaged = signal.copy()
    damaged[100:120, 4] = np.nan
    damaged[:, 6] = 7e-12
    silence = codes_of(tokenizer, np.zeros_like(signal))
    others = [c for c in range(11) if c not in (4, 6)]
    first, silent, clean = (x[0] for x in (codes_of(tokenizer, damaged), silence, codes_of(tokenizer, signal)))
    assert np.array_equal(first.codes[:, :, [4, 6]], silent.codes[:, :, [4, 6]])
    assert np.array_equal(first.codes[:, :, others], clean.codes[:, :, others])
    # Not finite in the first segment only: the second one is whole.
    assert np.array_equal(codes_of(tokenizer, damaged)[1].codes[:, :, 4], codes_of(tokenizer, signal)[1].codes[:, :, 4])


def test_threads_change_no_code(tokenizer, signal):
    before = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2):
            torch.set_num_threads(n)
            results.append(codes_of(tokenizer, signal))
    finally:
        torch.set_num_threads(before)
    for part, other in zip(*results, strict=True):
        assert_same(part, other)


def test_usage_counts_only_the_channels_asked_for(tokenizer, signal):
    part = codes_of(tokenizer, signal)[0]
    assert usage_of(tokenizer, part.codes).n_frames == 25 * 11
    some = usage_of(tokenizer, part.codes, [2, 9])
    expected = np.bincount(part.codes[:, 1][:, [2, 9]].ravel(), minlength=SMALL.codebook_size)
    assert np.array_equal(some.counts[1], expected)


@pytest.mark.parametrize("shape", [(299, 11), (300,), (300, 0)])
def test_a_reader_that_gives_something_else_is_caught(tokenizer, signal, shape):
    segments = grid_for(tokenizer, CONFIG, len(signal)).segments
    with pytest.raises(ConfigError, match="segment 0"):
        list(encode_segments(tokenizer, lambda *_: np.zeros(shape, np.float32), segments, CONFIG))


def test_memory_is_bounded_by_a_forward_pass(tokenizer, signal):
    """No more segments are read ahead than fill one pass."""
    reads = []

    def read(start, stop):
        reads.append(start)
        return signal[start:stop]

    segments = grid_for(tokenizer, CONFIG, len(signal)).segments
    next(encode_segments(tokenizer, read, segments, CONFIG))
    assert reads == [0]
