"""What preparation rejected of a published recording."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuromill.store.reader import StoreReader
    from neuromill.tokenizers.rejection import Rejection


def rejection_of(reader: StoreReader, recording: str) -> Rejection | None:
    """Read the mask of a prepared recording; None where nothing is rejected."""
    from neuromill.tokenizers.rejection import Rejection

    found = reader.recording(recording).arrays.get("rejected")
    if found is None:
        return None
    rejected = reader.read(recording, "rejected") != 0
    return Rejection(rejected, int(found.spec.attributes["window_samples"])) if rejected.any() else None
