"""What can be wrong with a store."""

from __future__ import annotations

from neuromill.records import NeuroMillError


class StoreError(NeuroMillError):
    """A store cannot be read or written as asked."""

    exit_code = 4

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip from a worker process (keyword arguments do not, by default)."""
        return (_rebuild, (type(self), self.what, self.where, self.next_step))


class CorruptStoreError(StoreError):
    """Bytes of a store are not what was written: a short file, a wrong checksum, an index that does not fit."""


class MissingFileError(StoreError):
    """A file that should be in a store is not there."""


class UnsupportedLayoutError(StoreError):
    """The array is valid Zarr but not laid out as the direct reader needs it; zarr-python can read it."""


def _rebuild(kind: type[StoreError], what: str, where: str, next_step: str) -> StoreError:
    return kind(what, where=where, next_step=next_step)
