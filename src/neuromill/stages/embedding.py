"""Embed: the codes of one recording to features of the trained model, published as a Zarr group."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from neuromill.stages.channels import channel_table
from neuromill.stages.sections import criss_cross_training

if TYPE_CHECKING:
    from neuromill.models.criss_cross import CrissCross
    from neuromill.stages.outcomes import WorkItem
    from neuromill.stages.work import Made, WorkContext
    from neuromill.store.attributes import FeatureAttributes
    from neuromill.store.contents import IndexedRecording


def embed_recording(context: WorkContext, item: WorkItem) -> Made:
    """Write features [frame, channel, dim] of every frame; channels that the model never saw are NaN."""
    from neuromill.stages.work import Made
    from neuromill.store.reader import StoreReader
    from neuromill.store.writer import FeatureWriter
    from neuromill.training.embedding import embed_recording as features_of
    from neuromill.training.store_tokens import StoreTokens

    window_frames = criss_cross_training(context.pipeline).windows.window_frames
    digest = model_digest(Path(context.model_folder))
    name, model = item.recording.id.name, _load_model(context.model_folder, digest)
    store = context.token_store(item)
    tokens = StoreTokens.open([store], pick=lambda one: one.name == name, parity=model.config.parity)
    if tokens.left_out:
        raise tokens.left_out[0]
    with StoreReader.of_groups(store, (name,)) as reader:
        codes, channels = reader.recording(name), channel_table(reader, name)
    with FeatureWriter(
        context.store(item), name, n_channels=len(channels), n_dims=model.config.latent_dim, dtype="float16"
    ) as writer:
        for block in features_of(model, tokens, 0, window_frames=window_frames):
            writer.write(block)
        published = writer.publish(_attributes(context, item, codes, digest), channels, replace=True)
    facts = {"n_frames": codes.n_rows, "n_channels": len(channels), "n_dims": model.config.latent_dim}
    return Made(bytes_out=published.n_bytes, adopted=not published.created, facts=facts)


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
def _load_model(folder: str, digest: str) -> CrissCross:  # noqa: ARG001 - other weights in the folder, another model
    from neuromill.models.files import from_pretrained

    return from_pretrained(folder)


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
