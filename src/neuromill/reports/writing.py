"""Files of reports: one that is there is replaced whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def replace_whole(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` make a file beside ``path``, which then takes its name; returns ``path``."""
    temporary = path.with_name(f".{path.name}.partial")
    write(temporary)
    return temporary.replace(path)


def write_page(page: str, path: Path) -> Path:
    """Write the text of a page; returns ``path``."""
    return replace_whole(path, lambda new: new.write_text(page, encoding="utf-8", newline="\n"))
