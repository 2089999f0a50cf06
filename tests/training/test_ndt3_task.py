"""NDT3 learns to decode, is resumed, is fine-tuned, and refuses what cannot be."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from neuromill.models.config import CrissCrossConfig
from neuromill.models.criss_cross import CrissCross
from neuromill.models.files import from_pretrained, save_pretrained
from neuromill.models.ndt3 import Ndt3
from neuromill.models.ndt3_batch import Chunk
from neuromill.models.ndt3_config import Ndt3Config
from neuromill.models.ndt3_decoding import decode
from neuromill.records import ConfigError, TokenKind
from neuromill.training import loop
from neuromill.training.config import OptimConfig
from neuromill.training.loop import TrainResult
from neuromill.training.ndt3_config import Ndt3TrainConfig, RidgeConfig
from neuromill.training.ndt3_metrics import Ndt3Scores
from neuromill.training.ndt3_task import Ndt3Task, summary, train_ndt3
from neuromill.training.spike_baselines import unroll
from neuromill.training.spike_source import MemorySpikeTokens, Span
from support.spike_tokens import CHUNK_BINS, spike_source
from support.training_runs import InterruptedRunError, interrupt_at, lines, on_two_ranks, weights

SOURCE = spike_source("a", n_bins=1000, spans=[Span("train", 0, 760), Span("validation", 780, 1000)])
CONFIG = Ndt3TrainConfig(
    model=Ndt3Config(hidden_dim=64, n_layers=2, n_heads=2, dropout=0.1),
    optim=OptimConfig(lr=3e-3, warmup_steps=5),
    ridge=RidgeConfig(lags=(3,)),
    batch_size=8,
    epochs=100,
    max_steps=12,
    log_every_steps=4,
    validate_every_steps=6,
    checkpoint_every_steps=5,
    keep_checkpoints=None,
    block_chunks=8,
    accelerator="cpu",
    cpu_threads=1,
)


def run(
    folder: Path, *, source: MemorySpikeTokens = SOURCE, stop_at: int | None = None, **changes: object
) -> TrainResult[Ndt3Scores]:
    config = Ndt3TrainConfig.model_validate(CONFIG.model_copy(update=changes).model_dump())
    return train_ndt3(config, source, folder, on_step=interrupt_at(stop_at))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> TrainResult[Ndt3Scores]:
    folder = tmp_path_factory.mktemp("learned")
    return run(folder, max_steps=140, log_every_steps=70, validate_every_steps=70, checkpoint_every_steps=70)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder


def test_it_decodes_better_than_chance(learned: TrainResult[Ndt3Scores]) -> None:
    by_name = {row["name"]: row for row in learned.baselines}
    assert learned.validation is not None
    assert learned.validation.r2 > 0.5
    assert by_name["mean"]["r2"] < 0.1
    assert list(learned.validation.r2_per_covariate) == ["velocity_x", "velocity_y"]
    assert summary(learned) == f"R2 {learned.validation.r2:.2f} (ridge {by_name['ridge']['r2']:.2f})"
    assert learned.last_loss < 0.5 * learned.first_loss


def test_r2_is_that_of_the_saved_model_on_the_held_out_chunks(learned: TrainResult[Ndt3Scores]) -> None:
    model, one = from_pretrained(learned.model_folder, Ndt3), SOURCE.recordings[0]
    chunks = [Chunk.of(SOURCE.tokens[0], int(c), one.patch_channels) for c in one.chunks_of("validation")]
    predicted = np.concatenate(decode(model, chunks)).astype(np.float64)
    values = np.concatenate([chunk.tokens.covariates.reshape(-1, 2) for chunk in chunks]).astype(np.float64)
    total = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    residual = ((values - predicted) ** 2).sum(axis=0)
    assert learned.validation is not None
    assert learned.validation.r2 == pytest.approx(1 - residual.sum() / total.sum(), abs=1e-4)
    assert [*learned.validation.r2_per_covariate.values()] == pytest.approx(1 - residual / total, abs=1e-4)
    assert learned.validation.n_covariate == values.size


def test_lines_of_metrics(undisturbed: Path) -> None:
    assert [row["name"] for row in lines(undisturbed, "baseline")] == ["mean", "ridge"]
    assert {row["split"] for row in lines(undisturbed, "baseline")} == {"stored"}
    assert [row["step"] for row in lines(undisturbed, "validation")] == [6, 12]
    assert [row["step"] for row in lines(undisturbed, "train")] == [1, 4, 5, 8, 10, 12]
    for row in lines(undisturbed, "train"):
        assert row["loss"] == pytest.approx(row["spike_loss"] + row["covariate_loss"])


@pytest.mark.parametrize("stop_at", [2, 7])
def test_an_interrupted_run_ends_as_an_undisturbed_one(undisturbed: Path, tmp_path: Path, stop_at: int) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path, stop_at=stop_at)
    assert run(tmp_path, loader_threads=1).resumed_from == stop_at // 5 * 5
    assert lines(tmp_path) == lines(undisturbed)
    assert weights(tmp_path) == weights(undisturbed)


def test_accumulated_steps_resume_and_are_means_over_their_batches(tmp_path: Path) -> None:
    small = {"batch_size": 4, "accumulate_batches": 3, "max_steps": 8, "checkpoint_every_steps": 3}
    whole = run(tmp_path / "whole", **small)
    assert whole.steps == 8
    state = json.loads((tmp_path / "whole" / "checkpoints" / "step-00000003" / "state.json").read_text())
    assert (state["epoch"], state["batch"]) == (0, 9)  # 38 chunks: 10 batches, steps of 3, 3, 3 and 1
    with pytest.raises(InterruptedRunError):
        run(tmp_path / "stopped", stop_at=4, **small)
    run(tmp_path / "stopped", **small)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")


def test_two_half_batches_make_the_step_of_a_whole_one(tmp_path: Path) -> None:
    source = spike_source("a", spans=[Span("train", 0, 320)])  # 16 chunks
    plain = {"model": CONFIG.model.model_copy(update={"dropout": 0.0}), "max_steps": 1, "source": source}
    run(tmp_path / "whole", batch_size=16, **plain)
    run(tmp_path / "halves", batch_size=8, accumulate_batches=2, **plain)
    rows = [lines(tmp_path / name, "train")[0] for name in ("whole", "halves")]
    for key in ("loss", "grad_norm", "r2"):
        assert rows[0][key] == pytest.approx(rows[1][key], rel=1e-4)


def test_a_checkpoint_older_than_an_option_had_its_default(tmp_path: Path) -> None:
    run(tmp_path, max_steps=2)
    file = tmp_path / "checkpoints" / "step-00000002" / "state.json"
    state = json.loads(file.read_text())
    del state["settings"]["config"]["accumulate_batches"]
    file.write_text(json.dumps(state))
    assert run(tmp_path, max_steps=2).resumed_from == 2
    with pytest.raises(ConfigError, match=r"config\.accumulate_batches"):
        run(tmp_path, max_steps=2, accumulate_batches=2)


def test_other_spans_are_another_run(tmp_path: Path) -> None:
    run(tmp_path, max_steps=2)
    moved = spike_source("a", n_bins=1000, spans=[Span("train", 0, 740), Span("validation", 780, 1000)])
    with pytest.raises(ConfigError, match="train_chunks"):
        run(tmp_path, max_steps=2, source=moved)


def test_without_held_out_chunks_there_is_a_loss_and_nothing_beside(tmp_path: Path) -> None:
    result = run(tmp_path, max_steps=2, source=spike_source("a", spans=[Span("train", 0, 600)]))
    assert (result.validation, result.baselines) == (None, ())
    assert summary(result).startswith("loss ")
    assert summary(result).endswith(
        "no R2: nothing is held out: a card with `splits` holds out subjects or blocks of time"
    )


def test_held_out_behaviour_that_stands_still_is_said(tmp_path: Path) -> None:
    source = spike_source("a", spans=[Span("train", 0, 440), Span("validation", 460, 600)])
    contents = slice(source.tokens[0].chunk_contents[22, TokenKind.COVARIATE], None)
    source.tokens[0].covariates[contents] = 0.5  # chunk 23 is the first that is held out
    result = run(tmp_path, max_steps=2, source=source)
    assert result.validation is not None
    assert (result.validation.r2, [row["r2"] for row in result.baselines]) == (None, [None, None])
    assert summary(result).endswith("no R2: no covariate varies in the held-out chunks")


def test_published_behaviour_trains_too(tmp_path: Path) -> None:
    parity = CONFIG.model.model_copy(update={"parity": True})
    result = run(tmp_path, model=parity, split="random_chunks", max_steps=2)
    assert {row["split"] for row in result.baselines} == {"random_chunks"}
    assert result.validation is not None
    assert result.validation.n_covariate == 2 * 20 * 10  # a fifth of 49 chunks


TESTED = spike_source(
    "a", "b", n_bins=1000, spans=[Span("train", 0, 600), Span("validation", 620, 800), Span("test", 820, 1000)]
)


def test_baselines_are_scored_on_the_very_bins_of_the_model(tmp_path: Path) -> None:
    settings = {"batch_size": 4, "validation_batches": 1, "token_budget": 62, "max_steps": 1, "source": TESTED}
    result = run(tmp_path, **settings)
    n_bins = (62 - 2) // (1 + 1 + 2 * 2)
    assert result.validation is not None
    assert result.test is not None
    assert n_bins < CHUNK_BINS
    assert result.validation.n_covariate == 2 * 4 * n_bins  # one batch of 18 chunks, cropped
    assert result.test.n_covariate == 2 * 18 * n_bins  # all of them
    for scores, rows in ((result.validation, result.baselines), (result.test, result.test_baselines)):
        assert [row["name"] for row in rows] == ["mean", "ridge"]
        assert {row["n_covariate"] for row in rows} == {scores.n_covariate}
        assert {*rows[1]["r2_per_recording"]} == {*scores.r2_per_recording}
    kept = [slice(start, start + n_bins) for start in range(620, 700, CHUNK_BINS)]
    values = np.concatenate([unroll(TESTED, 0).values[part] for part in kept]).astype(np.float64)
    means = np.mean(unroll(TESTED, 0).values[:600], axis=0, dtype=np.float64)
    expected = 1 - ((values - means) ** 2).sum() / ((values - values.mean(axis=0)) ** 2).sum()
    assert result.baselines[0]["r2"] == pytest.approx(expected, abs=2e-6)


def test_the_test_blocks_are_scored_once_by_the_finished_model(tmp_path: Path) -> None:
    result = run(tmp_path, source=TESTED, validate_every_steps=4)
    (test,) = lines(tmp_path, "test")
    assert (test["step"], list(test["r2_per_covariate"])) == (12, ["velocity_x", "velocity_y"])
    assert list(test["r2_per_recording"]) == ["a", "b"]
    assert [row["split"] for row in lines(tmp_path, "baseline")] == ["stored", "stored", "test", "test"]
    assert result.validation is not None
    ridge = [row["r2"] for row in (result.baselines[1], result.test_baselines[1])]
    first = f"R2 {result.validation.r2:.2f} (ridge {ridge[0]:.2f})"
    assert summary(result) == f"{first}; test {test['r2']:.2f} (ridge {ridge[1]:.2f})"
    model = from_pretrained(result.model_folder, Ndt3)
    predicted, values = [], []
    for one, tokens in zip(TESTED.recordings, TESTED.tokens, strict=True):
        chunks = [Chunk.of(tokens, int(c), one.patch_channels) for c in one.chunks_of("test")]
        predicted.append(np.concatenate(decode(model, chunks)).astype(np.float64))
        values.append(np.concatenate([chunk.tokens.covariates.reshape(-1, 2) for chunk in chunks]).astype(np.float64))
    true, decoded = np.concatenate(values), np.concatenate(predicted)
    expected = 1 - ((true - decoded) ** 2).sum() / ((true - true.mean(axis=0)) ** 2).sum()
    assert test["r2"] == pytest.approx(expected, abs=1e-4)
    run(tmp_path, source=TESTED, validate_every_steps=4)  # as after a kill between the line and the model
    assert len(lines(tmp_path, "test")) == 1


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tested")
    run(folder, source=TESTED, keep="best")
    return folder


@pytest.mark.parametrize(
    ("owner", "name", "last_line"),
    [
        (None, "", "validation"),
        (Ndt3Task, "test_loader", "model"),
        (loop, "save_pretrained", "test"),
    ],
)
def test_a_run_killed_after_its_last_step_writes_the_lines_of_an_undisturbed_one(
    tested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, last_line: str
) -> None:
    """The last step is in mid epoch, and its checkpoint says so; an undisturbed run has ended the epoch by then."""

    def kill(*_: object) -> NoReturn:
        raise InterruptedRunError

    if owner is not None:
        monkeypatch.setattr(owner, name, kill)
    with pytest.raises(InterruptedRunError):
        run(tmp_path, source=TESTED, keep="best", stop_at=12 if owner is None else None)
    monkeypatch.undo()
    state = json.loads((tmp_path / "checkpoints" / "step-00000012" / "state.json").read_text())
    assert state["batch"] > 0
    assert lines(tmp_path)[-1]["kind"] == last_line
    assert run(tmp_path, source=TESTED, keep="best").resumed_from == 12
    assert [row["kind"] for row in lines(tested)][-2:] == ["model", "test"]
    assert lines(tmp_path) == lines(tested)
    assert weights(tmp_path) == weights(tested)


def test_test_bins_decide_nothing(tmp_path: Path) -> None:
    """Other tokens there, and one more recording that is only tested, before the others: the same weights."""
    run(tmp_path / "first", source=TESTED)
    other = spike_source("0", n_bins=200, spans=[Span("test", 0, 200)], seed=8)
    changed = [replace(one, covariates=one.covariates.copy(), patches=one.patches.copy()) for one in TESTED.tokens]
    for tokens in changed:
        first = tokens.chunk_contents[41]  # the first chunk that is tested
        tokens.covariates[first[TokenKind.COVARIATE] :] *= -1
        tokens.patches[first[TokenKind.SPIKE] :] = 1
    more = MemorySpikeTokens([*other.recordings, *TESTED.recordings], [*other.tokens, *changed])
    result = run(tmp_path / "second", source=more)
    assert weights(tmp_path / "first") == weights(tmp_path / "second")
    for kind in ("train", "validation"):
        assert lines(tmp_path / "first", kind) == lines(tmp_path / "second", kind)
    assert result.test is not None
    assert [*result.test.r2_per_recording] == ["0", "a", "b"]
    assert result.test_baselines[1]["calibrated"] == ["0"]
    assert result.baselines == tuple(row for row in lines(tmp_path / "first", "baseline") if row["split"] == "stored")
    assert Ndt3Task(CONFIG, more).settings() == Ndt3Task(CONFIG, TESTED).settings()


# Fine-tuning


def test_a_fine_tune_starts_from_the_weights_and_stands_beside_scratch(
    learned: TrainResult[Ndt3Scores], tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"start_from": str(learned.model_folder)})
    built, trained = Ndt3Task(config, SOURCE).build_model(), from_pretrained(learned.model_folder, Ndt3)
    torch.testing.assert_close(built.state_dict(), trained.state_dict(), rtol=0, atol=0)
    start = {"start_from": str(learned.model_folder), "compare_scratch": True, "optim": OptimConfig(lr=1e-5)}
    result = run(tmp_path, max_steps=1, **start)
    by_name = {row["name"]: row["r2"] for row in result.baselines}
    assert result.validation is not None
    assert result.validation.r2 == pytest.approx(learned.validation.r2, abs=0.02)
    assert by_name["scratch"] < 0.2
    assert summary(result).endswith(f", scratch {by_name['scratch']:.2f})")
    assert run(tmp_path, max_steps=1, **start).baselines == result.baselines
    other = tmp_path / "other"
    torch.manual_seed(1)
    save_pretrained(Ndt3(CONFIG.model), other)
    (learned.model_folder / "model.safetensors").rename(tmp_path / "kept")
    (learned.model_folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    try:
        with pytest.raises(ConfigError, match="first_weights"):
            run(tmp_path, max_steps=1, **start)
    finally:
        (tmp_path / "kept").replace(learned.model_folder / "model.safetensors")


def test_another_number_of_units_and_covariates_fits_the_same_weights(
    learned: TrainResult[Ndt3Scores], tmp_path: Path
) -> None:
    session = spike_source("new", n_units=70, seed=5)
    result = run(tmp_path, source=session, start_from=str(learned.model_folder), max_steps=2)
    assert result.steps == 2


def test_a_fine_tune_from_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    save_pretrained(CrissCross(CrissCrossConfig(latent_dim=8, n_layers=1, n_heads=2, fourier_dim=4)), tmp_path / "meg")
    with pytest.raises(ConfigError, match="criss_cross"):
        run(tmp_path / "run", start_from=str(tmp_path / "meg"))
    with pytest.raises(ConfigError, match="cannot be read"):
        run(tmp_path / "run", start_from=str(tmp_path / "nothing"))
    assert not (tmp_path / "run").exists()


def test_a_fine_tune_from_another_size_says_which(tmp_path: Path) -> None:
    save_pretrained(Ndt3(Ndt3Config(hidden_dim=32, n_layers=1, n_heads=2)), tmp_path / "small")
    with pytest.raises(ConfigError, match=r"hidden_dim 32, n_layers 1.*set train\.model to"):
        run(tmp_path / "run", start_from=str(tmp_path / "small"))


def test_scratch_beside_scratch_makes_no_sense() -> None:
    with pytest.raises(ValidationError, match="compare_scratch needs start_from"):
        Ndt3TrainConfig(compare_scratch=True)


# What is refused


def test_recordings_that_do_not_fit_together() -> None:
    with pytest.raises(ConfigError, match="no recording with spike tokens"):
        Ndt3Task(CONFIG, MemorySpikeTokens([], []))
    twice = MemorySpikeTokens([*SOURCE.recordings] * 2, [*SOURCE.tokens] * 2)
    with pytest.raises(ConfigError, match="occurs twice"):
        Ndt3Task(CONFIG, twice)


def test_a_budget_below_one_bin_is_refused_and_the_smallest_one_trains(tmp_path: Path) -> None:
    smallest = 1 + 1 + 2 * 2  # 24 units are one patch; a return; two covariates, each with a constraint
    with pytest.raises(ConfigError, match=rf"set train\.token_budget to {smallest} or more"):
        run(tmp_path / "refused", token_budget=smallest - 1)
    assert not (tmp_path / "refused").exists()
    result = run(tmp_path / "trained", token_budget=smallest, max_steps=1, ridge=None)
    assert result.validation is not None
    assert result.validation.n_covariate == 2 * 11  # the first bin of each of 11 held-out chunks


@pytest.mark.slow
def test_two_ranks_agree_with_one_on_held_out_chunks(tmp_path: Path) -> None:
    call = "from test_ndt3_task import run\nrun(Path(sys.argv[1]), devices=2, strategy='ddp', max_steps=6)"
    done = on_two_ranks(tmp_path / "two_ranks.py", call, str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    run(tmp_path / "one", max_steps=6)
    assert lines(tmp_path / "two", "baseline") == lines(tmp_path / "one", "baseline")
    held_out = [lines(tmp_path / name, "validation")[0]["n_covariate"] for name in ("one", "two")]
    assert held_out[0] == held_out[1]
