"""Random 1 s windows of prepared spike counts: direct reader, bare memory map, torch_brain binning on the fly.

    python -m venv tb && tb/bin/pip install torch_brain==0.2.1 -c constraints.txt
    python benchmarks/spike_windows.py --torch-brain tb/lib/python3.11/site-packages [--rounds 5] [--folder FOLDER]

torch_brain 0.2.1 bins without torch. Its folder goes to the end of the module path, so that both run in one process
and share numpy; without it, that way is left out. It is given the session in memory (its files are HDF5, from which
it would have to read first) and counts into uint8. Every way fills the same windows of one recording of 40 min and
192 units at 20 ms; equal values are checked first, then they take turns in another order each round.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import TrialTable, UnitTable
from neuromill.signals.binning import BinGrid, count_session
from neuromill.store.attributes import SpikeAttributes
from neuromill.store.index import rebuild_index
from neuromill.store.reader import StoreReader
from neuromill.store.spike_writer import Behaviour, SpikeWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, np.ndarray], None]

N_UNITS, SECONDS, BIN_SECONDS, WINDOW = 192, 2400, 0.02, 50
N_BINS = round(SECONDS / BIN_SECONDS)
NAME = "session"
SLOW = "torch_brain"


def spike_times(n_spikes: int) -> list[np.ndarray]:
    """Spikes that keep a tenth of a bin off the edges, where the two programs may disagree by rounding."""
    rng = np.random.default_rng(0)
    rates = rng.lognormal(2.5, 1.0, N_UNITS)
    sizes = rng.poisson(rates * n_spikes / rates.sum())
    return [np.sort((rng.integers(N_BINS, size=n) + rng.uniform(0.1, 0.9, n)) * BIN_SECONDS) for n in sizes]


def write_store(store: Path, times: list[np.ndarray]) -> np.ndarray:
    counts = count_session(times, N_UNITS, BinGrid(0.0, N_BINS, BIN_SECONDS)).counts
    nothing = np.empty((N_BINS, 0))
    behaviour = Behaviour(
        (), (), nothing.astype(np.float32), nothing.astype(bool), np.empty(0, np.float32), np.zeros(N_BINS, np.int32)
    )
    facts = {"recording_id": NAME, "dataset": "noise", "version": "1", "modality": "spikes", "sfreq": 50.0}
    with SpikeWriter(store, NAME, n_units=N_UNITS, bin_seconds=BIN_SECONDS) as writer:
        writer.write(counts)
        units = UnitTable.of([f"unit{i}" for i in range(N_UNITS)])
        trials = TrialTable(np.empty(0), np.empty(0), np.empty(0, bool))
        writer.publish(SpikeAttributes(**facts, bin_seconds=BIN_SECONDS), units, behaviour=behaviour, trials=trials)
    rebuild_index(store)
    counts.tofile(store / "counts.bin")
    return counts


def ways(store: Path, reader: StoreReader, times: list[np.ndarray], *, with_torch_brain: bool) -> dict[str, Read]:
    memory_map = np.memmap(store / "counts.bin", np.uint8, "r", shape=(N_BINS, N_UNITS))

    def direct(start: int, out: np.ndarray) -> None:
        reader.read(NAME, "counts", start, start + WINDOW, out=out)

    def memmap(start: int, out: np.ndarray) -> None:
        out[...] = memory_map[start : start + WINDOW]

    found: dict[str, Read] = {"memory map": memmap, "direct": direct}
    if with_torch_brain:
        found[SLOW] = on_the_fly(times)
    return found


def on_the_fly(times: list[np.ndarray]) -> Read:
    from torch_brain.data import Interval, IrregularTimeSeries
    from torch_brain.utils.binning import bin_spikes

    stamps, units = np.concatenate(times), np.repeat(np.arange(N_UNITS), [len(own) for own in times])
    order = np.argsort(stamps, kind="stable")
    domain = Interval(0.0, float(SECONDS))
    spikes = IrregularTimeSeries(timestamps=stamps[order], unit_index=units[order], domain=domain)

    def binned(start: int, out: np.ndarray) -> None:
        begin = start * BIN_SECONDS
        window = spikes.slice(begin, begin + WINDOW * BIN_SECONDS)
        out[...] = bin_spikes(window, N_UNITS, BIN_SECONDS, dtype=np.uint8)

    return binned


def check_equal(readers: dict[str, Read], counts: np.ndarray) -> None:
    out = np.empty((WINDOW, N_UNITS), np.uint8)
    for start in np.random.default_rng(1).integers(N_BINS - WINDOW + 1, size=100).tolist():
        for name, read in readers.items():
            out[...] = 255
            read(start, out)
            assert np.array_equal(out, counts[start : start + WINDOW]), (name, start)


def time_one(read: Read, starts: list[int]) -> tuple[float, float]:
    """Wall and CPU seconds per window."""
    out = np.empty((8, WINDOW, N_UNITS), np.uint8)
    wall, cpu = time.perf_counter(), time.process_time()
    for k, start in enumerate(starts):
        read(start, out[k % 8])
    return (time.perf_counter() - wall) / len(starts), (time.process_time() - cpu) / len(starts)


def compare(readers: dict[str, Read], rounds: int) -> None:
    rng = np.random.default_rng(2)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(rounds):
        starts = rng.integers(N_BINS - WINDOW + 1, size=20_000).tolist()
        for name in rng.permutation(list(readers)):
            taken[name].append(time_one(readers[name], starts[:500] if name == SLOW else starts))
    ours = np.array(taken["direct"])
    print("| way | windows/s | CPU us | direct is faster, wall | CPU |\n|---|---|---|---|---|")
    for name, measured in taken.items():
        wall, cpu = np.median(measured, axis=0)
        ratio = np.median(np.array(measured) / ours, axis=0)
        print(f"| {name} | {1 / wall:,.0f} | {cpu * 1e6:,.1f} | {ratio[0]:.2f} | {ratio[1]:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-brain", type=Path, help="site-packages of an environment that has torch_brain 0.2.1")
    parser.add_argument("--spikes", type=float, default=10.0, help="millions in the session")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where the store is written (default: temporary)")
    options = parser.parse_args()
    if options.torch_brain:
        sys.path.append(str(options.torch_brain))
    with_torch_brain = importlib.util.find_spec("torch_brain") is not None
    if not with_torch_brain:
        print("torch_brain is left out. To install it: python -m venv tb && tb/bin/pip install torch_brain==0.2.1 "
              "-c constraints.txt; then --torch-brain tb/lib/python3.11/site-packages")  # fmt: skip
    times = spike_times(round(options.spikes * 1e6))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        counts = write_store(Path(folder), times)
        with StoreReader.open(folder) as reader:
            readers = ways(Path(folder), reader, times, with_torch_brain=with_torch_brain)
            check_equal(readers, counts)
            compare(readers, options.rounds)


if __name__ == "__main__":
    main()
