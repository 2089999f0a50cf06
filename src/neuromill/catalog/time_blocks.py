"""Splits inside a recording: whole stretches of time are held out, with a guard between them and training.

NDT3 splits by random chunks, so neighbours of one session lie on both sides (NDT3 1.5); blocks are the corrected way.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from neuromill.records import Config, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

RANK = {"train": 0, "validation": 1, "test": 2}
Fraction = Annotated[float, Field(ge=0, le=1)]


class TimeBlocks(Config):
    """Fractions of a recording's time that are held out; the rest is training.

    Attributes
    ----------
    validation, test
        Begin and end as fractions of the recording, ``[0.7, 0.85]``; None holds nothing out.
    guard_seconds
        Time at each border between two splits that belongs to neither. Training gives it up; between two held-out
        blocks validation does. So the test block is exactly what is written here.
    """

    validation: tuple[Fraction, Fraction] | None = None
    test: tuple[Fraction, Fraction] | None = None
    guard_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _blocks_are_apart(self) -> Self:
        blocks = self.held_out
        if not blocks:
            raise ValueError("time blocks need `validation`, `test` or both")
        if any(start >= stop for _, start, stop in blocks):
            raise ValueError("a time block must end after it begins")
        if any(later < stop for (_, _, stop), (_, later, _) in pairwise(blocks)):
            raise ValueError("time blocks overlap")
        if blocks[0][1] == 0 and blocks[-1][2] == 1 and all(a[2] == b[1] for a, b in pairwise(blocks)):
            raise ValueError("time blocks leave nothing to train on")
        return self

    @property
    def held_out(self) -> tuple[tuple[Literal["validation", "test"], float, float], ...]:
        """Split, begin and end of every block, by begin."""
        blocks: list[tuple[Literal["validation", "test"], float, float]] = []
        if self.validation is not None:
            blocks.append(("validation", *self.validation))
        if self.test is not None:
            blocks.append(("test", *self.test))
        return tuple(sorted(blocks, key=lambda block: block[1]))


@dataclass(frozen=True, slots=True)
class SplitSpan:
    """Bins ``start`` to ``stop`` (exclusive) of a recording belong to ``split``."""

    split: Literal["train", "validation", "test"]
    start: int
    stop: int


def block_spans(time_blocks: TimeBlocks, n_bins: int, bin_seconds: float) -> tuple[SplitSpan, ...]:
    """Map the blocks to bins, in order of time, empty spans left out.

    Parameters
    ----------
    time_blocks
        What is held out, as fractions.
    n_bins
        Bins of the recording, at least 0.
    bin_seconds
        Width of a bin, above 0.

    Returns
    -------
    tuple of SplitSpan
        Disjoint. Two spans of different splits are at least ``guard_seconds`` apart, rounded up to whole bins.

    Raises
    ------
    ConfigError
        ``n_bins`` below 0 or ``bin_seconds`` not above 0.
    """
    if n_bins < 0 or not bin_seconds > 0:
        raise ConfigError(f"no recording has {n_bins} bins of {bin_seconds} s", where="time_blocks")
    whole = _partition(time_blocks, n_bins)
    guard = ceil(round(time_blocks.guard_seconds / bin_seconds, 6))
    trimmed = (_without_guards(span, whole, guard) for span in whole)
    return tuple(span for span in trimmed if span.start < span.stop)


def _without_guards(span: SplitSpan, whole: Sequence[SplitSpan], guard: int) -> SplitSpan:
    """Leave the guards of all spans of higher rank out of a span, also of those beyond a short neighbour."""
    higher = [other for other in whole if RANK[other.split] > RANK[span.split]]
    start = max([span.start, *(other.stop + guard for other in higher if other.stop <= span.start)])
    stop = min([span.stop, *(other.start - guard for other in higher if other.start >= span.stop)])
    return SplitSpan(span.split, start, stop)


def _partition(time_blocks: TimeBlocks, n_bins: int) -> list[SplitSpan]:
    """Every bin of the recording in one span, neighbours of different splits, no guard yet."""
    edges = [(split, round(begin * n_bins), round(end * n_bins)) for split, begin, end in time_blocks.held_out]
    spans: list[SplitSpan] = []
    train_from = 0
    for split, start, stop in edges:
        if start < stop:  # else the recording has no bin for this block
            spans += [SplitSpan("train", train_from, start), SplitSpan(split, start, stop)]
            train_from = stop
    spans.append(SplitSpan("train", train_from, n_bins))
    return [span for span in spans if span.start < span.stop]
