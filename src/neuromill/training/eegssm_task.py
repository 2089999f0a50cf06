"""Masked prediction of codes from the signal around them with EEGSSM (CodeBrain, stage 2), as a task of the trainer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuromill.models.eegssm import EEGSSM
from neuromill.models.eegssm_config import UNKNOWN_INPUT, EEGSSMConfig, ModelInput
from neuromill.records import ConfigError, Digest
from neuromill.training import loop
from neuromill.training.coded_loader import CodedLoader, CodedLoaderConfig
from neuromill.training.coded_signals import check_coded, plan_coded_windows
from neuromill.training.eegssm_metrics import CodesScores, CodesTally, code_losses, frequency_baseline
from neuromill.training.metrics import sum_over_ranks
from neuromill.training.schedule import learning_rate
from neuromill.training.task import Drawing, Place, datasets_of, digest_of
from neuromill.training.tokens import check_leakage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from lightning_fabric import Fabric
    from torch import nn

    from neuromill.training.coded_loader import CodedBatch
    from neuromill.training.coded_signals import CodedRecording, CodedSource
    from neuromill.training.eegssm_config import EEGSSMTrainConfig
    from neuromill.training.eegssm_metrics import CodesOutcome
    from neuromill.training.loop import Progress, TrainResult
    from neuromill.training.windows import Window

PUBLISHED_HEADS = 2


def train_eegssm(
    config: EEGSSMTrainConfig,
    training: CodedSource,
    validation: CodedSource | None,
    folder: Path,
    *,
    given: ModelInput = UNKNOWN_INPUT,
    on_step: Callable[[Progress], None] | None = None,
) -> TrainResult[CodesScores]:
    """Train EEGSSM to predict the codes of hidden patches, or continue the run that ``folder`` holds.

    Parameters
    ----------
    config
        Settings of the run.
    training, validation
        Recordings to learn from and held-out ones; they share no subject.
    folder
        Gets ``metrics.jsonl``, ``checkpoints/`` and, at the end, ``model/``.
    given
        Rate and unit of the signals; kept with the model, so that nothing else is ever read into it.
    on_step
        Called after each step on the first rank.

    Raises
    ------
    ConfigError
        A frame of the tokenizer is no patch of the model, the settings name another rate or unit, a subject is on both
        sides of the split, every window is rejected, or ``folder`` holds another run.
    """
    return loop.train(EEGSSMTask(config, training, validation, given), folder, on_step=on_step)


def summary(result: TrainResult[CodesScores]) -> str:
    """One line on a run: the losses and, where something is held out, accuracies beside that of the commonest code."""
    losses = f"loss {result.first_loss:.3f} -> {result.last_loss:.3f}"
    if result.validation is None:
        return losses
    shown = zip(result.validation.per_quantizer, result.validation.commonest, strict=True)
    return f"{losses}, held out {', '.join(f'{right:.1%} (commonest {most:.1%})' for right, most in shown)}"


def model_config(config: EEGSSMConfig, one: CodedRecording, given: ModelInput = UNKNOWN_INPUT) -> EEGSSMConfig:
    """Give a backbone the code heads of a recording's codes (the published two, or one per quantizer) and its input.

    Raises
    ------
    ConfigError
        The settings name another rate or unit than the input has.
    """
    conflict = config.input.conflict(given)
    if conflict:
        raise ConfigError(conflict, where="train.model", next_step="leave it out: it is taken from the tokens")
    sizes: dict[str, Any] = {"codebook_size_t": one.codebook_size, "codebook_size_f": one.codebook_size}
    if one.n_quantizers != PUBLISHED_HEADS:
        sizes = {"codebook_sizes": (one.codebook_size,) * one.n_quantizers}
    facts = {name: value for name, value in asdict(given).items() if value is not None}
    return EEGSSMConfig.model_validate({**config.non_defaults(), **facts, "pretrain_mode": True, **sizes})


class EEGSSMTask:
    """The model, its windows and its scores; a :class:`neuromill.training.task.Task`."""

    def __init__(
        self,
        config: EEGSSMTrainConfig,
        training: CodedSource,
        validation: CodedSource | None,
        given: ModelInput = UNKNOWN_INPUT,
    ) -> None:
        everything = [*training.recordings, *(validation.recordings if validation else ())]
        check_coded(training.recordings, config.model.patch_size)
        if validation is not None:
            check_leakage(training.recordings, validation.recordings)
            check_coded(everything, config.model.patch_size)
        self._config, self._training, self._validation = config, training, validation
        self._windows = plan_coded_windows(training, config)
        self._held_out = () if validation is None else plan_coded_windows(validation, config)
        self._model = model_config(config.model, everything[0], given)
        self._codes = everything[0]
        self.datasets = datasets_of(everything)
        self._steps_per_epoch = 1

    @property
    def config(self) -> EEGSSMTrainConfig:
        """Settings of the run."""
        return self._config

    def settings(self) -> dict[str, Any]:
        """Digests of the recordings and of the windows on both sides: rejection decides which there are."""
        return {
            "recordings": digest_of(self._training.recordings),
            "train_windows": _digest(self._windows),
            "validation_windows": _digest(self._held_out),
        }

    def build_model(self) -> nn.Module:
        """Make a backbone with the code heads of the tokens."""
        return EEGSSM(self._model)

    def train_loader(self, place: Place) -> CodedLoader:
        """Windows in random order, other patches hidden in every epoch."""
        loader = self._loader(self._training, self._windows, place, shuffle=True)
        self._steps_per_epoch = -(-len(loader) // self._config.accumulate_batches)
        return loader

    def validation_loader(self, place: Place) -> CodedLoader | None:
        """Every window once, the same patches hidden every time."""
        if self._validation is None:
            return None
        return self._loader(self._validation, self._held_out, place, shuffle=False)

    def learning_rate(self, step: int, total_steps: int) -> float:
        """Warm-up and cosine; under parity a cosine of 40 epochs without warm-up."""
        epochs = self._config.cosine_length
        length = total_steps if epochs is None else epochs * self._steps_per_epoch
        return learning_rate(self._config.optim, step, length, parity=self._config.parity)

    def outcome(self, model: nn.Module, batch: CodedBatch) -> CodesOutcome:
        """Cross-entropies of the hidden codes."""
        return code_losses(model(batch.signal(), batch.hidden), batch, len(self.datasets))

    def new_tally(self, device: torch.device) -> CodesTally:
        """Counts per data set, quantizer and code."""
        return CodesTally(self.datasets, self._codes.n_quantizers, self._codes.codebook_size, device)

    def scores_of(self, row: Mapping[str, Any]) -> CodesScores:
        """Read a line of metrics back."""
        return CodesScores.from_row(row)

    def baselines(self, fabric: Fabric) -> Sequence[dict[str, Any]]:
        """What the frequencies of the training codes are worth on the very patches of a validation.

        Every rank counts its share of the validation; only rank 0 reads the training codes, the others return nothing.
        """
        loader = self.validation_loader(Place(fabric.global_rank, fabric.world_size))
        if loader is None:
            return []
        held_out = torch.zeros(self._codes.n_quantizers, self._codes.codebook_size, dtype=torch.float64)
        for batch in loader.epoch(0, 0, self._config.validation_batches):
            targets = batch.codes[batch.hidden].long()
            for number, level in enumerate(targets.unbind(1)):
                held_out[number] += torch.bincount(level, minlength=self._codes.codebook_size)
        held_out = sum_over_ranks(held_out.to(fabric.device), fabric).cpu()
        if not fabric.is_global_zero:
            return []
        return [frequency_baseline(torch.from_numpy(self._training.code_counts()), held_out)]

    def _loader(self, source: CodedSource, windows: Sequence[Window], place: Place, *, shuffle: bool) -> CodedLoader:
        drawing = Drawing.of(self._config, place, shuffle=shuffle)
        config = CodedLoaderConfig(drawing, self._config.mask_share, self.datasets)
        return CodedLoader(source, windows, config, pin_memory=place.pin_memory)


def _digest(windows: Sequence[Window]) -> str:
    rows = np.array([[one.recording, one.start, one.stop] for one in windows], np.int64)
    return Digest.of(rows.tobytes()).hex
