"""Masked prediction of codes with the criss-cross transformer (MEG-XL), as a task of the trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from neuromill.models.criss_cross import CrissCross
from neuromill.records import ConfigError, Digest
from neuromill.training import loop
from neuromill.training.loader import BatchLoader, LoaderConfig
from neuromill.training.metrics import Scores, Tally
from neuromill.training.objective import masked_prediction
from neuromill.training.schedule import learning_rate
from neuromill.training.task import Drawing, datasets_of, digest_of
from neuromill.training.tokens import check_leakage, check_tokens
from neuromill.training.windows import plan_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from lightning_fabric import Fabric
    from numpy.typing import NDArray
    from torch import nn

    from neuromill.training.config import TrainConfig
    from neuromill.training.loader import TokenBatch
    from neuromill.training.loop import Progress, TrainResult
    from neuromill.training.objective import Outcome
    from neuromill.training.task import Place
    from neuromill.training.tokens import TokenSource


def train(
    config: TrainConfig,
    train_tokens: TokenSource,
    validation_tokens: TokenSource | None,
    codebooks: NDArray[np.float32],
    folder: Path,
    *,
    on_step: Callable[[Progress], None] | None = None,
) -> TrainResult[Scores]:
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
    return loop.train(CrissCrossTask(config, train_tokens, validation_tokens, codebooks), folder, on_step=on_step)


class CrissCrossTask:
    """The model, its tokens and its scores; a :class:`neuromill.training.task.Task`."""

    def __init__(
        self,
        config: TrainConfig,
        train_tokens: TokenSource,
        validation_tokens: TokenSource | None,
        codebooks: NDArray[np.float32],
    ) -> None:
        check_tokens(train_tokens.recordings, config.model.n_quantizers)
        if validation_tokens is not None:
            check_tokens(validation_tokens.recordings, config.model.n_quantizers)
            check_leakage(train_tokens.recordings, validation_tokens.recordings)
        if config.model.parity:
            _check_published_mask(config)
        self._config, self._train, self._validation, self._codebooks = (
            config, train_tokens, validation_tokens, codebooks,
        )  # fmt: skip
        self.datasets = datasets_of(
            [*train_tokens.recordings, *(validation_tokens.recordings if validation_tokens else ())]
        )

    @property
    def config(self) -> TrainConfig:
        """Settings of the run."""
        return self._config

    def settings(self) -> dict[str, Any]:
        """Digests of the recordings and of the codebooks."""
        return {
            "recordings": digest_of(self._train.recordings),
            "codebooks": Digest.of(self._codebooks.tobytes()).hex,
        }

    def build_model(self) -> nn.Module:
        """Make a transformer that looks codes up in the tokenizer's codebooks."""
        return CrissCross(self._config.model, torch.from_numpy(self._codebooks))

    def train_loader(self, place: Place) -> BatchLoader:
        """Windows in random order, other frames hidden in every epoch."""
        return self._loader(self._train, place, shuffle=True)

    def validation_loader(self, place: Place) -> BatchLoader | None:
        """Every window once, the same frames hidden every time."""
        return None if self._validation is None else self._loader(self._validation, place, shuffle=False)

    def learning_rate(self, step: int, total_steps: int) -> float:
        """Warm-up and cosine; under parity without the warm-up."""
        return learning_rate(self._config.optim, step, total_steps, parity=self._config.model.parity)

    def outcome(self, model: nn.Module, batch: TokenBatch) -> Outcome:
        """Cross-entropy of the hidden codes."""
        owners = torch.tensor([self.datasets.index(one.dataset) for one in batch.ids], device=batch.codes.device)
        return masked_prediction(model, batch, owners, len(self.datasets))

    def new_tally(self, device: torch.device) -> Tally:
        """Counts per dataset and level."""
        return Tally(self.datasets, self._config.model.n_quantizers, device)

    def scores_of(self, row: Mapping[str, Any]) -> Scores:
        """Read a line of metrics back."""
        return Scores.from_row(row)

    def baselines(self, fabric: Fabric) -> list[dict[str, Any]]:  # noqa: ARG002 - chance is ln 256, known without data
        """None."""
        return []

    def _loader(self, tokens: TokenSource, place: Place, *, shuffle: bool) -> BatchLoader:
        config, windows = self._config, self._config.windows
        if config.model.parity:  # rests are dropped, windows do not overlap, and the grid is the published one
            windows = windows.model_copy(update={"min_frames": windows.window_frames, "stride_frames": None})
        drawing = Drawing.of(config, place, shuffle=shuffle)
        loader_config = LoaderConfig(drawing, windows.window_frames, config.masking, parity=config.model.parity)
        planned = plan_windows(tokens.recordings, windows)
        return BatchLoader(tokens, planned, loader_config, pin_memory=place.pin_memory)


def _check_published_mask(config: TrainConfig) -> None:
    masking = config.masking
    if config.windows.window_frames * masking.hop_samples < masking.block_seconds * masking.sfreq:
        raise ConfigError(
            f"windows of {config.windows.window_frames} frames are shorter than a hidden block under parity",
            next_step="take longer windows, or leave model.parity off",
        )
