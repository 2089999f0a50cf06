"""What runs in a worker: one item, from its identity to its outcome, behind the one guard that may catch anything."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.stages.identities import RAW_IDENTITY, prepare_config, prepare_identity, tokenize_config
from neuromill.stages.outcomes import Outcome, Stage, WorkItem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from neuromill.sources.cache import RawCache
    from neuromill.sources.protocol import Source
    from neuromill.stages.datasets import Origin
    from neuromill.stages.pipeline import Pipeline
    from neuromill.stages.settings import Settings
    from neuromill.tokenizers.protocol import Tokenizer
    from neuromill.tokenizers.tokenizer import RvqTokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Made:
    """What a stage function made of one recording; ``adopted`` where the very bytes were there already."""

    bytes_out: int
    adopted: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkContext:
    """Everything a worker needs besides the item. Picklable; settings and paths, never arrays or open files.

    Attributes
    ----------
    tokenizer_source, tokenizer_revision
        Folder or hub id of the fitted tokenizer; "" before there is one.
    model_folder
        Folder of the trained model, for ``embed``.
    token_identity, feature_identity
        Identities that depend on a fitted tokenizer or a trained model; "" before there is one.
    """

    settings: Settings
    pipeline: Pipeline
    origins: tuple[Origin, ...]
    tokenizer_source: str = ""
    tokenizer_revision: str = ""
    model_folder: str = ""
    token_identity: str = ""
    feature_identity: str = ""

    def identity(self, stage: Stage) -> str:
        """Return the identity that the stage's store has under this pipeline."""
        if stage is Stage.INGEST:
            return RAW_IDENTITY
        if stage is Stage.PREPARE:
            return prepare_identity(self.pipeline)
        return self.token_identity if stage is Stage.TOKENIZE else self.feature_identity

    def origin(self, dataset: str) -> Origin:
        """Where the recordings of a dataset come from."""
        return next(origin for origin in self.origins if origin.dataset == dataset)

    def source(self, dataset: str) -> Source:
        """Open the source of a dataset."""
        return self.origin(dataset).open(self.settings)

    def raw_cache(self) -> RawCache:
        """Return the content-addressed cache of raw files."""
        from neuromill.sources.cache import RawCache

        return RawCache(self.settings.home / "cache" / "raw")

    def scratch(self) -> Path:
        """Folder for short-lived trees of links, on the file system of the cache (see ``scratch_folder``)."""
        return self.settings.home / "scratch"

    def store(self, item: WorkItem) -> Path:
        """Folder of the store that the item ends in."""
        return self._store(item, item.stage, item.identity)

    def prepared_store(self, item: WorkItem) -> Path:
        """Folder of the prepared signals that ``tokenize`` reads."""
        return self._store(item, Stage.PREPARE, self.identity(Stage.PREPARE))

    def token_store(self, item: WorkItem) -> Path:
        """Folder of the codes that ``embed`` reads."""
        return self._store(item, Stage.TOKENIZE, self.token_identity)

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer, loaded once per process."""
        return _load_tokenizer(self.tokenizer_source, self.tokenizer_revision)

    def rvq_tokenizer(self) -> RvqTokenizer:
        """Return the tokenizer where it is a residual one; ConfigError where it is not."""
        from neuromill.tokenizers.tokenizer import RvqTokenizer

        tokenizer = self.tokenizer()
        if not isinstance(tokenizer, RvqTokenizer):
            raise ConfigError(
                f"a criss-cross transformer reads the codes of a residual tokenizer, not of {tokenizer.config.kind}",
                where=self.pipeline.name,
                next_step="set `train.kind` to a model for these codes",
            )
        return tokenizer

    def pipeline_attributes(self, item: WorkItem) -> dict[str, Any]:
        """Describe the work for a group's attributes: what its identity is made of, so same identity, same bytes."""
        config: dict[str, Any] = {}
        if item.stage is Stage.PREPARE:
            config = prepare_config(self.pipeline)
        elif item.stage is Stage.TOKENIZE:
            config = tokenize_config(self.pipeline)
        return {"stage": item.stage.value, "identity": item.identity, "config": config}

    def _store(self, item: WorkItem, stage: Stage, identity: str) -> Path:
        from neuromill.store.layout import StoreId

        return StoreId(str(item.recording.id.dataset_version), stage.value, identity).path(self.settings.home)


@lru_cache(maxsize=2)
def _load_tokenizer(source: str, revision: str) -> Tokenizer:
    from neuromill.tokenizers.files import open_tokenizer

    return open_tokenizer(source, revision=revision or None)


def do_item(context: WorkContext, item: WorkItem) -> Outcome:
    """Do one item and say what became of it; never raises for anything a recording can cause."""
    begin = time.perf_counter()
    try:
        made = _function(context.pipeline, item.stage)(context, item)
    except RecordingError as error:
        return Outcome(item, error.code, _text(error), error.next_step, time.perf_counter() - begin)
    except Exception as error:  # the one guard: a recording nobody foresaw must not stop the others
        damage = _input_damage(context, item, error)
        if damage is not None:
            return Outcome(item, damage.code, _text(damage), damage.next_step, time.perf_counter() - begin)
        log.debug("item failed recording=%s stage=%s", item.recording.id, item.stage, exc_info=True)
        return Outcome(item, FailureCode.INTERNAL, _unforeseen(error), _REPORT_IT, time.perf_counter() - begin)
    seconds = time.perf_counter() - begin
    return Outcome(
        item, seconds=seconds, bytes_out=made.bytes_out, adopted=made.adopted, facts={**made.facts, "wall": seconds}
    )


def _input_damage(context: WorkContext, item: WorkItem, error: Exception) -> RecordingError | None:
    """What an error says of the group that the item is made from; None where it is about anything else."""
    from neuromill.store.errors import CorruptStoreError, MissingFileError

    before = _store_read(context, item, error)
    if before is None:
        return None
    step = f"`neuromill {before.stage.value} PIPELINE` makes it again; then `neuromill retry {item.recording.id.name}`"
    if isinstance(error, CorruptStoreError):
        return RecordingError(FailureCode.TRUNCATED, error.what, where=error.where, next_step=step)
    if isinstance(error, MissingFileError):
        return RecordingError(FailureCode.MISSING_MEMBER, error.what, where=error.where, next_step=step)
    if isinstance(error, FileNotFoundError) and Path(str(error.filename)).is_relative_to(before.folder):
        what = "a file of the store is gone"
        return RecordingError(FailureCode.MISSING_MEMBER, what, where=str(error.filename), next_step=step)
    return None


@dataclass(frozen=True, slots=True)
class _StoreRead:
    """A store that an item is made from, and the stage that makes it."""

    stage: Stage
    folder: Path


def _store_read(context: WorkContext, item: WorkItem, error: Exception) -> _StoreRead | None:
    """Which of the stores that an item is made from an error is about; the tokens where it does not say."""
    if item.stage not in (Stage.TOKENIZE, Stage.EMBED):
        return None
    prepared = _StoreRead(Stage.PREPARE, context.prepared_store(item))
    if item.stage is Stage.TOKENIZE:
        return prepared
    tokens = _StoreRead(Stage.TOKENIZE, context.token_store(item))
    told = str(getattr(error, "where", "") or getattr(error, "filename", "") or "")  # absolute, or relative to a store
    only_there = (prepared.folder / told).exists() and not (tokens.folder / told).exists()
    return prepared if Path(told).is_relative_to(prepared.folder) or only_there else tokens


_REPORT_IT = "this is a defect of neuromill: please report it with `neuromill explain RECORDING`"


def _function(pipeline: Pipeline, stage: Stage) -> Callable[[WorkContext, WorkItem], Made]:
    name = stage.value
    if (stage is Stage.PREPARE and pipeline.prepare.kind == "spikes") or (
        stage is Stage.TOKENIZE and pipeline.tokenizer.kind == "ndt3"
    ):
        name = f"{name} spikes"
    module, function = _FUNCTIONS[name]
    made: Callable[[WorkContext, WorkItem], Made] = getattr(import_module(module), function)
    return made


# Looked up by name: what a stage needs (MNE, torch, h5py) is imported in the workers that do it, and nowhere else.
_FUNCTIONS = {
    "ingest": ("neuromill.stages.preparing", "ingest_recording"),
    "prepare": ("neuromill.stages.preparing", "prepare_recording"),
    "prepare spikes": ("neuromill.stages.spike_preparing", "prepare_spikes"),
    "tokenize": ("neuromill.stages.tokenizing", "tokenize_recording"),
    "tokenize spikes": ("neuromill.stages.spike_tokenizing", "tokenize_spike_recording"),
    "embed": ("neuromill.stages.embedding", "embed_recording"),
}


def _text(error: RecordingError) -> str:
    return f"{error.what} [{error.where}]" if error.where else error.what


def _unforeseen(error: Exception) -> str:
    """Name the error and the line it came from, without any value of the data."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" at {Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else ""
    return f"{type(error).__name__}: {str(error)[:300]}{place}"
