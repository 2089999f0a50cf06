"""The trainer: plain torch, with Fabric for devices, precision and ranks. It knows no model; a task brings that."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import torch
from lightning_fabric import Fabric

from neuromill.models.files import save_pretrained
from neuromill.records import ConfigError, NeuroMillError
from neuromill.training.best import BestValidation
from neuromill.training.checkpoints import RunState, latest_checkpoint, load_state, restore, save_checkpoint
from neuromill.training.config import FREE_SETTINGS
from neuromill.training.metrics import MetricsFile
from neuromill.training.schedule import step_seed
from neuromill.training.task import TEST, B, HasTest, O, Place, S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neuromill.training.config import RunConfig
    from neuromill.training.task import Loader, Tally, Task

BEST = "best"  # folder of the best weights of a run


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands; ``loss`` is the last one logged."""

    step: int
    total_steps: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class TrainResult(Generic[S]):
    """What a run came to.

    Attributes
    ----------
    model_folder
        The trained model, for :func:`neuromill.models.files.from_pretrained`.
    metrics_file
        One JSON object per line.
    first_loss, last_loss
        Of the first step, and the mean since the last but one logged line.
    resumed_from
        Step of the checkpoint the run continued from, 0 for a fresh run.
    validation
        Of the weights that are the model: of the last step, or the best; None without validation recordings.
    baselines
        Lines of kind "baseline" beside the validation.
    test, test_baselines
        The same for the test data, if the task has any.
    model_step
        Step that the weights of the model are of.
    device, precision, world_size
        What it was computed on and in: "cpu" or "cuda", what "auto" came to, number of ranks.
    """

    model_folder: Path
    metrics_file: Path
    steps: int
    first_loss: float
    last_loss: float
    resumed_from: int
    validation: S | None
    baselines: tuple[dict[str, Any], ...]
    device: str
    precision: str
    world_size: int
    test: S | None = None
    test_baselines: tuple[dict[str, Any], ...] = ()
    model_step: int = 0


def train(task: Task[B, O, S], folder: Path, *, on_step: Callable[[Progress], None] | None = None) -> TrainResult[S]:
    """Train the model of a task, or continue the run that ``folder`` holds.

    Parameters
    ----------
    task
        Model, data and scores.
    folder
        Gets ``metrics.jsonl``, ``checkpoints/`` and, at the end, ``model/``.
    on_step
        Called after each step on the first rank.

    Raises
    ------
    ConfigError
        ``folder`` holds another run, or whatever the task refuses.
    NeuroMillError
        The loss or the gradient is not finite.
    """
    fabric = make_fabric(task.config)
    fabric.launch()
    if fabric.world_size > 1:
        torch.set_num_threads(task.config.cpu_threads)  # launching shares the cores of the machine out among the ranks
    with torch.random.fork_rng([fabric.device] if fabric.device.type == "cuda" else []):
        return _Run(task, fabric, folder).run(on_step)


def make_fabric(config: RunConfig) -> Fabric:
    """Devices and precision of a run."""
    precision: Any = resolve_precision(config)
    return Fabric(accelerator=config.accelerator, devices=config.devices, strategy=config.strategy, precision=precision)


def resolve_precision(config: RunConfig) -> str:
    """Precision on this machine: "auto" is bf16 autocast on a GPU, float32 elsewhere."""
    if config.precision != "auto":
        return config.precision
    on_gpu = config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu else "32-true"


class _Run(Generic[B, O, S]):
    def __init__(self, task: Task[B, O, S], fabric: Fabric, folder: Path) -> None:
        self.task, self.config, self.fabric, self.folder = task, task.config, fabric, folder
        self.place = place = Place(fabric.global_rank, fabric.world_size, pin_memory=fabric.device.type == "cuda")
        self.train_loader = task.train_loader(place)
        self.validation_loader = task.validation_loader(place)
        _require_validation(self.config, there=self.validation_loader is not None)
        self.batches_per_epoch = len(self.train_loader)
        steps_per_epoch = -(-self.batches_per_epoch // self.config.accumulate_batches)
        self.total_steps = min(self.config.epochs * steps_per_epoch, self.config.max_steps or 2**63)
        self.settings = {"config": _named_settings(self.config), **task.settings()}
        torch.manual_seed(self.config.seed)
        self.model = task.build_model()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.config.optim.lr,
            betas=self.config.optim.betas,
            weight_decay=self.config.optim.weight_decay,
        )
        self.metrics = MetricsFile(folder / "metrics.jsonl")
        self.best = BestValidation(folder / BEST, self.config, writes=fabric.is_global_zero)
        self.step, self.epoch, self.batch = 0, 0, 0
        self.logged_loss: float | None = None

    def run(self, on_step: Callable[[Progress], None] | None) -> TrainResult[S]:
        self.wrapped, self.wrapped_optimizer = self.fabric.setup(self.model, self.optimizer)
        resumed_from = self._resume()  # after the move to the device: the optimiser's state follows its parameters
        self._write_baselines()
        self.wrapped.train()
        self._new_tally()
        if self._is_over() and self.batch:
            self._end_epoch()  # killed after the last step: an undisturbed run ends its epoch before the lines below
        while not self._is_over():
            limit = (self.total_steps - self.step) * self.config.accumulate_batches
            for batch in self.train_loader.epoch(self.epoch, self.batch, limit):
                if not self._learn(batch.to(self.fabric.device)):
                    continue
                self._after_step()
                if on_step is not None and self.fabric.is_global_zero:
                    on_step(Progress(self.step, self.total_steps, self.logged_loss))
                if self._is_over():
                    break
            self._end_epoch()
        self._choose_weights()
        self._test()
        return self._result(resumed_from)

    def _end_epoch(self) -> None:
        self.epoch, self.batch = self.epoch + 1, 0

    def _is_over(self) -> bool:
        """Whether all steps are made, or validation has not become better for too long."""
        return self.step >= self.total_steps or self.best.patience_is_over

    @property
    def model_step(self) -> int:
        """Step that the weights of the model are of."""
        chosen = self.best.step if self.config.keep == "best" else None
        return self.step if chosen is None else chosen

    def _resume(self) -> int:
        checkpoint = latest_checkpoint(self.folder / "checkpoints")
        if checkpoint is not None:
            state = load_state(checkpoint)
            self._check_same_run(state, checkpoint)
            restore(checkpoint, self.model, self.optimizer)
            self.step, self.epoch, self.batch = state.step, state.epoch, state.batch
        if self.fabric.is_global_zero:
            self.metrics.rewind(self.step)
        self.fabric.barrier()
        self.best.replay(row for row in self.metrics.rows() if row["kind"] == "validation")
        return self.step

    def _check_same_run(self, state: RunState, checkpoint: Path) -> None:
        # An option that is younger than the checkpoint had its default then.
        config = _named_settings(type(self.config)()) | state.settings.get("config", {})
        changed = sorted(_differences(state.settings | {"config": config}, self.settings))
        if state.world_size != self.fabric.world_size:
            changed.append(f"number of ranks ({state.world_size})")
        if changed:
            raise ConfigError(
                f"the folder holds a run with other settings: {', '.join(changed)}",
                where=str(checkpoint),
                next_step="train into another folder, or go back to those settings to continue",
            )

    def _write_baselines(self) -> None:
        """Baselines are lines of step 0, so they outlive every rewind and are made once per run."""
        known = self.fabric.broadcast(any(row["kind"] == "baseline" for row in self.metrics.rows()))
        rows = () if known or self._is_over() else self.task.baselines(self.fabric)
        for row in rows if self.fabric.is_global_zero else ():
            self.metrics.append({"kind": "baseline", "step": 0, "epoch": 0, **row})

    def _learn(self, batch: B) -> bool:
        """Take a batch in; whether it completed a step."""
        group, inside = divmod(self.batch, self.config.accumulate_batches)
        first = group * self.config.accumulate_batches
        size = min(self.config.accumulate_batches, self.batches_per_epoch - first)
        last = inside == size - 1
        if inside == 0:
            torch.manual_seed(step_seed(self.config.seed, self.step, self.fabric.global_rank))
            self.wrapped_optimizer.zero_grad()
        with self.fabric.no_backward_sync(self.wrapped, enabled=not last):
            outcome = self.task.outcome(self.wrapped, batch)
            self.fabric.backward(outcome.loss if size == 1 else outcome.loss / size)
        self.tally.add(outcome)
        self.batch += 1
        if last:
            self._step()
        return last

    def _step(self) -> None:
        self.lr = self.task.learning_rate(self.step, self.total_steps)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.lr
        self.grad_norm = self.fabric.clip_gradients(
            self.wrapped, self.wrapped_optimizer, max_norm=self.config.optim.clip_norm, error_if_nonfinite=False
        )
        self.wrapped_optimizer.step()
        self.step += 1

    def _after_step(self) -> None:
        config, last = self.config, self.step == self.total_steps
        checkpoint = last or self.step % config.checkpoint_every_steps == 0
        # A checkpoint always closes a line of metrics: a run that continues from it writes the same lines after it.
        logged = checkpoint or self.step == 1 or self.step % config.log_every_steps == 0
        if logged:
            self._log()
        if self.validation_loader is not None and (last or self.step % config.validate_every_steps == 0):
            scores = self._score("validation", self.validation_loader, self.config.validation_batches)
            self.best.offer({"step": self.step, **scores.row()}, self.model)
        if self.best.patience_is_over and not logged:
            self._log()
        if checkpoint or self.best.patience_is_over:
            self._save()

    def _log(self) -> None:
        scores = self.tally.scores(self.fabric)
        if not math.isfinite(scores.loss) or not bool(torch.isfinite(torch.as_tensor(self.grad_norm))):
            raise NeuroMillError(
                f"training diverged: loss {scores.loss}, gradient norm {float(self.grad_norm or math.nan)}",
                where=f"step {self.step}",
                next_step="lower optim.lr or raise optim.warmup_steps; the last checkpoint is from before",
            )
        self.logged_loss = scores.loss
        seconds = round(time.perf_counter() - self.since, 3)
        self._write("train", scores, lr=self.lr, grad_norm=float(self.grad_norm or 0.0), seconds=seconds)
        self._new_tally()

    def _choose_weights(self) -> None:
        """Take the best weights where they are the model, and note of which step they are."""
        if self.config.keep == "last":
            return
        self.best.load_into(self.model)
        known = any(row["kind"] == "model" for row in self.metrics.rows())
        if self.fabric.is_global_zero and not known:
            found = {"weights_of_step": self.model_step, "best_by": self.config.best_by, "score": self.best.score}
            self.metrics.append({"kind": "model", "step": self.step, "epoch": self.epoch, **found})
        self.fabric.barrier()

    def _test(self) -> None:
        """Score the test data, once: a run that was killed right after this has the line already."""
        loader = self.task.test_loader(self.place) if isinstance(self.task, HasTest) else None
        rows = self.metrics.rows()
        known = self.fabric.broadcast(any(row["kind"] == TEST and row["step"] == self.step for row in rows))
        if loader is not None and not known:
            self._score(TEST, loader, None)

    def _score(self, kind: str, loader: Loader[B], limit: int | None) -> S:
        started = time.perf_counter()
        tally = self.task.new_tally(self.fabric.device)
        self.wrapped.eval()
        with torch.no_grad(), self.fabric.autocast():
            # Not through the wrapper: ranks may have different numbers of held-out batches.
            for held_out in loader.epoch(0, limit=limit):
                tally.add(self.task.outcome(self.model, held_out.to(self.fabric.device)))
        self.wrapped.train()
        scores = tally.scores(self.fabric)
        self._write(kind, scores, seconds=round(time.perf_counter() - started, 3))
        self.since = time.perf_counter()
        return scores

    def _save(self) -> None:
        batches = self.batches_per_epoch
        state = RunState(
            step=self.step,
            epoch=self.epoch + self.batch // batches,
            batch=self.batch % batches,
            world_size=self.fabric.world_size,
            settings=self.settings,
        )
        if self.fabric.is_global_zero:
            folder = self.folder / "checkpoints"
            save_checkpoint(folder, self.model, self.optimizer, state, keep=self.config.keep_checkpoints)
            self.best.prune()
        self.fabric.barrier()

    def _write(self, kind: str, scores: S, **extra: float) -> None:
        if self.fabric.is_global_zero:
            self.metrics.append({"kind": kind, "step": self.step, "epoch": self.epoch, **scores.row(), **extra})

    def _new_tally(self) -> None:
        self.tally: Tally[O, S] = self.task.new_tally(self.fabric.device)
        self.since = time.perf_counter()

    def _result(self, resumed_from: int) -> TrainResult[S]:
        if self.fabric.is_global_zero:
            save_pretrained(self.model, self.folder / "model")
        self.fabric.barrier()
        rows = self.metrics.rows()
        losses = [row["loss"] for row in rows if row["kind"] == "train"]
        validation, test = ([row for row in rows if row["kind"] == kind] for kind in ("validation", TEST))
        of_model = [row for row in validation if row["step"] == self.model_step]
        baselines = [row for row in rows if row["kind"] == "baseline"]
        return TrainResult(
            model_folder=self.folder / "model",
            metrics_file=self.metrics.path,
            steps=self.step,
            first_loss=losses[0],
            last_loss=losses[-1],
            resumed_from=resumed_from,
            validation=self.task.scores_of((of_model or validation)[-1]) if validation else None,
            baselines=tuple(row for row in baselines if row.get("split") != TEST),
            test=self.task.scores_of(test[-1]) if test else None,
            test_baselines=tuple(row for row in baselines if row.get("split") == TEST),
            device=self.fabric.device.type,
            precision=resolve_precision(self.config),
            world_size=self.fabric.world_size,
            model_step=self.model_step,
        )


def _require_validation(config: RunConfig, *, there: bool) -> None:
    if not there and (config.keep == "best" or config.patience is not None):
        raise ConfigError(
            "nothing is held out, so no validation is the best",
            where="train.keep, train.patience",
            next_step="hold subjects or blocks of time out (`splits` of the card), or take keep: last without patience",
        )


def _named_settings(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=set(FREE_SETTINGS))


def _differences(old: Any, new: Any, at: str = "") -> set[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = old.keys() | new.keys()
        return set().union(*(_differences(old.get(k), new.get(k), f"{at}.{k}" if at else k) for k in keys))
    return set() if old == new else {at}
