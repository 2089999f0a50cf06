"""What masked prediction from the signal knows of its data: recordings that have both a signal and codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neuromill.records import ConfigError
from neuromill.training.windows import BatchShape, plan_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neuromill.training.eegssm_config import EEGSSMTrainConfig
    from neuromill.training.windows import Window


@dataclass(frozen=True, slots=True)
class CodedRecording:
    """One recording with its codes: frame k stands for samples k * hop_samples to (k + 1) * hop_samples.

    Attributes
    ----------
    name
        Unique among all recordings of a run.
    dataset, subject
        Who it is.
    n_frames
        Whole frames: an incomplete one at the end does not count.
    n_channels
        All channels of the prepared signal, in its order.
    segment_frames
        Grid of the tokenizer; None where the recording was encoded in one piece.
    """

    name: str
    dataset: str
    subject: str
    n_frames: int
    n_channels: int
    n_quantizers: int
    codebook_size: int
    hop_samples: int
    segment_frames: int | None = None


class CodedSource(Protocol):
    """Recordings, their signals and codes. Reading must be safe from several threads at once."""

    @property
    def recordings(self) -> Sequence[CodedRecording]:
        """All recordings, in an order that never changes."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number format that ``read_stored`` gives."""
        ...

    def usable(self, recording: int, start: int, stop: int) -> NDArray[np.bool_]:
        """Bool [channel, frame] of frames ``start`` to ``stop``: there is a signal, it is fit for use, it has codes."""
        ...

    def read_signal(self, recording: int, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Read frames ``start`` to ``stop`` into ``out``, float32 [channel, time], in the unit of the tokenizer.

        What ``usable`` excludes holds any numbers.
        """
        ...

    def read_stored(self, recording: int, start: int, stop: int, out: NDArray[Any]) -> None:
        """Read frames ``start`` to ``stop`` into ``out``, C-contiguous [time, channel] of ``dtype``, as they are."""
        ...

    def scaling(self, recording: int, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Gain and offset of frames ``start`` to ``stop``: signal = stored * gain + offset.

        float32 [channel, frame], or [channel, 1] where all frames have the same.
        """
        ...

    def read_codes(self, recording: int, start: int, stop: int, out: NDArray[np.int32]) -> None:
        """Read frames ``start`` to ``stop`` into ``out``, int32 [channel, frame, quantizer]."""
        ...

    def code_counts(self) -> NDArray[np.int64]:
        """How often each code occurs in all recordings: int64 [quantizer, code]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MemoryCodedSignals:
    """Signals and codes in memory: for tests and for a few short recordings.

    Attributes
    ----------
    signals
        float32 [channel, time] per recording, in the unit of the tokenizer.
    codes
        Integers [frame, quantizer, channel] per recording.
    fit_for_use
        bool [channel, frame] per recording.
    """

    recordings: Sequence[CodedRecording]
    signals: Sequence[NDArray[np.float32]]
    codes: Sequence[NDArray[np.integer]]
    fit_for_use: Sequence[NDArray[np.bool_]]

    def usable(self, recording: int, start: int, stop: int) -> NDArray[np.bool_]:
        """Bool [channel, frame]."""
        return self.fit_for_use[recording][:, start:stop]

    def read_signal(self, recording: int, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Copy frames ``start`` to ``stop`` into ``out``, float32 [channel, time]."""
        hop = self.recordings[recording].hop_samples
        out[...] = self.signals[recording][:, start * hop : stop * hop]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Float32."""
        return np.dtype(np.float32)

    def read_stored(self, recording: int, start: int, stop: int, out: NDArray[Any]) -> None:
        """Copy frames ``start`` to ``stop`` into ``out``, float32 [time, channel]."""
        self.read_signal(recording, start, stop, out.T)

    def scaling(self, recording: int, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # noqa: ARG002 - the same everywhere
        """One and zero, float32 [channel, 1] each."""
        shape = (self.recordings[recording].n_channels, 1)
        return np.ones(shape, np.float32), np.zeros(shape, np.float32)

    def read_codes(self, recording: int, start: int, stop: int, out: NDArray[np.int32]) -> None:
        """Copy frames ``start`` to ``stop`` into ``out``, int32 [channel, frame, quantizer]."""
        out[...] = self.codes[recording][start:stop].transpose(2, 0, 1)

    def code_counts(self) -> NDArray[np.int64]:
        """Count where channels are fit for use: int64 [quantizer, code]."""
        first = self.recordings[0]
        counts = np.zeros((first.n_quantizers, first.codebook_size), np.int64)
        for codes, usable in zip(self.codes, self.fit_for_use, strict=True):
            for number, level in enumerate(np.moveaxis(codes, 1, 0)):
                counts[number] += np.bincount(level[: usable.shape[1]].T[usable], minlength=first.codebook_size)
        return counts


def check_coded(recordings: Sequence[CodedRecording], patch_size: int) -> None:
    """Refuse an empty list, twice the same name, codes of several kinds, or frames that are no patches of the model."""
    if not recordings:
        raise ConfigError("no recording has both a prepared signal and codes", next_step="run `neuromill tokenize`")
    if len({one.name for one in recordings}) != len(recordings):
        raise ConfigError("a recording occurs twice in the training data")
    kinds = sorted({(one.n_quantizers, one.codebook_size, one.hop_samples) for one in recordings})
    if len(kinds) > 1:
        raise ConfigError(
            f"codes differ in (quantizers, codes, samples per frame): {', '.join(map(str, kinds))}",
            next_step="tokenize all recordings with the same tokenizer",
        )
    hop = kinds[0][2]
    if hop != patch_size:
        raise ConfigError(
            f"a frame of the tokenizer has {hop} samples, a patch of the model {patch_size}: one code cannot stand for "
            "one patch",
            where="train.model.patch_size",
            next_step=f"set train.model.patch_size to {hop} (50, 100, 200 and 250 fit), or take a tokenizer whose "
            f"frames have {patch_size} samples (TFDual: tokenizer.network.patch_samples)",
        )


def plan_coded_windows(source: CodedSource, config: EEGSSMTrainConfig) -> tuple[Window, ...]:
    """Cut all recordings into windows; those in which nothing is fit for use are left out.

    Under parity a window needs a channel that is fit for use in each of its patches.

    Raises
    ------
    ConfigError
        Nothing is left.
    """
    kept = []
    for window in plan_windows(source.recordings, config.windows.in_frames):
        usable = source.usable(window.recording, window.start, window.stop)
        if usable.any(axis=0).all() if config.parity else usable.any():
            kept.append(window)
    if not kept:
        raise ConfigError(
            "every window is rejected", next_step="look at the rejection of prepare with `neuromill look`"
        )
    return tuple(kept)


def exact_shapes(windows: Sequence[Window], recordings: Sequence[CodedRecording]) -> tuple[BatchShape, ...]:
    """Shape of the batch of each window: only equal windows share one, because padding would change the features."""
    return tuple(BatchShape(recordings[one.recording].n_channels, len(one)) for one in windows)
