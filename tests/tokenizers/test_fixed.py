"""Fixed tokenizers: levels as defined, errors as small as they must be, nothing fitted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from neuromill.tokenizers.files import open_tokenizer, save_pretrained
from neuromill.tokenizers.fixed import FixedTokenizer
from neuromill.tokenizers.fixed_config import MuLawConfig, QuantileConfig
from neuromill.tokenizers.metrics import evaluate
from neuromill.tokenizers.protocol import RowTokenizer
from support.tfdual import eeg_like

KINDS = [
    MuLawConfig(),
    MuLawConfig(n_codes=17, mu=20),
    QuantileConfig(),
    QuantileConfig(n_codes=64, reference="normal"),
]
SIGNAL = eeg_like(2, 5, 600)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_round_trip_through_the_protocol(config, tmp_path):
    tokenizer = FixedTokenizer(config)
    assert isinstance(tokenizer, RowTokenizer)
    block = tokenizer.encode_segments(SIGNAL, None, 4)
    assert block.codes.shape == (2, 600, 1, 5)
    output = tokenizer.decode_segments(block, None, 600, 4)
    assert np.corrcoef(output.ravel(), SIGNAL.ravel())[0, 1] > 0.98
    again = open_tokenizer(save_pretrained(tokenizer, tmp_path / "tok"))
    assert (again.digest, again.config) == (tokenizer.digest, config)
    assert np.array_equal(again.encode_segments(SIGNAL, None, 7).codes, block.codes)


def test_kinds_have_digests_of_their_own():
    assert len({FixedTokenizer(config).digest for config in KINDS}) == len(KINDS)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_every_level_decodes_to_itself(config):
    tokenizer = FixedTokenizer(config)
    levels = tokenizer._levels
    assert torch.equal(torch.bucketize(levels, tokenizer._edges, right=True), torch.arange(config.n_codes))
    assert (levels.diff() > 0).all()
    torch.testing.assert_close(levels, -levels.flip(0), atol=1e-6, rtol=1e-5)


@given(st.floats(-1, 1), st.sampled_from([4, 255]), st.sampled_from([16, 255, 256]))
def test_mu_law_is_companding_and_even_steps(value, mu, n_codes):
    """The textbook formula: nearest of n even steps of the companded value."""
    tokenizer = FixedTokenizer(MuLawConfig(mu=mu, n_codes=n_codes))
    row = torch.tensor([[value, 1.0]])
    companded = np.sign(value) * np.log1p(mu * abs(np.float32(value))) / np.log1p(mu)
    position = (companded + 1) / 2 * (n_codes - 1)
    code = int(tokenizer.encode(row).codes[0, 0, 0])
    assert abs(code - position) <= 0.5 + 1e-4


@pytest.mark.parametrize(("reference", "draw"), [("normal", stats.norm), ("laplace", stats.laplace)])
def test_quantile_levels_are_filled_evenly_by_their_reference(reference, draw):
    tokenizer = FixedTokenizer(QuantileConfig(n_codes=32, reference=reference))
    row = torch.from_numpy(draw.ppf((np.arange(32_000) + 0.5) / 32_000).astype(np.float32) * 3e-5)
    counts = torch.bincount(tokenizer.encode(row[None]).codes.flatten())
    assert counts.min() > 990
    assert counts.max() < 1010


def test_units_do_not_matter():
    for config in KINDS:
        one, other = (FixedTokenizer(config).encode_segments(SIGNAL * f, None, 5) for f in (1, np.float32(2**20)))
        assert np.array_equal(one.codes, other.codes)


def test_damaged_rows_have_no_scale_and_flat_ones_decode_to_nothing():
    rows = torch.from_numpy(SIGNAL[0].copy())
    rows[1, 3], rows[2] = torch.inf, 0
    for config in KINDS:
        tokenizer = FixedTokenizer(config)
        encoded = tokenizer.encode(rows)
        assert encoded.scale.isnan().tolist() == [False, True, False, False, False]
        assert (tokenizer.decode(encoded, 600)[2] == 0).all()


def test_quality_of_the_defaults():
    windows = torch.from_numpy(SIGNAL)
    mu_law, quantile = (evaluate(FixedTokenizer(config), [windows]) for config in (KINDS[0], KINDS[2]))
    assert mu_law.si_sdr_db > 30
    assert quantile.si_sdr_db > 25
    assert quantile.n_rows == 10
