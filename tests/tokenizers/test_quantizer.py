"""The quantizer against vector-quantize-pytorch, and what the published one does wrong: revival, ties, autocast."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_quantize_pytorch import VectorQuantize

from neuromill.tokenizers.config import RevivalConfig
from neuromill.tokenizers.quantizer import (
    CosineCodebook,
    Learning,
    Level,
    ResidualQuantizer,
    nearest,
    spherical_kmeans,
    unit,
)
from support.codec import SMALL

NEVER = RevivalConfig(enabled=False)
ALWAYS = RevivalConfig(every=1, below_share=0.5)


def learning(seed=0, **changes):
    return Learning(torch.Generator().manual_seed(seed), **{"revival": NEVER, **changes})


def vectors(n, dim, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def pair():
    """Our level and the oracle's with the same weights."""
    ours = Level(SMALL)
    oracle = VectorQuantize(
        dim=SMALL.latent_dim, codebook_dim=SMALL.codebook_dim, codebook_size=SMALL.codebook_size, decay=0.99,
        eps=1e-5, use_cosine_sim=True, commitment_weight=1.0, rotation_trick=False, straight_through=True,
    )  # fmt: skip
    for name in ("project_in", "project_out"):
        getattr(oracle, name).load_state_dict(getattr(ours, name).state_dict())
    counts = torch.rand(SMALL.codebook_size) * 10
    for book in (ours.codebook, oracle._codebook):
        book.cluster_size.copy_(counts)
        book.embed.copy_(ours.codebook.embed)
        book.embed_avg.copy_(ours.codebook.embed * counts[:, None])
    ours.codebook.inited.fill_(1)
    return ours, oracle


def test_inference_equals_the_oracle(pair):
    ours, oracle = pair
    x = torch.randn(3, 40, SMALL.latent_dim)
    with torch.no_grad():
        out, codes, _ = ours(x, None)
        expected, expected_codes, _ = oracle.eval()(x)
    assert torch.equal(codes, expected_codes)
    torch.testing.assert_close(out, expected)


def test_codebook_after_many_updates_equals_the_oracle(pair):
    ours, oracle = pair
    oracle.train()
    for step in range(25):
        x = vectors(120, SMALL.latent_dim, seed=step)[None]
        _, codes, _ = ours(x, learning())
        _, expected_codes, _ = oracle(x)
        assert torch.equal(codes, expected_codes)
    for name in ("cluster_size", "embed_avg", "embed"):
        torch.testing.assert_close(getattr(ours.codebook, name), getattr(oracle._codebook, name)[0])


def test_gradients_pass_straight_through(pair):
    ours, _ = pair
    x = torch.randn(1, 10, SMALL.latent_dim, requires_grad=True)
    out, _, _ = ours(x, learning())
    out.sum().backward()
    expected = (ours.project_out.weight @ ours.project_in.weight).sum(dim=0).expand_as(x)
    torch.testing.assert_close(x.grad, expected)


def test_commitment_is_on_unnormalised_projections():
    level = Level(SMALL)
    x = torch.randn(2, 5, SMALL.latent_dim)
    z = level.project_in(x)
    _, codes, commitment = level(x, None)
    torch.testing.assert_close(commitment, (z - level.codebook.embed[codes]).square().mean())
    assert level(3 * x, None)[2] > commitment


@settings(max_examples=50, deadline=None)
@given(n_codes=st.integers(2, 20), dim=st.integers(1, 8), seed=st.integers(0, 99))
def test_search_finds_the_largest_cosine(n_codes, dim, seed):
    x, rows = vectors(30, dim, seed).double(), vectors(n_codes, dim, seed + 1).double()
    cosines = torch.nn.functional.cosine_similarity(x[:, None], rows[None], dim=-1)
    chosen = cosines.gather(1, nearest(x, rows)[:, None])[:, 0]
    torch.testing.assert_close(chosen, cosines.max(dim=1).values)


def test_ties_go_to_the_first_code():
    rows = torch.eye(4)[[1, 0, 0, 2]]
    assert nearest(torch.tensor([[5.0, 0, 0, 0], [0, 0, 0, 0]]), rows).tolist() == [1, 0]


def test_kmeans_finds_separate_directions():
    centres = torch.eye(6)
    x = unit(centres.repeat_interleave(50, dim=0) + 0.05 * vectors(300, 6))
    best = max(
        (spherical_kmeans(x, 6, 50, torch.Generator().manual_seed(seed)) for seed in range(10)),
        key=lambda result: float((x @ result[0].t()).amax(dim=1).mean()),
    )
    assert sorted(best[1].tolist()) == [50] * 6
    assert (centres @ best[0].t()).amax(dim=1).min() > 0.99


def test_kmeans_with_fewer_vectors_than_clusters():
    centres, counts = spherical_kmeans(unit(vectors(3, 4)), 8, 5, torch.Generator().manual_seed(0))
    assert centres.isfinite().all()
    assert counts.sum() == 3


def test_first_batch_places_the_rows_and_later_ones_do_not():
    book = CosineCodebook(8, 4)
    before = book.embed.clone()
    book.start(vectors(100, 4), learning())
    placed = book.embed.clone()
    assert not torch.equal(before, placed)
    torch.testing.assert_close(placed.norm(dim=1), torch.ones(8))
    assert book.cluster_size.sum() == 100
    book.start(vectors(100, 4, seed=1), learning())
    assert torch.equal(book.embed, placed)


def collapsed_book(n_codes=16):
    """A codebook of which one row takes everything."""
    book = CosineCodebook(n_codes, 4)
    away = torch.tensor([[-1.0, 0, 0, 0]]).expand(n_codes, 4).clone()
    away[0] = torch.tensor([1.0, 0, 0, 0])
    book.embed.copy_(away)
    book.embed_avg.copy_(away * 10)
    book.cluster_size.fill_(10)
    book.inited.fill_(1)
    return book


def cone(seed):
    """Directions around the first axis."""
    x = 0.5 * vectors(256, 4, seed)
    x[:, 0] = 2.0
    return x


def run_updates(book, how, steps=400):
    codes = torch.zeros(0)
    for step in range(steps):
        x = cone(step)
        codes = book.search(x)
        book.update(x, codes, how)
    return codes


def test_revived_rows_live():
    assert len(run_updates(collapsed_book(), learning(revival=NEVER)).unique()) == 1
    assert len(run_updates(collapsed_book(), learning(revival=ALWAYS)).unique()) == 16


def test_revival_resets_counts_and_sums():
    """The published rule leaves both, so that the next update writes the dead row back."""
    book = collapsed_book()
    book.cluster_size[1:] = 0
    book.embed_avg[1:] = 0
    x = cone(0)
    book.update(x, book.search(x), learning(revival=ALWAYS))
    floor = 0.5 * 256 / 16
    assert (book.cluster_size[1:] == 2 * floor).all()
    torch.testing.assert_close(book.embed_avg[1:], book.embed[1:] * 2 * floor)
    revived = book.embed.clone()
    book.update(x, book.search(x), learning(revival=NEVER))
    # After one more update each revived row still points where it was put, not where the dead row was.
    assert ((book.embed * revived).sum(dim=1) > 0.9).all()


def test_no_revival_in_passes_that_do_not_ask_for_it():
    book = collapsed_book()
    book.cluster_size[1:] = 0
    run_updates(book, learning(revival=ALWAYS, revive=False), steps=1)
    assert (book.cluster_size[1:] == 0).all()


def test_levels_work_on_what_is_left_over():
    quantizer = ResidualQuantizer(SMALL).eval()
    latent = torch.randn(2, SMALL.latent_dim, 7)
    with torch.no_grad():
        result = quantizer(latent)
        residual = latent.transpose(1, 2)
        for i, level in enumerate(quantizer.levels):
            assert torch.equal(level.codebook.search(level.project_in(residual)), result.codes[:, i])
            residual = residual - level.decode(result.codes[:, i])
        torch.testing.assert_close(quantizer.decode(result.codes), result.latent)
        torch.testing.assert_close(latent - result.latent, residual.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_autocast_changes_nothing_in_the_quantizer():
    latent = torch.randn(2, SMALL.latent_dim, 30)
    results = []
    for enabled in (False, True):
        torch.manual_seed(0)
        quantizer = ResidualQuantizer(SMALL)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            for _ in range(3):
                result = quantizer(latent, learning(revival=ALWAYS))
        results.append((result.codes, result.latent, *quantizer.state_dict().values()))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(*results, strict=True))


def test_inference_changes_no_buffer():
    quantizer = ResidualQuantizer(SMALL).train()
    before = {name: t.clone() for name, t in quantizer.state_dict().items()}
    quantizer(torch.randn(2, SMALL.latent_dim, 7))
    assert all(torch.equal(t, before[name]) for name, t in quantizer.state_dict().items())
