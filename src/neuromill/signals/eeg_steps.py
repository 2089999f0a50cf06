"""Steps that electrodes need: a montage by name, pairs, a reference, trimming, and what is too large to be brain.

None of them is linear filtering, so none has a place between filters: the montage is picked before the first sample is
read, and pairs are made of what is read; referencing, trimming, rejection and the check of amplitudes see what the
filters made, block by block.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from neuromill.signals.base_step import BaseStep, Seconds, Volts
from neuromill.signals.montage import bipolar_of

MontageName = Literal["10-20-19"]
BipolarName = Literal["double-banana-16"]


class PickMontage(BaseStep):
    """Keep the EEG channels of a montage, in its order and under its names.

    Channels are found by rule (see ``montage.position_of``): prefix, reference and dots do not matter, T7 T8 P7 P8 are
    T3 T4 T5 T6. What is not in the montage is left out. Two channels of one position fail the recording with
    ``duplicate_channels``.

    Attributes
    ----------
    montage
        ``10-20-19``: FP1 FP2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T3 T4 T5 T6 FZ CZ PZ.
    require_all
        Whether a recording that lacks a channel fails with ``no_usable_channels``; else it keeps those it has.
    """

    step: Literal["pick_montage"] = "pick_montage"
    montage: MontageName = "10-20-19"
    require_all: bool = True


class PickBipolar(BaseStep):
    """Keep differences of neighbouring electrodes (``mne.set_bipolar_reference``), in the declared order.

    The first electrode of a pair less the second; a channel that is recorded as this pair is taken as it is. Electrodes
    are found by rule as for ``pick_montage``. The names of the two must say the same of their reference, else the pair
    counts as missing. What no pair uses is left out.

    Attributes
    ----------
    pairs
        ``double-banana-16``, the pairs of TUAB, TUEV and CHB-MIT on the published road (FP1-F7 F7-T3 ... C4-P4 P4-O2),
        or a list of names such as ``FP1-F7``, which become the names of the channels.
    require_all
        Whether a recording that lacks a pair fails with ``no_usable_channels``; else it keeps those it has.
    """

    step: Literal["pick_bipolar"] = "pick_bipolar"
    pairs: BipolarName | Annotated[tuple[str, ...], Field(min_length=1)] = "double-banana-16"
    require_all: bool = True

    @model_validator(mode="after")
    def _are_pairs(self) -> Self:
        if isinstance(self.pairs, str):
            return self
        found = [bipolar_of(name) for name in self.pairs]
        if None in found:
            raise ValueError(f"{self.pairs[found.index(None)]!r} names no two electrodes; write pairs as FP1-F7")
        if len(set(found)) < len(found):
            raise ValueError("a pair stands twice (T7 T8 P7 P8 are T3 T4 T5 T6)")
        return self


class Reference(BaseStep):
    """Subtract the mean of the channels kept (``mne.io.Raw.set_eeg_reference``).

    Channels that are marked bad do not count in the mean, and it is subtracted from them too. What is found flat or
    not finite only while the recording streams by does count.

    Attributes
    ----------
    ref_channels
        ``average``.
    """

    step: Literal["reference"] = "reference"
    ref_channels: Literal["average"] = "average"


class Crop(BaseStep):
    """Cut the ends off, after all filters (``mne.io.Raw.crop``).

    The output then starts ``first_seconds`` into the recording; events move with it.

    Attributes
    ----------
    first_seconds
        Cut at the start.
    last_seconds
        Cut at the end.
    multiple_of_seconds
        What is left is cut at its end to a multiple of this; null keeps all of it.
    """

    step: Literal["crop"] = "crop"
    first_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    last_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    multiple_of_seconds: Seconds | None = None


class Reject(BaseStep):
    """Mark windows of channels that are too large, or too flat; the signal itself is not touched.

    Windows lie end to end from the first output sample on; the last one may be shorter. Applies to channels in volts.

    Attributes
    ----------
    threshold_volts
        A window of a channel is marked ``amplitude`` where its largest absolute value reaches this.
    flat_volts
        A window of a channel is marked ``flat`` where its values span less than this; null marks none.
    window_seconds
        Length of a window.
    """

    step: Literal["reject"] = "reject"
    threshold_volts: Volts = 100e-6
    flat_volts: Volts | None = None
    window_seconds: Seconds = 30.0


class ExpectAmplitude(BaseStep):
    """Fail a recording with ``unit_conflict`` whose amplitudes cannot be those of its unit.

    What is compared is the standard deviation within a window of a channel, its median over all windows and good
    channels: windows of a second know nothing of slow drifts. The channels are compared with each other as well: single
    ones of another order of magnitude are bad (``implausible``), more than a quarter of them fail the recording.

    Attributes
    ----------
    low_volts
        Below this it is no EEG.
    high_volts
        Above this neither.
    window_seconds
        Length of a window.
    channel_ratio
        A channel is implausible that is more than so many times larger or smaller than the others in three quarters of
        the windows; null compares none.
    """

    code_version: ClassVar[str] = "2"

    step: Literal["expect_amplitude"] = "expect_amplitude"
    low_volts: Volts = 2e-6
    high_volts: Volts = 500e-6
    window_seconds: Seconds = 1.0
    channel_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = 10.0

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low_volts >= self.high_volts:
            raise ValueError("low_volts must lie below high_volts")
        return self
