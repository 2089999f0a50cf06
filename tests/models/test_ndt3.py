"""The network: sizes, what it may see, and an oracle that reads like the paper."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from neuromill.models.ndt3 import Ndt3, Ndt3Predictions
from neuromill.models.ndt3_attention import make_phases, turn
from neuromill.models.ndt3_batch import Chunk, SpikeTokenBatch, collate
from neuromill.models.ndt3_config import COMPACT, PUBLISHED, Ndt3Config
from neuromill.models.ndt3_losses import ndt3_losses
from neuromill.tokenizers.ndt3_config import Ndt3TokenizerConfig
from support.ndt3 import batch_of, chunks_of, tiny
from support.spike_sessions import make_session


@pytest.mark.parametrize(
    ("config", "thousands"),
    [(PUBLISHED["45M"], 44_920), (PUBLISHED["350M"], 354_166), (PUBLISHED["700M"], 706_662)],
)
def test_golden_parameter_counts(config: Ndt3Config, thousands: int) -> None:
    with torch.device("meta"):
        model = Ndt3(config)
    assert abs(sum(p.numel() for p in model.parameters()) - 1000 * thousands) < 1000


def test_compact_model() -> None:
    with torch.device("meta"):
        model = Ndt3(COMPACT)
    trunk = sum(p.numel() for p in model.trunk.parameters())
    assert trunk == 4 * (7 * 256**2 + 7 * 256 + 2 * 64)
    assert sum(p.numel() for p in model.parameters()) == 2_051_945


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="multiple of 2"):
        Ndt3Config(hidden_dim=96, n_heads=32)


def oracle(model: Ndt3, batch: SpikeTokenBatch) -> Tensor:
    """Features of the first chunk, token by token and head by head, float64."""
    w = {name: p.detach().double() for name, p in model.state_dict().items()}
    n = int(batch.mask[0].sum())
    content = torch.zeros(n, model.config.hidden_dim, dtype=torch.float64)
    for at, counts in zip(batch.spike_positions.tolist(), batch.patches.tolist(), strict=True):
        content[at] = torch.cat([w["count_embedding.weight"][min(c, model.config.max_count)] for c in counts])
    for at, triple in zip(batch.constraint_positions.tolist(), batch.constraints.double(), strict=True):
        content[at] = sum(triple[i] * w["constraint_embedding"][i] for i in range(3))
    for at, (g, r) in zip(batch.return_positions.tolist(), batch.returns.tolist(), strict=True):
        content[at] = w["return_embedding.weight"][g] + w["reward_embedding.weight"][r]
    h = torch.stack([w["start"], *content[:-1]]) + w["slot_embedding.weight"][batch.slots[0, :n]]
    residual = torch.zeros_like(h)
    for layer in range(model.config.n_layers):
        p = f"trunk.layers.{layer}"
        residual = residual + h
        residual = residual + oracle_attention(w, f"{p}.attention", norm(residual), batch.bins[0, :n], model.config)
        value, gate = linear(w, f"{p}.mlp.value_and_gate", norm(residual)).chunk(2, -1)
        h = linear(w, f"{p}.mlp.out", value * gate * torch.sigmoid(gate))
    return h if model.config.parity else norm(residual + h)


def linear(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def oracle_attention(w: dict[str, Tensor], name: str, x: Tensor, bins: Tensor, config: Ndt3Config) -> Tensor:
    width, heads = config.head_dim, []
    query, key, value = linear(w, f"{name}.qkv", x).chunk(3, -1)
    for head in range(config.n_heads):
        part = slice(head * width, (head + 1) * width)
        q = oracle_rotary(norm(query[:, part]) * w[f"{name}.query_norm.weight"], bins)
        k = oracle_rotary(norm(key[:, part]) * w[f"{name}.key_norm.weight"], bins)
        rows = []
        for i in range(len(x)):
            share = torch.softmax(k[: i + 1] @ q[i] / math.sqrt(width), 0)
            rows.append(share @ value[: i + 1, part])
        heads.append(torch.stack(rows))
    return linear(w, f"{name}.out", torch.cat(heads, -1))


def oracle_rotary(x: Tensor, bins: Tensor) -> Tensor:
    half = x.shape[1] // 2
    out = x.clone()
    for i in range(half):
        angle = bins.double() * 10_000 ** (-2 * i / x.shape[1])
        out[:, i] = x[:, i] * angle.cos() - x[:, i + half] * angle.sin()
        out[:, i + half] = x[:, i + half] * angle.cos() + x[:, i] * angle.sin()
    return out


@pytest.mark.parametrize("parity", [True, False])
def test_features_are_those_of_the_oracle(*, parity: bool) -> None:
    model = tiny(parity=parity)
    with torch.no_grad():  # fresh norms are all ones: the oracle would not see where they are applied
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                p.uniform_(0.5, 2)
    rng = np.random.default_rng(0)
    session = make_session(6, (40,), 2)
    session.counts[2, 3] = 30
    constraints, rewards = rng.random((6, 3, 2)), rng.integers(0, 2, 6)
    batch = collate(chunks_of(session, constraints=constraints, rewards=rewards), n_tokens=50)
    expected = oracle(model, batch)
    features = model.features(batch)[0, : len(expected)]
    torch.testing.assert_close(features.double(), expected, atol=2e-5, rtol=1e-5)


def test_predictions_are_heads_on_the_features_of_their_tokens() -> None:
    model, batch = tiny(), batch_of(24)
    features, predictions = model.features(batch), model(batch)
    assert predictions.spike_logits.shape == (24 * 2, 32, 22)
    assert predictions.covariates.shape == (24 * 2,)
    chunk, at = divmod(int(batch.covariate_positions[30]), batch.slots.shape[1])
    torch.testing.assert_close(predictions.covariates[30:31], model.covariate_head(features[chunk, at]))
    chunk, at = divmod(int(batch.spike_positions[30]), batch.slots.shape[1])
    logits = model.spike_head(features[chunk, at]).view(32, 22)
    torch.testing.assert_close(predictions.spike_logits[30], logits)


def predict(model: Ndt3, chunks: list[Chunk], **options) -> Ndt3Predictions:
    with torch.inference_mode():
        return model(collate(chunks, **options))


@settings(max_examples=20, deadline=None)
@given(bin_=st.integers(0, 10), parity=st.booleans(), seed=st.integers(0, 99))
def test_the_future_changes_nothing_and_the_present_does(*, bin_: int, parity: bool, seed: int) -> None:
    model, before = tiny(seed, parity=parity), make_session(12, (40,), 2, seed)
    after = make_session(12, (40,), 2, seed)
    after.counts[bin_ + 1 :] += 1
    now = make_session(12, (40,), 2, seed)
    now.counts[bin_] += 1
    base, later, here = (predict(model, chunks_of(session)) for session in (before, after, now))
    seen = slice(0, 2 * (bin_ + 1))  # two patches and two covariates per bin
    torch.testing.assert_close(base.covariates[seen], later.covariates[seen], atol=1e-6, rtol=0)
    torch.testing.assert_close(base.spike_logits[seen], later.spike_logits[seen], atol=1e-6, rtol=0)
    present = slice(2 * bin_, 2 * bin_ + 2)
    assert (base.covariates[present] != here.covariates[present]).any()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), parity=st.booleans())
def test_covariates_never_leak(*, seed: int, parity: bool) -> None:
    model, session = tiny(seed, parity=parity), make_session(12, (40,), 2, seed)
    base = predict(model, chunks_of(session))
    session.values[:] = np.random.default_rng(seed + 1).normal(size=session.values.shape)
    session.valid[3] = False
    other = predict(model, chunks_of(session))
    assert torch.equal(base.covariates, other.covariates)
    assert torch.equal(base.spike_logits, other.spike_logits)


def test_padding_and_company_change_nothing() -> None:
    model = tiny()
    one, many = chunks_of(make_session(12)), chunks_of(make_session(20, (32, 70), 3, seed=1))
    alone = predict(model, one)
    padded = predict(model, one, n_tokens=300)
    together = predict(model, [*many, *one, *many])
    torch.testing.assert_close(padded, alone, atol=1e-6, rtol=1e-5)
    n_spikes, n_covariates = len(alone.spike_logits), len(alone.covariates)
    first_spike = sum(len(chunk.tokens.patches) for chunk in many)
    first_covariate = sum(len(chunk.tokens.covariates) for chunk in many)
    torch.testing.assert_close(
        Ndt3Predictions(
            together.spike_logits[first_spike : first_spike + n_spikes],
            together.covariates[first_covariate : first_covariate + n_covariates],
        ),
        alone,
        atol=1e-6,
        rtol=1e-5,
    )


def test_every_parameter_has_a_gradient_also_without_covariates() -> None:
    for n_covariates in (0, 2):
        model, batch = tiny(parity=True).train(), batch_of(n_covariates=n_covariates)
        losses = ndt3_losses(batch, model(batch))
        (losses.spike + losses.covariate).backward()
        assert not [name for name, p in model.named_parameters() if p.grad is None]
        assert not model.covariate_embedding.weight.grad.any()
        assert bool(model.covariate_head.weight.grad.any()) == (n_covariates > 0)
        assert model.spike_head.weight.grad.any()


def test_only_distances_between_bins_matter() -> None:
    x = torch.randn(1, 2, 2, 8)

    def product(bins: list[int]) -> Tensor:
        turned = turn(x, make_phases(torch.tensor([bins]), 8))
        return (turned[:, :, 0] * turned[:, :, 1]).sum(-1)

    torch.testing.assert_close(product([3, 10]), product([90, 97]), atol=1e-4, rtol=0)
    torch.testing.assert_close(product([5, 5]), (x[:, :, 0] * x[:, :, 1]).sum(-1))


def test_parity_ends_without_norm() -> None:
    batch = batch_of()
    ours, published = tiny().features(batch), tiny(parity=True).features(batch)
    torch.testing.assert_close(ours, functional.layer_norm(ours, (64,), eps=1e-5), atol=1e-4, rtol=0)
    assert published.std() < 0.7 * ours.std()


@pytest.mark.parametrize("where", ["attention", "branches"])
def test_dropout_works_in_training_only(where: str) -> None:
    model, batch = tiny(dropout=0.5), batch_of()
    for layer in model.trunk.layers:
        if where == "attention":
            layer.drop.p = 0
        else:
            layer.attention.dropout = 0
    model.trunk.drop.p = 0
    assert torch.equal(model(batch).covariates, model(batch).covariates)
    model.train()
    assert not torch.equal(model(batch).covariates, model(batch).covariates)


@pytest.mark.parametrize("parity", [True, False])
def test_every_branch_is_dropped_before_it_is_added(*, parity: bool) -> None:
    model, calls = tiny(parity=parity), []
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.register_forward_hook(lambda *_: calls.append(1))
    model(batch_of())
    assert len(calls) == 2 * model.config.n_layers + (not parity)


def test_published_dummy_is_trained_towards_zero() -> None:
    config = Ndt3TokenizerConfig(chunk_bins=12, parity=True)
    batch = collate(chunks_of(make_session(24, n_covariates=0), config))
    predictions = tiny()(batch)
    losses = ndt3_losses(batch, predictions)
    assert losses.n_covariate == 2
    torch.testing.assert_close(losses.covariate, predictions.covariates.square().mean())


def test_it_learns_to_decode() -> None:
    """A covariate that is a sum of counts of the current bin: far below its variance after some steps."""
    session = make_session(360, (20,), 1)
    weights = np.repeat([1.0, -1.0], 10)
    session.values[:, 0] = session.counts @ weights
    session.scale[:] = 8
    model = tiny(dropout=0.0).train()
    batch = collate(chunks_of(session))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        losses = ndt3_losses(batch, model(batch))
        (losses.spike + losses.covariate).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses.covariate < 0.2 * batch.covariates.var()
