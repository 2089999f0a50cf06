"""Random 30 s windows of prepared EEG: direct reader and training loader against torch_brain slicing its own objects.

    python -m venv tb && tb/bin/pip install torch_brain==0.2.1 -c constraints.txt
    python benchmarks/eeg_windows.py --torch-brain tb/lib/python3.11/site-packages [--rounds 5] [--folder FOLDER]

Recordings of 19 channels at 200 Hz, float16. torch_brain 0.2.1 gets the very values that our store holds, as
``RegularTimeSeries`` in its ``Data``: loaded lazily from the HDF5 file that it writes (``Data.load``, files stay open),
whole in memory, and as users load them in training, by its ``Dataset`` (lazy), torch's ``DataLoader`` (in this process)
and its ``collate``. Its folder goes to the end of the module path: all run in one process and share numpy and torch.

Three tables. Windows as they are stored, float16 [time, channel]: ours into a buffer of the caller, torch_brain's in
the array that it gives back. Batches as they are stored, float16 [window, time, channel]: our loader with codes, masks,
gains and ids beside them, our reader and torch_brain's ways without. The same batches turned into what a model takes,
float32 [window, channel, time] in units of 100 uV, by the same operations on both sides. Equal values are checked;
then the ways take turns in another order each round. One thread of torch; our loader fills batches in ``--threads``.
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
from neuromill.training.task import Drawing
from neuromill.training.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Place = tuple[int, int]  # recording and first sample
    Read = Callable[[int, int, NDArray[np.float16]], NDArray[np.float16]]
    Batches = Callable[[list[Place]], Iterator[torch.Tensor]]
    Way = Callable[[list[Place]], None]
    Draw = Callable[[int], list[Place]]

N_CHANNELS, SFREQ, HOP, FRAMES = len(CHANNELS_10_20), 200.0, 200, 30
WINDOW, UNIT_VOLTS, BATCH, N_BATCHES = HOP * FRAMES, 1e-4, 32, 24
OURS, LOADER, FILES, MEMORY = "direct", "loader", "torch_brain, its HDF5 files", "torch_brain, in memory"
DATASET = "torch_brain, its Dataset and collate"


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


def torch_brain_files(folder: Path, reader: StoreReader) -> list[Path]:
    """Write the stored values as torch_brain's files."""
    import h5py
    from torch_brain.data import Data, RegularTimeSeries

    paths = [folder / f"{one.name}.h5" for one in reader.recordings]
    for path, one in zip(paths, reader.recordings, strict=True):
        values = RegularTimeSeries(sampling_rate=SFREQ, signal=reader.read(one.name, "signal"))
        with h5py.File(path, "w") as file:
            Data(eeg=values, domain=values.domain).to_hdf5(file)
    return paths


def torch_brain_reads(paths: list[Path]) -> dict[str, Read]:
    """Slice its sessions, into memory of its own."""
    from torch_brain.data import Data

    def sliced(sessions: list[Any]) -> Read:
        def read(recording: int, start: int, _: NDArray[np.float16]) -> NDArray[np.float16]:
            begin = start / SFREQ
            return sessions[recording].slice(begin, begin + WINDOW / SFREQ).eeg.signal

        return read

    return {FILES: sliced([Data.load(path) for path in paths]),
            MEMORY: sliced([Data.load(path, lazy=False) for path in paths])}  # fmt: skip


def torch_brain_loader(paths: list[Path]) -> Batches:
    """Its own way to a training loop."""
    from torch.utils.data import DataLoader
    from torch_brain.batching import collate
    from torch_brain.datasets import Dataset, DatasetIndex

    def only_signal(sample: Any) -> dict[str, Any]:
        return {"signal": sample.eeg.signal}

    dataset = Dataset(paths[0].parent, transform=only_signal)
    names = [path.stem for path in paths]

    def batches(places: list[Place]) -> Iterator[torch.Tensor]:
        windows = [
            DatasetIndex(names[recording], start / SFREQ, (start + WINDOW) / SFREQ) for recording, start in places
        ]
        sampler = [windows[k : k + BATCH] for k in range(0, len(windows), BATCH)]
        for batch in DataLoader(dataset, batch_sampler=sampler, collate_fn=collate):
            yield batch["signal"]

    return batches


def filled(read: Read) -> Batches:
    """Windows put into one array, the least that makes a batch of them: a copy where ``read`` gives its own memory."""
    buffer = np.empty((BATCH, WINDOW, N_CHANNELS), np.float16)

    def batches(places: list[Place]) -> Iterator[torch.Tensor]:
        for k in range(0, len(places), BATCH):
            for row, place in enumerate(places[k : k + BATCH]):
                window = read(*place, buffer[row])
                if not np.may_share_memory(window, buffer):
                    buffer[row] = window
            yield torch.from_numpy(buffer)

    return batches


def converted(batches: Batches, reader: StoreReader) -> Batches:
    """What ``CodedBatch.signal`` does, for batches without our gains."""
    gain, offset = (
        torch.from_numpy(np.stack([reader.read(one.name, field) for one in reader.recordings]) / np.float32(UNIT_VOLTS))
        for field in ("channel_scale", "channel_offset")
    )

    def signals(places: list[Place]) -> Iterator[torch.Tensor]:
        owners = torch.tensor([recording for recording, _ in places]).split(BATCH)
        for stored, which in zip(batches(places), owners, strict=True):
            made = torch.empty(len(stored), N_CHANNELS, WINDOW).copy_(stored.transpose(1, 2))
            yield made.mul_(gain[which][..., None]).add_(offset[which][..., None])

    return signals


def loader_of(source: StoreCodedSignals, places: list[Place], threads: int = 1) -> CodedLoader:
    windows = [Window(recording, start // HOP, start // HOP + FRAMES) for recording, start in places]
    drawing = Drawing(BATCH, seed=0, threads=threads, shuffle=False)
    return CodedLoader(source, windows, CodedLoaderConfig(drawing, 0.5, ("made-up",)))


def check_windows(reads: dict[str, Read], draw: Draw) -> None:
    out, expected = (np.empty((WINDOW, N_CHANNELS), np.float16) for _ in range(2))
    for place in draw(50):
        reads[OURS](*place, expected)
        for name, read in reads.items():
            out[...] = np.nan
            assert np.array_equal(read(*place, out), expected), (name, place)


def check_batches(ways: dict[str, Batches], draw: Draw, tolerance: float) -> None:
    places = draw(5 * BATCH)
    for name, batches in ways.items():
        for ours, theirs in zip(ways[LOADER](places), batches(places), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=tolerance, atol=tolerance, msg=name)


def window_ways(reads: dict[str, Read]) -> dict[str, Way]:
    out = np.empty((BATCH, WINDOW, N_CHANNELS), np.float16)

    def way(read: Read) -> Way:
        def run(places: list[Place]) -> None:
            for k, (recording, start) in enumerate(places):
                read(recording, start, out[k % BATCH])

        return run

    return {name: way(read) for name, read in reads.items()}


def batch_ways(ways: dict[str, Batches]) -> dict[str, Way]:
    def way(batches: Batches) -> Way:
        def run(places: list[Place]) -> None:
            for _ in batches(places):
                pass

        return run

    return {name: way(batches) for name, batches in ways.items()}


def compare(ways: dict[str, Way], ours: str, draw: Draw, n_windows: int, rounds: int) -> None:
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
    parser.add_argument("--threads", type=int, default=1, help="of our loader")
    parser.add_argument("--folder", type=Path, default=None, help="where files are written (default: temporary)")
    options = parser.parse_args()
    if options.torch_brain:
        sys.path.append(str(options.torch_brain))
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)

    def draw(n: int) -> list[Place]:
        """Windows that begin at a whole second, as those of the loader do."""
        starts = rng.integers(options.seconds - FRAMES + 1, size=n) * HOP
        return list(zip(rng.integers(options.recordings, size=n).tolist(), starts.tolist(), strict=True))

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = write_stores(Path(folder), options.recordings, options.seconds)
        source = StoreCodedSignals.open([place])
        with StoreReader.open(place.signals) as reader:
            reads, theirs = {OURS: direct(reader)}, {}
            if importlib.util.find_spec("torch_brain") is not None:
                paths = torch_brain_files(Path(folder), reader)
                reads |= torch_brain_reads(paths)
                theirs = {DATASET: torch_brain_loader(paths)}
            theirs |= {name: filled(read) for name, read in reads.items()}
            stored = {
                LOADER: lambda places: (one.stored for one in loader_of(source, places, options.threads).epoch(0))
            }
            signals = {
                LOADER: lambda places: (one.signal() for one in loader_of(source, places, options.threads).epoch(0))
            }
            stored |= theirs
            signals |= {name: converted(batches, reader) for name, batches in theirs.items()}
            check_windows(reads, draw)
            check_batches(stored, draw, 0)
            check_batches(signals, draw, 1e-6)
            compare(window_ways(reads), OURS, draw, 1600, options.rounds)
            compare(batch_ways(stored), LOADER, draw, BATCH * N_BATCHES, options.rounds)
            compare(batch_ways(signals), LOADER, draw, BATCH * N_BATCHES, options.rounds)


if __name__ == "__main__":
    main()
