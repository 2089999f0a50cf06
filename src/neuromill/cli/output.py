"""Tables for people, JSON for programs, sizes and times in words."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KIBI = 1024.0
SECONDS_IN_HOUR = 3600
GAP = "  "


def plain(text: str) -> str:
    r"""Return the text as one line without control characters: a name from an archive may hold any (``\x1b[2J``)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers are right-aligned. Where nobody watches: one line per row, columns two spaces apart."""
    kept = [list(row) for row in rows]
    numeric = [bool(kept) and all(isinstance(row[i], int | float) for row in kept) for i in range(len(columns))]
    cells = [[_cell(value) for value in row] for row in kept]
    show = _draw_table if sys.stdout.isatty() else _write_table
    show(plain(title), [plain(column) for column in columns], cells, numeric)


def _draw_table(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left", header_style="bold")
    for column, is_number in zip(columns, numeric, strict=True):
        table.add_column(Text(column), justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def _write_table(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    lines.insert(1, ["-" * width for width in widths])
    if title:
        say(title)
    for line in lines:
        parts = zip(line, widths, numeric, strict=True)
        aligned = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in parts)
        say(GAP.join(aligned).rstrip())


def say(text: str) -> None:
    """Print lines for people."""
    sys.stdout.write("\n".join(plain(line) for line in text.split("\n")) + "\n")


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
    return f"{value:g}" if isinstance(value, float) else plain(str(value))
