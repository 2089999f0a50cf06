"""One home folder in which the command itself has run every stage, one recording failing on the way."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from support.command import Ended, neuromill
from support.stages import TINY, bids_path, write_bids, write_fif

BAD = "sub-03_task-rest_run-01_meg"


@dataclass(frozen=True)
class Walked:
    """Where everything lies, and how the runs ended. Not to be changed."""

    home: Path
    data: Path
    pipeline: Path
    run: Ended
    embed: Ended

    @property
    def chosen(self) -> tuple[object, ...]:
        """Arguments of every verb that works on the pipeline."""
        return (self.pipeline, "--data", self.data, "--home", self.home)


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Walked:
    folder = tmp_path_factory.mktemp("walked")
    data = write_bids(folder / "lab", subjects=("01", "02"))
    write_fif(bids_path(data, "03"), seconds=0.5)
    pipeline = folder / "tiny.yaml"
    pipeline.write_text(yaml.safe_dump(TINY))
    where = (pipeline, "--data", data, "--home", folder / "home", "--engine", "serial", "--json")
    return Walked(folder / "home", data, pipeline, neuromill("run", *where), neuromill("embed", *where))
