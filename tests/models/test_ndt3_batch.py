"""Chunks side by side: slices, padding, crops, and values back on the grid."""

from pathlib import Path

import numpy as np
import pytest
import torch

from neuromill.models.criss_cross import CrissCross
from neuromill.models.files import from_pretrained, is_complete, save_pretrained
from neuromill.models.ndt3 import Ndt3
from neuromill.models.ndt3_batch import Chunk, allowed_bins, collate, crop, crop_to_budget
from neuromill.models.ndt3_decoding import SlidingDecoder, covariate_grid, decode
from neuromill.records import ConfigError, TokenKind
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from neuromill.tokenizers.spikes import Patches, untokenize
from support.ndt3 import chunks_of, tiny
from support.spike_sessions import make_session


def test_collated_contents_are_those_of_the_chunks() -> None:
    chunks = [*chunks_of(make_session(17, (40,), 2)), *chunks_of(make_session(12, (8, 64), 0, seed=1))]
    batch = collate(chunks, n_tokens=90)
    assert batch.slots.shape == (3, 90)
    assert batch.mask.sum(1).tolist() == [len(chunk) for chunk in chunks]
    assert batch.n_bins.tolist() == [12, 5, 12]
    for number, chunk in enumerate(chunks):
        n = len(chunk)
        assert batch.slots[number, :n].tolist() == chunk.tokens.slots.tolist()
        assert batch.bins[number, :n].tolist() == chunk.tokens.bins.tolist()
        assert set(batch.slots[number, n:].tolist()) <= {48}
        here = batch.spike_positions // 90 == number
        assert np.array_equal(batch.patches[here], chunk.tokens.patches)
        kinds = chunk.tokens.kinds[batch.spike_positions[here] % 90]
        assert set(kinds.tolist()) == {TokenKind.SPIKE}
    assert batch.patch_channels[-6:].tolist() == [8, 32, 32] * 2
    positions = torch.cat(
        [batch.spike_positions, batch.covariate_positions, batch.constraint_positions, batch.return_positions]
    )
    assert positions.sort().values.tolist() == batch.mask.flatten().nonzero().squeeze(1).tolist()


def test_batches_move_between_devices() -> None:
    batch = collate(chunks_of(make_session(12))).to("meta")
    assert {tensor.device.type for tensor in batch} == {"meta"}


@pytest.mark.parametrize(
    ("patches", "covariates", "constraints", "bins"), [(10, 16, 16, 94), (8, 15, 15, 100), (3, 2, 2, 100)]
)
def test_golden_crop_budget(patches: int, covariates: int, constraints: int, bins: int) -> None:
    assert allowed_bins(patches, covariates, constraints) == bins


def test_wide_chunks_are_cropped_to_the_budget_the_same_way_in_every_validation() -> None:
    (wide,) = chunks_of(make_session(100, (320,), 16), Ndt3TokenizerConfig())
    cropped = crop_to_budget(wide)
    assert (cropped.n_bins, cropped.tokens.chunk_start_bins.tolist()) == (94, [0])
    later = crop_to_budget(wide, lambda n: n - 1)
    assert (later.n_bins, later.tokens.chunk_start_bins.tolist()) == (94, [5])
    (narrow,) = chunks_of(make_session(100), Ndt3TokenizerConfig())
    assert crop_to_budget(narrow) is narrow


def test_a_crop_is_what_tokens_of_those_bins_would_be() -> None:
    session = make_session(20, (40,), 2)
    constraints = np.zeros((20, 3, 2))
    constraints[4:] = 0.25
    constraints[15:] = 0.5
    (whole,) = chunks_of(session, Ndt3TokenizerConfig(), constraints=constraints)
    cropped = crop(whole, 7, 6)
    tokens = cropped.tokens
    assert cropped.n_bins == 6
    assert (np.diff(48 * tokens.bins.astype(int) + tokens.slots) > 0).all()
    assert tokens.slots[:6].tolist() == [1, 2, 18, 19, 28, 29]
    assert tokens.constraints.tolist() == [[0.25] * 3] * 2  # the latest before the crop, not the first
    assert tokens.returns.tolist() == [[0, 0]]
    back = untokenize(tokens, session.arrays, 20, 2)
    assert np.flatnonzero(back.covered).tolist() == list(range(7, 13))
    assert np.array_equal(back.counts[7:13], session.counts[7:13])
    assert np.array_equal(back.covariates[7:13], np.clip(session.values[7:13] / np.float32(2), -1, 1))
    assert collate([cropped]).mask.all()


def test_a_crop_keeps_constraints_that_are_inside_as_they_are() -> None:
    constraints = np.zeros((20, 3, 2))
    constraints[9:] = 0.5
    (whole,) = chunks_of(make_session(20), Ndt3TokenizerConfig(), constraints=constraints)
    of_constraints = (tokens := crop(whole, 7, 6).tokens).kinds == TokenKind.CONSTRAINT
    assert tokens.bins[of_constraints].tolist() == [2, 2]


def test_a_crop_of_a_crop_and_one_that_runs_over_the_end() -> None:
    (whole,) = chunks_of(make_session(20), Ndt3TokenizerConfig())
    twice, once = crop(crop(whole, 3, 12), 4, 5), crop(whole, 7, 5)
    assert twice.tokens.slots.tolist() == once.tokens.slots.tolist()
    assert twice.tokens.chunk_start_bins.tolist() == [7]
    assert np.array_equal(twice.tokens.patches, once.tokens.patches)
    assert crop(whole, 15, 10).n_bins == 5


def test_published_dummy_survives_a_crop() -> None:
    (whole,) = chunks_of(make_session(20, n_covariates=0), Ndt3TokenizerConfig(parity=True))
    tokens = crop(whole, 5, 10).tokens
    assert (tokens.bins[-1], tokens.slots[-1], len(tokens.covariates)) == (100, 29, 1)


def test_values_come_back_on_the_grid() -> None:
    session = make_session(17, (40,), 3)
    batch = collate([*chunks_of(session), *chunks_of(make_session(12, n_covariates=0))])
    grids = covariate_grid(batch, batch.covariates)
    assert [grid.shape for grid in grids] == [(12, 3), (5, 3), (12, 0)]
    normalised = np.clip(session.values / np.float32(2), -1, 1)
    assert np.array_equal(np.concatenate(grids[:2]), normalised)


def test_decoding_is_the_prediction_whatever_the_batch() -> None:
    model, chunks = tiny(), chunks_of(make_session(30, (40,), 2))
    decoded = decode(model, chunks)
    assert [d.shape for d in decoded] == [(12, 2), (12, 2), (6, 2)]
    assert decoded[0].dtype == np.float32
    one_by_one = decode(model, chunks, chunks_per_pass=1)
    for a, b in zip(decoded, one_by_one, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert decode(model, []) == []


def test_the_published_dummy_is_not_decoded() -> None:
    config = Ndt3TokenizerConfig(chunk_bins=12, parity=True)
    (decoded,) = decode(tiny(), chunks_of(make_session(12, n_covariates=0), config))
    assert decoded.shape == (12, 0)


def test_sliding_window_decodes_each_bin_from_what_has_been() -> None:
    model, session = tiny(), make_session(18, (40,), 2)
    template = chunks_of(make_session(12, (40,), 2, seed=5))[0]
    stream, patches = SlidingDecoder(model, template), Patches.of(session.arrays)
    steps = np.stack([stream.step(now) for now in patches.fill(session.counts)])
    (whole,) = chunks_of(session, Ndt3TokenizerConfig())
    np.testing.assert_allclose(steps[:12], decode(model, [whole])[0][:12], atol=1e-6)
    for last in range(12, 18):
        (window,) = decode(model, [crop(whole, last - 11, 12)])
        np.testing.assert_allclose(steps[last], window[-1], atol=1e-6)


def test_saved_model_comes_back(tmp_path: Path) -> None:
    model = tiny(parity=True)
    save_pretrained(model, tmp_path / "model")
    assert is_complete(tmp_path / "model")
    back = from_pretrained(tmp_path / "model", Ndt3)
    assert back.config == model.config
    chunks: list[Chunk] = chunks_of(make_session(12))
    assert np.array_equal(decode(back, chunks)[0], decode(model, chunks)[0])
    assert isinstance(from_pretrained(tmp_path / "model", torch.nn.Module), Ndt3)
    assert Ndt3.from_pretrained(tmp_path / "model").config == model.config
    for kind in ((), (CrissCross,)):
        with pytest.raises(ConfigError, match="architecture 'ndt3', CrissCross was expected"):
            from_pretrained(tmp_path / "model", *kind)


def test_other_modules_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Linear is no model"):
        save_pretrained(torch.nn.Linear(1, 1), tmp_path / "model")
