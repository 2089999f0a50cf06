"""Whether the recordings of stores can be trained on together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuromill.records import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuromill.store.contents import IndexedRecording

CODES = ("tokenizer", "precision", "sfreq", "hop_samples", "segment_samples", "codebook_size")
"""What the codes of all recordings must have in common."""


def require_same(recordings: Sequence[IndexedRecording], keys: Sequence[str], next_step: str) -> None:
    """Refuse recordings that differ in one of these attributes.

    Raises
    ------
    ConfigError
        It says which attribute, and its values.
    """
    for key in keys:
        values = sorted({str(one.attributes[key]) for one in recordings})
        if len(values) > 1:
            raise ConfigError(f"tokens differ in {key}: {', '.join(values)}", next_step=next_step)
