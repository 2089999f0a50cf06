"""A nameless file of rows: written in any blocks, read back in fixed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.store.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from neuromill.store.filesystem import FileSystem

BLOCK_BYTES = 4 * 2**20


class Spool:
    """Rows of one shape and dtype, read back in blocks that do not depend on how they were written."""

    def __init__(self, fs: FileSystem, row_shape: tuple[int, ...], dtype: str) -> None:
        self._file = fs.scratch().__enter__()
        self.row_shape, self.dtype = row_shape, np.dtype(dtype)
        self._row_bytes = self.dtype.itemsize * int(np.prod(row_shape))
        self.n_rows = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows, [row, ...] of exactly this row shape and dtype.

        Raises
        ------
        StoreError
            If they have another.
        """
        if rows.shape[1:] != self.row_shape or rows.dtype != self.dtype:
            raise StoreError(
                f"block is {rows.dtype}{list(rows.shape)}, rows are {self.dtype}{list(self.row_shape)}",
                next_step="transpose or convert the block",
            )
        self._file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
        self.n_rows += len(rows)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read everything back, about 4 MiB at a time: [row, ...] of the spool's dtype, read-only."""
        self._file.seek(0)
        block_rows = max(1, BLOCK_BYTES // self._row_bytes)
        for start in range(0, self.n_rows, block_rows):
            rows = min(block_rows, self.n_rows - start)
            data = self._file.read(rows * self._row_bytes)
            yield np.frombuffer(data, self.dtype).reshape(rows, *self.row_shape)

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()
