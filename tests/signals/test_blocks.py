from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mne.cuda import _smart_pad

from neuromill.signals.blocks import SlidingBuffer, extended


@given(n=st.integers(1, 40), pad=st.integers(0, 60), length=st.integers(1, 50))
def test_edges_go_on_as_mne_pads_them(n, pad, length):
    x = np.random.default_rng(n).standard_normal((2, n))
    pieces = list(extended(lambda a, b: x[:, a:b], n, -pad, n + pad, length))
    assert all(piece.shape[1] <= length for piece in pieces)
    got = np.concatenate(pieces, axis=1)
    expected = _smart_pad(x, (min(pad, n - 1),) * 2)
    beyond = (got.shape[1] - expected.shape[1]) // 2
    np.testing.assert_array_equal(got, np.pad(expected, ((0, 0), (beyond, beyond))))


@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=20), data=st.data())
def test_the_buffer_hands_out_any_ascending_spans(cuts, data):
    total = sum(cuts)
    x = np.arange(2 * total, dtype=float).reshape(2, total)
    edges = np.cumsum([0, *cuts])
    buffer = SlidingBuffer((x[:, a:b] for a, b in pairwise(edges)), -5)
    start = 0
    for _ in range(5):
        start = data.draw(st.integers(start, total - 1))
        stop = data.draw(st.integers(start + 1, total))
        np.testing.assert_array_equal(buffer.take(start - 5, stop - 5), x[:, start:stop])


def test_the_buffer_ends_with_its_stream():
    buffer = SlidingBuffer(iter([np.zeros((1, 3))]), 0)
    with pytest.raises(StopIteration):
        buffer.take(0, 4)
