"""The rooms of the house, and who may import whom (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "neuromill"
NEUTRAL = {"records"}
SHARED = NEUTRAL | {"hub"}
MAY_IMPORT = {
    "records": set(),
    "catalog": NEUTRAL,
    "sources": NEUTRAL,
    "readers": NEUTRAL,
    "signals": NEUTRAL,
    "store": NEUTRAL,
    "hub": NEUTRAL,
    "tokenizers": SHARED,
    "models": SHARED,
    "training": NEUTRAL | {"store", "models"},
    "reports": NEUTRAL | {"store", "catalog"},
    "synthetic": NEUTRAL,
    "stages": NEUTRAL
    | {"catalog", "sources", "readers", "signals", "store", "tokenizers", "models", "training", "reports", "synthetic"},
}
TOP = {"cli"}  # sits on top and may import everything below
FORBIDDEN_LIBRARIES = {"prefect", "prefect_dask", "neuromill_flows"}


def modules_imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(SRC.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_follow_the_rooms(path: Path) -> None:
    modules = modules_imported(path)
    assert not {m.split(".")[0] for m in modules} & FORBIDDEN_LIBRARIES
    room = path.relative_to(SRC).parts[0]
    if room in TOP or room.endswith(".py"):
        return
    rooms = {m.split(".")[1] for m in modules if m.startswith("neuromill.")}
    assert rooms <= MAY_IMPORT[room] | {room, "__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"
