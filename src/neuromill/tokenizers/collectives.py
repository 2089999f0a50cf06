"""Sums and copies over the ranks of a distributed fit; with one process they do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import distributed

if TYPE_CHECKING:
    from torch import Tensor


def is_distributed() -> bool:
    """Whether there is more than one rank."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum over all ranks of a tensor that has one shape and dtype on all of them, in place."""
    if is_distributed():
        distributed.all_reduce(tensor)
    return tensor


def from_first_rank(tensor: Tensor) -> Tensor:
    """Return what the first rank has, in place; shape and dtype are the same on all ranks."""
    if is_distributed():
        distributed.broadcast(tensor, 0)
    return tensor
