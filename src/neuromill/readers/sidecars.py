"""Read BIDS sidecars as they are found in the wild: byte-order marks, CR LF, wrong order, rows too many or too few.

mne-bids 0.20 raises on several of these (channels in another order, an empty ``events.tsv``, an onset that is a word);
none of them is a reason to lose a recording. What is not used is said in the notes.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.readers.complaints import duplicates, unreadable
from neuromill.records import Events

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NOT_AVAILABLE = frozenset({"", "n/a", "na", "nan", "none", "null"})
Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """One row of a ``channels.tsv``; "" where a column is absent or says n/a."""

    name: str
    type: str = ""
    units: str = ""
    bad: bool = False
    sfreq: float | None = None


def read_json(content: bytes, where: str) -> dict[str, Any]:
    """Parse a JSON sidecar; raises ``unreadable`` where it is no JSON object (a fact in it may be the one we need)."""
    try:
        document = json.loads(decode(content))
    except ValueError as error:
        raise unreadable(f"sidecar is not valid JSON: {error}", where, "correct the JSON file") from error
    if not isinstance(document, dict):
        raise unreadable("sidecar holds no JSON object", where, "correct the JSON file")
    return document


def read_rows(content: bytes) -> tuple[Row, ...]:
    """Rows of a tab-separated table with stripped cells; short rows are filled with "", surplus cells are ignored."""
    lines = csv.reader(io.StringIO(decode(content), newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    table = [[cell.strip() for cell in line] for line in lines if any(cell.strip() for cell in line)]
    if not table:
        return ()
    header, *body = table
    return tuple({name: cells[i] if i < len(cells) else "" for i, name in enumerate(header)} for cells in body)


def decode(content: bytes) -> str:
    """Text of a sidecar: UTF-8 with or without byte-order mark, else Latin-1 (which every byte string is)."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_channels(content: bytes, where: str) -> tuple[ChannelRow, ...]:
    """Rows of a ``channels.tsv``, in its order.

    ``status`` is ``bad`` in any capitals; everything else (n/a, empty) is good, as the specification says.

    Raises
    ------
    RecordingError
        ``duplicate_channels`` where a name occurs twice: which row belongs to the channel cannot be told.
    """
    rows = tuple(_channel_row(row) for row in read_rows(content) if row.get("name", ""))
    names = [row.name for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise duplicates(", ".join(twice[:5]), where)
    return rows


def _channel_row(row: Mapping[str, str]) -> ChannelRow:
    return ChannelRow(
        name=row["name"],
        type=_text(row.get("type", "")).upper(),
        units=_text(row.get("units", "")),
        bad=row.get("status", "").lower() == "bad",
        sfreq=number(row.get("sampling_frequency", "")),
    )


def _text(cell: str) -> str:
    return "" if cell.lower() in NOT_AVAILABLE else cell


def number(value: Any) -> float | None:
    """Return a finite number, or None for n/a, words, NaN, and everything else that is none."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def read_events(content: bytes, duration: float) -> tuple[Events, tuple[str, ...]]:
    """Events of an ``events.tsv`` of a recording of ``duration`` seconds, sorted, and notes on what was left out.

    Events without a usable onset, before the first sample or after the last one are left out; an event that
    runs over the end stays as it is. A duration that is not given is 0. The description is ``trial_type``,
    else ``value``, else "".
    """
    rows = read_rows(content)
    if not content.strip():
        return no_events(), ("events.tsv is empty",)
    header = decode(content).lstrip().splitlines()[0].split("\t")
    if "onset" not in [name.strip() for name in header]:
        return no_events(), ("events.tsv has no onset column (not tab-separated?): no events used",)
    return from_rows(
        ((number(row["onset"]), number(row.get("duration")), _description(row)) for row in rows), duration, "events.tsv"
    )


def from_rows(
    rows: Iterable[tuple[float | None, float | None, str]], duration: float, source: str
) -> tuple[Events, tuple[str, ...]]:
    """Sorted events from (onset, duration, description) in seconds, and notes on those left out."""
    given = list(rows)
    timed = [(onset, max(length or 0.0, 0.0), text) for onset, length, text in given if onset is not None]
    inside = sorted((row for row in timed if 0 <= row[0] < duration), key=lambda row: row[0])
    counts = (
        (len(given) - len(timed), "without a usable onset"),
        (len(timed) - len(inside), "outside the recording"),
    )
    notes = tuple(f"{source}: {count} events {reason} left out" for count, reason in counts if count)
    onsets = np.array([row[0] for row in inside], dtype=np.float64)
    durations = np.array([row[1] for row in inside], dtype=np.float64)
    return Events(onsets, durations, tuple(row[2] for row in inside)), notes


def _description(row: Mapping[str, str]) -> str:
    return _text(row.get("trial_type", "")) or _text(row.get("value", ""))


def no_events() -> Events:
    """Events of a recording that has none."""
    return Events(np.empty(0), np.empty(0), ())
