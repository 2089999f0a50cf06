"""Embed: the codes of one recording to features of the trained model, published as a Zarr group."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from neuromill.models.eegssm_config import EEGSSMConfig
from neuromill.records import ConfigError
from neuromill.stages.channels import channel_table
from neuromill.stages.eegssm_training import input_of, unchecked_input
from neuromill.stages.sections import eegssm_training, feature_windows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from neuromill.models.criss_cross import CrissCross
    from neuromill.models.eegssm import EEGSSM
    from neuromill.stages.outcomes import WorkItem
    from neuromill.stages.work import Made, WorkContext
    from neuromill.store.attributes import FeatureAttributes
    from neuromill.store.contents import IndexedRecording
    from neuromill.tokenizers.protocol import Tokenizer


def embed_recording(context: WorkContext, item: WorkItem) -> Made:
    """Write features [frame, channel, dim] of the frames of the tokens; what the model never saw is NaN.

    That is masked channels, and for a model of signals (EEGSSM) also single frames of a channel that are not fit for
    use. A last frame that the signal does not fill is none of its patches, and has no features.
    """
    from neuromill.stages.work import Made
    from neuromill.store.reader import StoreReader
    from neuromill.store.writer import FeatureWriter

    digest, name = model_digest(Path(context.model_folder)), item.recording.id.name
    made = _features(context, item, digest)
    with StoreReader.of_groups(context.token_store(item), (name,)) as reader:
        codes, channels = reader.recording(name), channel_table(reader, name)
    with FeatureWriter(
        context.store(item), name, n_channels=len(channels), n_dims=made.n_dims, dtype="float16"
    ) as writer:
        for block in made.blocks:
            writer.write(block)
        n_frames = writer.n_rows
        published = writer.publish(_attributes(context, item, codes, digest), channels, replace=True)
    facts: dict[str, Any] = {"n_frames": n_frames, "n_channels": len(channels), "n_dims": made.n_dims}
    if note := input_note(context):
        facts["notes"] = [note]
    return Made(bytes_out=published.n_bytes, adopted=not published.created, facts=facts)


@dataclass(frozen=True, slots=True)
class _Features:
    """Length of the vectors, and blocks float32 [frame, channel, dim] in order."""

    n_dims: int
    blocks: Iterator[NDArray[np.float32]]


def _features(context: WorkContext, item: WorkItem, digest: str) -> _Features:
    model = _load_model(context.model_folder, digest)
    if context.pipeline.train.kind == "eegssm":
        return _of_signals(context, item, cast("EEGSSM", model))
    return _of_codes(context, item, cast("CrissCross", model))


def _of_codes(context: WorkContext, item: WorkItem, model: CrissCross) -> _Features:
    from neuromill.training.embedding import embed_recording as features_of
    from neuromill.training.store_tokens import StoreTokens

    name = item.recording.id.name
    tokens = StoreTokens.open(
        [context.token_store(item)], pick=lambda one: one.name == name, parity=model.config.parity
    )
    if tokens.left_out:
        raise tokens.left_out[0]
    frames = feature_windows(context.pipeline).frames
    return _Features(model.config.latent_dim, features_of(model, tokens, 0, window_frames=frames))


def _of_signals(context: WorkContext, item: WorkItem, model: EEGSSM) -> _Features:
    from neuromill.training.embedding import embed_signals
    from neuromill.training.store_coded_signals import CodedStore, StoreCodedSignals

    name = item.recording.id.name
    source = StoreCodedSignals.open(
        [CodedStore(context.token_store(item), context.prepared_store(item))],
        pick=lambda one: one.name == name,
        parity=eegssm_training(context.pipeline).parity,
    )
    if source.left_out:
        raise source.left_out[0]
    frames = feature_windows(context.pipeline).frames
    return _Features(model.config.out_channels, embed_signals(model, source, 0, window_frames=frames))


def require_model_for(context: WorkContext, folder: Path) -> None:
    """Refuse a model that does not fit what the pipeline makes, before any recording fails of it.

    Raises
    ------
    ConfigError
        It is of another kind than the pipeline trains, whose settings say what the model is given; a frame of the
        tokens is no patch of it; or it was trained at another rate or on another unit than the tokenizer's.
    """
    document = _document(folder)
    kind, wanted = document["architecture"], context.pipeline.train.kind
    if kind != wanted:
        raise ConfigError(
            f"a model of kind {kind}, but {context.pipeline.name} has train.kind: {wanted}",
            where=str(folder),
            next_step=f"take a pipeline whose train.kind is {kind}",
        )
    if kind == "eegssm":
        _require_same_signals(EEGSSMConfig.model_validate(document["config"]), context.tokenizer(), folder)


def input_note(context: WorkContext) -> str:
    """Say that the model of ``embed`` does not tell rate or unit of its input, so that neither is compared; "" else."""
    if context.pipeline.train.kind != "eegssm":
        return ""
    model = EEGSSMConfig.model_validate(_document(Path(context.model_folder))["config"])
    return unchecked_input(model.input, input_of(context.tokenizer()))


def _document(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def _require_same_signals(model: EEGSSMConfig, tokenizer: Tokenizer, folder: Path) -> None:
    conflict = model.input.conflict(input_of(tokenizer))
    if model.patch_size != tokenizer.hop_samples:
        conflict = f"a patch of the model has {model.patch_size} samples, a frame of the tokens {tokenizer.hop_samples}"
    if conflict:
        raise ConfigError(
            conflict,
            where=str(folder),
            next_step="take a model that was trained on signals as this tokenizer takes them",
        )


def model_digest(folder: Path) -> str:
    """SHA-256 over the files of a model folder."""
    stats = [(file, file.stat()) for file in sorted(folder.iterdir())]
    return _digest_of(tuple((file, stat.st_size, stat.st_mtime_ns, stat.st_ino) for file, stat in stats))


@lru_cache(maxsize=8)
def _digest_of(files: tuple[tuple[Path, int, int, int], ...]) -> str:
    """Read the files once, not once per recording; one that was written anew has another time and is read again."""
    hasher = hashlib.sha256()
    for file, *_ in files:
        hasher.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return hasher.hexdigest()


@lru_cache(maxsize=1)
def _load_model(folder: str, digest: str) -> nn.Module:  # noqa: ARG001 - other weights in the folder, another model
    from torch import nn

    from neuromill.models.files import from_pretrained

    return from_pretrained(folder, nn.Module)


def _attributes(context: WorkContext, item: WorkItem, codes: IndexedRecording, digest: str) -> FeatureAttributes:
    from neuromill.store.attributes import FeatureAttributes, recording_facts

    kept = (
        "sfreq", "line_freq", "highpass", "lowpass", "frame_rate", "hop_samples", "segment_samples", "precision",
        "tokenizer",
    )  # fmt: skip
    return FeatureAttributes.model_validate(
        recording_facts(item.recording)
        | {name: codes.attributes[name] for name in kept}
        | {"model": digest, "pipeline": context.pipeline_attributes(item)}
    )
