"""The whole road once, over four tiny recordings; tests that change something work on a copy."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuromill.stages.selection import Selection
from neuromill.stages.workspace import Workspace
from support.stages import ALL_STAGES, Road, open_workspace, run, tiny_pipeline, workspace_at, write_bids

pytest.register_assert_rewrite("support.outcome_folders")  # its asserts tell values, as those of a test module do


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Road:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("road")
    data = write_bids(folder / "lab", subjects=("01", "02"), runs=2)
    pipeline = tiny_pipeline()
    with workspace_at(folder / "home") as workspace:
        results = run(workspace, pipeline, Selection(data=data), *ALL_STAGES)
    return Road(folder / "home", data, pipeline, results)


@pytest.fixture
def road(walked: Road, tmp_path: Path) -> Road:
    """A copy that a test may change."""
    shutil.copytree(walked.home, tmp_path / "home", symlinks=True)
    shutil.copytree(walked.data, tmp_path / "lab")
    (tmp_path / "home" / "catalog" / "lab@local.folder").unlink()  # the copy stands for the folder itself
    return Road(tmp_path / "home", tmp_path / "lab", walked.pipeline, walked.results)


@pytest.fixture
def workspace(road: Road) -> Iterator[Workspace]:
    opened = open_workspace(road.home)
    yield opened
    opened.close()
