"""What is built from the checkout works away from it, and holds all that the package needs."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from support.stages import TINY, write_bids

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a wheel and an sdist; the wheel is built from the sdist, so that has everything, too."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed")
    out = tmp_path_factory.mktemp("built")
    ended = subprocess.run([uv, "build", "--out-dir", out, ROOT], capture_output=True, text=True, check=False)
    if ended.returncode and "Failed to fetch" in ended.stderr:
        pytest.skip("hatchling cannot be fetched: no package index")
    assert ended.returncode == 0, ended.stderr
    return out


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (wheel,) = built.glob("*.whl")
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(unpacked: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python away from the checkout, the unpacked wheel in front of the editable install."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "NEUROMILL_HOME": str(cwd / "home")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def neuromill(unpacked: Path, cwd: Path, *arguments: object) -> str:
    ended = run(unpacked, cwd, "-m", "neuromill.cli.main", *map(str, arguments))
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def files_below(*folders: str) -> set[str]:
    """Files of the checkout that are no leftovers of Python, relative to its root."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_file_of_the_packages_and_their_data(unpacked: Path) -> None:
    packed = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    expected = {name.removeprefix("src/") for name in files_below("src/neuromill")}
    expected |= {name.removeprefix("flows/") for name in files_below("flows/neuromill_flows")}
    expected |= {f"neuromill/_data/{name}" for name in files_below("catalogs", "pipelines")}
    assert {name for name in packed if ".dist-info/" not in name} == expected
    assert any(name.endswith("templates/page.html") for name in expected)


def test_the_sdist_holds_what_a_packager_needs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"pyproject.toml", "README.md", "LICENSE", "Makefile", "constraints.txt", "prefect.yaml"}
    assert names >= files_below("src", "flows", "catalogs", "pipelines", "tests", "docs")


def test_it_is_the_unpacked_package_that_runs(unpacked: Path, tmp_path: Path) -> None:
    code = "import neuromill, neuromill_flows; print(neuromill.__file__); print(neuromill_flows.__file__)"
    places = run(unpacked, tmp_path, "-c", code).stdout.split()
    assert [Path(place).is_relative_to(unpacked) for place in places] == [True, True]


def test_cards_and_pipelines_are_found(unpacked: Path, tmp_path: Path) -> None:
    cards = json.loads(neuromill(unpacked, tmp_path, "catalog", "list", "--json"))
    assert {"ds004078", "ds999001"} <= {card["id"] for card in cards}
    assert "neuromill-demo" in neuromill(unpacked, tmp_path, "demo", "--dry-run")
    refused = run(unpacked, tmp_path, "-m", "neuromill.cli.main", "plan", "nosuch")
    assert "codebrain, demo, demo-eeg, demo-spikes, meg-xl, ndt3" in refused.stderr
    assert "serve" in neuromill(unpacked, tmp_path, "flows", "--help")


def test_the_road_runs_away_from_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    """Spawned workers included: they must find the same package."""
    data = write_bids(tmp_path / "lab", subjects=("01", "02"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    for name in ("demo", "meg-xl"):
        rows = json.loads(neuromill(unpacked, tmp_path, "plan", name, "--data", data, "--json"))
        assert rows[0]["found"] == 2
    rows = json.loads(neuromill(unpacked, tmp_path, "run", "tiny.yaml", "--data", data, "--workers", "1", "--json"))
    assert [row["done"] for row in rows] == [2, 2, 1, 2, 1]
