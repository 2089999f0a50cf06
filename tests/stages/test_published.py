"""The published system's quick start: checkpoint in, signals in, features out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from neuromill.models.files import from_pretrained as load_model
from neuromill.models.sensors import SensorGeometry
from neuromill.records import ChannelTable, ConfigError
from neuromill.stages.published import embed_signal, open_published, save_system
from neuromill.tokenizers.files import from_pretrained as load_tokenizer
from neuromill.training.embedding import embed

HEADS = 4  # of the golden model


def write_checkpoint(golden: Path, path: Path) -> Path:
    """A file as published: a Lightning dict with the model's weights, and the codec's under ``tokenizer.``."""
    codec = load_file(golden / "biocodec_random.safetensors")
    state = load_file(golden / "criss_cross_random.safetensors")
    state |= {f"tokenizer.{name}": tensor for name, tensor in codec.items()}
    torch.save({"epoch": 1, "global_step": 113_000, "state_dict": state}, path)
    return path


def table(n: int, bads: tuple[str, ...]) -> ChannelTable:
    rng = np.random.default_rng(3)
    names = tuple(f"MEG{i}" for i in range(n))
    coils = ("VV_MAG_T1",) * n
    return ChannelTable(names, ("mag",) * n, coils, ("T",) * n, rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), bads)


@pytest.mark.data
def test_golden_signal_through_a_published_checkpoint(data: Path, tmp_path: Path) -> None:
    golden = data / "golden"
    system = open_published(write_checkpoint(golden, tmp_path / "meg-xl.ckpt"), n_heads=HEADS)
    io = load_file(golden / "criss_cross_io.safetensors")
    codes = system.tokenizer.codec.encode(io["meg"][0]).codes
    assert torch.equal(codes, io["codes"][0].transpose(1, 2))
    geometry = SensorGeometry(
        io["sensor_xyz"][0].numpy(), io["sensor_abc"][0].numpy(), io["sensor_type"][0].numpy(), np.ones(4, bool)
    )
    features = embed(system.model, codes[None].numpy(), geometry)
    # float32 against float32 of another implementation; outputs are of order one.
    torch.testing.assert_close(features, io["features"], atol=1e-4, rtol=0)


@pytest.mark.data
def test_signals_in_tesla_become_features_and_bad_channels_none(data: Path, tmp_path: Path) -> None:
    system = open_published(write_checkpoint(data / "golden", tmp_path / "meg-xl.ckpt"), n_heads=HEADS)
    signal = np.random.default_rng(0).normal(scale=1e-13, size=(600, 3)).astype(np.float32)
    features = embed_signal(system, signal, table(3, ("", "flat", "")))
    assert features.shape == (3, 50, 64)
    assert np.isnan(features[1]).all()
    assert np.isfinite(features[[0, 2]]).all()
    rescaled = embed_signal(system, signal * np.float32(2**40), table(3, ("", "flat", "")))
    np.testing.assert_array_equal(rescaled, features)  # the tokenizer normalises; powers of two change no bit


@pytest.mark.data
def test_an_imported_system_comes_back_from_our_folders(data: Path, tmp_path: Path) -> None:
    system = open_published(write_checkpoint(data / "golden", tmp_path / "meg-xl.ckpt"), n_heads=HEADS)
    folder = tmp_path / "system"
    assert [path.name for path in save_system(system, folder)] == ["tokenizer", "model"]
    assert load_tokenizer(folder / "tokenizer").digest == system.tokenizer.digest
    assert load_model(folder / "model").config == system.model.config
    with pytest.raises(ConfigError, match="exists"):
        save_system(system, folder)


@pytest.mark.data
def test_an_import_that_fails_half_way_leaves_no_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = open_published(write_checkpoint(data / "golden", tmp_path / "meg-xl.ckpt"), n_heads=HEADS)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_system(system, tmp_path / "system")
    assert not (tmp_path / "system").exists()
    monkeypatch.undo()
    save_system(system, tmp_path / "system")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meg-xl.ckpt", "system"]


@pytest.mark.data
def test_a_codec_alone_has_no_model(data: Path, tmp_path: Path) -> None:
    codec = load_file(data / "golden" / "biocodec_random.safetensors")
    state = {f"_orig_mod.{name}": tensor for name, tensor in codec.items()}
    torch.save({"epoch": 20, "model_state_dict": state}, tmp_path / "biocodec_ckpt.pt")
    system = open_published(tmp_path / "biocodec_ckpt.pt")
    assert system.model is None
    with pytest.raises(ConfigError, match="codec and no model"):
        embed_signal(system, np.zeros((600, 1), np.float32), table(1, ("",)))
