"""Prepared signals and the tokens made of them as one source of training data."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from neuromill.records import ConfigError, FailureCode, RecordingError
from neuromill.store.reader import StoreReader
from neuromill.store.usage import codebook_usage
from neuromill.training.coded_signals import CodedRecording
from neuromill.training.same_settings import CODES, require_same

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.store.contents import IndexedRecording


@dataclass(frozen=True, slots=True)
class CodedStore:
    """The token store of one dataset version, and the prepared store its tokens were made of."""

    tokens: str | Path
    signals: str | Path


@dataclass(frozen=True, slots=True, eq=False)
class _Marks:
    """What decides whether a patch is fit for use.

    Attributes
    ----------
    coded
        bool [segment, channel]: the tokenizer had a signal there.
    kept
        bool [window, channel]: preparation did not reject it; None where it looked at nothing.
    window_samples
        Length of those windows.
    """

    coded: NDArray[np.bool_]
    kept: NDArray[np.bool_] | None
    window_samples: int

    def usable(self, start: int, stop: int, hop: int, segment_frames: int) -> NDArray[np.bool_]:
        """Bool [channel, frame]; a frame that reaches into a rejected window is rejected."""
        frames = np.arange(start, stop)
        fit = self.coded[frames // segment_frames]
        if self.kept is not None:
            fit &= kept_patches(self.kept, self.window_samples, frames * hop, hop)
        return fit.T


def kept_patches(
    kept: NDArray[np.bool_], window_samples: int, starts: NDArray[np.int64], patch_samples: int
) -> NDArray[np.bool_]:
    """Whether patches lie in windows that are kept alone: bool [patch, channel].

    Parameters
    ----------
    kept
        bool [window, channel].
    window_samples
        Length of those windows.
    starts
        int64 [patch]: first sample of each patch.
    """
    first, last = starts // window_samples, (starts + patch_samples - 1) // window_samples
    fit = kept[first]
    for further in range(1, int((last - first).max(initial=0)) + 1):
        fit &= kept[np.minimum(first + further, last)]
    return fit


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where a recording lies, and what turns its stored values into those of the tokenizer.

    Attributes
    ----------
    dtype
        Of the stored values.
    gain, offset
        float32 [segment, channel]: x = stored * gain + offset. The divisor that the tokenizer used is stored with the
        codes (100 uV everywhere for CodeBrain's; the robust deviation of the segment for teslas). That holds of TFDual:
        BioCodec's ``scale`` divides rows that it has normalised before. The stages open stores of TFDual alone.
    """

    tokens: StoreReader
    signals: StoreReader
    name: str
    dtype: np.dtype[Any]
    marks: _Marks
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class StoreCodedSignals:
    """Recordings of prepared and token stores; a :class:`neuromill.training.coded_signals.CodedSource`.

    A patch is fit for use where its channel is good, has a code, and preparation did not reject it (array ``rejected``
    of the prepared group).

    Attributes
    ----------
    recordings
        In the order of the stores and of their indexes.
    left_out
        Why a recording cannot be trained on; the others go on without it.
    """

    recordings: tuple[CodedRecording, ...]
    left_out: tuple[RecordingError, ...]
    _places: tuple[_Place, ...]

    @classmethod
    def open(
        cls,
        stores: Sequence[CodedStore],
        *,
        pick: Callable[[IndexedRecording], bool] = lambda _: True,
        parity: bool = False,
    ) -> Self:
        """Open stores by their index.

        Parameters
        ----------
        stores
            Folders of token identities, each with that of the signals.
        pick
            Which recordings to take, by what the index of the tokens says.
        parity
            A window in which one channel is rejected counts as rejected for all of them (CBraMod's rule).

        Raises
        ------
        ConfigError
            A store has no index, or the codes were not all made in the same way.
        """
        found, places, left_out = [], [], []
        with ExitStack() as stack:  # what is read here is not read again; readers open anew what batches need
            opened = [
                (stack.enter_context(StoreReader.open(one.tokens)), stack.enter_context(StoreReader.open(one.signals)))
                for one in stores
            ]
            picked = [(pair, one) for pair in opened for one in pair[0].recordings if pick(one)]
            _check_same([one for _, one in picked])
            for (tokens, signals), one in picked:
                try:
                    recording, place = _describe(tokens, signals, one, parity=parity)
                except RecordingError as error:
                    left_out.append(error)
                else:
                    found.append(recording)
                    places.append(place)
        return cls(tuple(found), tuple(left_out), tuple(places))

    def usable(self, recording: int, start: int, stop: int) -> NDArray[np.bool_]:
        """Bool [channel, frame]."""
        one = self.recordings[recording]
        return self._places[recording].marks.usable(start, stop, one.hop_samples, one.segment_frames or one.n_frames)

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the prepared signals where they all have the same, float32 otherwise."""
        dtypes = {place.dtype for place in self._places}
        return dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)

    def read_stored(self, recording: int, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read frames ``start`` to ``stop`` into ``out``, C-contiguous [time, channel] of ``dtype``, as they are."""
        place, hop = self._places[recording], self.recordings[recording].hop_samples
        same = place.dtype == out.dtype
        read = place.signals.read(place.name, "signal", start * hop, stop * hop, out if same else None)
        if not same:
            out[...] = read

    def scaling(self, recording: int, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return gain and offset of frames ``start`` to ``stop``, float32 [channel, frame] or [channel, 1]."""
        one, place = self.recordings[recording], self._places[recording]
        segment = one.segment_frames or one.n_frames
        if start // segment == (stop - 1) // segment:  # nearly every window
            segments = np.array([start // segment])
        else:
            segments = np.arange(start, stop) // segment
        return place.gain[segments].T, place.offset[segments].T

    def read_signal(self, recording: int, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Read frames ``start`` to ``stop`` into ``out``, float32 [channel, time], in the unit of the tokenizer."""
        place, hop = self._places[recording], self.recordings[recording].hop_samples
        stored = torch.from_numpy(place.signals.read(place.name, "signal", start * hop, stop * hop))
        gain, offset = map(torch.from_numpy, self.scaling(recording, start, stop))
        # torch transposes and widens float16 in one go: 0.09 ms for 19 channels x 30 s, numpy takes 0.4 ms.
        made = torch.from_numpy(out).copy_(stored.t()).view(len(out), -1, hop)
        made.mul_(gain[..., None]).add_(offset[..., None])

    def read_codes(self, recording: int, start: int, stop: int, out: NDArray[np.int32]) -> None:
        """Read frames ``start`` to ``stop`` into ``out``, int32 [channel, frame, quantizer]."""
        place = self._places[recording]
        out[...] = place.tokens.read(place.name, "codes", start, stop).transpose(2, 0, 1)

    def code_counts(self) -> NDArray[np.int64]:
        """How often each code occurs, int64 [quantizer, code], in good channels; of joint tokenizers in frames kept."""
        first = self.recordings[0]
        counts = np.zeros((first.n_quantizers, first.codebook_size), np.int64)
        for place in self._places:
            counts += codebook_usage(place.tokens, place.name)
        return counts


def _describe(
    tokens: StoreReader, signals: StoreReader, one: IndexedRecording, *, parity: bool
) -> tuple[CodedRecording, _Place]:
    signal = signals.recording(one.name)
    _check_pair(one, signal)
    hop, segment_samples = int(one.attributes["hop_samples"]), int(one.attributes["segment_samples"])
    if segment_samples % hop:
        raise ConfigError(
            f"segments of {segment_samples} samples are no whole number of frames of {hop}",
            where=one.name,
            next_step="set tokenize.segment_seconds to a multiple of the frame",
        )
    n_frames = min(one.n_rows, signal.n_rows // hop)
    marks = _marks(tokens, signals, one, parity=parity)
    if not n_frames or not marks.usable(0, n_frames, hop, segment_samples // hop).any():
        raise RecordingError(
            FailureCode.NO_USABLE_CHANNELS,
            "no patch of any channel is fit for use: bad, without a code, or rejected",
            where=str(one.attributes["recording_id"]),
        )
    recording = CodedRecording(
        name=str(one.attributes["recording_id"]),
        dataset=str(one.attributes["dataset"]),
        subject=one.entities.get("subject", ""),
        n_frames=n_frames,
        n_channels=one.n_channels,
        n_quantizers=int(one.attributes["n_quantizers"]),
        codebook_size=int(one.attributes["codebook_size"]),
        hop_samples=hop,
        segment_frames=segment_samples // hop,
    )
    gain, offset = _gains(tokens, signals, one)
    return recording, _Place(tokens, signals, one.name, signal.main.dtype, marks, gain, offset)


def _marks(tokens: StoreReader, signals: StoreReader, one: IndexedRecording, *, parity: bool) -> _Marks:
    bads = one.attributes["bads"]
    good = np.array([name not in bads for name in one.attributes["channel_names"]])
    coded = np.isfinite(tokens.read(one.name, "scale")) & good
    rejected = signals.recording(one.name).arrays.get("rejected")
    if rejected is None:
        return _Marks(coded, None, 1)
    kept = signals.read(one.name, "rejected") == 0
    if parity:  # of channels that have codes anywhere: others are no part of the input
        whole = kept[:, coded.any(axis=0)].all(axis=1, keepdims=True)
        kept = np.broadcast_to(whole, kept.shape)
    return _Marks(coded, kept, int(rejected.spec.attributes["window_samples"]))


def _gains(
    tokens: StoreReader, signals: StoreReader, one: IndexedRecording
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gain and offset of each segment and channel; 0 where there is nothing, so that it reads as silence."""
    divisor = tokens.read(one.name, "scale").astype(np.float64)
    gain = signals.read(one.name, "channel_scale") / divisor
    offset = signals.read(one.name, "channel_offset") / divisor
    there = np.isfinite(gain) & np.isfinite(offset)
    return np.where(there, gain, 0).astype(np.float32), np.where(there, offset, 0).astype(np.float32)


def _check_pair(tokens: IndexedRecording, signal: IndexedRecording) -> None:
    for key in ("channel_names", "sfreq"):
        ours, theirs = tokens.attributes[key], signal.attributes[key]
        if ours != theirs:
            raise ConfigError(
                f"tokens and signal differ in {key}",
                where=tokens.name,
                next_step="run `neuromill prepare` and `neuromill tokenize` again",
            )


def _check_same(recordings: Sequence[IndexedRecording]) -> None:
    for one in recordings:
        if one.kind != "tokens":
            raise ConfigError(
                f"the store holds {one.kind}", where=one.name, next_step="point to a store of the stage tokenize"
            )
    require_same(recordings, CODES, "tokenize all recordings with the same tokenizer and settings")
