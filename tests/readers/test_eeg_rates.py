"""EDF files whose channels have several rates: one clock, and samples that do not depend on blocks."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuromill.readers.edf_rates import HALF_WIDTH, SlowRaw
from neuromill.readers.opening import open_recording
from support.recordings import recording_from_folder

RATE = 50.0


@dataclass
class Held:
    """What is asked of an ``mne.io.Raw``, from memory."""

    signal: np.ndarray

    @property
    def n_times(self) -> int:
        return self.signal.shape[1]

    def get_data(self, *, picks: list[int], start: int, stop: int, verbose: str) -> np.ndarray:
        assert 0 <= start <= stop <= self.n_times
        return self.signal[picks, start:stop]


def sines(n: int, sfreq: float) -> np.ndarray:
    seconds = np.arange(n) / sfreq
    return np.stack([np.sin(2 * np.pi * 3 * seconds), 5 + np.cos(2 * np.pi * 12.5 * seconds)])


@pytest.mark.parametrize("rate", [Fraction(2), Fraction(8, 5), Fraction(5, 4), Fraction(256), Fraction(500, 3)])
def test_sines_become_the_same_sines(rate: Fraction) -> None:
    n = 400
    slow = SlowRaw(Held(sines(n, RATE)), rate)
    n_out = int(n * rate)
    made, expected = slow.read([0, 1], 0, n_out), sines(n_out, RATE * float(rate))
    edge = int((HALF_WIDTH + 1) * rate)
    # stop band of the kernel: 80 dB
    np.testing.assert_allclose(made[:, edge:-edge], expected[:, edge:-edge], atol=2e-4)


@given(
    rate=st.sampled_from([Fraction(2), Fraction(8, 5), Fraction(3), Fraction(7, 3)]),
    cuts=st.lists(st.integers(1, 400), max_size=6),
)
def test_blocks_make_no_difference(rate: Fraction, cuts: list[int]) -> None:
    signal = np.random.default_rng(0).standard_normal((2, 180))
    slow = SlowRaw(Held(signal), rate)
    n_out = int(180 * rate)
    edges = sorted({0, n_out, *(cut for cut in cuts if cut < n_out)})
    parts = [slow.read([0, 1], a, b) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), slow.read([0, 1], 0, n_out))


def test_the_ends_hold_the_last_value() -> None:
    """A channel with an offset must not fall to zero before its first sample."""
    made = SlowRaw(Held(np.full((1, 100), 7.0)), Fraction(4)).read([0], 0, 400)
    np.testing.assert_allclose(made, 7.0, rtol=1e-3)


@pytest.mark.data
@pytest.mark.parametrize("size", [1, 16, 77, 160, 1000])
def test_a_real_file_in_blocks(data: Path, size: int) -> None:
    root = data / "malformed" / "edf"
    recording = recording_from_folder(root, "edf_mixed_rates.edf")
    with open_recording(recording, root) as signal:
        whole = signal.read(0, signal.n_times)
        starts = range(0, signal.n_times, size)
        parts = [signal.read(a, min(a + size, signal.n_times)) for a in starts]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
        picks = [5, 0, 1]
        np.testing.assert_array_equal(signal.read(100, 200, picks), whole[picks, 100:200])


@pytest.mark.data
def test_slow_channels_keep_their_own_samples(data: Path) -> None:
    """Fc3. and Fc4. have every second sample of the undamaged file; the others are those of the undamaged file."""
    root = data / "malformed" / "edf"
    with (
        open_recording(recording_from_folder(root, "edf_mixed_rates.edf"), root) as mixed,
        open_recording(recording_from_folder(root, "edf_ok.edf"), root) as whole,
    ):
        theirs, ours = whole.read(0, whole.n_times), mixed.read(0, mixed.n_times)
    fast = [0, 2, 3, 4, 6, 7]
    np.testing.assert_array_equal(ours[fast], theirs[fast])
    np.testing.assert_allclose(ours[[1, 5], ::2], theirs[[1, 5], ::2], atol=1e-8)  # of 46 uV
