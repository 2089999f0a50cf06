"""Windows of tokens per second: the loader against a bare read of the same bytes.

    python benchmarks/loader_speed.py [--recordings 16] [--seconds 600] [--rounds 5]

Writes a token store of made-up codes into a temporary folder (306 channels, 6 levels, 25 frames per 6 s), then reads
the same windows in three ways, interleaved, and prints medians. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ChannelTable
from neuromill.store.attributes import TokenAttributes
from neuromill.store.index import rebuild_index
from neuromill.store.writer import TokenWriter
from neuromill.training.config import MaskingConfig, WindowConfig
from neuromill.training.loader import BatchLoader, LoaderConfig
from neuromill.training.store_tokens import StoreTokens
from neuromill.training.task import Drawing
from neuromill.training.windows import plan_windows

if TYPE_CHECKING:
    from collections.abc import Callable

N_CHANNELS, N_QUANTIZERS, HOP, SFREQ = 306, 6, 12, 50.0
STRIDE = 25  # overlapping, so that an epoch is long against its start
WINDOWS = {"30 s": 125, "150 s": 625}


def write_store(store: Path, n_recordings: int, seconds: int) -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"MEG{i:04}" for i in range(N_CHANNELS))
    blank = ("",) * N_CHANNELS
    normals = rng.normal(size=(N_CHANNELS, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    channels = ChannelTable(
        names, ("mag",) * N_CHANNELS, ("VV_MAG_T1",) * N_CHANNELS, ("T",) * N_CHANNELS, 0.1 * normals, normals, blank
    )
    n_samples = int(seconds * SFREQ)
    codes = rng.integers(0, 256, (-(-n_samples // HOP), N_QUANTIZERS, N_CHANNELS), dtype=np.uint8)
    for index in range(n_recordings):
        name = f"sub-{index:02}_meg"
        with TokenWriter(store, name, n_channels=N_CHANNELS, n_quantizers=N_QUANTIZERS, codebook_size=256) as writer:
            writer.write_segment(codes, np.ones(N_CHANNELS, np.float32), n_samples)
            attributes = TokenAttributes(
                recording_id=f"made-up@1/{name}",
                dataset="made-up",
                version="1",
                entities={"subject": f"{index:02}"},
                modality="meg",
                sfreq=SFREQ,
                frame_rate=SFREQ / HOP,
                hop_samples=HOP,
                segment_samples=n_samples,
                tokenizer="none",
            )
            writer.publish(attributes, channels)
    rebuild_index(store)


def cases(tokens: StoreTokens, window_frames: int, batch_size: int) -> dict[str, Callable[[], int]]:
    windows = plan_windows(
        tokens.recordings, WindowConfig(window_frames=window_frames, stride_frames=STRIDE, min_frames=window_frames)
    )

    def loader(threads: int) -> int:
        config = LoaderConfig(Drawing(batch_size, seed=0, threads=threads), window_frames, MaskingConfig())
        return sum(len(batch.ids) for batch in BatchLoader(tokens, windows, config).epoch(0))

    def bare() -> int:
        out = np.empty((window_frames, N_QUANTIZERS, N_CHANNELS), np.uint8)
        for window in windows:
            tokens.read_codes(window.recording, window.start, window.stop, out)
        return len(windows)

    return {"bare read": bare, "loader, 1 thread": lambda: loader(1), "loader, 2 threads": lambda: loader(2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder), settings.recordings, settings.seconds)
        tokens = StoreTokens.open([folder])
        print("| window | case | windows/s | CPU us per window |\n|---|---|---:|---:|")
        for label, window_frames in WINDOWS.items():
            runs = cases(tokens, window_frames, batch_size=8)
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
            for name in [name for _ in range(settings.rounds) for name in runs]:
                wall, cpu = time.perf_counter(), time.process_time()
                n = runs[name]()
                taken[name].append((n / (time.perf_counter() - wall), 1e6 * (time.process_time() - cpu) / n))
            for name, rows in taken.items():
                rate, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
                print(f"| {label} | {name} | {rate:,.0f} | {cpu:,.0f} |")


if __name__ == "__main__":
    main()
