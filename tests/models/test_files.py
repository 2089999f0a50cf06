"""Weights on disk."""

import json
import os
from pathlib import Path, PurePosixPath

import pytest
import torch
from safetensors.torch import load_file, save_file

from neuromill.models.config import CrissCrossConfig
from neuromill.models.criss_cross import CrissCross
from neuromill.models.files import from_pretrained, import_published, is_complete, save_pretrained
from neuromill.records import ConfigError

TINY = CrissCrossConfig(latent_dim=16, n_layers=1, n_heads=2, fourier_dim=6, codebook_size=8, codebook_dim=4)


def tiny() -> CrissCross:
    torch.manual_seed(0)
    return CrissCross(TINY, torch.randn(6, 8, 4)).eval()


def lightning_dict(model: CrissCross) -> dict[str, object]:
    """Same shape as the published file: codec weights and rotary caches among the model's own."""
    rotary = "criss_cross_transformer.layers.0.time_attn.rope_embedding_layer"
    extra = {
        "tokenizer.quantizer.vq.layers.0.project_in.weight": torch.ones(2, 2),
        f"{rotary}.freqs": torch.ones(128),
        f"{rotary}.rotate": torch.ones(240, 128, dtype=torch.complex64),
    }
    return {
        "epoch": 1,
        "global_step": 113_000,
        "state_dict": dict(model.state_dict()) | extra,
        "hyper_parameters": {"lr": 1e-4},
    }


def test_saved_model_comes_back(tmp_path: Path) -> None:
    model = tiny()
    save_pretrained(model, tmp_path / "model")
    back = from_pretrained(tmp_path / "model")
    assert back.config == model.config
    assert not back.training
    assert {k: v.tolist() for k, v in back.state_dict().items()} == {
        k: v.tolist() for k, v in model.state_dict().items()
    }
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_state_dict_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        names = list(CrissCross(CrissCrossConfig()).state_dict())
    assert len(names) == 146 - 8 * 2  # the published list less two rotary caches per layer


def test_published_checkpoint(tmp_path: Path) -> None:
    model = tiny()
    torch.save(lightning_dict(model), tmp_path / "meg-xl.ckpt")
    loaded = import_published(tmp_path / "meg-xl.ckpt", n_heads=2)
    assert loaded.model.config == TINY
    torch.testing.assert_close(loaded.model.state_dict(), model.state_dict())
    assert list(loaded.tokenizer_weights) == ["quantizer.vq.layers.0.project_in.weight"]


@pytest.mark.data
def test_published_checkpoint_of_golden_tensors(data: Path, tmp_path: Path) -> None:
    golden = load_file(data / "golden" / "criss_cross_random.safetensors")
    torch.save({"state_dict": {f"_orig_mod.{k}": v for k, v in golden.items()}}, tmp_path / "golden.ckpt")
    loaded = import_published(tmp_path / "golden.ckpt", n_heads=4, parity=True)
    config = loaded.model.config
    assert (config.latent_dim, config.n_layers, config.fourier_dim, config.parity) == (64, 2, 32, True)
    torch.testing.assert_close(dict(loaded.model.state_dict()), golden)


def test_checkpoint_with_other_objects_is_refused_and_says_which(tmp_path: Path) -> None:
    torch.save(lightning_dict(tiny()) | {"hyper_parameters": PurePosixPath("x")}, tmp_path / "evil.ckpt")
    with pytest.raises(ConfigError, match=r"pathlib.*PurePosixPath.*may run code"):
        import_published(tmp_path / "evil.ckpt", n_heads=2)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.ckpt"):
        import_published(tmp_path / "x.ckpt")


def test_checkpoint_of_another_network(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.ones(2)}}, tmp_path / "x.ckpt")
    with pytest.raises(ConfigError, match="no criss-cross transformer"):
        import_published(tmp_path / "x.ckpt")
    state = dict(tiny().state_dict())
    state.pop("output_head.weight")
    torch.save({"state_dict": state}, tmp_path / "y.ckpt")
    with pytest.raises(ConfigError, match=r"output_head\.weight"):
        import_published(tmp_path / "y.ckpt", n_heads=2)


def test_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        import_published(tmp_path / "nowhere.ckpt")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "settings cannot be read"),
        ({"architecture": "perceptron", "format_version": 1, "config": {}}, "not known here"),
        ({"architecture": "criss_cross", "format_version": 1, "config": {"colour": 1}}, "settings cannot be read"),
        ({"architecture": "criss_cross", "format_version": 1, "config": {"latent_dim": 64}}, "do not fit"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, document: dict[str, object] | None, message: str) -> None:
    save_file({"mask_token": torch.ones(64)}, tmp_path / "model.safetensors")
    if document is not None:
        (tmp_path / "config.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=message):
        from_pretrained(tmp_path)


def test_torn_weights_are_refused(tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="weights cannot be read"):
        from_pretrained(tmp_path)
    assert not is_complete(tmp_path)
    save_pretrained(tiny(), tmp_path)
    assert is_complete(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_half_a_folder_is_not_complete(tmp_path: Path, missing: str) -> None:
    save_pretrained(tiny(), tmp_path / "model")
    assert is_complete(tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    assert not is_complete(tmp_path / "model")
    assert not is_complete(tmp_path / "nowhere")


@pytest.mark.parametrize("broken_file", ["config.json", "model.safetensors"])
def test_a_new_folder_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_file: str
) -> None:
    replace = os.replace

    def full_disk(path: Path, target: Path) -> None:
        if Path(target).name == broken_file:
            raise OSError(28, "No space left on device")
        replace(path, target)

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_pretrained(tiny(), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    monkeypatch.undo()
    save_pretrained(tiny(), tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
