"""On real EEG a small TFDual fit has two live codebooks; without revival the gate catches the one that collapses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuromill.records import NeuroMillError
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline, load_pipeline
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.shipped import find_pipeline
from neuromill.stages.workspace import Workspace
from neuromill.tokenizers.config import GateConfig
from neuromill.tokenizers.files import open_tokenizer
from support.stages import workspace_at

pytestmark = [pytest.mark.data, pytest.mark.slow]

CODEBOOK_SIZE = 64
CARD = """
id: arithmetic
title: Mental arithmetic, 19 channels at 500 Hz
archive: local
folder: {folder}
version: "1"
modality: eeg
device: cap
licence: that of the data set
citation: that of the data set
splits:
  validation: {{subject: ["03"]}}
"""
# As published: codes begin as random unit vectors, and codes that are never hit stay where they are.
PUBLISHED = {"kmeans_init": False, "revival": {"enabled": False}}


def pipeline_of(**fit: Any) -> Pipeline:
    """``demo-eeg`` with half the steps, one layer and smaller codebooks; its gate stays as it is."""
    document = load_pipeline(find_pipeline("demo-eeg")).model_dump(mode="json", exclude_unset=True)
    document.pop("train")
    document["datasets"] = ["arithmetic"]
    document["prepare"]["min_seconds"] = 30
    document["tokenizer"]["network"] |= {"codebook_size": CODEBOOK_SIZE, "depth": 1}
    document["fit"] |= {"steps": 120, "checkpoint_every": 120, "log_every": 40} | fit
    return Pipeline.model_validate(document)


@pytest.fixture(scope="module")
def workspace(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with workspace_at(tmp_path_factory.mktemp("arithmetic")) as opened:
        own = opened.home / "catalogs"
        own.mkdir(parents=True)
        (own / "arithmetic.yaml").write_text(CARD.format(folder=(data / "bids" / "eeg-arithmetic").resolve()))
        for stage in (Stage.INGEST, Stage.PREPARE):
            result = run_stage(opened, pipeline_of(), Selection(), stage)
            assert (result.done, result.failed) == (5, 0)
        yield opened


def is_alive(usage: dict[str, Any], level: int, gate: GateConfig) -> bool:
    """What the gate asks of use, counted here from the numbers that were kept."""
    return (
        usage["perplexity"][level] >= max(gate.min_perplexity, gate.min_perplexity_share * CODEBOOK_SIZE)
        and usage["used_share"][level] * CODEBOOK_SIZE >= max(gate.min_codes, gate.min_used_share * CODEBOOK_SIZE)
        and usage["dominant_share"][level] <= gate.max_dominant_share
    )


def test_with_revival_both_codebooks_live_and_the_tokenizer_is_published(workspace: Workspace) -> None:
    pipeline = pipeline_of()
    result = run_stage(workspace, pipeline, Selection(), Stage.FIT)
    folder = workspace.tokenizer_folder(result.identity)
    assert open_tokenizer(folder).config == pipeline.tokenizer
    facts = json.loads((folder / "config.json").read_text())["facts"]
    assert facts["held_out"] is True
    assert not [recording for recording in facts["recordings"] if "sub-03" in recording]
    assert [is_alive(facts["quality"]["usage"], level, pipeline.gate) for level in (0, 1)] == [True, True]
    assert not (folder.parent / f"fit-{folder.name}").exists()


def test_without_revival_the_gate_refuses_a_codebook_by_name(workspace: Workspace) -> None:
    """The frequency codebook collapses within a hundred steps; the temporal one lives on these signals."""
    pipeline = pipeline_of(**PUBLISHED)
    with pytest.raises(NeuroMillError, match=r"level 1: codes \d+ is below 16") as caught:
        run_stage(workspace, pipeline, Selection(), Stage.FIT)
    (refused,) = workspace.home.rglob("refused.json")
    assert str(refused) in str(caught.value)
    facts = json.loads(refused.read_text())
    usage = facts["quality"]["usage"]
    assert not is_alive(usage, 1, pipeline.gate)
    assert {reason.split(" ")[2] for reason in facts["problems"] if reason.startswith("level 1: ")} >= {
        "perplexity", "codes", "used_share",
    }  # fmt: skip
    for level, perplexity in enumerate(usage["perplexity"]):
        assert is_alive(usage, level, pipeline.gate) != any(f"level {level}: " in one for one in facts["problems"])
        assert perplexity < 4 or level == 0
    published = {folder.name for folder in refused.parent.parent.iterdir() if (folder / "config.json").is_file()}
    assert refused.parent.name.removeprefix("fit-") not in published
