"""The unit codebook against vector-quantize-pytorch and a plain restatement of the update; revival; start; refusal."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize
from vector_quantize_pytorch import VectorQuantize

from neuromill.records import ConfigError
from neuromill.tokenizers import norm_ema
from neuromill.tokenizers.config import RevivalConfig
from neuromill.tokenizers.norm_ema import NormEmaCodebook, code_sums, nearest_unit, spherical_kmeans
from neuromill.tokenizers.quantizer import Learning

K, DIM = 32, 8


def learning(seed=0, *, revive=False, **changes):
    revival = RevivalConfig(enabled=revive, every=1, below_share=0.5)
    return Learning(torch.Generator().manual_seed(seed), revival=revival, **changes)


def vectors(n=200, dim=DIM, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def book(seed=0, n_codes=K, dim=DIM):
    made = NormEmaCodebook(n_codes, dim)
    made.embed.copy_(normalize(vectors(n_codes, dim, seed + 100), dim=-1))
    made.inited.fill_(1)
    return made


@pytest.fixture
def oracle():
    library = VectorQuantize(
        dim=DIM, codebook_size=K, use_cosine_sim=True, decay=0.99, commitment_weight=1.0, rotation_trick=False
    )
    library._codebook.embed.copy_(book().embed)
    library._codebook.embed_avg.copy_(book().embed)
    return library


def test_search_loss_and_output_are_those_of_the_library(oracle):
    """Commitment, straight-through value, and that the codes used are those before the update (training mode)."""
    x = vectors()
    ours = book()(x, learning())
    quantized, codes, loss = oracle.train()(x[None])
    assert torch.equal(ours.codes, codes[0])
    torch.testing.assert_close(ours.vectors, quantized[0])
    torch.testing.assert_close(ours.commitment, loss)
    assert len(ours.codes.unique()) > K // 2


def test_gradient_is_the_one_of_the_library(oracle):
    grads = []
    for function in (lambda x: book()(x, learning()), lambda x: oracle.train()(x[None])):
        x = vectors().requires_grad_()
        result = function(x)
        out, loss = (result.vectors, result.commitment) if hasattr(result, "vectors") else (result[0][0], result[2])
        (out.pow(3).sum() + loss).backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("chunk", [1, 40, 5000])
def test_search_in_chunks_is_the_search(monkeypatch, chunk):
    x, rows = normalize(vectors(), dim=-1), book().embed
    expected = (x @ rows.t()).argmax(dim=-1)
    monkeypatch.setattr(norm_ema, "CHUNK_PRODUCTS", chunk)
    assert torch.equal(nearest_unit(x, rows), expected)


@pytest.fixture
def several_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_vectors", [0, 1, 63, 64, 65, 200, 1000])
@pytest.mark.usefixtures("several_threads")
def test_codes_do_not_depend_on_threads(n_vectors, monkeypatch):
    monkeypatch.setattr(norm_ema, "CHUNK_PRODUCTS", 64 * K)
    x, rows = normalize(vectors(n_vectors), dim=-1), book().embed
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert torch.equal(nearest_unit(x, rows), (x @ rows.t()).argmax(dim=-1))
        with torch.inference_mode():
            assert torch.equal(nearest_unit(x * 2, rows), nearest_unit(x, rows))
        assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("several_threads")
def test_a_search_that_fails_leaves_the_threads_of_others_alone(monkeypatch):
    """Rows of another length: the product fails in the pool. A thread that begins later must not work with one."""
    monkeypatch.setattr(norm_ema, "CHUNK_PRODUCTS", 64 * K)
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError):
        nearest_unit(vectors(500), torch.eye(7))
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2


def test_the_first_of_equals_wins():
    rows = torch.eye(4)[[2, 1, 1, 0, 0]]
    assert nearest_unit(torch.eye(4)[[0, 1, 2]], rows).tolist() == [3, 1, 0]


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.5, 0.999))
def test_update_is_the_published_rule(seed, decay):
    """Restated in float64: hit codes step towards the mean direction of their hits, the others stay."""
    one, x = book(), normalize(vectors(60, seed=seed), dim=-1)
    codes = nearest_unit(x, one.embed)
    expected = one.embed.double().numpy().copy()
    for k in np.unique(codes):
        mean = x.double().numpy()[codes.numpy() == k].mean(axis=0)
        mean /= np.linalg.norm(mean)
        moved = decay * expected[k] + (1 - decay) * mean
        expected[k] = moved / np.linalg.norm(moved)
    one.update(x, codes, learning(decay=decay))
    np.testing.assert_allclose(one.embed.numpy(), expected, atol=2e-6)
    unhit = np.setdiff1d(np.arange(K), codes)
    assert torch.equal(one.embed[unhit], book().embed[unhit])


def test_usage_is_a_moving_count_of_training_passes_only():
    one = book()
    one(vectors())
    assert one.usage.sum() == 0
    codes = one(vectors(), learning(decay=0.9)).codes
    torch.testing.assert_close(one.usage, 0.1 * torch.bincount(codes, minlength=K).float())


def test_dead_codes_become_vectors_of_the_batch_and_stay():
    one, x = book(), normalize(vectors(), dim=-1)
    one.embed.copy_(-x[:1].expand(K, DIM))  # everything falls to the first row
    one.update(x, one(x).codes, learning(revive=True))
    batch = {tuple(row) for row in x.tolist()}
    assert sum(tuple(row) in batch for row in one.embed.tolist()) >= K - 1
    after = one(x, learning(revive=False)).codes
    assert len(after.unique()) > K // 2


def test_without_revival_they_stay_dead():
    one, x = book(), normalize(vectors(), dim=-1)
    one.embed.copy_(-x[:1].expand(K, DIM))
    for _ in range(5):
        one(x, learning())
    assert len(one(x).codes.unique()) < K // 4  # those that moved, and the first of those that did not


def test_same_seed_revives_alike():
    books = [book(), book()]
    for one in books:
        one(vectors(5), learning(seed=3, revive=True))
    assert torch.equal(books[0].embed, books[1].embed)


def test_rows_that_do_not_count_move_nothing_and_cost_nothing():
    valid = torch.arange(200) < 150
    some, all_of_them = book(), book()
    masked, plain = some(vectors(), learning(), valid), all_of_them(vectors()[:150], learning())
    assert torch.equal(some.embed, all_of_them.embed)
    torch.testing.assert_close(masked.commitment, plain.commitment)


def test_start_finds_clusters():
    centres = normalize(vectors(K, seed=7), dim=-1)
    x = centres.repeat(20, 1) + 0.01 * vectors(20 * K, seed=8)
    one = NormEmaCodebook(2 * K, DIM)
    one.start(x, learning(kmeans_iterations=10), kmeans=True)
    assert (nearest_unit(normalize(x, dim=-1), one.embed).bincount(minlength=2 * K) > 0).sum() >= K - 2
    cosines = (normalize(x, dim=-1) @ one.embed.t()).amax(dim=-1)
    assert cosines.mean() > 0.99
    torch.testing.assert_close(one.embed.norm(dim=-1), torch.ones(2 * K))
    assert one.usage.sum() == len(x)


def test_start_happens_once():
    one = book()
    one.start(vectors(), learning(), kmeans=True)
    assert torch.equal(one.embed, book().embed)


def test_kmeans_improves_on_its_start():
    x = normalize(vectors(400), dim=-1)
    fits = [
        (x @ spherical_kmeans(x, K, n, torch.Generator().manual_seed(0)).t()).amax(dim=-1).mean() for n in (0, 1, 10)
    ]
    assert fits[0] < fits[1] < fits[2]


def test_codes_that_were_never_placed_tokenize_nothing():
    with pytest.raises(ConfigError, match="never initialised"):
        NormEmaCodebook(K, DIM)(vectors())


def test_save_and_load_keep_every_bit():
    one, other = book(), NormEmaCodebook(K, DIM)
    one(vectors(), learning(revive=True))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(vectors(seed=5)).codes, other(vectors(seed=5)).codes)
    assert torch.equal(other.usage, one.usage)


def test_sums_of_codes():
    codes = torch.tensor([0, 2, 2, 5])
    counts, sums = code_sums(vectors(4), codes, 6)
    assert counts.tolist() == [1, 0, 2, 0, 0, 1]
    torch.testing.assert_close(sums[2], vectors(4)[1:3].sum(dim=0))
