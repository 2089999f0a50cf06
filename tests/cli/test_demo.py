"""What the demo says at its end."""

from pathlib import Path

import pytest

from neuromill.cli.demo import REAL_THING, _next_steps
from neuromill.stages.demonstration import Demonstration, Measured, roads
from neuromill.stages.shipped import pipeline_names
from support.command import neuromill


def walked(road: str, folder: Path) -> Demonstration:
    store = folder / road
    (store / "sub-01.zarr").mkdir(parents=True)
    return Demonstration(road, (), (store, store), 3, 1.0, 1, 1, 1, Measured((), {}), folder / "report.html")


@pytest.mark.parametrize("chosen", [["meg"], ["spikes"], ["eeg"], ["meg", "spikes", "eeg"]])
def test_every_road_ends_with_its_own_real_thing(
    chosen: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _next_steps([walked(road, tmp_path) for road in chosen], tmp_path, 1.0)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line.split()[2] for line in lines if line.startswith("neuromill plan ")] == [
        {"meg": "meg-xl", "spikes": "ndt3", "eeg": "codebrain"}[road] for road in chosen
    ]
    assert any(line.startswith(f"neuromill demo {' '.join(chosen)} --home") for line in lines)


def test_there_is_one_for_every_road_and_its_pipeline_is_shipped() -> None:
    assert REAL_THING.keys() == roads().keys()
    assert {command.split()[2] for command, _ in REAL_THING.values()} <= set(pipeline_names())


def test_the_help_shows_how_to_walk_one_road() -> None:
    text = " ".join(neuromill("demo", "--help").out.split())
    assert "neuromill demo eeg" in text
    assert all(road in text for road in roads())
