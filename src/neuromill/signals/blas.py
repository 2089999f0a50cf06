"""Matrix products whose bytes do not depend on how many threads BLAS may use."""

from __future__ import annotations

from contextlib import ExitStack
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from threadpoolctl import ThreadpoolController


class OneThread:
    """Holds BLAS to one thread while anyone is inside; several Python threads may be.

    With OpenBLAS the last bits of a product change with the number of threads (measured for 1 and 2 threads, 306
    channels at 300.307 Hz). The number is a property of the process, hence one object for all, and a count of those
    inside: the first one in lowers it, the last one out gives it back.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._limits = ExitStack()
        self._libraries: ThreadpoolController | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._limits.enter_context(self._found().limit(limits=1, user_api="blas"))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limits.close()

    def _found(self) -> ThreadpoolController:
        # Looking for the loaded libraries takes 2.3 ms, as long as a product; setting their threads takes 16 us.
        if self._libraries is None:
            from threadpoolctl import ThreadpoolController

            self._libraries = ThreadpoolController()
        return self._libraries


ONE_THREAD = OneThread()


def product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``left @ right``, the same bytes for any number of threads."""
    with ONE_THREAD:
        return left @ right
