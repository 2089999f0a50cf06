"""The network is the published one: sizes, frames, golden tensors, causality."""

from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from neuromill.records import ConfigError
from neuromill.tokenizers.biocodec import BioCodec
from neuromill.tokenizers.config import BioCodecConfig
from support.codec import SMALL

SPECIFIED_FRAMES = {50: 5, 150: 13, 750: 63, 1500: 125, 7500: 625, 7501: 626}
FLIP_MARGIN = 1e-6


@pytest.fixture(scope="module")
def golden(data):
    codec = BioCodec().eval()
    codec.load_state_dict(load_file(data / "golden" / "biocodec_random.safetensors"))
    return codec, load_file(data / "golden" / "biocodec_io.safetensors")


def test_parameters_are_counted_as_published():
    codec = BioCodec()
    counts = [sum(p.numel() for p in part.parameters()) for part in (codec, codec.encoder, codec.decoder)]
    assert counts == [3_152_770, 1_563_680, 1_563_650]


@pytest.mark.data
def test_names_and_shapes_are_the_published_ones(data):
    published = load_file(data / "golden" / "biocodec_random.safetensors")
    shapes = [{name: (t.shape, t.dtype) for name, t in state.items()} for state in (BioCodec().state_dict(), published)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("n_times", "n_frames"), [*SPECIFIED_FRAMES.items(), (1, 1), (2, 1), (12, 1), (13, 2)])
def test_frames(n_times, n_frames):
    encoded = BioCodec(SMALL).eval().encode(torch.randn(2, n_times))
    assert encoded.codes.shape == (2, SMALL.n_quantizers, n_frames)
    assert encoded.codes.dtype == torch.uint8
    assert encoded.scale.shape == (2,)
    assert SMALL.n_frames(n_times) == n_frames


@pytest.mark.data
def test_golden_codes(golden):
    """Equal; a flip counts as equal only where the two best cosines are closer than 1e-6, at its first level."""
    codec, io = golden
    encoded = codec.encode(io["x"])
    torch.testing.assert_close(encoded.scale, io["scale"][:, 0], rtol=0, atol=1e-6)
    assert all(margin < FLIP_MARGIN for margin in first_flip_margins(codec, encoded.codes, io))


def first_flip_margins(codec, codes, io):
    """Difference of the two best cosines wherever a code first differs from the golden one along the levels."""
    latent = codec.encoder(io["x"] / io["scale"][:, None])
    residual, agreed, margins = latent.transpose(1, 2), torch.ones_like(codes[:, 0], dtype=torch.bool), []
    for i, level in enumerate(codec.quantizer.levels):
        cosines = normalize(level.project_in(residual), dim=-1) @ normalize(level.codebook.embed, dim=-1).t()
        best = cosines.topk(2, dim=-1).values
        flipped = agreed & (codes[:, i] != io["codes"][:, i])
        margins += (best[..., 0] - best[..., 1])[flipped].tolist()
        agreed &= ~flipped
        residual = residual - level.decode(io["codes"][:, i].long())
    return margins


@pytest.mark.data
def test_flip_margins_would_catch_a_wrong_code(golden):
    codec, io = golden
    wrong = io["codes"].clone()
    wrong[1, 2, 50] ^= 1
    (margin,) = first_flip_margins(codec, wrong, io)
    assert margin > FLIP_MARGIN


@pytest.mark.data
def test_golden_reconstruction(golden):
    codec, io = golden
    output = codec.decode(io["codes"], io["scale"][:, 0], 1500)
    torch.testing.assert_close(output, io["reconstruction"][:, 0], rtol=0, atol=1e-4)
    # Outputs of the random network are around 0.03: also ask for agreement relative to that.
    assert (output - io["reconstruction"][:, 0]).abs().max() < 1e-4 * io["reconstruction"].abs().max()


@pytest.mark.data
def test_golden_codes_under_autocast(golden):
    codec, io = golden
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = codec.encode(io["x"][:1]).codes
    assert torch.equal(inside, codec.encode(io["x"][:1]).codes)


def test_frames_depend_on_the_past_only():
    codec = BioCodec(SMALL.model_copy(update={"rms": False})).eval()
    x = torch.randn(1, 1200)
    changed = x.clone()
    changed[:, 601:] += 1
    with torch.no_grad():
        before, after = (codec.encoder(v[:, None])[0] for v in (x, changed))
    differs = (before != after).any(dim=0)
    assert not differs[:50].any()
    assert differs[50:].all()


def test_decoding_part_of_the_frames_is_the_start_of_decoding_all():
    codec = BioCodec(SMALL).eval()
    encoded = codec.encode(torch.randn(2, 480))
    whole = codec.decode(encoded.codes, encoded.scale, 480)
    part = codec.decode(encoded.codes[..., :20], encoded.scale, 240)
    # Reflect padding mirrors on the left only, so nothing after the cut matters but rounding.
    torch.testing.assert_close(part, whole[:, :240], rtol=1e-4, atol=1e-6)


def test_scale_is_undone_by_decode():
    codec = BioCodec(SMALL).eval()
    x = torch.randn(2, 600)
    small, large = codec.encode(x), codec.encode(x * 2**20)
    assert torch.equal(small.codes, large.codes)
    torch.testing.assert_close(
        codec.decode(large.codes, large.scale, 600), codec.decode(small.codes, small.scale, 600) * 2**20
    )


@pytest.mark.parametrize("shape", [(3, 2, 100), (100,), (2, 0)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ConfigError, match="rows of samples"):
        BioCodec(SMALL).encode(torch.zeros(shape))


@pytest.mark.parametrize(("levels", "frames"), [(2, 10), (3, 9), (3, 11)])
def test_codes_that_do_not_fit_are_refused(levels, frames):
    codes = torch.zeros(1, levels, frames, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="do not make 120 samples"):
        BioCodec(SMALL).decode(codes, torch.ones(1), 120)


def test_a_smaller_configuration_is_smaller():
    sizes = [
        sum(p.numel() for p in BioCodec(BioCodecConfig(base_width=w, latent_dim=4 * w)).parameters())
        for w in (8, 16, 32)
    ]
    assert all(small < large for small, large in pairwise(sizes))
