"""Matrix products whose bytes do not depend on how many threads BLAS may use."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from threadpoolctl import ThreadpoolController

# The number of BLAS threads belongs to the process, and threadpoolctl (3.8) silently ignores a second Python thread
# that sets it while the first is inside: so one product at a time.
_ONE_AT_A_TIME = Lock()


@cache
def _libraries() -> ThreadpoolController:
    # Looking for the loaded libraries takes 2.3 ms, as long as a product; setting their threads takes 16 us.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``left @ right`` of float64 [row, inner] and [inner, column], computed by one thread.

    With OpenBLAS the last bits of a product change with the number of threads (measured: 1 against 2, every shape
    that the chain uses). Called from a Python thread while another one has set a limit of its own, that limit holds.
    """
    with _ONE_AT_A_TIME, _libraries().limit(limits=1, user_api="blas"):
        return left @ right
