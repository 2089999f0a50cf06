"""A ring of buffers that threads fill in order, allocated once per epoch."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from torch import Tensor

BUFFERS_PER_THREAD = 2

P = TypeVar("P")
T = TypeVar("T")


def through_buffers(
    plans: Sequence[P], fill: Callable[[P, Tensor], T], n_bytes: int, *, threads: int, pin_memory: bool
) -> Iterator[T]:
    """Yield ``fill(plan, buffer)`` of each plan in order, some of them ahead in threads.

    What is yielded may be a view of its buffer, uint8 [n_bytes]: it is valid until the next one is asked for.
    """
    n_slots = min(len(plans), 1 + BUFFERS_PER_THREAD * threads)
    slots = deque(torch.empty(n_bytes, dtype=torch.uint8, pin_memory=pin_memory) for _ in range(n_slots))
    waiting: deque[tuple[Future[T], Tensor]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")

    def deliver() -> Iterator[T]:
        future, slot = waiting.popleft()
        yield future.result()
        if pin_memory:  # the copy to the device must have read the slot before it is filled again
            torch.cuda.current_stream().synchronize()
        slots.append(slot)

    try:
        for plan in plans:
            if not slots:
                yield from deliver()
            slot = slots.popleft()
            waiting.append((pool.submit(fill, plan, slot), slot))
        while waiting:
            yield from deliver()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
