"""The criss-cross transformer: parity with golden tensors, and what masks promise."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from neuromill.models.config import CrissCrossConfig
from neuromill.models.criss_cross import CrissCross, Sensors, masked_positions
from neuromill.records import ConfigError

SMALL = CrissCrossConfig(latent_dim=32, n_layers=2, n_heads=4, fourier_dim=16, codebook_size=16, codebook_dim=4)
HALF = torch.arange(20) % 4 < 2


def small_model(**changes: object) -> CrissCross:
    torch.manual_seed(3)
    config = SMALL.model_copy(update=changes)
    codebooks = nn.functional.normalize(torch.randn(config.n_quantizers, config.codebook_size, config.codebook_dim))
    return CrissCross(config, codebooks).eval()


def small_batch(n_channels: int = 5, n_frames: int = 20) -> tuple[Tensor, Sensors]:
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(0, 16, (2, n_channels, 6, n_frames), generator=generator, dtype=torch.uint8)
    positions, orientations = torch.randn(2, 2, n_channels, 3, generator=generator)
    types = torch.randint(0, 2, (2, n_channels), generator=generator)
    return codes, Sensors(positions, orientations, types, torch.ones(2, n_channels, dtype=torch.bool))


def padded(codes: Tensor, sensors: Sensors, n: int) -> tuple[Tensor, Sensors]:
    assert sensors.mask is not None
    grow = nn.functional.pad
    return grow(codes, (0, 0, 0, 0, 0, n), value=7), Sensors(
        grow(sensors.positions, (0, 0, 0, n)),
        grow(sensors.orientations, (0, 0, 0, n)),
        grow(sensors.types, (0, n)),
        grow(sensors.mask, (0, n), value=False),
    )


def test_full_size_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = CrissCross(CrissCrossConfig())
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    assert counts == {
        "rvq_projector": 49_664,
        "position_fourier_emb": 0,
        "position_projector": 128_512,
        "orientation_fourier_emb": 0,
        "orientation_projector": 128_512,
        "sensor_type_layer": 1_024,
        "criss_cross_transformer": 21_016_576,
        "output_head": 787_968,
    }
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 22_112_768


@pytest.mark.data
@pytest.mark.parametrize("parity", [False, True])
def test_golden_features_and_logits(data: Path, *, parity: bool) -> None:
    golden = data / "golden"
    sizes = json.loads((golden / "config.json").read_text())["criss_cross"]
    config = CrissCrossConfig(
        latent_dim=sizes["latent_dim"],
        n_layers=sizes["num_layers"],
        n_heads=sizes["num_heads"],
        fourier_dim=sizes["fourier_pos_dim"],
        dropout=0.0,
        parity=parity,
    )
    model = CrissCross(config).eval()
    model.load_state_dict(load_file(golden / "criss_cross_random.safetensors"))
    io = load_file(golden / "criss_cross_io.safetensors")
    sensors = Sensors(io["sensor_xyz"], io["sensor_abc"], io["sensor_type"])
    with torch.no_grad():
        features = model.features(io["codes"].permute(0, 1, 3, 2), sensors)
        logits = model.logits(features)
    assert (features - io["features"]).abs().max() < 1e-4
    assert (logits - io["logits"]).abs().max() < 1e-4


def test_forward_gives_the_logits_of_masked_real_positions_in_order() -> None:
    model = small_model()
    codes, sensors = padded(*small_batch(), 2)
    masked = torch.stack([HALF, ~HALF])
    with torch.no_grad():
        some = model(codes, sensors, masked)
        everywhere = model.logits(model.features(codes, sensors, masked_frames=masked))
    chosen = masked_positions(masked, sensors.mask, codes.shape[1])
    assert chosen.sum() == 2 * 5 * 10
    torch.testing.assert_close(some, everywhere[chosen])


@pytest.mark.parametrize("n_padded", [1, 4])
def test_padding_channels_changes_nothing_for_real_ones(n_padded: int) -> None:
    model = small_model()
    codes, sensors = small_batch()
    masked = HALF.expand(2, -1)
    with torch.no_grad():
        alone = model(codes, Sensors(sensors.positions, sensors.orientations, sensors.types), masked)
        together = model(*padded(codes, sensors, n_padded), masked)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_published_attention_sees_padding() -> None:
    model = small_model(parity=True, dropout=0.0)
    codes, sensors = small_batch()
    with torch.no_grad():
        difference = model.features(*padded(codes, sensors, 4))[:, :5] - model.features(codes, sensors)
    assert difference.abs().max() > 1e-3


def test_padding_frames_changes_nothing_for_real_ones() -> None:
    model = small_model()
    codes, sensors = small_batch()
    longer = nn.functional.pad(codes, (0, 6), value=3)
    real = torch.arange(26).expand(2, -1) < 20
    with torch.no_grad():
        alone = model.features(codes, sensors)
        together = model.features(longer, sensors, frame_mask=real)
    torch.testing.assert_close(together[:, :, :20], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_masked_position_does_not_know_its_code(dtype: torch.dtype) -> None:
    model = small_model()
    codes, sensors = small_batch()
    masked = HALF.expand(2, -1)
    other = torch.where(masked[:, None, None, :], (codes + 5) % 16, codes)
    assert not torch.equal(codes, other)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        torch.testing.assert_close(model(codes, sensors, masked), model(other, sensors, masked), atol=0, rtol=0)


def test_published_masking_leaks_the_code_in_bf16() -> None:
    model = small_model(parity=True, dropout=0.0)
    codes, sensors = small_batch()
    masked = HALF.expand(2, -1)
    other = torch.where(masked[:, None, None, :], (codes + 5) % 16, codes)
    with torch.no_grad():
        torch.testing.assert_close(model(codes, sensors, masked), model(other, sensors, masked), atol=1e-5, rtol=0)
        with torch.autocast("cpu", torch.bfloat16):
            assert not torch.equal(model(codes, sensors, masked), model(other, sensors, masked))


def test_masked_frames_matter() -> None:
    model = small_model()
    codes, sensors = small_batch()
    with torch.no_grad():
        seen = model.features(codes, sensors)
        hidden = model.features(codes, sensors, masked_frames=HALF.expand(2, -1))
    assert (seen - hidden).abs().max() > 1e-2


@pytest.mark.parametrize(("parity", "same"), [(False, True), (True, False)])
def test_evaluation_is_deterministic_unless_parity_is_asked_for(*, parity: bool, same: bool) -> None:
    model = small_model(parity=parity, dropout=0.3)
    codes, sensors = small_batch()
    with torch.no_grad():
        assert torch.equal(model.features(codes, sensors), model.features(codes, sensors)) is same


def test_recomputed_activations_give_the_same_gradients() -> None:
    codes, sensors = small_batch()
    gradients = []
    for recompute in (False, True):
        model = small_model(checkpoint_activations=recompute, dropout=0.0).train()
        model(codes, sensors, HALF.expand(2, -1)).square().mean().backward()
        gradients.append(model.rvq_projector.weight.grad)
    torch.testing.assert_close(*gradients)


def test_every_parameter_gets_a_gradient() -> None:
    model = small_model().train()
    codes, sensors = small_batch()
    model(codes, sensors, HALF.expand(2, -1)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_codebooks_of_another_tokenizer_are_refused() -> None:
    with pytest.raises(ConfigError, match="expects"):
        CrissCross(SMALL, torch.zeros(6, 16, 8))


@pytest.mark.parametrize("sizes", [{"latent_dim": 36, "n_heads": 8}, {"n_heads": 3}, {"fourier_dim": 15}])
def test_sizes_that_do_not_divide_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="even"):
        CrissCrossConfig(**sizes)
