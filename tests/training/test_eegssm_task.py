"""EEGSSM learns the codes of hidden patches, is resumed, and refuses what cannot be."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from neuromill.models.eegssm import EEGSSM
from neuromill.models.eegssm_config import EEGSSMConfig
from neuromill.models.files import from_pretrained
from neuromill.records import ConfigError
from neuromill.training.coded_signals import MemoryCodedSignals
from neuromill.training.eegssm_config import EEGSSMOptimConfig, EEGSSMTrainConfig, PatchWindowConfig
from neuromill.training.eegssm_metrics import CodesScores
from neuromill.training.eegssm_task import EEGSSMTask, summary, train_eegssm
from neuromill.training.loop import TrainResult
from neuromill.training.task import Place
from support.coded import HOP, coded
from support.training_runs import InterruptedRunError, interrupt_at, lines, on_two_ranks, weights

MODEL = EEGSSMConfig(
    patch_size=HOP, res_channels=16, skip_channels=16, out_channels=16, num_res_layers=2, drop_prob=0.0, s4_lmax=64,
    spectral_dropout=0.0, pos_kernel=(3, 3),
)  # fmt: skip
CONFIG = EEGSSMTrainConfig(
    model=MODEL,
    windows=PatchWindowConfig(window_patches=12),
    optim=EEGSSMOptimConfig(lr=1e-2, warmup_steps=3),
    epochs=4,
    max_steps=14,
    batch_size=2,
    accumulate_batches=1,
    log_every_steps=4,
    validate_every_steps=7,
    checkpoint_every_steps=5,
    keep_checkpoints=None,
    accelerator="cpu",
    cpu_threads=1,
)
TRAIN, HELD_OUT = coded("a", "b", "c", "d"), coded("z", seed=1)


def run(
    folder: Path,
    *,
    train: MemoryCodedSignals = TRAIN,
    held_out: MemoryCodedSignals | None = HELD_OUT,
    stop_at: int | None = None,
    **changes: object,
) -> TrainResult[CodesScores]:
    config = EEGSSMTrainConfig.model_validate(CONFIG.model_copy(update=changes).model_dump())
    return train_eegssm(config, train, held_out, folder, on_step=interrupt_at(stop_at))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder


def test_it_learns_what_the_seen_patches_tell(tmp_path: Path) -> None:
    source = coded(*(f"s{number}" for number in range(16)), n_frames=48, size=5)
    every = {"checkpoint_every_steps": 180, "validate_every_steps": 180, "log_every_steps": 180}
    result = run(
        tmp_path, train=source, held_out=coded("z", n_frames=96, size=5, seed=1), epochs=100, max_steps=180,
        batch_size=8, optim=EEGSSMOptimConfig(lr=3e-3, warmup_steps=5), **every,
    )  # fmt: skip
    assert result.validation is not None
    # Where all three channels are hidden (an eighth) nothing can be known.
    for right, commonest in zip(result.validation.per_quantizer, result.validation.commonest, strict=True):
        assert right > commonest + 0.15
    (baseline,) = result.baselines
    assert baseline["name"] == "frequencies"
    assert result.validation.loss < 0.85 * baseline["loss"]
    assert all(
        known <= most for known, most in zip(baseline["per_quantizer"], result.validation.commonest, strict=True)
    )
    assert summary(result).count("(commonest ") == 2


@pytest.mark.parametrize(("size", "n_quantizers"), [(4096, 2), (8, 2), (300, 1), (16, 3)])
def test_an_untrained_model_knows_nothing(tmp_path: Path, size: int, n_quantizers: int) -> None:
    source = coded("a", "b", size=size, n_quantizers=n_quantizers)
    result = run(tmp_path, train=source, held_out=None, max_steps=1)
    chance = n_quantizers * math.log(size)  # 16.64 for 2 x 4,096
    assert result.first_loss == pytest.approx(chance, abs=0.5 * n_quantizers)
    model = from_pretrained(result.model_folder, EEGSSM)
    logits = model(torch.zeros(1, 3, 2 * HOP))
    assert [one.shape for one in logits] == [(1, 3, 2, size)] * n_quantizers


def test_the_saved_model_opens_with_its_own_loader_and_takes_a_classifier(undisturbed: Path) -> None:
    ours, own = from_pretrained(undisturbed / "model", EEGSSM), EEGSSM.from_pretrained(undisturbed / "model")
    torch.testing.assert_close(ours.state_dict(), own.state_dict(), rtol=0, atol=0)
    tuned = EEGSSM.from_pretrained(undisturbed / "model", n_outputs=3)
    assert tuned(torch.zeros(2, 5, 4 * HOP)).shape == (2, 3)


def test_many_heads_are_saved_and_go_for_a_classifier(tmp_path: Path) -> None:
    result = run(tmp_path, train=coded("a", "b", n_quantizers=3), held_out=None, max_steps=1)
    own = EEGSSM.from_pretrained(result.model_folder)
    assert [one.out_features for one in own.lm_heads] == [8, 8, 8]
    tuned = EEGSSM.from_pretrained(result.model_folder, n_outputs=3)
    assert tuned(torch.zeros(2, 5, 4 * HOP)).shape == (2, 3)
    own.reset_head(2)
    assert own(torch.zeros(2, 5, 4 * HOP)).shape == (2, 2)


# Targets


def test_only_hidden_patches_that_are_fit_for_use_are_targets() -> None:
    source = coded("a", "b")
    source.fit_for_use[0][1] = False  # a bad channel
    source.fit_for_use[1][:, :12] = False  # a rejected window: no window of training
    task = EEGSSMTask(CONFIG, source, None)
    loader = task.train_loader(Place())
    shares = []
    for epoch in range(20):
        for batch in loader.epoch(epoch):
            signal = batch.signal().view(*batch.hidden.shape, HOP)
            for row, one in enumerate(batch.ids):
                number = int(one.subject == "b")
                usable = source.usable(number, one.start, one.stop)
                whole = source.signals[number].reshape(3, -1, HOP)[:, one.start : one.stop]
                hidden = batch.hidden[row].numpy()
                assert not (hidden & ~usable).any()
                np.testing.assert_array_equal(signal[row].numpy(), np.where(usable[..., None], whole, 0))
                codes = source.codes[number][one.start : one.stop].transpose(2, 0, 1)
                np.testing.assert_array_equal(batch.codes[row].numpy(), codes)
                shares.append(hidden[usable].mean())
                assert (one.subject, one.start) != ("b", 0)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)


def test_what_cannot_be_used_looks_like_what_is_hidden() -> None:
    model = EEGSSM(MODEL.model_copy(update={"pretrain_mode": True})).eval()
    x, mask = torch.randn(1, 3, 4 * HOP), torch.zeros(1, 3, 4, dtype=torch.bool)
    mask[0, 1] = True
    silent = x.clone()
    silent[0, 1] = 0
    torch.testing.assert_close(model.features(x, mask), model.features(silent), rtol=0, atol=0)


def test_losses_are_those_of_the_hidden_patches_counted_by_hand() -> None:
    source = coded("a", "b", dataset="one")
    task = EEGSSMTask(CONFIG, source, None)
    torch.manual_seed(0)
    model = task.build_model().eval()
    (batch,) = task.train_loader(Place()).epoch(0, 0, 1)
    outcome = task.outcome(model, batch)
    whole = [one.double().log_softmax(-1) for one in model(batch.signal())]  # nothing hidden: other numbers
    masked = [one.double().log_softmax(-1) for one in model(batch.signal(), batch.hidden)]
    places = batch.hidden.nonzero().tolist()
    by_hand, right = [0.0, 0.0], [0, 0]
    for number, (window, channel, patch) in enumerate(places):
        for q in range(2):
            code = int(batch.codes[window, channel, patch, q])
            by_hand[q] -= masked[q][number, code].item()
            right[q] += int(masked[q][number].argmax()) == code
    assert outcome.losses.tolist() == pytest.approx(by_hand, rel=1e-5)
    assert outcome.loss.item() == pytest.approx(sum(by_hand) / len(places), rel=1e-5)
    assert outcome.correct.tolist() == [right]
    assert outcome.positions.tolist() == [len(places)]
    assert (whole[0][batch.hidden] - masked[0]).abs().max() > 1e-3


def test_a_batch_without_hidden_patches_changes_nothing() -> None:
    task = EEGSSMTask(CONFIG, TRAIN, None)
    model = task.build_model()
    (batch,) = task.train_loader(Place()).epoch(0, 0, 1)
    outcome = task.outcome(model, replace(batch, hidden=torch.zeros_like(batch.hidden)))
    outcome.loss.backward()
    assert outcome.loss.item() == 0
    assert all(one.grad is None or not one.grad.any() for one in model.parameters())


# Runs


@pytest.mark.parametrize("stop_at", [2, 7])
def test_an_interrupted_run_ends_as_an_undisturbed_one(undisturbed: Path, tmp_path: Path, stop_at: int) -> None:
    with pytest.raises(InterruptedRunError):
        run(tmp_path, stop_at=stop_at)
    assert run(tmp_path, loader_threads=1).resumed_from == stop_at // 5 * 5
    assert lines(tmp_path) == lines(undisturbed)
    assert weights(tmp_path) == weights(undisturbed)


def test_lines_of_metrics(undisturbed: Path) -> None:
    assert [row["name"] for row in lines(undisturbed, "baseline")] == ["frequencies"]
    held_out = lines(undisturbed, "validation")
    assert [row["step"] for row in held_out] == [7, 14]
    assert held_out[0]["commonest"] == held_out[1]["commonest"]  # the same patches are hidden every time
    assert held_out[0]["positions"] == lines(undisturbed, "baseline")[0]["positions"]
    for row in held_out:
        assert row["loss"] == pytest.approx(sum(row["losses"]))
        assert row["per_dataset"] == {"demo": row["per_quantizer"]}


def test_rejecting_more_is_another_run(tmp_path: Path) -> None:
    run(tmp_path, max_steps=2)
    fewer = coded("a", "b", "c", "d")
    fewer.fit_for_use[2][:, 12:] = False
    with pytest.raises(ConfigError, match="train_windows"):
        run(tmp_path, train=fewer, max_steps=2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"parity": True}, 1e-5 + 9e-5 * 0.5 * (1 + math.cos(math.pi * 10 / 40))),  # published: falls by 13 %
        ({"cosine_epochs": 20, "parity": True}, 1e-5 + 9e-5 * 0.5),
        ({"parity": False}, 1e-5),
    ],
)
def test_the_cosine_has_the_length_it_is_given(changes: dict[str, object], expected: float) -> None:
    config = EEGSSMTrainConfig(model=MODEL, windows=CONFIG.windows, batch_size=1, accumulate_batches=1, **changes)
    task = EEGSSMTask(config, TRAIN, None)
    steps = config.epochs * len(task.train_loader(Place()))
    assert task.learning_rate(steps, steps) == pytest.approx(expected)
    assert (task.learning_rate(0, steps) == 1e-4) is config.parity


def test_defaults_are_the_published_ones() -> None:
    config = EEGSSMTrainConfig()
    assert (config.optim.lr, config.optim.weight_decay, config.optim.clip_norm) == (1e-4, 5e-3, 5.0)
    assert config.batch_size * config.accumulate_batches == 256
    assert (config.epochs, config.mask_share, config.precision) == (10, 0.5, "32-true")
    assert config.optim.lr * config.optim.final_lr_share == pytest.approx(1e-5)
    only_lr = EEGSSMTrainConfig.model_validate({"optim": {"lr": 1e-3}, "windows": {"window_patches": 5}})
    assert (only_lr.optim.weight_decay, only_lr.windows.in_frames.min_frames) == (5e-3, 5)


def test_under_parity_a_window_is_whole_or_left_out() -> None:
    source = coded("a")
    source.fit_for_use[0][:, 3] = False
    assert len(EEGSSMTask(CONFIG, source, None).train_loader(Place()).windows) == 2
    parity = CONFIG.model_copy(update={"parity": True})
    (window,) = EEGSSMTask(parity, source, None).train_loader(Place()).windows
    assert (window.start, window.stop) == (12, 24)


# What is refused


def test_what_does_not_fit_together() -> None:
    with pytest.raises(
        ConfigError, match=r"has 50 samples, a patch of the model 200.*set train\.model\.patch_size to 50"
    ):
        EEGSSMTask(CONFIG.model_copy(update={"model": EEGSSMConfig()}), TRAIN, None)
    with pytest.raises(ConfigError, match="demo/a"):
        EEGSSMTask(CONFIG, TRAIN, coded("a"))
    with pytest.raises(ConfigError, match="codes differ"):
        EEGSSMTask(CONFIG, TRAIN, coded("z", size=9))
    with pytest.raises(ConfigError, match="both a prepared signal and codes"):
        EEGSSMTask(CONFIG, MemoryCodedSignals([], [], [], []), None)
    nothing = coded("a")
    nothing.fit_for_use[0][:] = False
    with pytest.raises(ConfigError, match="every window is rejected"):
        EEGSSMTask(CONFIG, nothing, None)


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValidationError, match="n_outputs is for"):
        EEGSSMTrainConfig(model=EEGSSMConfig(n_outputs=2))
    with pytest.raises(ValidationError, match="ends before epoch 10"):
        EEGSSMTrainConfig(cosine_epochs=5)


class Unread(MemoryCodedSignals):
    """Signals whose codes are not to be counted."""

    def code_counts(self) -> np.ndarray:
        """Fail."""
        pytest.fail("read all training codes")


def test_training_codes_are_counted_by_the_rank_that_writes() -> None:
    training = coded("a", "b")
    unread = Unread(training.recordings, training.signals, training.codes, training.fit_for_use)
    reduced = []

    def all_reduce(counts: torch.Tensor, *, reduce_op: str) -> torch.Tensor:
        reduced.append(reduce_op)
        return counts

    fabric = SimpleNamespace(
        global_rank=1, world_size=2, is_global_zero=False, device=torch.device("cpu"), all_reduce=all_reduce
    )
    assert EEGSSMTask(CONFIG, unread, coded("z")).baselines(fabric) == []
    assert reduced == ["sum"]  # the ranks' counts are still summed: one that stays away hangs the other


@pytest.mark.slow
def test_two_ranks_see_the_held_out_patches_of_one(tmp_path: Path) -> None:
    call = "from test_eegssm_task import run\nrun(Path(sys.argv[1]), devices=2, strategy='ddp', max_steps=6)"
    done = on_two_ranks(tmp_path / "two_ranks.py", call, str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    run(tmp_path / "one", max_steps=6)
    assert lines(tmp_path / "two", "baseline") == lines(tmp_path / "one", "baseline")
    held_out = [lines(tmp_path / name, "validation")[0] for name in ("one", "two")]
    assert held_out[0]["positions"] == held_out[1]["positions"]
    assert held_out[0]["commonest"] == held_out[1]["commonest"]
