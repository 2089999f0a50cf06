"""Weights of EEGSSM from folders, from the published class and from bare state dicts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neuromill.models import files
from neuromill.models.eegssm import EEGSSM
from neuromill.models.eegssm_config import ModelInput
from neuromill.models.eegssm_files import from_pretrained, import_published, save_pretrained
from neuromill.records import ConfigError

SIZES = {
    "patch_size": 50, "res_channels": 4, "skip_channels": 6, "out_channels": 8, "num_res_layers": 2, "s4_lmax": 16,
    "pos_kernel": (5, 3), "codebook_size_t": 16, "codebook_size_f": 8,
}  # fmt: skip


def tiny(**settings: Any) -> EEGSSM:
    torch.manual_seed(0)
    return EEGSSM(**{**SIZES, **settings}).eval()


def differing(one: EEGSSM, other: EEGSSM) -> set[str]:
    ours, theirs = one.state_dict(), other.state_dict()
    return {k for k in ours.keys() | theirs.keys() if k not in ours or k not in theirs or not ours[k].equal(theirs[k])}


def published_folder(folder: Path, model: EEGSSM, state: dict[str, Tensor], **settings: Any) -> Path:
    """As the published class and its mixin write it: flat settings, no architecture."""
    folder.mkdir()
    flat = {
        k: v for k, v in model.get_config().items() if k not in ("head", "attention_heads", "checkpoint_activations")
    }
    flat |= {"activation": "torch.nn.modules.activation.ReLU", "s4_d_state": 64, "sfreq": 50.0, "chs_info": None}
    (folder / "config.json").write_text(json.dumps(flat | settings))
    save_file({k: v.clone() for k, v in state.items()}, folder / "model.safetensors")
    return folder


def test_a_new_head_on_old_weights(tmp_path: Path) -> None:
    model = tiny(pretrain_mode=True)
    save_pretrained(model, tmp_path / "m")
    tuned = from_pretrained(tmp_path / "m", n_outputs=3)
    assert not tuned.config.pretrain_mode
    assert differing(model, tuned) == {
        "final_layer.linear.weight", "final_layer.linear.bias", "lm_head_t.weight", "lm_head_f.weight",
    }  # fmt: skip
    bare = from_pretrained(tmp_path / "m", pretrain_mode=False)
    assert differing(model, bare) == {"lm_head_t.weight", "lm_head_f.weight"}
    wider = from_pretrained(tmp_path / "m", codebook_size_t=99)
    assert differing(model, wider) == {"lm_head_t.weight"}
    save_pretrained(tuned, tmp_path / "t")
    assert not differing(from_pretrained(tmp_path / "t"), tuned)
    assert differing(from_pretrained(tmp_path / "t", n_outputs=5), tuned) == {
        "final_layer.linear.weight", "final_layer.linear.bias",
    }  # fmt: skip


def test_a_folder_knows_the_rate_and_the_unit_it_was_trained_with(tmp_path: Path) -> None:
    for write in (save_pretrained, files.save_pretrained):  # the model's own, and the trainer's
        folder = tmp_path / write.__module__
        write(tiny(sfreq=200, unit_volts=1e-4), folder)
        assert from_pretrained(folder, n_outputs=2).config.input == ModelInput(200.0, 1e-4)
        assert files.from_pretrained(folder, EEGSSM).config.input == ModelInput(200.0, 1e-4)
        assert from_pretrained(folder, sfreq=200.0).config.input == ModelInput(200.0, 1e-4)
        for changes, told in (({"sfreq": 500}, "500 Hz"), ({"unit_volts": 1e-6}, "1 uV"), ({"sfreq": "x"}, "sfreq")):
            with pytest.raises(ConfigError, match=told):
                from_pretrained(folder, **changes)


def test_an_older_folder_does_not_and_may_be_told(tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path / "m")
    document = json.loads((tmp_path / "m/config.json").read_text())
    for name in ("sfreq", "unit_volts"):
        assert document["config"].pop(name) is None
    (tmp_path / "m/config.json").write_text(json.dumps(document))
    assert from_pretrained(tmp_path / "m").config.input == ModelInput()
    assert files.from_pretrained(tmp_path / "m", EEGSSM).config.input == ModelInput()
    assert from_pretrained(tmp_path / "m", sfreq=200, unit_volts=1e-4).config.input == ModelInput(200.0, 1e-4)


def test_a_backbone_has_to_be_whole(tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path / "m")
    weights = load_file(tmp_path / "m/model.safetensors")
    weights.pop("norm.weight")
    weights["norm.scale"] = torch.ones(8)
    weights["init_conv.0.conv.bias"] = torch.ones(5)
    save_file(weights, tmp_path / "m/model.safetensors")
    with pytest.raises(ConfigError, match=r"missing norm.weight; unknown norm.scale; init_conv.0.conv.bias is \(5,\)"):
        from_pretrained(tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"architecture": "eegssm", "format_version": 2, "config": {}}'),
        ("config.json", b'{"architecture": "eegssm", "format_version": 1, "config": {"depth": 3}}'),
        ("config.json", b"\xff\xfe"),
        ("model.safetensors", b"\x00" * 20),
    ],
)
def test_damaged_folders(tmp_path: Path, name: str, content: bytes) -> None:
    save_pretrained(tiny(), tmp_path / "m")
    (tmp_path / "m" / name).write_bytes(content)
    with pytest.raises(ConfigError):
        from_pretrained(tmp_path / "m")
    (tmp_path / "m" / name).unlink()
    with pytest.raises(ConfigError):
        from_pretrained(tmp_path / "m")


def test_a_folder_of_the_published_class(tmp_path: Path) -> None:
    """Its classifier lies under other numbers; its code heads are always there."""
    pretrained, classifying = tiny(pretrain_mode=True), tiny(n_outputs=2, head="flatten", n_chans=3, n_times=200)
    state = dict(pretrained.state_dict())
    numbers = {"1": "0", "4": "3", "7": "6"}
    for name, tensor in classifying.final_layer.state_dict().items():
        number, kind = name.split(".")
        state[f"final_layer.mlp.{numbers[number]}.{kind}"] = tensor
    folder = published_folder(tmp_path / "m", classifying, state)
    opened = from_pretrained(folder)
    assert opened.config.input == ModelInput(sfreq=50.0)
    x = torch.randn(2, 3, 200)
    assert torch.equal(opened(x), classifying_with(pretrained, classifying)(x))
    codes = from_pretrained(folder, pretrain_mode=True)
    assert not differing(codes, pretrained)
    fresh = from_pretrained(folder, n_outputs=4, head="mean")
    assert fresh(torch.randn(1, 7, 100)).shape == (1, 4)
    assert torch.equal(fresh.features(x), pretrained.features(x))


def classifying_with(backbone: EEGSSM, head: EEGSSM) -> nn.Module:
    return nn.Sequential(_Features(backbone), head.final_layer)


class _Features(nn.Module):
    def __init__(self, backbone: EEGSSM) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone.features(x)


def upstream_state(model: EEGSSM) -> dict[str, Tensor]:
    """Names as the authors' code makes them, as far as they are known, and one invented module name."""
    state = {}
    for name, tensor in model.state_dict().items():
        key = name.replace(".parametrizations.weight.original0", ".weight_g")
        key = key.replace(".parametrizations.weight.original1", ".weight_v")
        if ".kernel_list." in key:
            key += ".kernel"
        state["module." + key.replace("residual_layer", "residual_group")] = tensor
    return state


@pytest.mark.parametrize("nested", [True, False])
def test_a_checkpoint_of_the_authors(tmp_path: Path, *, nested: bool) -> None:
    model = tiny(pretrain_mode=True)
    state = upstream_state(model) | {"module.final_layer.0.weight": torch.ones(2, 2)}
    torch.save({"state_dict": state, "epoch": 1} if nested else state, tmp_path / "c.pth")
    with pytest.raises(ConfigError, match="renames") as caught:
        import_published(tmp_path / "c.pth")
    assert "residual_layer" in str(caught.value)
    opened = import_published(tmp_path / "c.pth", renames={"residual_group": "residual_layer"}, drop_prob=0.2)
    assert not differing(opened, model)
    assert opened.config == model.config.model_copy(update={"drop_prob": 0.2})
    tuned = import_published(tmp_path / "c.pth", renames={"residual_group": "residual_layer"}, n_outputs=2)
    assert tuned(torch.randn(1, 2, 100)).shape == (1, 2)


@pytest.mark.parametrize("changes", [{"s4_bidirectional": False}, {"s4_layernorm": True}, {"s4_lmax": 570}, SIZES])
def test_sizes_are_read_from_shapes(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = tiny(**changes)
    save_file(model.state_dict(), tmp_path / "bare.safetensors")
    opened = import_published(tmp_path / "bare.safetensors")
    assert not differing(opened, model)
    assert opened.config.n_scales == model.config.n_scales
    x = torch.randn(1, 2, 150)
    assert torch.equal(opened.features(x), model.features(x))


@pytest.mark.data
def test_the_golden_state_dict_opens_by_itself(data: Path) -> None:
    model = import_published(data / "golden/eegssm_random.safetensors")
    golden = load_file(data / "golden/eegssm_io.safetensors")
    assert (model.config.num_res_layers, model.config.codebook_size_t, model.config.n_scales) == (2, 64, 10)
    with torch.no_grad():
        torch.testing.assert_close(model(golden["x"])[0], golden["logits_temporal"], atol=5e-5, rtol=0)


def test_files_that_may_run_code_or_hold_nothing(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": object()}}, tmp_path / "evil.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    for name in ("evil.pth", "cut.pth", "none.pth", "missing.pth", "missing.safetensors"):
        with pytest.raises(ConfigError):
            import_published(tmp_path / name)
