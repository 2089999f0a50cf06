"""The steps a pipeline file may name, with MNE's method and keyword names.

A step says what to do; ``chain.plan_chain`` turns a list of them into numbers for one recording. To add a step:
write a model here with its own ``step`` literal, add it to ``Step``, and give ``chain`` its place. A step with
``streams = False`` needs the whole recording and ends a segment of the chain (see ``chain.Segment``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from neuromill.signals.base_step import BaseStep, Hz
from neuromill.signals.eeg_steps import Crop, ExpectAmplitude, PickBipolar, PickMontage, Reference, Reject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neuromill.records import ChannelTable

__all__ = [
    "BaseStep", "Crop", "ExpectAmplitude", "Filter", "NotchFilter", "Pick", "PickBipolar", "PickMontage", "Reference",
    "Reject", "Resample", "Step", "code_versions",
]  # fmt: skip

DATA_TYPES = ("mag", "grad", "eeg", "seeg", "ecog", "dbs")
GROUPS: dict[str, tuple[str, ...]] = {"meg": ("mag", "grad"), "data": DATA_TYPES}
CHAIN_CODE_VERSION = "1"

FirWindow = Literal["hamming", "hann", "blackman"]
TransitionBandwidth = Hz | Literal["auto"]


class Pick(BaseStep):
    """Keep some channels, in file order (``mne.io.Raw.pick``).

    ``picks`` holds channel types, the groups ``meg`` (mag and grad, never ref_meg) and ``data``, or channel names.
    A name the recording does not have is left out and told in the facts of the chain. Bad channels are kept unless
    ``exclude`` is ``bads``, as in MNE.
    """

    step: Literal["pick"] = "pick"
    picks: tuple[str, ...] = Field(("meg",), min_length=1)
    exclude: tuple[str, ...] | Literal["bads"] = ()

    def indices(self, channels: ChannelTable) -> tuple[int, ...]:
        """Rows of ``channels`` that stay, ascending."""
        wanted = {kind for pick in self.picks for kind in GROUPS.get(pick, (pick,))}
        rows = zip(channels.names, channels.types, channels.bads, strict=True)
        return tuple(
            i
            for i, (name, kind, bad) in enumerate(rows)
            if (name in wanted or kind in wanted) and not self._excludes(name, bad)
        )

    def missing(self, channels: ChannelTable) -> tuple[str, ...]:
        """Entries of ``picks`` that no channel of the recording answers to."""
        known = {*channels.names, *channels.types, *GROUPS}
        return tuple(pick for pick in self.picks if pick not in known)

    def _excludes(self, name: str, bad: str) -> bool:
        return bool(bad) if self.exclude == "bads" else name in self.exclude


class NotchFilter(BaseStep):
    """Zero-phase FIR band-stops (``mne.io.Raw.notch_filter``).

    ``freqs: line`` stands for the power line frequency of the recording and its harmonics. Frequencies whose
    stop-band does not lie below the Nyquist frequency of the recording are left out: nothing is there to remove.
    """

    step: Literal["notch_filter"] = "notch_filter"
    freqs: tuple[Hz, ...] | Literal["line"] = "line"
    notch_widths: Hz | None = None
    trans_bandwidth: Hz = 1.0
    filter_length: str = "auto"
    phase: Literal["zero"] = "zero"
    fir_window: FirWindow = "hamming"
    fir_design: Literal["firwin"] = "firwin"


class Filter(BaseStep):
    """Zero-phase FIR band-pass, high-pass or low-pass (``mne.io.Raw.filter``).

    An ``h_freq`` at or above the Nyquist frequency of a recording is met already and left out for it (MNE refuses).
    """

    step: Literal["filter"] = "filter"
    l_freq: Hz | None
    h_freq: Hz | None
    l_trans_bandwidth: TransitionBandwidth = "auto"
    h_trans_bandwidth: TransitionBandwidth = "auto"
    filter_length: str = "auto"
    phase: Literal["zero"] = "zero"
    fir_window: FirWindow = "hamming"
    fir_design: Literal["firwin"] = "firwin"

    @model_validator(mode="after")
    def _passes_a_band(self) -> Self:
        if self.l_freq is None and self.h_freq is None:
            raise ValueError("a filter needs l_freq or h_freq")
        if self.l_freq is not None and self.h_freq is not None and self.l_freq >= self.h_freq:
            raise ValueError("l_freq must lie below h_freq (use notch_filter to stop a band)")
        return self


class Resample(BaseStep):
    """Band-limited resampling to ``sfreq`` Hz; output sample n lies exactly at n / sfreq seconds."""

    step: Literal["resample"] = "resample"
    sfreq: Hz


Step = Annotated[
    Pick | PickMontage | PickBipolar | NotchFilter | Filter | Resample | Reference | Crop | Reject | ExpectAmplitude,
    Field(discriminator="step"),
]


def code_versions(steps: Sequence[BaseStep]) -> Mapping[str, str]:
    """Code version of every step used and of the chain that runs them, for the identity of what is prepared."""
    return {"chain": CHAIN_CODE_VERSION} | {str(getattr(step, "step", "")): step.code_version for step in steps}
