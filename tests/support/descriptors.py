"""Which files this process holds open."""

from pathlib import Path


def open_below(folder: Path) -> list[str]:
    """Names of open files below a folder, relative to it."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = entry.readlink()
        except FileNotFoundError:  # that of the listing itself
            continue
        if target.is_relative_to(folder):
            found.append(target.relative_to(folder).as_posix())
    return sorted(found)
