"""What a model brings to the trainer: its data, its loss, its scores. The trainer brings everything else.

A new model is a settings class that extends :class:`neuromill.training.config.RunConfig`, a class that satisfies
:class:`Task`, and a call of :func:`neuromill.training.loop.train` with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, runtime_checkable

from neuromill.records import Digest, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch
    from lightning_fabric import Fabric
    from torch import Tensor, nn

    from neuromill.training.config import RunConfig


class Batch(Protocol):
    """What a loader yields: valid until the next one is asked for."""

    def to(self, device: torch.device) -> Self:
        """Return the batch on ``device``."""
        ...


class Outcome(Protocol):
    """What one batch gave: a loss with gradient, and whatever the tally of the task counts."""

    @property
    def loss(self) -> Tensor:
        """Scalar to be minimised."""
        ...


class Scores(Protocol):
    """Numbers over some steps: ``loss`` must be finite, ``row`` goes into ``metrics.jsonl``."""

    @property
    def loss(self) -> float:
        """Mean loss."""
        ...

    def row(self) -> dict[str, Any]:
        """Return JSON values of a line of metrics, ``loss`` among them."""
        ...


TEST = "test"  # kind of the line of the test, and `split` of the baselines beside it

B = TypeVar("B", bound=Batch)
O = TypeVar("O", bound=Outcome)  # noqa: E741 - of outcome
S = TypeVar("S", bound=Scores)
B_co = TypeVar("B_co", bound=Batch, covariant=True)
O_contra = TypeVar("O_contra", bound=Outcome, contravariant=True)
S_co = TypeVar("S_co", bound=Scores, covariant=True)


class Loader(Protocol[B_co]):
    """Deterministic batches: batch k of an epoch depends on the data, the settings, the epoch and k alone."""

    def __len__(self) -> int:
        """Batches per epoch and rank, the same on all ranks in training."""
        ...

    def epoch(self, epoch: int, first_batch: int = 0, limit: int | None = None) -> Iterator[B_co]:
        """Batches ``first_batch`` and following of an epoch, at most ``limit``."""
        ...


class Tally(Protocol[O_contra, S_co]):
    """Adds up outcomes on the device."""

    def add(self, outcome: O_contra) -> None:
        """Count a batch."""
        ...

    def scores(self, fabric: Fabric | None = None) -> S_co:
        """Numbers so far, over all ranks; every rank gets the same."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands among the ranks of a run, and whether its batches go to a GPU."""

    rank: int = 0
    world_size: int = 1
    pin_memory: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a loader of windows draws its batches.

    Attributes
    ----------
    threads
        That fill batches ahead; they change no byte.
    shuffle
        False for validation: every window once over all ranks, in order.
    mask_epoch
        Fixes what is hidden (validation); None hides something else in every epoch.
    """

    batch_size: int
    seed: int
    threads: int = 2
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True
    mask_epoch: int | None = None

    @classmethod
    def of(cls, config: RunConfig, place: Place, *, shuffle: bool) -> Self:
        """For training (``shuffle``) or validation of a run."""
        return cls(
            batch_size=config.batch_size,
            seed=config.seed,
            threads=config.loader_threads,
            rank=place.rank,
            world_size=place.world_size,
            shuffle=shuffle,
            mask_epoch=None if shuffle else 0,
        )


class Described(Protocol):
    """What names a recording among the settings of a run."""

    @property
    def name(self) -> str:
        """Unique among all recordings of a run."""
        ...

    @property
    def dataset(self) -> str:
        """Data set, whatever its version."""
        ...

    @property
    def n_frames(self) -> int:
        """Frames that hold something."""
        ...

    @property
    def n_channels(self) -> int:
        """All channels."""
        ...


def digest_of(recordings: Sequence[Described]) -> str:
    """Digest of names and sizes, for ``Task.settings``."""
    return Digest.of(canonical_json([[one.name, one.n_frames, one.n_channels] for one in recordings])).hex


def datasets_of(recordings: Sequence[Described]) -> tuple[str, ...]:
    """Names of the data sets, sorted: their places number them in a tally."""
    return tuple(sorted({one.dataset for one in recordings}))


class Task(Protocol[B, O, S_co]):
    """A model, its data and its scores. Constructing one starts no process.

    The order of calls: ``train_loader``, ``validation_loader``, ``settings``, ``build_model`` (right after the global
    random state was seeded with ``config.seed``), ``baselines`` (on a fresh run), then ``outcome`` per batch.
    """

    @property
    def config(self) -> RunConfig:
        """Settings of the run; part of what names it, but for ``FREE_SETTINGS``."""
        ...

    def settings(self) -> dict[str, Any]:
        """Whatever else decides the numbers, as JSON values: digests of the data, of codebooks, of first weights.

        A run with other values is another run and does not continue this one. The key "config" is the trainer's.
        """
        ...

    def build_model(self) -> nn.Module:
        """Make the model, on the CPU; one of ``neuromill.models.files.ARCHITECTURES``, so that it can be saved."""
        ...

    def train_loader(self, place: Place) -> Loader[B]:
        """Batches to learn from."""
        ...

    def validation_loader(self, place: Place) -> Loader[B] | None:
        """Held-out batches, the same every time, each example on exactly one rank; None without any."""
        ...

    def learning_rate(self, step: int, total_steps: int) -> float:
        """Learning rate of step ``step`` (from 0)."""
        ...

    def outcome(self, model: nn.Module, batch: B) -> O:
        """Run the model (wrapped for ranks and precision) on a batch that is on its device."""
        ...

    def new_tally(self, device: torch.device) -> Tally[O, S_co]:
        """Return an empty tally."""
        ...

    def scores_of(self, row: Mapping[str, Any]) -> S_co:
        """Read a line of metrics back."""
        ...

    def baselines(self, fabric: Fabric) -> Sequence[dict[str, Any]]:
        """Lines of kind "baseline" to stand beside the validation; called on every rank, rank 0 writes.

        Those with ``split: test`` stand beside the test.
        """
        ...


@runtime_checkable
class HasTest(Protocol[B_co]):
    """A task that has test data: the finished model is scored on it once."""

    def test_loader(self, place: Place) -> Loader[B_co] | None:
        """Test batches, each example on exactly one rank; None without any."""
        ...
