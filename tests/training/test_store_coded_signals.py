"""Batches from stores: the numbers as they lie there, and the signal they stand for."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from neuromill.records import ChannelTable
from neuromill.records.rejection import Rejection
from neuromill.store.attributes import SignalAttributes, TokenAttributes
from neuromill.store.errors import StoreError
from neuromill.store.index import rebuild_index
from neuromill.store.reader import StoreReader
from neuromill.store.writer import SignalWriter, TokenWriter
from neuromill.training.coded_loader import CodedLoader, CodedLoaderConfig
from neuromill.training.store_coded_signals import CodedStore, StoreCodedSignals
from neuromill.training.task import Drawing
from neuromill.training.windows import Window
from support.descriptors import open_below

NAMES, SFREQ, HOP, FRAMES, SEGMENT = ("C3", "C4", "CZ"), 50.0, 10, 24, 6
NAME = "sub-01_eeg"
BATCH = CodedLoaderConfig(
    Drawing(batch_size=2, seed=0, threads=1, shuffle=False), 0.5, ("lab-float16", "lab-float32", "lab-int16")
)


def write_store(folder: Path, encoding: str, *, dead: bool = False) -> CodedStore:
    """One recording; each segment and channel has a divisor of its own, the second window of 2 s of C3 is rejected."""
    rng, place = np.random.default_rng(0), CodedStore(folder / encoding / "tokens", folder / encoding / "signals")
    blank, nowhere = ("",) * 3, np.full((3, 3), np.nan)
    channels = ChannelTable(NAMES, ("eeg",) * 3, blank, ("V",) * 3, nowhere, nowhere, blank)
    values = (rng.standard_normal((FRAMES * HOP + 3, 3)) * 2e-5 + 1e-5).astype(np.float32)
    if dead:
        values[7, 1] = np.nan
    facts = {
        "recording_id": f"lab-{encoding}@1/{NAME}", "dataset": f"lab-{encoding}", "version": "1", "modality": "eeg",
        "sfreq": SFREQ, "entities": {"subject": "01"},
    }  # fmt: skip
    reasons = np.zeros((3, 3), np.uint8)
    reasons[1, 0] = 1
    with SignalWriter(place.signals, NAME, n_channels=3, sfreq=SFREQ, encoding=encoding) as writer:
        writer.write(values)
        rejection = Rejection(reasons, 100, ("kept", "large"))
        writer.publish(SignalAttributes(**facts), channels, rejection=rejection)
    with TokenWriter(place.tokens, NAME, n_channels=3, n_quantizers=2, codebook_size=300) as writer:
        for number in range(FRAMES // SEGMENT):
            scale = (1e-4 * (1 + number + np.arange(3))).astype(np.float32)
            scale[1] = np.nan if dead else scale[1]
            writer.write_segment(rng.integers(0, 300, (SEGMENT, 2, 3)), scale, SEGMENT * HOP)
        made = {"frame_rate": 5.0, "hop_samples": HOP, "segment_samples": SEGMENT * HOP, "tokenizer": "none"}
        marked = channels.with_bads({1: "non_finite"}) if dead else channels
        writer.publish(TokenAttributes(**facts, **made), marked)
    for store in (place.signals, place.tokens):
        rebuild_index(store)
    return place


def batches(source: StoreCodedSignals, *windows: Window):
    return list(CodedLoader(source, windows, BATCH).epoch(0))


@pytest.mark.parametrize("encoding", ["float16", "float32", "int16"])
@pytest.mark.parametrize("dead", [False, True])
def test_a_batch_holds_the_stored_numbers_and_gives_the_signal(encoding: str, *, dead: bool, tmp_path: Path) -> None:
    place = write_store(tmp_path, encoding, dead=dead)
    source = StoreCodedSignals.open([place])
    assert source.dtype == encoding
    windows = (Window(0, 0, 6), Window(0, 6, 12), Window(0, 9, 21), Window(0, 12, 24))  # the longer ones cross seams
    with StoreReader.open(place.signals) as signals, StoreReader.open(place.tokens) as tokens:
        volts = signals.read_physical(NAME)
        stored, codes = signals.read(NAME, "signal"), tokens.read(NAME, "codes")
        divisor = np.repeat(tokens.read(NAME, "scale"), SEGMENT * HOP, axis=0)
    expected = np.where(np.isfinite(divisor), volts[: FRAMES * HOP] / divisor, 0)
    expected[100:200, 0] = 0
    seen = []
    for batch in batches(source, *windows):
        signal = batch.signal()
        assert (signal.dtype, signal.is_contiguous()) == (torch.float32, True)
        for row, one in enumerate(batch.ids):
            samples = slice(one.start * HOP, one.stop * HOP)
            np.testing.assert_array_equal(batch.stored[row].numpy(), stored[samples])
            np.testing.assert_allclose(signal[row].numpy(), expected[samples].T, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(batch.codes[row].numpy(), codes[one.start : one.stop].transpose(2, 0, 1))
            usable = source.usable(0, one.start, one.stop)
            assert not (batch.hidden[row].numpy() & ~usable).any()
            alone = np.empty((3, (one.stop - one.start) * HOP), np.float32)
            source.read_signal(0, one.start, one.stop, alone)
            there = np.repeat(usable, HOP, axis=1)
            np.testing.assert_array_equal(signal[row].numpy()[there], alone[there])
            assert not signal[row].numpy()[~there].any()
            seen.append((one.start, one.stop))
    assert sorted(seen) == sorted((one.start, one.stop) for one in windows)


def test_stores_of_several_formats_share_batches_in_float32(tmp_path: Path) -> None:
    places = [write_store(tmp_path, encoding) for encoding in ("float16", "float32", "int16")]
    together = StoreCodedSignals.open(places)
    assert together.dtype == np.float32
    signals = [one.signal() for one in batches(together, *(Window(number, 6, 12) for number in range(3)))]
    rows = torch.cat(signals)
    for place, row in zip(places, rows, strict=True):
        (alone,) = batches(StoreCodedSignals.open([place]), Window(0, 6, 12))
        torch.testing.assert_close(row, alone.signal()[0], rtol=0, atol=0)


def test_where_everything_is_fit_for_use_nothing_is_marked(tmp_path: Path) -> None:
    source = StoreCodedSignals.open([write_store(tmp_path, "float16")])
    (batch,) = batches(source, Window(0, 0, 6))
    assert batch.unusable is None
    (batch,) = batches(source, Window(0, 12, 18))
    assert batch.unusable is not None
    assert batch.unusable[0].numpy().tolist() == [[True] * 6, [False] * 6, [False] * 6]


def test_files_are_open_only_where_something_is_being_read(tmp_path: Path) -> None:
    source = StoreCodedSignals.open([write_store(tmp_path, "float16")])
    assert open_below(tmp_path) == []
    out = np.empty((FRAMES * HOP, 3), np.float16)
    source.read_stored(0, 0, FRAMES, out)
    assert open_below(tmp_path) == [f"float16/signals/{NAME}.zarr/signal/c/0/0"]
    del source
    assert open_below(tmp_path) == []


def test_a_refusal_leaves_no_file_open(tmp_path: Path) -> None:
    whole, second = write_store(tmp_path, "float16"), write_store(tmp_path, "float32")
    other = tmp_path / "other"
    shutil.copytree(Path(second.signals) / f"{NAME}.zarr", other / "sub-02_eeg.zarr")
    rebuild_index(other)
    with pytest.raises(StoreError, match="no recording 'sub-01_eeg'") as caught:
        StoreCodedSignals.open([whole, CodedStore(second.tokens, other)])
    assert caught.tb  # it keeps all that was opened on the way
    assert open_below(tmp_path) == []
