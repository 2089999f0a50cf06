"""The training loop: plain torch, with Fabric for devices, precision and ranks."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric

from neuromill.models.criss_cross import CrissCross
from neuromill.models.files import save_pretrained
from neuromill.records import ConfigError, Digest, NeuroMillError, canonical_json
from neuromill.training.checkpoints import RunState, latest_checkpoint, load_state, restore, save_checkpoint
from neuromill.training.config import FREE_SETTINGS
from neuromill.training.loader import BatchLoader, LoaderConfig
from neuromill.training.metrics import MetricsFile, Scores, Tally
from neuromill.training.objective import masked_prediction
from neuromill.training.schedule import learning_rate, step_seed
from neuromill.training.tokens import check_leakage, check_tokens
from neuromill.training.windows import plan_windows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from neuromill.training.config import TrainConfig
    from neuromill.training.loader import TokenBatch
    from neuromill.training.tokens import TokenSource


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands; ``loss`` is the last one logged."""

    step: int
    total_steps: int
    loss: float | None


@dataclass(frozen=True, slots=True)
class TrainResult:
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
        Of the last step; None without validation recordings.
    device, precision, world_size
        What it was computed on and in: "cpu" or "cuda", what "auto" came to, number of ranks.
    """

    model_folder: Path
    metrics_file: Path
    steps: int
    first_loss: float
    last_loss: float
    resumed_from: int
    validation: Scores | None
    device: str
    precision: str
    world_size: int


def train(
    config: TrainConfig,
    train_tokens: TokenSource,
    validation_tokens: TokenSource | None,
    codebooks: NDArray[np.float32],
    folder: Path,
    *,
    on_step: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a criss-cross transformer on tokens, or continue the run that ``folder`` holds.

    Parameters
    ----------
    config
        Settings of the run.
    train_tokens, validation_tokens
        Recordings to learn from and held-out ones; they share no subject.
    codebooks
        float32 [quantizer, code, codebook_dim] of the tokenizer that made the codes.
    folder
        Gets ``metrics.jsonl``, ``checkpoints/`` and, at the end, ``model/``.
    on_step
        Called after each step on the first rank.

    Raises
    ------
    ConfigError
        A subject is on both sides of the split, sizes do not fit, or ``folder`` holds another run.
    """
    check_tokens(train_tokens.recordings, config.model.n_quantizers)
    if validation_tokens is not None:
        check_tokens(validation_tokens.recordings, config.model.n_quantizers)
        check_leakage(train_tokens.recordings, validation_tokens.recordings)
    fabric = make_fabric(config)
    fabric.launch()
    if fabric.world_size > 1:
        torch.set_num_threads(config.cpu_threads)  # launching shares the cores of the machine out among the ranks
    with torch.random.fork_rng([fabric.device] if fabric.device.type == "cuda" else []):
        run = _Run(
            config,
            fabric,
            folder,
            train_tokens=train_tokens,
            validation_tokens=validation_tokens,
            codebooks=codebooks,
        )
        return run.run(on_step)


def make_fabric(config: TrainConfig) -> Fabric:
    """Devices and precision of a run."""
    precision: Any = resolve_precision(config)
    return Fabric(accelerator=config.accelerator, devices=config.devices, strategy=config.strategy, precision=precision)


def resolve_precision(config: TrainConfig) -> str:
    """Precision on this machine: "auto" is bf16 autocast on a GPU, float32 elsewhere."""
    if config.precision != "auto":
        return config.precision
    on_gpu = config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu else "32-true"


class _Run:
    def __init__(
        self,
        config: TrainConfig,
        fabric: Fabric,
        folder: Path,
        *,
        train_tokens: TokenSource,
        validation_tokens: TokenSource | None,
        codebooks: NDArray[np.float32],
    ) -> None:
        self.config, self.fabric, self.folder = config, fabric, folder
        self.parity = config.model.parity
        self.train_loader = self._loader(train_tokens, shuffle=True)
        self.validation_loader = None if validation_tokens is None else self._loader(validation_tokens, shuffle=False)
        everything = (train_tokens, *([] if validation_tokens is None else [validation_tokens]))
        self.datasets = sorted({r.dataset for tokens in everything for r in tokens.recordings})
        self.total_steps = min(config.epochs * len(self.train_loader), config.max_steps or 2**63)
        self.settings = self._settings(codebooks)
        torch.manual_seed(config.seed)
        self.model = CrissCross(config.model, torch.from_numpy(codebooks))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.optim.lr,
            betas=config.optim.betas,
            weight_decay=config.optim.weight_decay,
        )
        self.metrics = MetricsFile(folder / "metrics.jsonl")
        self.step, self.epoch, self.batch = 0, 0, 0
        self.logged_loss: float | None = None

    def run(self, on_step: Callable[[Progress], None] | None) -> TrainResult:
        self.wrapped, self.wrapped_optimizer = self.fabric.setup(self.model, self.optimizer)
        resumed_from = self._resume()  # after the move to the device: the optimiser's state follows its parameters
        self.wrapped.train()
        self._new_tally()
        while self.step < self.total_steps:
            for batch in self.train_loader.epoch(self.epoch, self.batch, self.total_steps - self.step):
                self._learn(batch.to(self.fabric.device))
                self._after_step()
                if on_step is not None and self.fabric.is_global_zero:
                    on_step(Progress(self.step, self.total_steps, self.logged_loss))
            self.epoch, self.batch = self.epoch + 1, 0
        return self._result(resumed_from)

    def _loader(self, tokens: TokenSource, *, shuffle: bool) -> BatchLoader:
        windows = self.config.windows
        if self.parity:  # rests are dropped, windows do not overlap, and the grid is the published one
            windows = windows.model_copy(update={"min_frames": windows.window_frames, "stride_frames": None})
            _check_published_mask(self.config)
        loader_config = LoaderConfig(
            window_frames=windows.window_frames,
            batch_size=self.config.batch_size,
            masking=self.config.masking,
            seed=self.config.seed,
            parity=self.parity,
            threads=self.config.loader_threads,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
            shuffle=shuffle,
            mask_epoch=None if shuffle else 0,
        )
        pin = self.fabric.device.type == "cuda"
        return BatchLoader(tokens, plan_windows(tokens.recordings, windows), loader_config, pin_memory=pin)

    def _settings(self, codebooks: NDArray[np.float32]) -> dict[str, Any]:
        data = [[r.name, r.n_frames, r.n_channels] for r in self.train_loader.source.recordings]
        return {
            "config": self.config.model_dump(mode="json", exclude=set(FREE_SETTINGS)),
            "recordings": Digest.of(canonical_json(data)).hex,
            "codebooks": Digest.of(codebooks.tobytes()).hex,
        }

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
        return self.step

    def _check_same_run(self, state: RunState, checkpoint: Path) -> None:
        changed = sorted(_differences(state.settings, self.settings))
        if state.world_size != self.fabric.world_size:
            changed.append(f"number of ranks ({state.world_size})")
        if changed:
            raise ConfigError(
                f"the folder holds a run with other settings: {', '.join(changed)}",
                where=str(checkpoint),
                next_step="train into another folder, or go back to those settings to continue",
            )

    def _learn(self, batch: TokenBatch) -> None:
        torch.manual_seed(step_seed(self.config.seed, self.step, self.fabric.global_rank))
        self.lr = learning_rate(self.config.optim, self.step, self.total_steps, parity=self.parity)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        outcome = masked_prediction(self.wrapped, batch, self._owners(batch), len(self.datasets))
        self.wrapped_optimizer.zero_grad()
        self.fabric.backward(outcome.loss)
        self.grad_norm = self.fabric.clip_gradients(
            self.wrapped, self.wrapped_optimizer, max_norm=self.config.optim.clip_norm, error_if_nonfinite=False
        )
        self.wrapped_optimizer.step()
        self.tally.add(outcome)
        self.step, self.batch = self.step + 1, self.batch + 1

    def _after_step(self) -> None:
        config, last = self.config, self.step == self.total_steps
        checkpoint = last or self.step % config.checkpoint_every_steps == 0
        # A checkpoint always closes a line of metrics: a run that continues from it writes the same lines after it.
        if checkpoint or self.step == 1 or self.step % config.log_every_steps == 0:
            self._log()
        if self.validation_loader is not None and (last or self.step % config.validate_every_steps == 0):
            self._validate(self.validation_loader)
        if checkpoint:
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

    def _validate(self, loader: BatchLoader) -> None:
        started = time.perf_counter()
        tally = Tally(self.datasets, self.config.model.n_quantizers, self.fabric.device)
        self.wrapped.eval()
        with torch.no_grad(), self.fabric.autocast():
            # Not through the wrapper: ranks may have different numbers of held-out batches.
            for held_out in loader.epoch(0, limit=self.config.validation_batches):
                batch = held_out.to(self.fabric.device)
                tally.add(masked_prediction(self.model, batch, self._owners(batch), len(self.datasets)))
        self.wrapped.train()
        self._write("validation", tally.scores(self.fabric), seconds=round(time.perf_counter() - started, 3))
        self.since = time.perf_counter()

    def _save(self) -> None:
        batches = len(self.train_loader)
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
        self.fabric.barrier()

    def _write(self, kind: str, scores: Scores, **extra: float) -> None:
        if self.fabric.is_global_zero:
            self.metrics.append({"kind": kind, "step": self.step, "epoch": self.epoch, **asdict(scores), **extra})

    def _owners(self, batch: TokenBatch) -> torch.Tensor:
        return torch.tensor([self.datasets.index(i.dataset) for i in batch.ids], device=self.fabric.device)

    def _new_tally(self) -> None:
        self.tally = Tally(self.datasets, self.config.model.n_quantizers, self.fabric.device)
        self.since = time.perf_counter()

    def _result(self, resumed_from: int) -> TrainResult:
        if self.fabric.is_global_zero:
            save_pretrained(self.model, self.folder / "model")
        self.fabric.barrier()
        rows = self.metrics.rows()
        losses = [row["loss"] for row in rows if row["kind"] == "train"]
        validation = [Scores.from_row(row) for row in rows if row["kind"] == "validation"]
        return TrainResult(
            model_folder=self.folder / "model",
            metrics_file=self.metrics.path,
            steps=self.step,
            first_loss=losses[0],
            last_loss=losses[-1],
            resumed_from=resumed_from,
            validation=validation[-1] if validation else None,
            device=self.fabric.device.type,
            precision=resolve_precision(self.config),
            world_size=self.fabric.world_size,
        )


def _check_published_mask(config: TrainConfig) -> None:
    masking = config.masking
    if config.windows.window_frames * masking.hop_samples < masking.block_seconds * masking.sfreq:
        raise ConfigError(
            f"windows of {config.windows.window_frames} frames are shorter than a hidden block under parity",
            next_step="take longer windows, or leave model.parity off",
        )


def _differences(old: Any, new: Any, at: str = "") -> set[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = old.keys() | new.keys()
        return set().union(*(_differences(old.get(k), new.get(k), f"{at}.{k}" if at else k) for k in keys))
    return set() if old == new else {at}
