"""Which recordings a command is about."""

from __future__ import annotations

from pathlib import Path

from neuromill.records import Config, PartId


class Selection(Config):
    """A choice among the recordings of a pipeline.

    Attributes
    ----------
    where
        SQL condition over the recording index, on top of the pipeline's own.
    data
        A folder of recordings in place of the pipeline's datasets.
    part
        The share of the work that this process does; None is all of it.
    """

    where: str = ""
    data: Path | None = None
    part: PartId | None = None
