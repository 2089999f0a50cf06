"""Finite scalar quantization against vector-quantize-pytorch."""

import pytest
import torch
from vector_quantize_pytorch import FSQ

from neuromill.tokenizers.fsq import FiniteScalar
from neuromill.tokenizers.quantizer import Learning

LEVELS = [(8, 8, 8, 8), (8, 5, 5, 5), (3, 4), (7,)]


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_codes_and_vectors_are_those_of_the_library(levels):
    x = 3 * torch.randn(500, len(levels), generator=torch.Generator().manual_seed(0))
    quantized, codes = FSQ(levels=list(levels), preserve_symmetry=False)(x[None])
    ours = FiniteScalar(levels)(x)
    assert torch.equal(ours.codes, codes[0].long())
    torch.testing.assert_close(ours.vectors, quantized[0])


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_every_code_has_one_vector_that_decodes_from_it(levels):
    quantizer = FiniteScalar(levels)
    n = int(torch.tensor(levels).prod())
    vectors = quantizer.decode(torch.arange(n))
    assert len({tuple(row) for row in vectors.tolist()}) == n
    assert vectors.min() == -1
    assert vectors.max() <= 1


def test_gradient_passes_straight_through():
    x = torch.zeros(3, 2, requires_grad=True)
    FiniteScalar((5, 5))(x, Learning(torch.Generator())).vectors.sum().backward()
    # tanh' = 1 at zero, times the half range over the half number of levels.
    torch.testing.assert_close(x.grad, torch.full((3, 2), 1.001))


def test_no_commitment():
    assert FiniteScalar((4, 4))(torch.randn(3, 2)).commitment == 0
