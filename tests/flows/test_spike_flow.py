"""A pipeline of spikes as a Prefect flow, and the same through the command line, from a folder of one's own."""

from pathlib import Path

import pytest
import yaml

from neuromill.stages.outcomes import Stage
from neuromill_flows import flows
from neuromill_flows.parameters import Engine, EngineChoice, Options, Selection
from support.command import neuromill
from support.dandi_road import DANDISET, VERSION, SpoiltArchive, write_card, write_session
from support.spike_roads import TINY_SPIKES
from support.stages import tree_digests

pytestmark = pytest.mark.slow

SERIAL = Engine(kind=EngineChoice.SERIAL)
UNTIL_TOKENS = ["ingest", "prepare", "fit", "tokenize"]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    file = tmp_path / "tiny-spikes.yaml"
    file.write_text(yaml.safe_dump(TINY_SPIKES | {"datasets": [DANDISET]}))
    return file


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    for seed, subject in enumerate("AB"):
        write_session(tmp_path / "lab" / f"sub-{subject}" / f"sub-{subject}_ses-1_behavior+ecephys.nwb", seed)
    return tmp_path / "lab"


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("fetch", ["whole", "stream"])
def test_a_dandiset_as_a_flow(
    pipeline: Path, lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetch: str
) -> None:
    options = Options(home=tmp_path / "home")
    write_card(tmp_path / "home", fetch=fetch)
    files = {path.relative_to(lab).as_posix(): path for path in lab.rglob("*.nwb")}
    with SpoiltArchive({DANDISET: {VERSION: files}}) as archive:
        monkeypatch.setenv("NEUROMILL_ENDPOINTS__DANDI_URL", archive.url)
        first = flows.pipeline(str(pipeline), engine=SERIAL, options=options)
        assert [result.stage for result in first] == [Stage(name) for name in [*UNTIL_TOKENS, "train"]]
        assert all(result.failed == 0 for result in first)
        made = {result.stage: result.done for result in first}
        assert (made[Stage.INGEST], made[Stage.PREPARE], made[Stage.TOKENIZE], made[Stage.TRAIN]) == (2, 2, 2, 1)
        before = tree_digests(tmp_path / "home" / "stores")
        again = flows.pipeline(str(pipeline), engine=SERIAL, options=options)
    assert sum(result.done for result in again) == 0
    assert all(result.failed == 0 for result in again)
    assert tree_digests(tmp_path / "home" / "stores") == before


@pytest.mark.prefect
@pytest.mark.usefixtures("prefect_server")
def test_a_folder_as_a_flow_and_as_a_command_give_the_same_bytes(pipeline: Path, lab: Path, tmp_path: Path) -> None:
    options = Options(home=tmp_path / "flow")
    until = flows.LastStage.TOKENIZE
    results = flows.pipeline(
        str(pipeline), engine=SERIAL, until=until, selection=Selection(data=str(lab)), options=options
    )
    assert [result.done for result in results if result.stage is not Stage.FIT] == [2, 2, 2]
    where = ["--data", lab, "--home", tmp_path / "command"]
    ended = neuromill("run", pipeline, *where, "--until", "tokenize", "--engine", "serial", "--json")
    assert ended.code == 0, ended.err
    assert tree_digests(tmp_path / "flow" / "stores") == tree_digests(tmp_path / "command" / "stores")


def test_the_command_line_over_a_folder(pipeline: Path, lab: Path, tmp_path: Path) -> None:
    where = ["--data", lab, "--home", tmp_path / "home"]
    planned = neuromill("plan", pipeline, *where, "--json")
    assert planned.code == 0, planned.err
    assert {stage["stage"]: stage["found"] for stage in planned.document}["ingest"] == 2
    ended = neuromill("run", pipeline, *where, "--engine", "serial", "--json")
    assert ended.code == 0, ended.err
    stages = {result["stage"]: result for result in ended.document}
    assert list(stages) == [*UNTIL_TOKENS, "train"]
    assert {stages[name]["done"] for name in ("ingest", "prepare", "tokenize")} == {2}
    status = neuromill("status", "--home", tmp_path / "home", "--json")
    assert status.code == 0, status.err
    counted = {row["stage"]: (row["found"], row["done"]) for row in status.document["stages"]}
    assert counted == dict.fromkeys(("ingest", "prepare", "tokenize"), (2, 2))
    assert status.document["failures"] == []
    again = neuromill("run", pipeline, *where, "--engine", "serial", "--json")
    assert again.code == 0, again.err
    assert {result["note"] for result in again.document if result["stage"] in ("ingest", "prepare", "tokenize")} == {
        "nothing to do"
    }
