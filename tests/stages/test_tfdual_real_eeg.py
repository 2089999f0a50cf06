"""Tokenizers fitted on real EEG: live codebooks with revival, a refusal without, and all of them compared on a subject
that none of them saw."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neuromill.records import NeuroMillError
from neuromill.stages.comparing import compare_tokenizers
from neuromill.stages.comparison_table import notes_of, table_of
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline, load_pipeline
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.shipped import find_pipeline
from neuromill.stages.workspace import Workspace
from neuromill.tokenizers.config import GateConfig
from neuromill.tokenizers.files import open_tokenizer, read_facts
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
N_WINDOWS = 8  # of 5 s: all that the held-out recording has


def pipeline_of(**fit: Any) -> Pipeline:
    """``demo-eeg`` with half the steps, one layer and smaller codebooks; its gate stays as it is."""
    document = load_pipeline(find_pipeline("demo-eeg")).model_dump(mode="json", exclude_unset=True)
    document.pop("train")
    document["datasets"] = ["arithmetic"]
    document["prepare"]["min_seconds"] = 30
    document["tokenizer"]["network"] |= {"codebook_size": CODEBOOK_SIZE, "depth": 1}
    document["fit"] |= {"steps": 120, "checkpoint_every": 120, "log_every": 40} | fit
    return Pipeline.model_validate(document)


def codec_pipeline() -> Pipeline:
    """A small BioCodec at its 50 Hz, on the same channels."""
    steps = [
        {"step": "pick_montage", "montage": "10-20-19"}, {"step": "resample", "sfreq": 50},
        {"step": "filter", "l_freq": 0.3, "h_freq": 22},
        {"step": "reject", "threshold_volts": 1e-4, "window_seconds": 5},
    ]  # fmt: skip
    document = load_pipeline(find_pipeline("demo")).model_dump(mode="json", exclude_unset=True)
    document.pop("train")
    document["tokenizer"]["network"] |= {"base_width": 8, "codebook_size": CODEBOOK_SIZE}
    document["fit"] |= {"steps": 150, "batch_size": 32, "lr": 4e-3, "checkpoint_every": 150, "cpu_threads": 1}
    changes = {"name": "biocodec-eeg", "datasets": ["arithmetic"], "prepare": {"steps": steps, "min_seconds": 30}}
    return Pipeline.model_validate(document | changes)


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


@pytest.fixture(scope="module")
def published(workspace: Workspace) -> Path:
    """Folder of the tokenizer that the fit with revival led to."""
    result = run_stage(workspace, pipeline_of(), Selection(), Stage.FIT)
    assert result.done == 1
    return workspace.tokenizer_folder(result.identity)


def is_alive(usage: dict[str, Any], level: int, gate: GateConfig) -> bool:
    """What the gate asks of use, counted here from the numbers that were kept."""
    return (
        usage["perplexity"][level] >= max(gate.min_perplexity, gate.min_perplexity_share * CODEBOOK_SIZE)
        and usage["used_share"][level] * CODEBOOK_SIZE >= max(gate.min_codes, gate.min_used_share * CODEBOOK_SIZE)
        and usage["dominant_share"][level] <= gate.max_dominant_share
    )


def test_with_revival_both_codebooks_live_and_the_tokenizer_is_published(published: Path) -> None:
    pipeline = pipeline_of()
    assert open_tokenizer(published).config == pipeline.tokenizer
    facts = read_facts(published)
    assert facts["held_out"] is True
    assert not [recording for recording in facts["recordings"] if "sub-03" in recording]
    assert [is_alive(facts["quality"]["usage"], level, pipeline.gate) for level in (0, 1)] == [True, True]
    assert not list(published.parent.glob("fit-*"))


def test_with_revival_alone_switched_off_the_gate_refuses_a_codebook_by_name(
    workspace: Workspace, published: Path
) -> None:
    """The frequency codebook collapses within a hundred steps although k-means placed it; the temporal one lives."""
    pipeline = pipeline_of(revival={"enabled": False})
    assert pipeline.fit.model_copy(update={"revival": pipeline_of().fit.revival}) == pipeline_of().fit
    with pytest.raises(NeuroMillError, match=r"level 1: perplexity [\d.]+ is below 8;") as caught:
        run_stage(workspace, pipeline, Selection(), Stage.FIT)
    (refused,) = workspace.home.rglob("refused.json")
    assert str(refused) in str(caught.value)
    facts = json.loads(refused.read_text())
    usage = facts["quality"]["usage"]
    assert usage["perplexity"][1] < pipeline.gate.min_perplexity
    for level in (0, 1):
        assert is_alive(usage, level, pipeline.gate) != any(f"level {level}: " in one for one in facts["problems"])
    folders = {folder.name for folder in published.parent.iterdir() if (folder / "config.json").is_file()}
    assert folders == {published.name}


def test_all_tokenizers_in_one_table_on_a_subject_none_was_fitted_on(workspace: Workspace, published: Path) -> None:
    codec = codec_pipeline()
    for stage in (Stage.INGEST, Stage.PREPARE, Stage.FIT):
        assert run_stage(workspace, codec, Selection(), stage).failed == 0
    found = compare_tokenizers(
        workspace, (pipeline_of(), codec), Selection(), ("mu_law", "quantile"), n_windows=N_WINDOWS
    )
    assert found.split == "validation"
    assert [name for name in found.recordings if "sub-03" not in name] == []
    assert found.n_windows == N_WINDOWS
    assert [one.kind for one in found.tokenizers] == ["tfdual", "biocodec", "mu_law", "quantile"]
    assert not any(one.seen for one in found.tokenizers)
    joint, codes, *fixed = found.tokenizers
    assert Path(joint.source) == published
    assert found.n_rows > 100
    for learned in (joint, codes):  # a fit of a minute: far from the fixed ones, at a tenth of their rate or less
        assert learned.fidelity.correlation > 0.5
        assert learned.fidelity.band_error["delta"] < 0.5
    assert min(one.fidelity.si_sdr_db for one in fixed) > 25
    assert list(joint.amplitude_error["frequency"]) == ["delta", "theta", "alpha", "beta"]
    assert joint.rate.nominal < codes.rate.nominal < fixed[0].rate.nominal
    columns, rows = table_of(found)
    assert {len(row) for row in rows} == {len(columns)}
    assert [row[0] for row in rows] == ["demo-eeg (tfdual)", "biocodec-eeg (biocodec)", "mu_law", "quantile"]
    assert "held-out recordings (validation)" in notes_of(found)[0]
