"""Random windows per second: direct reader, bare ``preadv`` on the same bytes, zarr-python.

    python benchmarks/store_reading.py [--recordings 16] [--rounds 5] [--folder FOLDER]

Writes float16 recordings of 306 channels x 50 Hz x 160 s, checks that every way of reading gives the same values, then
times them in turn, in another order each round. Prints medians over rounds, ratios paired within a round, and process
CPU time per window, which is the steadier figure on a shared machine. Files are read once before the clock starts;
nothing pins them, so on a machine that reclaims idle pages run it with more rounds and look at the spread.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

from neuromill.records import ChannelTable
from neuromill.store.attributes import SignalAttributes
from neuromill.store.index import rebuild_index
from neuromill.store.reader import StoreReader
from neuromill.store.writer import SignalWriter

N_CHANNELS, SFREQ, N_TIMES = 306, 50.0, 8000
WINDOW_SECONDS = (1, 30, 150)
Read = Callable[[int, int, np.ndarray], None]


def write_store(store: Path, n_recordings: int) -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"MEG{i:04d}" for i in range(N_CHANNELS))
    empty, nowhere = ("",) * N_CHANNELS, np.full((N_CHANNELS, 3), np.nan)
    channels = ChannelTable(names, ("mag",) * N_CHANNELS, empty, ("T",) * N_CHANNELS, nowhere, nowhere, empty)
    for i in range(n_recordings):
        name = f"sub-{i:03d}_meg"
        facts = {"recording_id": name, "dataset": "noise", "version": "1", "modality": "meg", "sfreq": SFREQ}
        with SignalWriter(store, name, n_channels=N_CHANNELS, sfreq=SFREQ) as writer:
            writer.write(rng.standard_normal((N_TIMES, N_CHANNELS), np.float32) * np.float32(1e-12))
            writer.publish(SignalAttributes(**facts), channels)
    rebuild_index(store)


def ways(store: Path, reader: StoreReader) -> dict[str, Read]:
    """Return functions (recording, start, out) that fill ``out`` with the window that starts there."""
    names = [recording.name for recording in reader.recordings]
    row_bytes = N_CHANNELS * 2
    shards = [os.open(store / f"{name}.zarr" / "signal" / "c" / "0" / "0", os.O_RDONLY) for name in names]
    arrays = [zarr.open_array(store / f"{name}.zarr" / "signal", mode="r") for name in names]

    def direct(i: int, start: int, out: np.ndarray) -> None:
        reader.read(names[i], "signal", start, start + len(out), out=out)

    def preadv(i: int, start: int, out: np.ndarray) -> None:
        os.preadv(shards[i], (out,), start * row_bytes)

    def zarr_python(i: int, start: int, out: np.ndarray) -> None:
        out[...] = arrays[i][start : start + len(out)]

    return {"preadv": preadv, "direct": direct, "zarr-python": zarr_python}


def check_equal(readers: dict[str, Read], n_recordings: int) -> None:
    rng = np.random.default_rng(1)
    for length in (1, 50, 1500, 7500):
        for _ in range(20):
            i, start = int(rng.integers(n_recordings)), int(rng.integers(N_TIMES - length + 1))
            buffers = {name: np.empty((length, N_CHANNELS), np.float16) for name in readers}
            for name, read in readers.items():
                read(i, start, buffers[name])
            assert all(np.array_equal(buffer, buffers["preadv"]) for buffer in buffers.values())


def time_one(read: Read, windows: np.ndarray, length: int) -> tuple[float, float]:
    """Wall and CPU seconds per window."""
    out = np.empty((8, length, N_CHANNELS), np.float16)
    wall, cpu = time.perf_counter(), time.process_time()
    for k, (i, start) in enumerate(windows.tolist()):
        read(i, start, out[k % 8])
    return (time.perf_counter() - wall) / len(windows), (time.process_time() - cpu) / len(windows)


def compare(readers: dict[str, Read], seconds: int, n_recordings: int, rounds: int) -> None:
    length = int(seconds * SFREQ)
    rng = np.random.default_rng(seconds)
    counts = {"zarr-python": max(20, 200 // seconds)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name in rng.permutation(list(readers)):
            n = counts.get(name, max(200, 20000 // seconds))
            windows = np.stack([rng.integers(n_recordings, size=n), rng.integers(N_TIMES - length + 1, size=n)], axis=1)
            times[name].append(time_one(readers[name], windows, length))
    base = np.array(times["preadv"])
    for name, measured in times.items():
        wall, cpu = np.median(measured, axis=0)
        ratio = np.median(base / np.array(measured), axis=0)
        print(f"| {seconds} s | {name} | {1 / wall:,.0f} | {cpu * 1e6:,.1f} | {ratio[0]:.3f} | {ratio[1]:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the store is written (default: temporary)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store = Path(folder)
        write_store(store, options.recordings)
        with StoreReader.open(store) as reader:
            readers = ways(store, reader)
            check_equal(readers, options.recordings)
            print("| window | way | windows/s | CPU us | of preadv | of preadv, CPU |\n|---|---|---|---|---|---|")
            for seconds in WINDOW_SECONDS:
                compare(readers, seconds, options.recordings, options.rounds)


if __name__ == "__main__":
    main()
