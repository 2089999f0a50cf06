"""The train stage for spikes: time blocks of the card, what names a run, what it tells, fine-tuning one session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from neuromill.records import ConfigError
from neuromill.stages.choosing import choose
from neuromill.stages.contexts import work_context
from neuromill.stages.looking import came_to
from neuromill.stages.outcomes import Stage
from neuromill.stages.pipeline import Pipeline
from neuromill.stages.reporting import collect
from neuromill.stages.running import run_stage
from neuromill.stages.selection import Selection
from neuromill.stages.shipped import shipped_folder
from neuromill.stages.spike_training import open_spike_tokens, spans_of
from neuromill.stages.training import halves
from neuromill.stages.workspace import Workspace
from neuromill.synthetic.nwb import SessionsSpec, session_files
from neuromill.training.metrics import MetricsFile
from support.stages import Listener, workspace_at

SPEC = SessionsSpec(subjects=2, units_per_array=8, seconds=40.0)
SELECTION = Selection()


def tiny(**train: object) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "tiny-spikes",
            "datasets": ["own-spikes"],
            "prepare": {"kind": "spikes"},
            "tokenizer": {"kind": "ndt3"},
            "train": {
                "kind": "ndt3",
                "model": {"hidden_dim": 32, "n_layers": 1, "n_heads": 2},
                "ridge": {"lags": [3]},
                "batch_size": 4,
                "max_steps": 3,
                "log_every_steps": 1,
                "accelerator": "cpu",
                "cpu_threads": 1,
                **train,
            },
        }
    )


def write_card(home: Path, folder: Path, **splits: object) -> None:
    card = yaml.safe_load((shipped_folder("catalogs") / "dandi" / "999002.yaml").read_text())
    card |= {"id": "own-spikes", "archive": "local", "folder": str(folder), "version": "1"}
    card["splits"] = splits or card["splits"]
    (home / "catalogs").mkdir(parents=True, exist_ok=True)
    (home / "catalogs" / "own.yaml").write_text(yaml.safe_dump(card))


def restore(workspace: Workspace, card: str) -> None:
    """Bring the card back, and its splits into the index of the tokens."""
    (workspace.home / "catalogs" / "own.yaml").write_text(card)
    with workspace_at(workspace.home) as again:
        run_stage(again, tiny(), SELECTION, Stage.TOKENIZE)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("spikes")
    for path, content in session_files(SPEC).items():
        file = folder / "sessions" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    write_card(folder / "home", folder / "sessions")
    with workspace_at(folder / "home") as opened:
        for stage in (Stage.INGEST, Stage.PREPARE, Stage.TOKENIZE):
            assert run_stage(opened, tiny(), SELECTION, stage).done == 2
        yield opened


def test_a_run_tells_r2_beside_ridge_and_is_done_once(workspace: Workspace) -> None:
    listener = Listener()
    result = run_stage(workspace, tiny(), SELECTION, Stage.TRAIN, listener)
    assert result.note.startswith("R2 ")
    assert "(ridge " in result.note
    facts = workspace.ledger.runs("train")[-1].facts
    assert {"r2", "ridge_r2", "mean_r2", "first_loss", "world_size"} <= facts.keys()
    rows = MetricsFile(workspace.run_folder(result.identity) / "metrics.jsonl").rows()
    baselines = [row for row in rows if row["kind"] == "baseline"]
    assert [(row["name"], row["split"]) for row in baselines] == [
        ("mean", "stored"), ("ridge", "stored"), ("mean", "test"), ("ridge", "test"),
    ]  # fmt: skip
    (test,) = [row for row in rows if row["kind"] == "test"]
    assert len(test["r2_per_recording"]) == 2
    assert result.note.endswith(f"; test {test['r2']:.2f} (ridge {baselines[-1]['r2']:.2f})")
    assert facts["ridge_r2"] == baselines[1]["r2"]
    assert (facts["test_r2"], facts["test_ridge_r2"]) == (test["r2"], baselines[-1]["r2"])
    assert came_to(workspace.ledger.runs("train")[-1]).endswith(
        f"; test R2 {test['r2']:.3f} (mean {baselines[2]['r2']:.3f}, ridge {baselines[3]['r2']:.3f})"
    )
    (validation,) = [row for row in rows if row["kind"] == "validation"]
    assert len(validation["r2_per_recording"]) == 2
    assert run_stage(workspace, tiny(), SELECTION, Stage.TRAIN).note == "nothing to do"


def test_the_blocks_of_the_card_are_the_splits(workspace: Workspace) -> None:
    chosen = choose(workspace, tiny(), SELECTION)
    context = work_context(workspace, tiny(), chosen, Stage.TRAIN)
    source = open_spike_tokens(workspace, chosen, context, halves(workspace, chosen, context).train)
    for number, one in enumerate(source.recordings):
        assert [span.split for span in one.spans] == ["train", "validation", "test"]
        train, validation, test = one.spans
        assert train.stop + 50 <= validation.start < validation.stop + 50 <= test.start
        assert len(one.chunks_of("train")) > len(one.chunks_of("validation")) > 0
        segments = source.read_segments(number)
        assert segments is not None
        assert test.stop == len(segments)


def test_other_blocks_are_another_run(workspace: Workspace) -> None:
    first = run_stage(workspace, tiny(), SELECTION, Stage.TRAIN).identity
    card = workspace.home / "catalogs" / "own.yaml"
    kept = card.read_text()
    try:
        card.write_text(kept.replace("- 0.7\n", "- 0.5\n"))
        assert card.read_text() != kept
        with workspace_at(workspace.home) as again:
            with pytest.raises(ConfigError, match="other splits than the index of its tokens"):
                run_stage(again, tiny(), SELECTION, Stage.TRAIN)
            assert run_stage(again, tiny(), SELECTION, Stage.TOKENIZE).note == "nothing to do"
            assert run_stage(again, tiny(), SELECTION, Stage.TRAIN).identity != first
    finally:
        restore(workspace, kept)


def test_a_held_out_session_is_held_out_as_a_whole(workspace: Workspace) -> None:
    card = workspace.home / "catalogs" / "own.yaml"
    kept = yaml.safe_load(card.read_text())
    try:
        card.write_text(yaml.safe_dump(kept | {"splits": {"validation": {"subject": ["B"]}}}))
        with workspace_at(workspace.home) as again:
            chosen = choose(again, tiny(), SELECTION)
            spans = [spans_of(chosen, one, 1000, 0.02) for one in chosen.recordings]
            assert [tuple(span) for (span,) in spans] == [("train", 0, 1000), ("validation", 0, 1000)]
            run_stage(again, tiny(), SELECTION, Stage.TOKENIZE)
            result = run_stage(again, tiny(), SELECTION, Stage.TRAIN)
            rows = MetricsFile(again.run_folder(result.identity) / "metrics.jsonl").rows()
            (ridge,) = [row for row in rows if row.get("name") == "ridge"]
            assert [name.split("/")[1][:5] for name in ridge["calibrated"]] == ["sub-B"]
    finally:
        restore(workspace, yaml.safe_dump(kept))


def test_a_session_for_the_test_is_scored_and_names_no_run(workspace: Workspace) -> None:
    card = workspace.home / "catalogs" / "own.yaml"
    kept = yaml.safe_load(card.read_text())
    try:
        blocks = {"validation": [0.7, 1.0]}
        card.write_text(yaml.safe_dump(kept | {"splits": {"test": {"subject": ["B"]}, "time_blocks": blocks}}))
        with workspace_at(workspace.home) as again:
            run_stage(again, tiny(), SELECTION, Stage.TOKENIZE)
            result = run_stage(again, tiny(), SELECTION, Stage.TRAIN)
            rows = MetricsFile(again.run_folder(result.identity) / "metrics.jsonl").rows()
            named = {kind: {*row["r2_per_recording"]} for row in rows if (kind := row["kind"]) != "baseline"}
            assert [name.split("/")[1][:5] for name in named["test"]] == ["sub-B"]
            assert [name.split("/")[1][:5] for name in named["train"] | named["validation"]] == ["sub-A"]
            alone = run_stage(again, tiny(), Selection(where="subject = 'A'"), Stage.TRAIN)
            assert (alone.identity, alone.note) == (result.identity, "nothing to do")
    finally:
        restore(workspace, yaml.safe_dump(kept))


def test_spans_are_those_of_the_index_where_it_says_any(workspace: Workspace) -> None:
    chosen = choose(workspace, tiny(), SELECTION)
    one = chosen.recordings[0]
    by_card = spans_of(chosen, one, 1000, 0.02)
    assert [span.split for span in by_card] == ["train", "validation", "test"]
    assert spans_of(chosen, one, 1000, 0.02, {"dataset_split": "", "time_blocks": ""}) == by_card
    assert spans_of(chosen, one, 1000, 0.02, {"dataset_split": "validation"}) == (("validation", 0, 1000),)
    blocks = '{"validation": [0.5, 1.0], "test": null, "guard_seconds": 0.0}'
    stored = spans_of(chosen, one, 1000, 0.02, {"dataset_split": "train", "time_blocks": blocks})
    assert stored == (("train", 0, 500), ("validation", 500, 1000))


def test_one_session_is_fine_tuned_from_a_model_by_its_bytes(workspace: Workspace, tmp_path: Path) -> None:
    first = run_stage(workspace, tiny(), SELECTION, Stage.TRAIN)
    model = workspace.run_folder(first.identity) / "model"
    one = Selection(where="subject = 'A'")
    tuned = tiny(start_from=str(model), compare_scratch=True, max_steps=2)
    result = run_stage(workspace, tuned, one, Stage.TRAIN)
    assert result.identity != first.identity
    assert ", scratch " in result.note
    copied = tmp_path / "model"
    copied.mkdir()
    for file in model.iterdir():
        (copied / file.name).write_bytes(file.read_bytes())
    same = tiny(start_from=str(copied), compare_scratch=True, max_steps=2)
    assert run_stage(workspace, same, one, Stage.TRAIN).note == "nothing to do"
    (copied / "config.json").unlink()
    with pytest.raises(ConfigError, match="no such model to start from"):
        run_stage(workspace, same, one, Stage.TRAIN)


def test_the_best_weights_by_r2_are_the_model_and_the_page_shows_theirs(workspace: Workspace) -> None:
    pipeline = tiny(keep="best", best_by="r2", validate_every_steps=1, ridge=None)
    result = run_stage(workspace, pipeline, SELECTION, Stage.TRAIN)
    rows = MetricsFile(workspace.run_folder(result.identity) / "metrics.jsonl").rows()
    scores = {row["step"]: row["r2"] for row in rows if row["kind"] == "validation"}
    best = max(scores, key=lambda step: scores[step])
    assert list(scores) == [1, 2, 3]
    facts = workspace.ledger.runs("train")[-1].facts
    assert (facts["steps"], facts["model_step"], facts["r2"]) == (3, best, scores[best])
    assert [row["kind"] for row in rows[-2:]] == ["model", "test"]  # the test is that of the weights chosen before it
    spikes = collect(workspace, pipeline, SELECTION).spikes
    assert spikes is not None
    assert spikes.training is not None
    assert spikes.training.model is not None
    assert (spikes.training.best_step, spikes.training.model.r2) == (best, scores[best])
