"""FIR filters: MNE's designs, and how two filters become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.records import ConfigError, FailureCode, RecordingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neuromill.signals.steps import Filter, NotchFilter


@dataclass(frozen=True, slots=True, eq=False)
class Fir:
    """A zero-phase FIR filter: symmetric ``taps`` [2 * reach + 1] float64, centred on the sample they make."""

    taps: NDArray[np.float64]

    @property
    def reach(self) -> int:
        """Samples it looks at on each side."""
        return (len(self.taps) - 1) // 2


def design_filter(step: Filter, sfreq: float) -> Fir:
    """Taps of MNE's ``raw.filter`` at ``sfreq`` Hz.

    Raises
    ------
    ConfigError
        The high-pass edge does not lie below the Nyquist frequency, or MNE finds the design impossible.
    """
    nyquist = sfreq / 2
    h_freq = step.h_freq if step.h_freq is not None and step.h_freq < nyquist else None
    if step.l_freq is not None and step.l_freq >= nyquist:
        raise ConfigError(
            f"l_freq {step.l_freq:g} Hz is not below the Nyquist frequency {nyquist:g} Hz", next_step="lower l_freq"
        )
    if step.l_freq is None and h_freq is None:
        return Fir(np.ones(1))
    return _create(
        sfreq,
        step.l_freq,
        h_freq,
        filter_length=step.filter_length,
        l_trans_bandwidth=step.l_trans_bandwidth,
        h_trans_bandwidth=step.h_trans_bandwidth,
        phase=step.phase,
        fir_window=step.fir_window,
        fir_design=step.fir_design,
    )


def notch_freqs(step: NotchFilter, sfreq: float, line_freq: float | None, where: str = "") -> tuple[float, ...]:
    """Frequencies in Hz that ``step`` stops in a recording; those not wholly below Nyquist are left out.

    Raises
    ------
    RecordingError
        ``missing_fact``: the line frequency is asked for and not known.
    """
    if step.freqs != "line":
        wanted = list(step.freqs)
    elif line_freq is None or line_freq <= 0:
        raise RecordingError(
            FailureCode.MISSING_FACT,
            "the power line frequency is not known",
            where=where,
            next_step="set PowerLineFrequency in the sidecar, or freqs of notch_filter in the pipeline",
        )
    else:
        wanted = [line_freq * k for k in range(1, int(sfreq / 2 / line_freq) + 1)]
    return tuple(f for f in wanted if f + _half_width(step, f) < sfreq / 2)


def design_notch(step: NotchFilter, sfreq: float, freqs: Sequence[float]) -> Fir:
    """Taps of MNE's ``raw.notch_filter`` (method ``fir``) for ``freqs``; a unit tap where there are none."""
    if not freqs:
        return Fir(np.ones(1))
    half = step.trans_bandwidth / 2
    return _create(
        sfreq,
        np.array([f + _half_width(step, f) for f in freqs]),
        np.array([f - _half_width(step, f) for f in freqs]),
        filter_length=step.filter_length,
        l_trans_bandwidth=half,
        h_trans_bandwidth=half,
        phase=step.phase,
        fir_window=step.fir_window,
        fir_design=step.fir_design,
    )


def combine(filters: Sequence[Fir]) -> Fir:
    """One filter that does what ``filters`` do one after the other."""
    from scipy.signal import fftconvolve

    taps = np.ones(1)
    for fir in filters:
        taps = fftconvolve(taps, fir.taps)
    return Fir(taps)


def _half_width(step: NotchFilter, freq: float) -> float:
    width = freq / 200 if step.notch_widths is None else step.notch_widths
    return (width + step.trans_bandwidth) / 2


def _create(sfreq: float, l_freq: Any, h_freq: Any, **settings: Any) -> Fir:
    from mne.filter import create_filter

    try:
        taps = create_filter(None, sfreq, l_freq, h_freq, method="fir", verbose="error", **settings)
    except ValueError as error:
        raise ConfigError(
            f"filter cannot be designed at {sfreq:g} Hz: {error}", next_step="change its band or transitions"
        ) from error
    return Fir(np.asarray(taps, dtype=np.float64))
