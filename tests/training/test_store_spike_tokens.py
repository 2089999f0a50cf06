"""Stores of spike tokens as training data."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from neuromill.records import ConfigError, SpikeTokens, UnitTable
from neuromill.store.attributes import SpikeTokenAttributes
from neuromill.store.contents import IndexedRecording
from neuromill.store.index import rebuild_index
from neuromill.store.spike_writer import SpikeTokenWriter
from neuromill.training.config import OptimConfig
from neuromill.training.ndt3_config import Ndt3TrainConfig
from neuromill.training.ndt3_task import train_ndt3
from neuromill.training.spike_source import MemorySpikeTokens, Span
from neuromill.training.store_spike_tokens import StoreSpikeTokens, TokenStore
from support.descriptors import open_below
from support.spike_tokens import CHUNK_BINS, spike_source
from support.spikes import spike_counts, write_spikes

N_UNITS = 40


def spans(one: IndexedRecording, n_bins: int) -> tuple[Span, ...]:
    assert one.attributes["recording_id"].startswith("demo@1/")
    return (Span("train", 0, n_bins - 100), Span("validation", n_bins - 100, n_bins))


def write(store: Path, memory: MemorySpikeTokens, tokenizer: str = "v1") -> TokenStore:
    for one, tokens in zip(memory.recordings, memory.tokens, strict=True):
        attributes = SpikeTokenAttributes(
            recording_id=f"demo@1/{one.name}", dataset="demo", version="1", modality="spikes", sfreq=50.0,
            bin_seconds=0.02, chunk_bins=CHUNK_BINS, tokenizer=tokenizer,
        )  # fmt: skip
        units = UnitTable.of([str(unit) for unit in range(N_UNITS)])
        with SpikeTokenWriter(store, one.name) as writer:
            writer.publish(attributes, tokens, units, one.covariates, np.ones(2, np.float32), one.patch_channels)
    rebuild_index(store)
    return TokenStore(store)


@pytest.fixture(scope="module")
def memory() -> MemorySpikeTokens:
    return spike_source("a", "b", n_bins=410, n_units=N_UNITS)


@pytest.fixture(scope="module")
def store(memory: MemorySpikeTokens, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return write(tmp_path_factory.mktemp("stores") / "tokens", memory)


def test_a_store_says_what_its_tokens_say(memory: MemorySpikeTokens, store: TokenStore) -> None:
    source = StoreSpikeTokens.open([store], spans)
    assert [one.name for one in source.recordings] == ["demo@1/a", "demo@1/b"]
    for number, (stored, held) in enumerate(zip(source.recordings, memory.recordings, strict=True)):
        assert stored.covariates == held.covariates
        assert stored.spans == (Span("train", 0, 310), Span("validation", 310, 410))
        for name in ("patch_channels", "chunk_start_bins", "chunk_n_bins"):
            np.testing.assert_array_equal(getattr(stored, name), getattr(held, name))
        pairs = source.read_chunks(number, 3, 9), memory.read_chunks(number, 3, 9)
        for field in fields(SpikeTokens):
            np.testing.assert_array_equal(*(getattr(tokens, field.name) for tokens in pairs))
        assert source.read_segments(number) is None


def test_segments_come_from_the_prepared_counts_while_those_are_there(store: TokenStore, tmp_path: Path) -> None:
    write_spikes(tmp_path / "prepared", spike_counts(430, 4), "b")
    source = StoreSpikeTokens.open([TokenStore(store.tokens, tmp_path / "prepared")], spans)
    assert source.read_segments(0) is None
    segments = source.read_segments(1)
    assert segments is not None
    assert (len(segments), set(segments)) == (430, {-1, 0, 1})
    # Fractions are of the prepared bins: what a tokenizer leaves out at the end moves no block.
    assert [one.spans[-1].stop for one in source.recordings] == [410, 430]


def test_a_store_trains_as_memory_does(memory: MemorySpikeTokens, store: TokenStore, tmp_path: Path) -> None:
    config = Ndt3TrainConfig(
        model={"hidden_dim": 32, "n_layers": 1, "n_heads": 2},
        optim=OptimConfig(lr=1e-3), batch_size=4, max_steps=3, block_chunks=4, accelerator="cpu", ridge=None,
    )  # fmt: skip
    stored = train_ndt3(config, StoreSpikeTokens.open([store], spans), tmp_path / "stored")
    split = [Span("train", 0, 310), Span("validation", 310, 410)]
    held = train_ndt3(config, spike_source("a", "b", n_bins=410, n_units=N_UNITS, spans=split), tmp_path / "held")
    assert stored.validation is not None
    assert held.validation is not None
    assert stored.validation.r2 == held.validation.r2
    assert (stored.model_folder / "model.safetensors").read_bytes() == (
        held.model_folder / "model.safetensors"
    ).read_bytes()


def test_what_does_not_fit_is_refused(memory: MemorySpikeTokens, store: TokenStore, tmp_path: Path) -> None:
    other = write(tmp_path / "other", memory, tokenizer="v2")
    with pytest.raises(ConfigError, match="tokens differ in tokenizer: v1, v2"):
        StoreSpikeTokens.open([store, other], spans)
    write_spikes(tmp_path / "counts", spike_counts(100, 4), "b")
    rebuild_index(tmp_path / "counts")
    with pytest.raises(ConfigError, match="the store holds spikes, NDT3 reads tokens of spikes"):
        StoreSpikeTokens.open([TokenStore(tmp_path / "counts")], spans)


def test_opening_leaves_no_file_open(store: TokenStore) -> None:
    source = StoreSpikeTokens.open([store], spans)
    assert open_below(store.tokens) == []
    source.read_chunks(0, 0, 1)
    assert open_below(store.tokens)
