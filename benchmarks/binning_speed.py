"""Binning a session of spikes against one ``numpy.bincount`` over (unit, bin) of the same spikes.

    python benchmarks/binning_speed.py [--millions 5 15] [--rounds 5] [--minutes 40] [--units 192]

The yardstick gets its flat indices for free: they are made beforehand and not timed. It is timed in two orders, since
the order decides what it costs: ``unit * n_bins + bin`` walks through memory, and leaves [unit, bin] int64;
``bin * n_units + unit`` jumps, and leaves [bin, unit], which is what we make (as uint8, with exact edges,
checked, with losses counted). Equal counts are checked first, then all take turns in another order each round.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np

from neuromill.signals.binning import BinGrid, count_session

if TYPE_CHECKING:
    from collections.abc import Callable

BIN_SECONDS = 0.02


def session(n_units: int, seconds: float, n_spikes: float) -> list[np.ndarray]:
    """Spike times of units with log-normal rates, a little before and after the session, too."""
    rng = np.random.default_rng(0)
    rates = rng.lognormal(2.5, 1.0, n_units)
    sizes = rng.poisson(rates * n_spikes / rates.sum())
    return [np.sort(rng.uniform(-0.5, seconds + 0.5, size)) for size in sizes]


def ways(times: list[np.ndarray], grid: BinGrid) -> dict[str, Callable[[], np.ndarray]]:
    n_units = len(times)
    bins = np.floor((np.concatenate(times) * 1e6 + grid.slack) / grid.width).astype(np.int64)
    units = np.repeat(np.arange(n_units), [len(own) for own in times])
    inside = (bins >= 0) & (bins < grid.n_bins)
    by_unit = units[inside] * grid.n_bins + bins[inside]
    by_bin = bins[inside] * n_units + units[inside]
    size = n_units * grid.n_bins
    return {
        "count_session": lambda: count_session(times, n_units, grid).counts,
        "bincount, (unit, bin)": lambda: np.bincount(by_unit, minlength=size).reshape(n_units, -1).T,
        "bincount, (bin, unit)": lambda: np.bincount(by_bin, minlength=size).reshape(-1, n_units),
    }


def measure(functions: dict[str, Callable[[], np.ndarray]], rounds: int) -> dict[str, np.ndarray]:
    """Wall and processor seconds [round, 2] of each way, in turns."""
    rng, taken = np.random.default_rng(1), {name: [] for name in functions}
    for _ in range(rounds):
        for name in rng.permutation(list(functions)):
            wall, cpu = time.perf_counter(), time.process_time()
            functions[name]()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: np.array(values) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=[5.0, 15.0])
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--units", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    grid = BinGrid(0.0, round(options.minutes * 60 / BIN_SECONDS), BIN_SECONDS)
    print("| spikes | way | wall s | CPU s | ours / it, wall | ours / it, CPU |\n|---|---|---|---|---|---|")
    for millions in options.millions:
        times = session(options.units, options.minutes * 60, millions * 1e6)
        functions = ways(times, grid)
        made = [function() for function in functions.values()]
        assert all(np.array_equal(one, made[0]) for one in made)
        assert made[0].max() < 255
        del made
        taken = measure(functions, options.rounds)
        ours = taken["count_session"]
        for name, own in taken.items():
            (wall, cpu), ratio = np.median(own, axis=0), np.median(ours / own, axis=0)
            print(f"| {millions:g} M | {name} | {wall:.3f} | {cpu:.3f} | {ratio[0]:.2f} | {ratio[1]:.2f} |")
        tracemalloc.start()
        result = functions["count_session"]()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        spikes = sum(own.nbytes for own in times)
        print(f"peak memory of ours {peak / 2**20:.0f} MiB: counts {result.nbytes / 2**20:.0f}, all spikes would be "
              f"{spikes / 2**20:.0f} MiB more")  # fmt: skip


if __name__ == "__main__":
    main()
