"""Tables for people, JSON for programs, sizes and times in words."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

KIBI = 1024.0
SECONDS_IN_HOUR = 3600


def console() -> Console:
    """Return a console on standard output; not a terminal means plain text, wide enough for whole table rows."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers are right-aligned."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", header_style="bold")
    kept = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(kept) and all(isinstance(row[index], int | float) for row in kept)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in kept:
        table.add_row(*(Text(_cell(value)) for value in row))
    console().print(table)


def say(text: str) -> None:
    """Print one line for people."""
    console().print(text, markup=False)


def size(n_bytes: float) -> str:
    """Bytes in words: ``1.5 GiB``."""
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < KIBI:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= KIBI
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds in words: ``1 h 05 min``, ``4 min 10 s``, ``3.2 s``."""
    minutes = seconds / 60
    if seconds >= SECONDS_IN_HOUR:
        return f"{int(minutes // 60)} h {int(minutes % 60):02d} min"
    return f"{int(minutes)} min {int(seconds % 60):02d} s" if minutes >= 1 else f"{seconds:.1f} s"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
