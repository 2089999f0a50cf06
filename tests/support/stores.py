"""Small stores for tests."""

import os
from pathlib import Path

import numpy as np

from neuromill.records import ChannelTable
from neuromill.store.attributes import PipelineAttributes, SignalAttributes, TokenAttributes
from neuromill.store.publishing import PublishedGroup
from neuromill.store.writer import SignalWriter, TokenWriter

FACTS = {
    "dataset": "ds000001",
    "version": "1.0.0",
    "modality": "meg",
    "sfreq": 50.0,
    "line_freq": 50.0,
    "highpass": 0.1,
    "lowpass": 20.0,
    "facts": {"device": "Elekta Neuromag"},
    "sources": {"sub-01/meg/sub-01_meg.fif": "sha256:00"},
    "pipeline": PipelineAttributes(name="test", stage="prepare", identity="0123456789abcdef"),
}


def channel_table(n: int, **columns) -> ChannelTable:
    given = {
        "names": tuple(f"MEG{i:03d}" for i in range(n)),
        "types": ("mag",) * n,
        "coils": ("VV_MAG_T3",) * n,
        "units": ("T",) * n,
        "positions": np.arange(3.0 * n).reshape(n, 3) / 100,
        "orientations": np.tile([0.0, 0.0, 1.0], (n, 1)),
        "bads": ("",) * n,
    }
    return ChannelTable(**{**given, **columns})


def signal_attributes(name: str = "sub-01_meg", **facts) -> SignalAttributes:
    return SignalAttributes(
        **{**FACTS, "recording_id": f"ds000001@1.0.0/{name}", "entities": {"subject": name[4:6]}, **facts}
    )


def token_attributes(name: str = "sub-01_meg", **facts) -> TokenAttributes:
    own = {"frame_rate": 50 / 12, "hop_samples": 12, "segment_samples": 7500, "tokenizer": "sha256:11"}
    return TokenAttributes(**{**signal_attributes(name).model_dump(), **own, **facts})


def signal(n_times: int, n_channels: int, seed: int = 0) -> np.ndarray:
    """float32 [time, channel], about 1e-12 T, each channel with its own scale and offset."""
    rng = np.random.default_rng(seed)
    scale = 1e-12 * 10.0 ** rng.uniform(-1, 1, n_channels)
    return (rng.standard_normal((n_times, n_channels)) * scale + 3 * scale).astype(np.float32)


def write_signal(store: Path, values: np.ndarray, name: str = "sub-01_meg", **options) -> PublishedGroup:
    publish = {k: options.pop(k) for k in ("events", "replace") if k in options}
    channels = options.pop("channels", None) or channel_table(values.shape[1])
    blocks = options.pop("blocks", [values])
    with SignalWriter(store, name, n_channels=values.shape[1], sfreq=50.0, **options) as writer:
        for block in blocks:
            writer.write(block)
        return writer.publish(signal_attributes(name), channels, **publish)


def read_in_child(reader, pipe) -> None:
    """Target of a child process: sums over a file the parent has open, and over one it has not."""
    sums = [int(reader.read(name, "codes", 10, 20).sum()) for name in ("sub-01_meg", "sub-02_meg")]
    pipe.send(sums)
    pipe.close()
    os._exit(0)  # a forked child would run the exit handlers of all that the test session has started


def write_tokens(store: Path, codes: np.ndarray, name: str = "sub-01_meg", segment_frames: int = 625, **options):
    n_quantizers, n_channels = codes.shape[1:]
    size = options.pop("codebook_size", 256)
    sizes = {"n_channels": n_channels, "n_quantizers": n_quantizers, "codebook_size": size}
    with TokenWriter(store, name, **sizes, **options) as writer:
        for start in range(0, len(codes), segment_frames):
            piece = codes[start : start + segment_frames]
            writer.write_segment(piece, np.ones(n_channels, np.float32), 12 * len(piece) - 1)
        return writer.publish(token_attributes(name), channel_table(n_channels))
