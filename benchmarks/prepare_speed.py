"""Our chain against MNE's ``raw.filter`` and ``raw.resample`` on the same samples: equality first, then time.

    OMP_NUM_THREADS=1 python benchmarks/prepare_speed.py --seconds 120 --channels 306 --repeats 3

Runs take turns, so a machine that slows down slows both; the ratio printed is the median of the pairs. Both include
the design of the filter. Processor time says more than wall time where other programs are running.
"""

import argparse
import statistics
import sys
import time

import mne
import numpy as np

from neuromill.records import ChannelTable
from neuromill.signals.chain import plan_chain, run_chain
from neuromill.signals.steps import Filter, Resample

STEPS = (Filter(l_freq=0.1, h_freq=40.0), Resample(sfreq=50.0))
TOLERANCE = 1e-3


def recording(n_channels, seconds, sfreq):
    rng = np.random.default_rng(0)
    n_times = int(seconds * sfreq)
    spectrum = np.fft.rfft(rng.standard_normal((n_channels, n_times)))
    spectrum[:, 1:] /= np.sqrt(np.arange(1, spectrum.shape[1]))
    return 1e-12 * (np.fft.irfft(spectrum, n_times) + rng.standard_normal((n_channels, 1)))


def ours(x, sfreq):
    n = len(x)
    nowhere = np.full((n, 3), np.nan)
    names = tuple(f"MEG{i:04d}" for i in range(n))
    table = ChannelTable(names, ("mag",) * n, ("",) * n, ("T",) * n, nowhere, nowhere, ("",) * n)
    chain = plan_chain(STEPS, table, sfreq, x.shape[1])
    return np.concatenate(list(run_chain(chain, lambda start, stop: x[:, start:stop])), axis=1)


def theirs(x, sfreq):
    raw = mne.io.RawArray(x.copy(), mne.create_info(len(x), sfreq, "mag"), verbose="error")
    raw.filter(0.1, 40.0, verbose="error").resample(50.0, npad=int(2 * sfreq), verbose="error")
    return raw.get_data()


def band_error(y, oracle):
    """Largest relative error of a channel in 0.1-22 Hz, 17 s left out on each side."""
    y, oracle = y[:, 850:-850], oracle[:, 850:-850]
    window = np.hanning(y.shape[1])
    freqs = np.fft.rfftfreq(y.shape[1], 1 / 50)
    band = (freqs >= 0.1) & (freqs <= 22)
    difference = np.fft.rfft((y - oracle) * window)[:, band]
    expected = np.fft.rfft(oracle * window)[:, band]
    return (np.linalg.norm(difference, axis=1) / np.linalg.norm(expected, axis=1)).max()


def timed(function, *arguments):
    """Seconds of wall clock and of processor."""
    wall, processor = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - wall, time.process_time() - processor


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--channels", type=int, default=306)
    parser.add_argument("--sfreq", type=float, default=1000.0)
    parser.add_argument("--repeats", type=int, default=3)
    settings = parser.parse_args()
    x = recording(settings.channels, settings.seconds, settings.sfreq)
    error = band_error(ours(x, settings.sfreq), theirs(x, settings.sfreq))
    print(f"{settings.channels} channels, {settings.seconds:g} s at {settings.sfreq:g} Hz -> 50 Hz")
    print(f"relative error in 0.1-22 Hz: {error:.1e}")
    if error > TOLERANCE:
        sys.exit("not the same result: nothing to compare")
    pairs = [(timed(ours, x, settings.sfreq), timed(theirs, x, settings.sfreq)) for _ in range(settings.repeats)]
    for clock, name in enumerate(("wall", "processor")):
        mine, mnes = ([run[clock] for run in runs] for runs in zip(*pairs, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in zip(mine, mnes, strict=True))
        times = f"neuromill {statistics.median(mine):.2f} s, MNE {statistics.median(mnes):.2f} s"
        print(f"{name:9} {times}, MNE / neuromill {ratio:.1f} (median of {settings.repeats} pairs)")


if __name__ == "__main__":
    main()
