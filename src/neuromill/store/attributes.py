"""What a group says about itself: typed attributes, written as the group's Zarr attributes."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue

from neuromill.records import Config, UnitTable
from neuromill.store.layout import FORMAT, FORMAT_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuromill.records import ChannelTable, Entities, Recording


class PipelineAttributes(Config):
    """What made a group."""

    name: str = ""
    stage: str = ""
    identity: str = ""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    code_versions: dict[str, str] = Field(default_factory=dict)


class RecordingAttributes(Config):
    """What every group says. Frequencies in Hz; ``facts`` and ``sources`` are JSON.

    Attributes
    ----------
    entities
        BIDS entities under their long names, absent ones left out.
    highpass, lowpass
        Band the values went through, None where unknown.
    line_freq
        Power line frequency, None where unknown.
    facts
        Whatever else is known of the signal: device, reference, head compensation, filter design.
    sources
        Digest of each member file ("sha256:..."), by path; for tokens, the digest of the prepared group.
    """

    recording_id: str
    dataset: str
    version: str
    entities: dict[str, str] = Field(default_factory=dict)
    modality: str
    sfreq: float = Field(gt=0)
    line_freq: float | None = None
    highpass: float | None = None
    lowpass: float | None = None
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)
    pipeline: PipelineAttributes = PipelineAttributes()


class SignalAttributes(RecordingAttributes):
    """A prepared recording. Channel columns, ``n_times`` and the encoding are added by the writer."""


class TokenAttributes(RecordingAttributes):
    """Codes of a recording; ``sfreq`` is that of the signal the codes were computed from.

    Attributes
    ----------
    frame_rate
        Frames per second.
    hop_samples
        Samples of the signal per frame.
    segment_samples
        Length of the segment grid; the last segment may be shorter.
    precision
        Number format the encoder ran in ("float32", "bfloat16").
    tokenizer
        Digest of the tokenizer that made the codes.
    """

    frame_rate: float = Field(gt=0)
    hop_samples: int = Field(gt=0)
    segment_samples: int = Field(gt=0)
    precision: str = "float32"
    tokenizer: str


class FeatureAttributes(TokenAttributes):
    """Features of a model, one vector per channel and frame."""

    model: str


class SpikeAttributes(RecordingAttributes):
    """Prepared spikes and behaviour; ``sfreq`` is the number of bins per second.

    Unit columns, covariate names and ``n_times`` are added by the writer.

    Attributes
    ----------
    start_seconds
        Start of the first bin on the clock of the recording.
    bin_seconds
        Width of a bin.
    """

    start_seconds: float = 0.0
    bin_seconds: float = Field(gt=0)


class SpikeTokenAttributes(SpikeAttributes):
    """Tokens of spikes; unit columns, covariate names and numbers of tokens, chunks and bins are added by the writer.

    Attributes
    ----------
    chunk_bins
        Bins of a chunk; one that a gap or the end cuts short has fewer.
    tokenizer
        Digest of the vocabulary and settings that made the tokens.
    """

    chunk_bins: int = Field(gt=0)
    tokenizer: str


def recording_facts(recording: Recording) -> dict[str, Any]:
    """Keyword arguments of ``RecordingAttributes`` that a ``Recording`` knows."""
    return {
        "recording_id": str(recording.id),
        "dataset": recording.id.dataset,
        "version": recording.id.version,
        "entities": entity_labels(recording.entities),
        "modality": recording.datatype,
        "line_freq": recording.line_freq,
        "sources": {m.path: str(m.digest or m.locator) for m in sorted(recording.members, key=lambda m: m.path)},
    }


def entity_labels(entities: Entities) -> dict[str, str]:
    """Labels that are present, by long name."""
    return {name: label for name, label in asdict(entities).items() if label}


def channel_columns(channels: ChannelTable) -> dict[str, Any]:
    """Columns of a channel table as JSON attributes; positions and orientations are arrays of their own."""
    return {
        "channel_names": list(channels.names),
        "channel_types": list(channels.types),
        "channel_coils": list(channels.coils),
        "channel_units": list(channels.units),
        "bads": {name: reason for name, reason in zip(channels.names, channels.bads, strict=True) if reason},
    }


def unit_columns(units: UnitTable) -> dict[str, Any]:
    """Columns of a unit table as JSON attributes."""
    return {
        "unit_names": list(units.names),
        "unit_electrodes": list(units.electrodes),
        "unit_arrays": list(units.arrays),
        "unit_areas": list(units.areas),
        "unit_is_sorted": list(units.is_sorted),
        "bads": {name: reason for name, reason in zip(units.names, units.bads, strict=True) if reason},
    }


def unit_table_of(attributes: Mapping[str, Any]) -> UnitTable:
    """Return the unit table that ``unit_columns`` made into attributes."""
    names = tuple(attributes["unit_names"])
    return UnitTable(
        names=names,
        electrodes=tuple(attributes["unit_electrodes"]),
        arrays=tuple(attributes["unit_arrays"]),
        areas=tuple(attributes["unit_areas"]),
        is_sorted=tuple(attributes["unit_is_sorted"]),
        bads=tuple(attributes["bads"].get(name, "") for name in names),
    )


def group_attributes(kind: str, attributes: RecordingAttributes, extra: dict[str, Any]) -> dict[str, Any]:
    """Everything a group's ``zarr.json`` holds under ``attributes``."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind}
    return {**head, **attributes.model_dump(mode="json"), **extra}
