"""Which frames are hidden."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.training.config import MaskingConfig
from neuromill.training.masking import draw_mask, mask_rng

CONFIG = MaskingConfig()
PUBLISHED = [(625, 240), (125, 120), (417, 240), (12, 0), (50, 48)]  # frames, of them hidden


@pytest.mark.parametrize(("n_frames", "n_hidden"), PUBLISHED)
def test_published_scheme(n_frames: int, n_hidden: int) -> None:
    for sample in range(20):
        mask = draw_mask(CONFIG, n_frames, n_frames, mask_rng(42, 0, sample), parity=True)
        assert mask.sum() == n_hidden
        starts = np.flatnonzero(np.diff(mask.astype(int), prepend=0) == 1)
        assert not (starts % 12).any()
        if n_frames == 625:
            assert not mask[600:].any()


@given(n_real=st.integers(2, 700), padding=st.integers(0, 50), sample=st.integers(0, 10**6))
def test_something_is_hidden_something_is_seen_and_padding_is_left_alone(
    n_real: int, padding: int, sample: int
) -> None:
    mask = draw_mask(CONFIG, n_real, n_real + padding, mask_rng(1, 0, sample))
    assert 1 <= mask[:n_real].sum() < n_real
    assert not mask[n_real:].any()


@pytest.mark.parametrize("n_frames", [50, 125, 625])
def test_share_does_not_depend_on_the_length_and_the_tail_is_hidden_as_often(n_frames: int) -> None:
    masks = np.stack([draw_mask(CONFIG, n_frames, n_frames, mask_rng(1, 0, s)) for s in range(2000)])
    assert masks.mean() == pytest.approx(0.4, abs=0.01)
    # four standard errors of a share of 0.4 over 2000 draws
    np.testing.assert_allclose(masks.mean(axis=0), masks.mean(), atol=4 * np.sqrt(0.24 / 2000) + 0.01)


def test_hidden_runs_are_blocks() -> None:
    mask = draw_mask(CONFIG, 625, 625, mask_rng(1, 0, 7))
    edges = np.flatnonzero(np.diff(mask.astype(int), prepend=0, append=0))
    inner = [stop - start for start, stop in edges.reshape(-1, 2) if start > 0 and stop < 625]
    assert inner
    assert all(length % 12 == 0 for length in inner)


def test_masks_depend_on_seed_epoch_and_sample_only() -> None:
    def draw(seed: int, epoch: int, sample: int) -> tuple[bool, ...]:
        return tuple(draw_mask(CONFIG, 625, 625, mask_rng(seed, epoch, sample)).tolist())

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(1, 2, 3), draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4)}) == 4


@pytest.mark.parametrize("words", [(0, 0, 0), (1, 2, 3), (2**32 - 1, 7, 2**31), (2**32, 0, 1), (2**70, 1, 1)])
def test_the_stream_is_that_of_a_list_of_words(words: tuple[int, int, int]) -> None:
    expected = np.random.default_rng([*words, 0x6D61736B])
    np.testing.assert_array_equal(mask_rng(*words).random(100), expected.random(100))


def test_one_frame_alone_is_never_hidden() -> None:
    assert not draw_mask(CONFIG, 1, 4, mask_rng(0, 0, 0)).any()
