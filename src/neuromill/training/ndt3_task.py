"""Next-token prediction over spikes and decoding of behaviour with NDT3, as a task of the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuromill.models.files import WEIGHTS, from_pretrained
from neuromill.models.ndt3 import Ndt3
from neuromill.models.ndt3_losses import ndt3_losses
from neuromill.records import ConfigError, Digest, canonical_json
from neuromill.training import loop
from neuromill.training.chunk_loader import ChunkLoader
from neuromill.training.chunks import ChunkSampling, check_budget, split_chunks
from neuromill.training.ndt3_metrics import MAX_COVARIATES, Ndt3Outcome, Ndt3Scores, Ndt3Tally
from neuromill.training.r2 import sums_of
from neuromill.training.schedule import learning_rate
from neuromill.training.spike_baselines import baseline_rows
from neuromill.training.spike_source import VALIDATION, check_recordings
from neuromill.training.task import TEST, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lightning_fabric import Fabric
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from neuromill.models.ndt3 import Ndt3Predictions
    from neuromill.training.chunk_loader import ChunkBatch
    from neuromill.training.loop import Progress, TrainResult
    from neuromill.training.ndt3_config import Ndt3TrainConfig
    from neuromill.training.spike_source import SpikeTokenSource

SCRATCH = "scratch"
NOTHING_HELD_OUT = "nothing is held out: a card with `splits` holds out subjects or blocks of time"
MAY_DIFFER = {"dropout"}  # settings of a model that change no weight


def train_ndt3(
    config: Ndt3TrainConfig,
    source: SpikeTokenSource,
    folder: Path,
    *,
    on_step: Callable[[Progress], None] | None = None,
) -> TrainResult[Ndt3Scores]:
    """Train or fine-tune NDT3 on tokens of spikes, or continue the run that ``folder`` holds.

    With ``compare_scratch`` the same run from random weights goes first, into ``folder/scratch``.

    Parameters
    ----------
    config
        Settings of the run.
    source
        Recordings with their spans: those of the split "train" are learned from, "validation" is held out; "test" is
        scored once, by the finished model.
    folder
        Gets ``metrics.jsonl``, ``checkpoints/`` and, at the end, ``model/``.
    on_step
        Called after each step on the first rank.

    Raises
    ------
    ConfigError
        There is nothing to learn from, ``start_from`` is no NDT3 of these sizes, or ``folder`` holds another run.
    """
    task = Ndt3Task(config, source)
    if config.compare_scratch:
        changes = {"start_from": "", "compare_scratch": False, "ridge": None}
        task.compared_with = loop.train(Ndt3Task(config.model_copy(update=changes), source), folder / SCRATCH)
    return loop.train(task, folder, on_step=on_step)


def summary(result: TrainResult[Ndt3Scores]) -> str:
    """One line on a run: ``R2 0.61 (ridge 0.55); test 0.58 (ridge 0.52)``.

    The loss where nothing is held out for validation or no covariate varies there; no test where there is none.
    """
    losses = f"loss {result.first_loss:.3f} -> {result.last_loss:.3f}"
    if result.validation is None:
        first = f"{losses}, no R2: {NOTHING_HELD_OUT}" if result.test is None else losses
    elif result.validation.r2 is None:
        first = f"{losses}, no R2: no covariate varies in the held-out chunks"
    else:
        first = f"R2 {_beside(result.validation.r2, result.baselines)}"
    return first if result.test is None else f"{first}; test {_beside(result.test.r2, result.test_baselines)}"


class Ndt3Task:
    """The model, its chunks and its scores; a :class:`neuromill.training.task.Task`."""

    def __init__(self, config: Ndt3TrainConfig, source: SpikeTokenSource) -> None:
        check_recordings(source.recordings)
        check_budget(source.recordings, config.token_budget)
        self._config, self._source = config, source
        self.split = split_chunks(source.recordings, config)
        self.first_weights = _first_weights(config)
        self.compared_with: TrainResult[Ndt3Scores] | None = None

    @property
    def config(self) -> Ndt3TrainConfig:
        """Settings of the run."""
        return self._config

    def settings(self) -> dict[str, Any]:
        """Digests of the chunks on both sides and of the weights that a fine-tune starts from.

        Recordings that are only tested decide no weight: they are left out, and the others numbered without them.
        """
        deciding = [any(span.split != TEST for span in one.spans) for one in self._source.recordings]
        kept = [one for one, decides in zip(self._source.recordings, deciding, strict=True) if decides]
        data = [[r.name, r.covariates, r.patch_channels.tolist(), r.n_bins] for r in kept]
        number = np.cumsum(deciding) - 1
        train, validation = (
            np.stack((number[chunks[:, 0]], chunks[:, 1]), axis=1)
            for chunks in (self.split.train, self.split.validation)
        )
        found = {
            "recordings": Digest.of(canonical_json(data)).hex,
            "train_chunks": Digest.of(train.tobytes()).hex,
            "validation_chunks": Digest.of(validation.tobytes()).hex,
        }
        if self._config.start_from:
            found["first_weights"] = Digest.of((Path(self._config.start_from) / WEIGHTS).read_bytes()).hex
        return found

    def build_model(self) -> nn.Module:
        """Make a model with random weights, or with those that a fine-tune starts from."""
        model = Ndt3(self._config.model)
        if self.first_weights is not None:
            model.load_state_dict(self.first_weights)
        return model

    def train_loader(self, place: Place) -> ChunkLoader:
        """Chunks in random order, cropped at random where they are too wide."""
        return self._loader(self.split.train, place, shuffle=True)

    def validation_loader(self, place: Place) -> ChunkLoader | None:
        """Every held-out chunk once, as a whole up to the token budget."""
        return self._loader(self.split.validation, place, shuffle=False) if len(self.split.validation) else None

    def test_loader(self, place: Place) -> ChunkLoader | None:
        """Every test chunk once, as a whole up to the token budget."""
        return self._loader(self.split.test, place, shuffle=False) if len(self.split.test) else None

    def learning_rate(self, step: int, total_steps: int) -> float:
        """Warm-up and cosine."""
        return learning_rate(self._config.optim, step, total_steps)

    def outcome(self, model: nn.Module, batch: ChunkBatch) -> Ndt3Outcome:
        """Losses of spikes and covariates, and sums for the R2."""
        predictions: Ndt3Predictions = model(batch.tokens)
        config = self._config
        losses = ndt3_losses(batch.tokens, predictions, parity=config.model.parity, per_chunk=config.weigh_chunks)
        loss = config.spike_weight * losses.spike + config.covariate_weight * losses.covariate
        with torch.no_grad():
            means, counts = (
                torch.stack((losses.spike, losses.covariate)),
                torch.stack((losses.n_spike, losses.n_covariate)),
            )
            totals = torch.stack((means.double() * counts, counts.double()), dim=1).flatten()
            return Ndt3Outcome(loss, totals, self._sums(batch, predictions))

    def new_tally(self, device: torch.device) -> Ndt3Tally:
        """Losses, and sums per recording and covariate."""
        weights = (self._config.spike_weight, self._config.covariate_weight)
        return Ndt3Tally(self._source.recordings, weights, device)

    def scores_of(self, row: Mapping[str, Any]) -> Ndt3Scores:
        """Read a line of metrics back."""
        return Ndt3Scores.from_row(row)

    def baselines(self, fabric: Fabric) -> list[dict[str, Any]]:
        """Ridge and the training mean on the same bins, and the run from scratch where there is one."""
        config, place = self._config, Place(fabric.global_rank, fabric.world_size)
        loader = self.validation_loader(place)
        if loader is None and not len(self.split.test):
            return []
        scored = self.split.validation if loader is None else loader.sampling.first_chunks(config.validation_batches)
        split = self.split._replace(validation=scored)
        rows = baseline_rows(self._source, split, config.ridge, fabric, token_budget=config.token_budget)
        if self.compared_with is not None:
            for part, scores in ((VALIDATION, self.compared_with.validation), (TEST, self.compared_with.test)):
                if scores is not None:
                    kept = ("r2", "r2_per_covariate", "r2_per_recording", "n_covariate")
                    rows[part].append({"name": SCRATCH, **{name: getattr(scores, name) for name in kept}})
        names = {VALIDATION: config.split, TEST: TEST}
        return [row | {"split": names[part]} for part, lines in rows.items() for row in lines]

    def _loader(self, chunks: NDArray[np.int64], place: Place, *, shuffle: bool) -> ChunkLoader:
        config = self._config
        sampling = ChunkSampling(
            chunks=chunks,
            batch_size=config.batch_size,
            seed=config.seed,
            block_chunks=config.block_chunks,
            buffer_blocks=config.buffer_blocks,
            rank=place.rank,
            world_size=place.world_size,
            shuffle=shuffle,
        )
        return ChunkLoader(self._source, sampling, token_budget=config.token_budget, threads=config.loader_threads)

    def _sums(self, batch: ChunkBatch, predictions: Ndt3Predictions) -> Tensor:
        tokens, places = batch.tokens, batch.tokens.covariate_places()
        counts = tokens.covariate_valid & (places.bin < tokens.n_bins[places.chunk])  # without the published dummy
        series = batch.recordings[places.chunk] * MAX_COVARIATES + places.dimension
        n_series = len(self._source.recordings) * MAX_COVARIATES
        return sums_of(tokens.covariates[counts], predictions.covariates[counts], series[counts], n_series)


def _first_weights(config: Ndt3TrainConfig) -> dict[str, Tensor] | None:
    if not config.start_from:
        return None
    found = from_pretrained(config.start_from, Ndt3)
    ours, theirs = config.model.model_dump(mode="json"), found.config.model_dump(mode="json")
    other = {key: value for key, value in theirs.items() if key not in MAY_DIFFER and value != ours[key]}
    if other:
        raise ConfigError(
            f"the model to start from has other settings: {', '.join(f'{k} {v}' for k, v in other.items())}",
            where=config.start_from,
            next_step=f"set train.model to {other}",
        )
    return found.state_dict()


def _beside(r2: float | None, baselines: Sequence[Mapping[str, Any]]) -> str:
    others = [f"{row['name']} {_shown(row['r2'])}" for row in baselines if row["name"] != "mean"]
    return _shown(r2) + (f" ({', '.join(others)})" if others else "")


def _shown(r2: float | None) -> str:
    return "none" if r2 is None else f"{r2:.2f}"
