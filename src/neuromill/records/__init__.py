"""The nouns every room speaks: frozen types, no I/O, no knowledge of other rooms."""

from neuromill.records.channels import ChannelTable
from neuromill.records.config import Config
from neuromill.records.digests import Digest, canonical_json, identity, new_hasher
from neuromill.records.events import Events
from neuromill.records.failures import ConfigError, FailureCode, NeuroMillError, RecordingError
from neuromill.records.layouts import (
    ColumnIs,
    CovariateLayout,
    MaskLayout,
    SpikeLayout,
    TrialsLayout,
    UnitsLayout,
)
from neuromill.records.recordings import (
    ENTITIES,
    DatasetVersion,
    Entities,
    FileState,
    Manifest,
    Recording,
    RecordingId,
    SourceFile,
    check_name,
    check_relative_path,
    safe_name,
)
from neuromill.records.spans import PartId, TimeSpan, cut
from neuromill.records.spike_tokens import SpikeTokens, TokenKind
from neuromill.records.units import TrialTable, UnitTable

__all__ = [
    "ENTITIES", "ChannelTable", "ColumnIs", "Config", "ConfigError", "CovariateLayout", "DatasetVersion", "Digest",
    "Entities", "Events", "FailureCode", "FileState", "Manifest", "MaskLayout", "NeuroMillError", "PartId",
    "Recording", "RecordingError", "RecordingId", "SourceFile", "SpikeLayout", "SpikeTokens", "TimeSpan", "TokenKind",
    "TrialTable", "TrialsLayout", "UnitTable", "UnitsLayout", "canonical_json", "check_name", "check_relative_path",
    "cut", "identity", "new_hasher", "safe_name",
]  # fmt: skip
