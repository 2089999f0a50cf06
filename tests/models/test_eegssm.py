"""EEGSSM: parity with golden tensors, sizes, masks, heads."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from neuromill.models.eegssm import EEGSSM
from neuromill.models.eegssm_config import EEGSSMConfig, ModelInput
from neuromill.records import ConfigError

AUTO = torch.export.Dim.AUTO
TOLERANCE = 5e-5  # on outputs of order one; measured: 8e-6
SMALL = EEGSSMConfig(
    patch_size=50, res_channels=8, skip_channels=12, out_channels=16, num_res_layers=2, s4_lmax=16,
    conv_out_chans=25, pos_kernel=(5, 3), codebook_size_t=32, codebook_size_f=16, drop_prob=0, spectral_dropout=0,
)  # fmt: skip


def small(**changes: object) -> EEGSSM:
    torch.manual_seed(3)
    return EEGSSM(SMALL, **changes).eval()


def windows(batch: int = 2, channels: int = 3, patches: int = 4, rest: int = 0) -> Tensor:
    return torch.randn(batch, channels, 50 * patches + rest, generator=torch.Generator().manual_seed(7))


def some_mask(batch: int = 2, channels: int = 3, patches: int = 4) -> Tensor:
    return torch.rand(batch, channels, patches, generator=torch.Generator().manual_seed(8)) < 0.5


def golden_model(data: Path) -> EEGSSM:
    model = EEGSSM(num_res_layers=2, codebook_size_t=64, codebook_size_f=32, pretrain_mode=True).eval()
    model.load_state_dict(load_file(data / "golden/eegssm_random.safetensors"), strict=True)
    return model


@pytest.mark.data
@torch.no_grad()
def test_parity_with_the_published_network(data: Path) -> None:
    model, golden = golden_model(data), load_file(data / "golden/eegssm_io.safetensors")
    x, mask = golden["x"], golden["mask"]
    pairs = {
        "features": model(x, return_features=True)["features"],
        "features_masked": model(x, mask=mask, return_features=True)["features"],
        "logits_temporal": model(x)[0],
        "logits_frequency": model(x)[1],
        "masked_logits_temporal": model(x, mask=mask.bool())[0],
        "masked_logits_frequency": model(x, mask=mask.long())[1],
    }
    for name, ours in pairs.items():
        torch.testing.assert_close(ours, golden[name], atol=TOLERANCE, rtol=0, msg=name)


@pytest.mark.data
def test_kernel_norms_are_those_the_published_class_measures(data: Path) -> None:
    for block in golden_model(data).residual_layer.residual_blocks:
        stored = block.sgconv.kernel_norm.clone()
        block.sgconv.measure_norm()
        torch.testing.assert_close(block.sgconv.kernel_norm, stored, rtol=1e-6, atol=0)


def test_full_size_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        backbone, pretraining = EEGSSM(), EEGSSM(pretrain_mode=True)
        classifying = EEGSSM(n_outputs=2, head="flatten", n_chans=19, n_times=6000)
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in backbone.named_children()}
    assert counts == {
        "patch_embedding": 52_600,
        "init_conv": 40_400,
        "residual_layer": 8 * 1_669_400,
        "final_conv": 80_600,
        "norm": 400,
    }
    assert sum(counts.values()) == 13_529_200
    assert sum(p.numel() for p in pretraining.parameters()) == 13_529_200 + 1_638_400
    assert sum(p.numel() for p in classifying.parameters()) == 13_529_200 + 91_361_402
    assert len(pretraining.state_dict()) == 269  # tensors that the authors' checkpoint shares with the published class


@pytest.mark.parametrize("n_channels", [1, 3, 70])
@pytest.mark.parametrize(("n_patches", "rest"), [(1, 0), (4, 49), (30, 7)])
@torch.no_grad()
def test_any_channels_and_length(n_channels: int, n_patches: int, rest: int) -> None:
    x = windows(1, n_channels, n_patches, rest)
    features = small()(x, return_features=True)
    assert features["features"].shape == (1, n_channels, n_patches, 16)
    assert features["cls_token"] is None
    whole = small()(x[..., : 50 * n_patches], return_features=True)["features"]
    assert torch.equal(features["features"], whole)  # what is no whole patch has no influence


@torch.no_grad()
def test_a_window_does_not_depend_on_its_batch() -> None:
    model, x, mask = small(), windows(3), some_mask(3)
    together = model.features(x, mask)
    alone = torch.cat([model.features(x[i : i + 1], mask[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=2e-6, rtol=0)


@torch.no_grad()
def test_nothing_of_a_hidden_patch_is_seen() -> None:
    """Neither samples nor spectrum: an early port of the published class let the spectrum through."""
    model, x, mask = small(pretrain_mode=True), windows(), some_mask()
    other = torch.where(mask[..., None], 100 * torch.randn(2, 3, 4, 50), x.view(2, 3, 4, 50)).view_as(x)
    assert not torch.equal(x, other)
    for ours, theirs in zip(model(x, mask), model(other, mask), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.allclose(model(x)[0], model(other)[0])
    silent = torch.where(mask[..., None], 0.0, x.view(2, 3, 4, 50)).view_as(x)
    assert torch.equal(model.features(silent), model.features(x, mask))


@torch.no_grad()
def test_masked_logits_come_in_the_order_of_the_mask() -> None:
    model, x, mask = small(pretrain_mode=True), windows(), some_mask()
    features = model.features(x, mask)
    order = list(itertools.product(range(2), range(3), range(4)))
    expected = torch.stack([model.lm_head_t(features[place]) for place in order if mask[place]])
    temporal, frequency = model(x, mask)
    torch.testing.assert_close(temporal, expected, atol=1e-6, rtol=0)
    assert temporal.shape == (int(mask.sum()), 32)
    assert frequency.shape == (int(mask.sum()), 16)
    assert model(x)[1].shape == (2, 3, 4, 16)
    assert model(x, torch.zeros(2, 3, 4))[0].shape == (0, 32)


def test_loss_at_the_start_is_that_of_guessing() -> None:
    torch.manual_seed(0)
    model = EEGSSM(num_res_layers=1, pretrain_mode=True)
    x, mask = torch.randn(1, 19, 1000), torch.ones(1, 19, 5)
    targets = torch.randint(0, 4096, (95,))
    with torch.no_grad():
        loss = sum(float(nn.functional.cross_entropy(logits, targets)) for logits in model(x, mask))
    assert 16.6 < loss < 17.2  # 2 ln 4096 = 16.64


def test_every_parameter_is_trained() -> None:
    for changes in ({"pretrain_mode": True}, {"n_outputs": 3}):
        model = small(**changes).train()
        made = model(windows(), some_mask())
        loss = sum((part.square().sum() for part in made), torch.zeros(())) if isinstance(made, tuple) else made.sum()
        loss.backward()
        idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        assert idle == {name for name, p in model.named_parameters() if not p.requires_grad}
        last = "residual_layer.residual_blocks.1."
        assert idle - {"patch_embedding.mask_encoding"} == {
            name for name, _ in model.named_parameters() if name.startswith((f"{last}res_conv", f"{last}rms_norm"))
        }
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_recomputed_activations_give_the_same_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        model = small(pretrain_mode=True, checkpoint_activations=recompute, drop_prob=0.0).train()
        model(windows(), some_mask())[0].square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_bfloat16_autocast_keeps_the_transforms_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = torch.fft.rfft
    monkeypatch.setattr(torch.fft, "rfft", lambda x, *a, **k: (seen.append(x.dtype), original(x, *a, **k))[1])
    model = small()
    exact = model.features(windows())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.features(windows())
    assert set(seen) == {torch.float32}
    assert not torch.equal(exact, rough)
    assert (exact - rough).abs().mean() < 0.05


def test_heads_are_there_when_asked_for() -> None:
    model = small()
    assert not [name for name, _ in model.named_parameters() if name.startswith(("final_layer", "lm_head"))]
    with pytest.raises(ConfigError, match="no head"):
        model(windows())
    model.reset_head(5)
    assert model(windows()).shape == (2, 5)
    assert model(windows(channels=6, patches=2)).shape == (2, 5)
    pretrained = small(pretrain_mode=True)
    features = pretrained.features(windows())
    pretrained.reset_head(4, head="flatten", n_chans=3, n_times=200)
    assert pretrained(windows()).shape == (2, 4)
    assert torch.equal(pretrained.features(windows()), features)
    assert not hasattr(pretrained, "lm_head_t")
    assert EEGSSM.from_config(pretrained.get_config()).config == pretrained.config


def test_settings_go_and_come() -> None:
    model = small(n_outputs=3, swa_window_size=5)
    again = EEGSSM.from_config(model.get_config(), n_outputs=2)
    assert again.config == model.config.model_copy(update={"n_outputs": 2})
    published = {**EEGSSMConfig().model_dump(), "activation": nn.GELU, "s4_d_state": 64, "sfreq": 200, "chs_info": None}
    with torch.device("meta"):
        assert EEGSSM.from_config(published).config == EEGSSMConfig(activation="GELU", sfreq=200)


def test_the_arguments_of_the_published_class_are_taken() -> None:
    """Of ``braindecode.models.CodeBrain``: by name, to the constructor as to ``from_config``."""
    with torch.device("meta"):
        model = EEGSSM(
            n_outputs=2, chs_info=[{"ch_name": name} for name in ("C3", "CZ", "C4")], input_window_seconds=30.0,
            sfreq=200, s4_d_state=64, activation=nn.GELU, head="flatten",
        )  # fmt: skip
        plain = EEGSSM(n_outputs=2, n_chans=19, n_times=6000, sfreq=200)
        again = EEGSSM.from_config({"n_outputs": 2, "n_chans": 19, "n_times": 6000, "sfreq": 200})
        given = EEGSSM(n_times=6000, n_chans=2, sfreq=200, input_window_seconds=30, chs_info=[{}, {}])
        unknown = EEGSSM(chs_info=None, input_window_seconds=30, sfreq=None, activation="torch.nn.ReLU")
    assert (model.config.n_chans, model.config.n_times, model.config.activation) == (3, 6000, "GELU")
    assert plain.config == again.config == EEGSSMConfig(n_outputs=2, n_chans=19, n_times=6000, sfreq=200)
    assert given.config == EEGSSMConfig(n_times=6000, n_chans=2, sfreq=200)
    assert unknown.config == EEGSSMConfig()


@torch.no_grad()
def test_the_mean_classifier_averages_what_is_fit_for_use() -> None:
    model, x = small(n_outputs=3), windows()
    usable = torch.ones(2, 3, 4, dtype=torch.bool)
    torch.testing.assert_close(model(x, usable=usable), model(x))
    usable[0, 1, 2] = usable[1, 0] = False
    features = model.features(x)
    mean = torch.stack([features[i][usable[i]].mean(dim=0) for i in range(2)])
    torch.testing.assert_close(model(x, usable=usable), model.final_layer.linear(mean))
    assert not torch.allclose(model(x, usable=usable), model(x))
    assert model(x, usable=~torch.ones(2, 3, 4, dtype=torch.bool)).isfinite().all()
    flat = small(n_outputs=3, head="flatten", n_chans=3, n_times=200)
    assert torch.equal(flat(x, usable=usable), flat(x))
    with pytest.raises(ConfigError, match=r"usable is \(2, 3\)"):
        model(x, usable=usable[..., 0])


def test_a_head_does_not_change_what_the_weights_have_learned_from() -> None:
    model = small(sfreq=50, unit_volts=1e-4)
    with pytest.raises(ConfigError, match="a signal at 200 Hz for a model trained at 50 Hz"):
        model.reset_head(2, sfreq=200)
    model.reset_head(2)
    assert model.config.input == ModelInput(50.0, 1e-4)


@pytest.mark.parametrize(
    ("known", "given", "told"),
    [
        (ModelInput(), ModelInput(500.0, 1e-6), ""),
        (ModelInput(200.0, 1e-4), ModelInput(), ""),
        (ModelInput(200.0, 1e-4), ModelInput(200.0, float(np.float32(1e-4))), ""),
        (ModelInput(200.0), ModelInput(500.0), "a signal at 500 Hz for a model trained at 200 Hz"),
        (
            ModelInput(None, 1e-4),
            ModelInput(None, 1e-6),
            "in units of 1 uV for a model trained on one in units of 100 uV",
        ),
        (ModelInput(None, 1e-4), ModelInput(None, "segment"), "scaled segment by segment for a model"),
        (ModelInput(None, "segment"), ModelInput(None, 1e-4), "trained on one scaled segment by segment"),
        (ModelInput(None, "segment"), ModelInput(None, "segment"), ""),
    ],
)
def test_another_rate_or_unit_is_told(known: ModelInput, given: ModelInput, told: str) -> None:
    conflict = known.conflict(given)
    assert told in conflict
    assert bool(told) == bool(conflict)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch_size": 128}, "150 features of 128 samples"),
        ({"n_outputs": 2, "head": "flatten"}, "n_chans and n_times"),
        ({"n_outputs": 2, "pretrain_mode": True}, "not both"),
        ({"swa_window_size": 2}, "odd"),
        ({"n_times": 0}, "n_times"),
        ({"depth": 3}, "depth"),
        ({"sfreq": 100, "n_times": 6000, "input_window_seconds": 30}, "n_times is 6000, input_window_seconds 30 at"),
        ({"n_chans": 19, "chs_info": [{}]}, "n_chans is 19, chs_info makes 1"),
        ({"input_window_seconds": "long", "sfreq": 200}, "input_window_seconds"),
        ({"activation": nn.Tanh}, "activation"),
        ({"sfreq": -1}, "sfreq"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EEGSSM(**settings)


@pytest.mark.parametrize("patch_size", [50, 100, 200, 250])
def test_patch_sizes_that_fit(patch_size: int) -> None:
    assert EEGSSMConfig(patch_size=patch_size).embed_dim == patch_size


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="no patch"):
        small()(torch.zeros(1, 3, 49), return_features=True)
    with pytest.raises(ConfigError, match="no patch"):
        small()(torch.zeros(1, 3, 2, 50), return_features=True)
    with pytest.raises(ConfigError, match="mask"):
        small()(windows(), torch.zeros(2, 4, 3), return_features=True)


@torch.no_grad()
def test_export() -> None:
    """The backbone can be exported for any batch, channels and length, up to as many tokens as kernels have taps."""

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = small(s4_lmax=1024)

        def forward(self, x: Tensor) -> Tensor:
            return self.model.features(x)

    backbone = Backbone().eval()
    exported = torch.export.export(backbone, (windows(),), dynamic_shapes={"x": dict.fromkeys(range(3), AUTO)})
    for x in (windows(5), windows(3, 7, 9), windows(2, 19, 30)):
        torch.testing.assert_close(exported.module()(x), backbone(x), atol=1e-5, rtol=0)
