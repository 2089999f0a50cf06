"""Write prepared signals, codes and features, one group per recording, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from neuromill.records import FailureCode, RecordingError
from neuromill.store.attributes import channel_columns, group_attributes
from neuromill.store.errors import StoreError
from neuromill.store.filesystem import open_file_system
from neuromill.store.layout import (
    CHUNK_FRAMES,
    MAX_SHARD_BYTES,
    MAX_UINT8_CODEBOOK,
    ArraySpec,
    SignalEncoding,
    plain_spec,
    shard_rows,
    signal_chunk_samples,
)
from neuromill.store.publishing import GroupWriter, PublishedGroup
from neuromill.store.scaling import FILLS, UNUSABLE, encode_block, measure, scaling_of
from neuromill.store.spool import Spool
from neuromill.store.usage import is_worth_keeping

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from neuromill.records import ChannelTable, Events
    from neuromill.records.rejection import Rejection
    from neuromill.store.attributes import FeatureAttributes, SignalAttributes, TokenAttributes


class RecordingWriter:
    """Writes the group of one recording; what is not published is gone at the end."""

    def __init__(self, store: str | Path, recording: str) -> None:
        self._fs = open_file_system(store)
        self.recording = recording
        self._group = GroupWriter(self._fs, recording)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was not published."""
        self._group.__exit__(None, None, None)


class SpoolingWriter(RecordingWriter):
    """Rows go to a nameless file first: sizes and statistics are known before the first byte of the group."""

    def __init__(self, store: str | Path, recording: str, row_shape: tuple[int, ...], dtype: str) -> None:
        super().__init__(store, recording)
        self._spool = Spool(self._fs, row_shape, dtype)

    @property
    def n_rows(self) -> int:
        """Rows written so far."""
        return self._spool.n_rows

    def close(self) -> None:
        """Remove what was not published."""
        self._spool.close()
        super().close()

    def _check(self, n_channels: int, channels: ChannelTable) -> None:
        if not self.n_rows:
            raise RecordingError(FailureCode.EMPTY, "recording has no samples", where=self.recording)
        channels.require_unique_names(self.recording)
        if len(channels) != n_channels:
            raise StoreError(f"{len(channels)} channels in the table, {n_channels} written", where=self.recording)

    def _add_plain(
        self,
        name: str,
        dims: tuple[str, ...],
        values: ArrayLike,
        dtype: str,
        units: str | None = None,
        **attributes: Any,
    ) -> None:
        array = np.asarray(values, dtype)
        if len(array):  # Zarr has no chunk of length 0
            attributes |= {"units": units} if units else {}
            self._group.add_array(plain_spec(name, dims, array.shape, dtype, attributes), [array])

    def _add_sensors(self, channels: ChannelTable) -> None:
        self._add_plain("channel_position", ("channel", "xyz"), channels.positions, "float32", "m")
        self._add_plain("channel_orientation", ("channel", "xyz"), channels.orientations, "float32")


class SignalWriter(SpoolingWriter):
    """Write one prepared recording.

    Parameters
    ----------
    store
        Folder of the store identity.
    recording
        Name of the recording, a safe file name.
    n_channels
        Columns of every block.
    sfreq
        Sampling frequency in Hz; chooses the inner chunk unless ``chunk_samples`` is given.
    encoding
        ``float16`` and ``int16`` are scaled per channel by the standard deviation, ``float32`` is stored as it is.
    chunk_samples
        Samples of an inner chunk; by default 12 s in whole token frames of 12 samples.
    max_shard_bytes
        Upper bound of a shard file.
    """

    def __init__(
        self,
        store: str | Path,
        recording: str,
        *,
        n_channels: int,
        sfreq: float,
        encoding: SignalEncoding = "float16",
        chunk_samples: int | None = None,
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        super().__init__(store, recording, (n_channels,), "float32")
        self._n_channels, self._sfreq, self._encoding = n_channels, sfreq, encoding
        self._chunk_samples = chunk_samples or signal_chunk_samples(sfreq)
        self._max_shard_bytes = max_shard_bytes

    def write(self, block: NDArray[np.float32]) -> None:
        """Append float32 [time, channel] in SI units; blocks may have any length and do not change the bytes.

        Raises
        ------
        StoreError
            If the block has another number of channels or another dtype.
        """
        self._spool.append(block)

    def publish(
        self,
        attributes: SignalAttributes,
        channels: ChannelTable,
        *,
        events: Events | None = None,
        rejection: Rejection | None = None,
        replace: bool = False,
    ) -> PublishedGroup:
        """Encode what was written and publish the group.

        A channel with non-finite values or without variance gets that reason in ``bads`` and a NaN scale, so that its
        physical values read as NaN; every other channel keeps its values, also when it is marked bad.

        Raises
        ------
        RecordingError
            ``empty``, ``duplicate_channels``, or ``no_usable_channels`` where every channel is unusable.
        StoreError
            If the channel table does not fit, or other bytes have that name and ``replace`` is False.
        """
        self._check(self._n_channels, channels)
        statistics = measure(self._spool)
        channels = channels.with_bads(statistics.reasons)
        usable = np.array([reason not in UNUSABLE for reason in channels.bads]) & statistics.usable
        if not usable.any():
            raise RecordingError(
                FailureCode.NO_USABLE_CHANNELS, "every channel is flat or not finite", where=self.recording
            )
        scaling = scaling_of(statistics, usable, self._encoding)
        self._group.add_array(self._signal_spec(), (encode_block(block, scaling) for block in self._spool.blocks()))
        self._add_plain("channel_scale", ("channel",), scaling.scale, "float32")
        self._add_plain("channel_offset", ("channel",), scaling.offset, "float32")
        self._add_sensors(channels)
        if events is not None:
            self._add_plain("event_onset", ("event",), events.onsets, "float64", "s")
            self._add_plain("event_duration", ("event",), events.durations, "float64", "s")
        if rejection is not None:
            about: dict[str, Any] = {"window_samples": rejection.window_samples, "legend": list(rejection.legend)}
            self._add_plain("rejected", ("window", "channel"), rejection.reasons, "uint8", **about)
        facts: dict[str, Any] = {
            "n_times": self.n_rows,
            "encoding": self._encoding,
            "n_clipped": scaling.n_clipped(self._spool),
            "event_descriptions": list(events.descriptions) if events is not None else [],
        }
        document = group_attributes("signal", attributes, {**facts, **channel_columns(channels)})
        return self._group.publish(document, replace=replace)

    def _signal_spec(self) -> ArraySpec:
        row_bytes = self._n_channels * np.dtype(self._encoding).itemsize
        rows = shard_rows(self.n_rows, self._chunk_samples, row_bytes, self._max_shard_bytes)
        shape = (self.n_rows, self._n_channels)
        note = {"long_name": "stored value; physical = signal * channel_scale + channel_offset"}
        fill = FILLS[self._encoding]
        return ArraySpec("signal", ("time", "channel"), shape, self._encoding, self._chunk_samples, rows, fill, note)


class TokenWriter(SpoolingWriter):
    """Write the codes of one recording, segment by segment.

    Codes are uint8 where the codebook has at most 256 entries, uint16 otherwise.
    """

    def __init__(
        self,
        store: str | Path,
        recording: str,
        *,
        n_channels: int,
        n_quantizers: int,
        codebook_size: int,
        chunk_frames: int = CHUNK_FRAMES,
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        self._dtype = "uint8" if codebook_size <= MAX_UINT8_CODEBOOK else "uint16"
        super().__init__(store, recording, (n_quantizers, n_channels), self._dtype)
        self._n_channels, self._n_quantizers, self._codebook_size = n_channels, n_quantizers, codebook_size
        self._chunk_frames, self._max_shard_bytes = chunk_frames, max_shard_bytes
        self._segments: list[tuple[int, int, int]] = []
        self._scales: list[NDArray[np.float32]] = []

    def write_segment(self, codes: NDArray[np.integer[Any]], scale: NDArray[np.float32], n_valid_samples: int) -> None:
        """Append one segment.

        Parameters
        ----------
        codes
            Integers [frame, quantizer, channel] below the codebook size.
        scale
            float32 [channel]: what the tokenizer divided the segment by, NaN for channels without values.
        n_valid_samples
            Samples of the segment that the recording really has; the rest of a padded tail is masked by it.

        Raises
        ------
        StoreError
            If the segment is empty, a code lies outside the codebook, or the shapes are not those of the recording.
        """
        if not codes.size or codes.min() < 0 or codes.max() >= self._codebook_size:
            raise StoreError("segment is empty or holds codes outside the codebook", where=self.recording)
        if scale.shape != (self._n_channels,) or n_valid_samples < 1:
            raise StoreError("segment needs one scale per channel and valid samples", where=self.recording)
        start = self.n_rows
        self._spool.append(codes.astype(self._dtype))
        self._segments.append((start, len(codes), n_valid_samples))
        self._scales.append(np.asarray(scale, np.float32))

    def publish(
        self,
        attributes: TokenAttributes,
        channels: ChannelTable,
        *,
        usage: NDArray[np.integer[Any]] | None = None,
        replace: bool = False,
    ) -> PublishedGroup:
        """Publish the group.

        Parameters
        ----------
        usage
            How often each code was used in channels that are not bad and had a signal, int64 [quantizer, code]. Kept
            where it is small beside the codes; ``neuromill.store.usage.codebook_usage`` gives it back in any case.

        Raises
        ------
        RecordingError
            ``empty``, ``duplicate_channels``.
        StoreError
            If the channel table does not fit, or other bytes have that name and ``replace`` is False.
        """
        self._check(self._n_channels, channels)
        self._group.add_array(self._codes_spec(), self._spool.blocks())
        self._add_plain("scale", ("segment", "channel"), np.stack(self._scales), "float32")
        table = np.array(self._segments, np.int64)
        for column, name in enumerate(("segment_start_frame", "segment_n_frames", "segment_n_valid_samples")):
            self._add_plain(name, ("segment",), table[:, column], "int64")
        if usage is not None and is_worth_keeping(usage.nbytes, self.n_rows * self._row_bytes):
            self._add_plain("codebook_usage", ("quantizer", "code"), usage, "int64")
        self._add_sensors(channels)
        facts: dict[str, Any] = {
            "n_frames": self.n_rows,
            "n_segments": len(self._segments),
            "n_valid_samples": int(table[:, 2].sum()),
            "codebook_size": self._codebook_size,
            "n_quantizers": self._n_quantizers,
        }
        document = group_attributes("tokens", attributes, {**facts, **channel_columns(channels)})
        return self._group.publish(document, replace=replace)

    @property
    def _row_bytes(self) -> int:
        return self._n_quantizers * self._n_channels * np.dtype(self._dtype).itemsize

    def _codes_spec(self) -> ArraySpec:
        row = (self._n_quantizers, self._n_channels)
        rows = shard_rows(self.n_rows, self._chunk_frames, self._row_bytes, self._max_shard_bytes)
        fill = int(np.iinfo(self._dtype).max)
        dims = ("frame", "quantizer", "channel")
        return ArraySpec("codes", dims, (self.n_rows, *row), self._dtype, self._chunk_frames, rows, fill)


class FeatureWriter(SpoolingWriter):
    """Write features [frame, channel, dim] of one recording, ``float16`` or ``float32`` without scaling."""

    def __init__(
        self,
        store: str | Path,
        recording: str,
        *,
        n_channels: int,
        n_dims: int,
        dtype: str = "float32",
        chunk_frames: int = CHUNK_FRAMES,
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        super().__init__(store, recording, (n_channels, n_dims), dtype)
        self._row, self._dtype = (n_channels, n_dims), dtype
        self._chunk_frames, self._max_shard_bytes = chunk_frames, max_shard_bytes

    def write(self, block: NDArray[np.floating[Any]]) -> None:
        """Append floats [frame, channel, dim]; they are converted to the dtype of the features.

        Raises
        ------
        StoreError
            If the block has another number of channels or of dimensions.
        """
        self._spool.append(block.astype(self._dtype))

    def publish(
        self, attributes: FeatureAttributes, channels: ChannelTable, *, replace: bool = False
    ) -> PublishedGroup:
        """Publish the group; raises as ``TokenWriter.publish`` does."""
        self._check(self._row[0], channels)
        row_bytes = self._row[0] * self._row[1] * np.dtype(self._dtype).itemsize
        rows = shard_rows(self.n_rows, self._chunk_frames, row_bytes, self._max_shard_bytes)
        shape = (self.n_rows, *self._row)
        spec = ArraySpec("features", ("frame", "channel", "dim"), shape, self._dtype, self._chunk_frames, rows, "NaN")
        self._group.add_array(spec, self._spool.blocks())
        self._add_sensors(channels)
        facts: dict[str, Any] = {"n_frames": self.n_rows, "n_dims": self._row[1]}
        document = group_attributes("features", attributes, {**facts, **channel_columns(channels)})
        return self._group.publish(document, replace=replace)


__all__ = ["FeatureWriter", "PublishedGroup", "SignalWriter", "TokenWriter"]
