"""Random 30 s windows of prepared EEG: direct reader and training loader against torch_brain slicing its own objects.

    python -m venv tb && tb/bin/pip install torch_brain==0.2.1 -c constraints.txt
    python benchmarks/eeg_windows.py --torch-brain tb/lib/python3.11/site-packages [--rounds 5] [--folder FOLDER]

Recordings of 19 channels at 200 Hz, float16. torch_brain 0.2.1 gets the very values that our store holds, as
``RegularTimeSeries`` in its ``Data``, in both ways it offers: loaded lazily from the HDF5 file that it writes
(``Data.load``, files stay open), and whole in memory. Its folder goes to the end of the module path, so that all run
in one process and share numpy; its slicing needs no torch.

Two tables. Windows as they are stored, float16 [time, channel]: ours into a buffer of the caller, torch_brain's in
the array that it gives back. Batches for training,
float32 [window, channel, time] in units of 100 uV: our loader with codes, masks and ids beside it, against the same
conversion of torch_brain's windows (by torch, the fastest way known here) without any of that. Equal values are
checked first; then the ways take turns in another order each round. One thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuromill.records import ChannelTable
from neuromill.store.attributes import SignalAttributes, TokenAttributes
from neuromill.store.index import rebuild_index
from neuromill.store.reader import StoreReader
from neuromill.store.writer import SignalWriter, TokenWriter
from neuromill.tokenizers.tfdual_config import CHANNELS_10_20
from neuromill.training.coded_loader import CodedLoader, CodedLoaderConfig
from neuromill.training.store_coded_signals import CodedStore, StoreCodedSignals
from neuromill.training.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Read = Callable[[int, int, NDArray[np.float16]], NDArray[np.float16]]
    Way = Callable[[list[tuple[int, int]]], None]

N_CHANNELS, SFREQ, HOP, FRAMES = len(CHANNELS_10_20), 200.0, 200, 30
WINDOW, UNIT_VOLTS, BATCH, N_BATCHES = HOP * FRAMES, 1e-4, 8, 16
OURS, LOADER, FILES, MEMORY = "direct", "loader", "torch_brain, its HDF5 files", "torch_brain, in memory"


def name_of(number: int) -> str:
    return f"sub-{number:02}_eeg"


def facts_of(name: str) -> dict[str, Any]:
    entities = {"subject": name[4:6]}
    facts = {"recording_id": f"made-up@1/{name}", "dataset": "made-up", "version": "1", "modality": "eeg"}
    return facts | {"sfreq": SFREQ, "entities": entities}


def channel_table() -> ChannelTable:
    blank, nowhere = ("",) * N_CHANNELS, np.full((N_CHANNELS, 3), np.nan)
    units = ("V",) * N_CHANNELS
    return ChannelTable(tuple(CHANNELS_10_20), ("eeg",) * N_CHANNELS, blank, units, nowhere, nowhere, blank)


def write_stores(folder: Path, n_recordings: int, seconds: int) -> CodedStore:
    """Noise of 20 uV and its made-up codes, one per second."""
    rng, place = np.random.default_rng(0), CodedStore(folder / "tokens", folder / "signals")
    for name in map(name_of, range(n_recordings)):
        with SignalWriter(place.signals, name, n_channels=N_CHANNELS, sfreq=SFREQ) as writer:
            writer.write(rng.standard_normal((seconds * HOP, N_CHANNELS), np.float32) * np.float32(2e-5))
            writer.publish(SignalAttributes(**facts_of(name)), channel_table())
        with TokenWriter(place.tokens, name, n_channels=N_CHANNELS, n_quantizers=2, codebook_size=4096) as tokens:
            for _ in range(0, seconds, FRAMES):
                codes = rng.integers(0, 4096, (FRAMES, 2, N_CHANNELS))
                tokens.write_segment(codes, np.full(N_CHANNELS, UNIT_VOLTS, np.float32), WINDOW)
            made = {"frame_rate": 1.0, "hop_samples": HOP, "segment_samples": WINDOW, "tokenizer": "none"}
            tokens.publish(TokenAttributes(**facts_of(name), **made), channel_table())
    rebuild_index(place.signals)
    rebuild_index(place.tokens)
    return place


def direct(reader: StoreReader) -> Read:
    names = [one.name for one in reader.recordings]

    def read(recording: int, start: int, out: NDArray[np.float16]) -> NDArray[np.float16]:
        return reader.read(names[recording], "signal", start, start + WINDOW, out=out)

    return read


def torch_brain_reads(folder: Path, reader: StoreReader) -> dict[str, Read]:
    """Write the stored values as torch_brain's files; give back its two ways to slice them, into memory of its own."""
    import h5py
    from torch_brain.data import Data, RegularTimeSeries

    paths = []
    for one in reader.recordings:
        values = RegularTimeSeries(sampling_rate=SFREQ, signal=reader.read(one.name, "signal"))
        paths.append(folder / f"{one.name}.h5")
        with h5py.File(paths[-1], "w") as file:
            Data(eeg=values, domain=values.domain).to_hdf5(file)

    def sliced(sessions: list[Any]) -> Read:
        def read(recording: int, start: int, _: NDArray[np.float16]) -> NDArray[np.float16]:
            begin = start / SFREQ
            return sessions[recording].slice(begin, begin + WINDOW / SFREQ).eeg.signal

        return read

    return {FILES: sliced([Data.load(path) for path in paths]),
            MEMORY: sliced([Data.load(path, lazy=False) for path in paths])}  # fmt: skip


def plain_batches(read: Read, reader: StoreReader) -> Callable[[list[tuple[int, int]]], torch.Tensor]:
    """Windows as torch_brain gives them, turned into what the loader gives: float32 [window, channel, time]."""
    affine = [[torch.from_numpy(reader.read(one.name, field) / np.float32(UNIT_VOLTS))[:, None]
               for field in ("channel_scale", "channel_offset")] for one in reader.recordings]  # fmt: skip
    buffer, made = np.empty((WINDOW, N_CHANNELS), np.float16), torch.empty(BATCH, N_CHANNELS, WINDOW)

    def batch(places: list[tuple[int, int]]) -> torch.Tensor:
        for row, (recording, start) in enumerate(places):
            stored = read(recording, start, buffer)
            scale, offset = affine[recording]
            made[row].copy_(torch.from_numpy(stored).t()).mul_(scale).add_(offset)
        return made

    return batch


def loader_of(source: StoreCodedSignals, places: list[tuple[int, int]]) -> CodedLoader:
    windows = [Window(recording, start // HOP, start // HOP + FRAMES) for recording, start in places]
    return CodedLoader(source, windows, CodedLoaderConfig(BATCH, 0.5, 0, ("made-up",), threads=1, shuffle=False))


def check_equal(reads: dict[str, Read], batches: dict[str, Any], source: StoreCodedSignals, draw: Any) -> None:
    out, expected = (np.empty((WINDOW, N_CHANNELS), np.float16) for _ in range(2))
    for place in draw(50):
        reads[OURS](*place, expected)
        for name, read in reads.items():
            out[...] = np.nan
            assert np.array_equal(read(*place, out), expected), (name, place)
    places = draw(5 * BATCH)
    for k, ours in enumerate(loader_of(source, places).epoch(0)):
        for name, batch in batches.items():
            theirs = batch(places[k * BATCH : (k + 1) * BATCH])
            torch.testing.assert_close(theirs, ours.signal, rtol=1e-6, atol=1e-6, msg=name)


def window_ways(reads: dict[str, Read]) -> dict[str, Way]:
    out = np.empty((BATCH, WINDOW, N_CHANNELS), np.float16)

    def way(read: Read) -> Way:
        def run(places: list[tuple[int, int]]) -> None:
            for k, (recording, start) in enumerate(places):
                read(recording, start, out[k % BATCH])

        return run

    return {name: way(read) for name, read in reads.items()}


def batch_ways(batches: dict[str, Any], source: StoreCodedSignals) -> dict[str, Way]:
    def way(batch: Any) -> Way:
        def run(places: list[tuple[int, int]]) -> None:
            for k in range(0, len(places), BATCH):
                batch(places[k : k + BATCH])

        return run

    def load(places: list[tuple[int, int]]) -> None:
        for _ in loader_of(source, places).epoch(0):
            pass

    return {LOADER: load} | {name: way(batch) for name, batch in batches.items()}


def compare(ways: dict[str, Way], ours: str, draw: Any, n_windows: int, rounds: int) -> None:
    rng, taken = np.random.default_rng(2), {name: [] for name in ways}
    for _ in range(rounds):
        places = draw(n_windows)
        for name in rng.permutation(list(ways)):
            wall, cpu = time.perf_counter(), time.process_time()
            ways[name](places)
            taken[name].append(((time.perf_counter() - wall) / n_windows, (time.process_time() - cpu) / n_windows))
    print(f"\n| way | windows/s | CPU us | {ours} is faster, wall | CPU |\n|---|---:|---:|---:|---:|")
    for name, measured in taken.items():
        wall, cpu = np.median(measured, axis=0)
        ratio = np.median(np.array(measured) / np.array(taken[ours]), axis=0)
        print(f"| {name} | {1 / wall:,.0f} | {cpu * 1e6:,.0f} | {ratio[0]:.2f} | {ratio[1]:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-brain", type=Path, help="site-packages of an environment that has torch_brain 0.2.1")
    parser.add_argument("--recordings", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="where files are written (default: temporary)")
    options = parser.parse_args()
    if options.torch_brain:
        sys.path.append(str(options.torch_brain))
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)

    def draw(n: int) -> list[tuple[int, int]]:
        """Windows that begin at a whole second, as those of the loader do."""
        starts = rng.integers(options.seconds - FRAMES + 1, size=n) * HOP
        return list(zip(rng.integers(options.recordings, size=n).tolist(), starts.tolist(), strict=True))

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = write_stores(Path(folder), options.recordings, options.seconds)
        source = StoreCodedSignals.open([place])
        with StoreReader.open(place.signals) as reader:
            reads = {OURS: direct(reader)}
            if importlib.util.find_spec("torch_brain") is not None:
                reads |= torch_brain_reads(Path(folder), reader)
            batches = {name: plain_batches(read, reader) for name, read in reads.items() if name != OURS}
            check_equal(reads, batches, source, draw)
            compare(window_ways(reads), OURS, draw, 1600, options.rounds)
            compare(batch_ways(batches, source), LOADER, draw, BATCH * N_BATCHES, options.rounds)


if __name__ == "__main__":
    main()
