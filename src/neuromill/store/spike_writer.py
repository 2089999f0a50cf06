"""Write prepared spikes with behaviour, and their tokens, one group per recording."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.records import FailureCode, RecordingError, SpikeTokens, TokenKind, safe_name
from neuromill.records.ticks import bins_within, tick, ticks_of
from neuromill.store.attributes import group_attributes, unit_columns
from neuromill.store.errors import StoreError
from neuromill.store.layout import MAX_SHARD_BYTES, ArraySpec, plain_fill, shard_rows
from neuromill.store.publishing import PublishedGroup
from neuromill.store.writer import RecordingWriter, SpoolingWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.records import TrialTable, UnitTable
    from neuromill.store.attributes import SpikeAttributes, SpikeTokenAttributes

CHUNK_SECONDS = 60.0  # of counts: 576 kB of 192 units at 20 ms
CHUNK_TOKENS = 2**15  # 1 MB of patches
RATE_TOLERANCE = 1e-9
TRIAL_ARRAYS = ("trial_start", "trial_stop", "trial_success")
TOKEN_ARRAYS: dict[str, tuple[str, ...]] = {
    "slots": ("token",),
    "bins": ("token",),
    "kinds": ("token",),
    "patches": ("spike_token", "patch_channel"),
    "covariates": ("covariate_token",),
    "covariate_valid": ("covariate_token",),
    "constraints": ("constraint_token", "constraint_component"),
    "returns": ("return_token", "return_component"),
    "chunk_tokens": ("chunk_edge",),
    "chunk_contents": ("chunk_edge", "kind"),
    "chunk_start_bins": ("chunk",),
    "chunk_n_bins": ("chunk",),
}
CONTENT_ARRAYS = {
    "patches": TokenKind.SPIKE,
    "covariates": TokenKind.COVARIATE,
    "covariate_valid": TokenKind.COVARIATE,
    "constraints": TokenKind.CONSTRAINT,
    "returns": TokenKind.RETURN,
}


@dataclass(frozen=True, slots=True, eq=False)
class Behaviour:
    """Behaviour of a recording on its bins; () and arrays of no columns where there is none.

    Attributes
    ----------
    names, units
        One per covariate ("cursor_vel_x", "m/s"); "" for an unknown unit.
    values
        float32 [time, covariate] in these units, NaN where not observed. Not scaled.
    valid
        bool [time, covariate]: whether a value may count. False where it is NaN, and where a declared mask says so.
    scale
        float32 [covariate]: what a tokenizer divides by.
    segment
        int32 [time]: stretch of uninterrupted observation, -1 where nothing was observed.
    start_seconds
        Start of the first bin on the clock of the recording, which is that of the trials.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    scale: NDArray[np.float32]
    segment: NDArray[np.int32]
    start_seconds: float = 0.0

    def __post_init__(self) -> None:
        n_times, n_covariates = len(self.segment), len(self.names)
        shapes = {
            "units": (len(self.units), n_covariates),
            "values": (self.values.shape, (n_times, n_covariates)),
            "valid": (self.valid.shape, (n_times, n_covariates)),
            "scale": (self.scale.shape, (n_covariates,)),
        }
        for name, (found, wanted) in shapes.items():
            if found != wanted:
                raise ValueError(f"{name} of behaviour is {found}, not {wanted}")
        if (self.valid & ~np.isfinite(self.values)).any():
            raise ValueError("behaviour is valid where it is not a number")


class SpikeWriter(SpoolingWriter):
    """Write the counts of one prepared recording, and what else lies on its bins.

    Parameters
    ----------
    store
        Folder of the store identity.
    recording
        Name of the recording, a safe file name.
    n_units
        Columns of every block.
    bin_seconds
        Width of a bin; an inner chunk holds a minute of them.
    max_shard_bytes
        Upper bound of a shard file.
    """

    def __init__(
        self,
        store: str | Path,
        recording: str,
        *,
        n_units: int,
        bin_seconds: float,
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        if n_units < 1:
            raise RecordingError(FailureCode.NO_SPIKES, "recording has no units", where=recording)
        super().__init__(store, recording, (n_units,), "uint8")
        self._n_units, self._bin_seconds = n_units, bin_seconds
        self._chunk_rows, self._max_shard_bytes = max(1, round(CHUNK_SECONDS / bin_seconds)), max_shard_bytes

    def write(self, counts: NDArray[np.uint8]) -> None:
        """Append uint8 [time, unit]; blocks may have any length and do not change the bytes."""
        self._spool.append(counts)

    def publish(
        self,
        attributes: SpikeAttributes,
        units: UnitTable,
        *,
        behaviour: Behaviour,
        trials: TrialTable,
        replace: bool = False,
    ) -> PublishedGroup:
        """Publish what was written.

        Raises
        ------
        RecordingError
            ``empty`` without bins, ``no_spikes`` where all counts are 0.
        StoreError
            If units, behaviour or rate do not fit the counts, or other bytes have that name and ``replace`` is False.
        """
        self._check_spikes(attributes, units, behaviour)
        n_spikes, rates = self._spike_totals(behaviour.segment)
        if not n_spikes:
            raise RecordingError(FailureCode.NO_SPIKES, "no unit has a spike", where=self.recording)
        counts_note = {"units": "1", "long_name": "spikes per bin"}
        self._group.add_array(self._spec("counts", ("unit",), "uint8", counts_note), self._spool.blocks())
        self._add_plain("unit_mean_rate", ("unit",), rates, "float32", "Hz")
        self._add_behaviour(behaviour)
        success = success_mask(trials, behaviour.start_seconds, self._bin_seconds, self.n_rows)
        self._add_rows("trial_success_mask", (), success, {})
        self._add_trials(trials)
        facts = {
            "n_times": self.n_rows,
            "n_spikes": n_spikes,
            "covariate_names": list(behaviour.names),
            "covariate_units": list(behaviour.units),
            "trial_columns": {name: list(column) for name, column in _text_columns(trials).items()},
        }
        document = group_attributes("spikes", attributes, {**facts, **unit_columns(units)})
        return self._group.publish(document, replace=replace)

    def _check_spikes(self, attributes: SpikeAttributes, units: UnitTable, behaviour: Behaviour) -> None:
        if not self.n_rows:
            raise RecordingError(FailureCode.EMPTY, "recording has no bins", where=self.recording)
        if len(units) != self._n_units:
            raise StoreError(f"{len(units)} units in the table, {self._n_units} written", where=self.recording)
        if len(behaviour.segment) != self.n_rows:
            raise StoreError(f"behaviour of {len(behaviour.segment)} bins, {self.n_rows} written", where=self.recording)
        clocks = (attributes.start_seconds, attributes.bin_seconds), (behaviour.start_seconds, self._bin_seconds)
        if clocks[0] != clocks[1]:
            raise StoreError(f"bins of the attributes {clocks[0]} and of the data {clocks[1]}", where=self.recording)
        _require_rate(attributes.sfreq, self._bin_seconds, self.recording)

    def _spike_totals(self, segment: NDArray[np.int32]) -> tuple[int, NDArray[np.float64]]:
        """All spikes, and [unit] spikes per observed second (NaN where nothing was observed)."""
        observed = segment >= 0
        total, seen, row = 0, np.zeros(self._n_units, np.int64), 0
        for block in self._spool.blocks():
            total += int(block.sum(dtype=np.int64))
            seen += block[observed[row : row + len(block)]].sum(axis=0, dtype=np.int64)
            row += len(block)
        seconds = np.count_nonzero(observed) * self._bin_seconds
        return total, seen / seconds if seconds else np.full(self._n_units, np.nan)

    def _add_behaviour(self, behaviour: Behaviour) -> None:
        self._add_rows("segment", (), behaviour.segment.astype(np.int32), {"long_name": "-1: not observed"}, -1)
        if behaviour.names:  # Zarr has no chunk of length 0
            units = sorted(set(behaviour.units))
            note = {"units": units[0] if len(units) == 1 else "see covariate_units"}
            self._add_rows("covariate", ("covariate",), behaviour.values.astype(np.float32), note)
            self._add_rows("covariate_valid", ("covariate",), behaviour.valid.astype(bool), {})
            self._add_plain("covariate_scale", ("covariate",), behaviour.scale, "float32")

    def _add_trials(self, trials: TrialTable) -> None:
        own = (("trial_start", trials.starts), ("trial_stop", trials.stops))
        for name, seconds in own:
            self._add_plain(name, ("trial",), seconds, "float64", "s")
        self._add_plain("trial_success", ("trial",), trials.success, "bool")
        names = {column: f"trial_{safe_name(column)}" for column in sorted(trials.columns)}
        if len({*names.values(), *TRIAL_ARRAYS}) != len(names) + len(TRIAL_ARRAYS):
            raise StoreError(f"columns of trials share a name: {', '.join(names)}", where=self.recording)
        for column, name in names.items():
            values = trials.columns[column]
            if not isinstance(values, tuple):
                self._add_plain(name, ("trial",), values, "float64")

    def _add_rows(
        self, name: str, dims: tuple[str, ...], values: NDArray[Any], note: dict[str, str], fill: float | None = None
    ) -> None:
        self._group.add_array(self._spec(name, dims, str(values.dtype), note, values.shape[1:], fill), [values])

    def _spec(
        self,
        name: str,
        dims: tuple[str, ...],
        dtype: str,
        note: dict[str, str],
        row: tuple[int, ...] | None = None,
        fill: float | None = None,
    ) -> ArraySpec:
        row = (self._n_units,) if row is None else row
        row_bytes = int(np.prod(row, dtype=np.int64)) * np.dtype(dtype).itemsize
        rows = shard_rows(self.n_rows, self._chunk_rows, row_bytes, self._max_shard_bytes)
        value = plain_fill(dtype) if fill is None else fill
        return ArraySpec(name, ("time", *dims), (self.n_rows, *row), dtype, self._chunk_rows, rows, value, note)


class SpikeTokenWriter(RecordingWriter):
    """Write the tokens of one recording: one array per field of ``SpikeTokens``, empty ones left out."""

    def __init__(self, store: str | Path, recording: str, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        super().__init__(store, recording)
        self._max_shard_bytes = max_shard_bytes

    def publish(
        self,
        attributes: SpikeTokenAttributes,
        tokens: SpikeTokens,
        units: UnitTable,
        covariate_names: Sequence[str],
        covariate_scale: NDArray[np.float32],
        patch_channels: NDArray[np.uint8],
        *,
        replace: bool = False,
    ) -> PublishedGroup:
        """Publish tokens.

        Parameters
        ----------
        covariate_scale
            float32 [covariate]: value of a covariate = token * scale.
        patch_channels
            uint8 [patch]: units in each patch; columns of a patch beyond them are padding.

        Raises
        ------
        RecordingError
            ``too_short`` where there is no token.
        StoreError
            If lengths do not fit together, or other bytes have that name and ``replace`` is False.
        """
        _require_consistent(tokens, self.recording)
        _require_rate(attributes.sfreq, attributes.bin_seconds, self.recording)
        if len(covariate_names) != len(covariate_scale):
            raise StoreError("covariates need one name and one scale each", where=self.recording)
        for name, dims in TOKEN_ARRAYS.items():
            self._add(name, dims, getattr(tokens, name))
        self._add("covariate_scale", ("covariate",), np.asarray(covariate_scale, np.float32))
        self._add("patch_channels", ("patch",), np.asarray(patch_channels, np.uint8))
        kinds = np.bincount(tokens.kinds, minlength=len(TokenKind))
        facts = {
            "n_tokens": len(tokens.slots),
            "n_chunks": tokens.n_chunks,
            "n_times": int(tokens.chunk_n_bins.sum(dtype=np.int64)),
            "n_tokens_of_kind": {kind.name.lower(): int(kinds[kind]) for kind in TokenKind},
            "covariate_names": list(covariate_names),
        }
        document = group_attributes("spike_tokens", attributes, {**facts, **unit_columns(units)})
        return self._group.publish(document, replace=replace)

    def _add(self, name: str, dims: tuple[str, ...], values: NDArray[Any]) -> None:
        if len(values):  # Zarr has no chunk of length 0
            chunk = min(CHUNK_TOKENS, len(values))
            rows = shard_rows(len(values), chunk, values[:1].nbytes, self._max_shard_bytes)
            dtype = str(values.dtype)
            spec = ArraySpec(name, dims, values.shape, dtype, chunk, rows, plain_fill(dtype))
            self._group.add_array(spec, [values])


def success_mask(trials: TrialTable, start_seconds: float, bin_seconds: float, n_times: int) -> NDArray[np.bool_]:
    """Bins that lie wholly in a successful trial, to the microsecond; all of them where there are no trials.

    A trial without start or stop is in none.
    """
    if not len(trials):
        return np.ones(n_times, np.bool_)
    usable = np.asarray(trials.success, bool) & np.isfinite(trials.starts) & np.isfinite(trials.stops)
    starts, stops = (ticks_of(edge[usable]) - tick(start_seconds) for edge in (trials.starts, trials.stops))
    first, stop = bins_within(starts, stops, tick(bin_seconds), n_times)
    inside = np.zeros(n_times, np.bool_)
    for a, b in zip(first.tolist(), stop.tolist(), strict=True):
        inside[a:b] = True
    return inside


def _require_consistent(tokens: SpikeTokens, recording: str) -> None:
    """Raise where offsets, kinds and contents of tokens disagree: a reader trusts them."""
    if {field.name for field in fields(SpikeTokens)} != set(TOKEN_ARRAYS):
        raise StoreError("fields of the tokens are not those of the store", where=recording)
    if not len(tokens.slots):
        raise RecordingError(FailureCode.TOO_SHORT, "recording has no whole chunk", where=recording)
    n_chunks, of_kind = tokens.n_chunks, np.bincount(tokens.kinds, minlength=len(TokenKind))
    lengths = [
        *((name, len(getattr(tokens, name)), len(tokens.slots)) for name in ("bins", "kinds")),
        *((name, len(getattr(tokens, name)), int(of_kind[kind])) for name, kind in CONTENT_ARRAYS.items()),
        ("chunk_tokens", len(tokens.chunk_tokens), n_chunks + 1),
        ("chunk_contents", len(tokens.chunk_contents), n_chunks + 1),
        ("chunk_n_bins", len(tokens.chunk_n_bins), n_chunks),
        ("last of chunk_tokens", int(tokens.chunk_tokens[-1]), len(tokens.slots)),
        *(
            (f"last {kind.name} of chunk_contents", int(tokens.chunk_contents[-1, kind]), int(of_kind[kind]))
            for kind in TokenKind
        ),
    ]
    if wrong := [f"{name} is {found}, not {wanted}" for name, found, wanted in lengths if found != wanted]:
        raise StoreError(f"tokens do not fit together: {'; '.join(wrong)}", where=recording)


def _require_rate(sfreq: float, bin_seconds: float, recording: str) -> None:
    if abs(sfreq * bin_seconds - 1) > RATE_TOLERANCE:
        raise StoreError(f"{sfreq} bins per second are not of {bin_seconds} s", where=recording)


def _text_columns(trials: TrialTable) -> dict[str, Iterable[str]]:
    return {name: column for name, column in sorted(trials.columns.items()) if isinstance(column, tuple)}


__all__ = ["Behaviour", "PublishedGroup", "SpikeTokenWriter", "SpikeWriter"]
