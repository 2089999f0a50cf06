"""Cards and pipelines that come with the package: in the checkout, or inside the wheel."""

from __future__ import annotations

from pathlib import Path

from neuromill.records import ConfigError


def shipped_folder(name: str) -> Path:
    """Folder ``catalogs`` or ``pipelines``: the copy that the wheel carries, else that of the checkout."""
    package = Path(__file__).resolve().parents[1]
    carried = package / "_data" / name
    return carried if carried.is_dir() else package.parents[1] / name


def pipeline_names() -> tuple[str, ...]:
    """Names of the pipelines that come with the package."""
    return tuple(sorted(path.stem for path in shipped_folder("pipelines").glob("*.yaml")))


def find_pipeline(name: str) -> Path:
    """Path of a pipeline: a file as given, else one that comes with the package (``meg-xl``).

    Raises
    ------
    ConfigError
        Neither exists.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_folder("pipelines") / f"{path.stem}.yaml"
    if shipped.is_file() and path.suffix in ("", ".yaml", ".yml") and path.parent.name in ("", "pipelines"):
        return shipped
    raise ConfigError("no such pipeline", where=name, next_step=f"give a file or one of: {', '.join(pipeline_names())}")
