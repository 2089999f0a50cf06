"""A comparison as texts for people: one table, and what belongs below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuromill.tokenizers.comparison import bands_within

if TYPE_CHECKING:
    from collections.abc import Iterable

    from neuromill.reports.comparison import ComparisonContents
    from neuromill.stages.compared import Compared, Comparison


def table_of(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column names and one row per tokenizer."""
    bands = [band.name for band in bands_within(comparison.band)]
    columns = (
        "tokenizer", "Hz", "bit/s/ch", "entropy", "corr", "SI-SDR dB", *(f"{name} err" for name in bands),
        "perplexity", "used %", "s x ch per s *",
    )  # fmt: skip
    return columns, [_row(one, bands) for one in comparison.tokenizers]


def _row(one: Compared, bands: Iterable[str]) -> tuple[str, ...]:
    usage, fidelity = one.usage, one.fidelity
    return (
        one.name + (" (fitted on these)" if one.seen else ""),
        f"{one.sfreq:g}" + (" (resampled)" if one.resampled else ""),
        f"{one.rate.nominal:.4g}",
        f"{one.rate.entropy:.4g}",
        f"{fidelity.correlation:.3f}",
        f"{fidelity.si_sdr_db:.2f}",
        *(f"{fidelity.band_error[name]:.3g}" for name in bands),
        f"{' '.join(f'{value:.0f}' for value in usage.perplexity)} of {one.codebook_size}",
        " ".join(f"{100 * value:.0f}" for value in usage.used_share),
        f"{one.encode_speed:.0f}",
    )


def notes_of(comparison: Comparison) -> list[str]:
    """Sentences below the table: what was compared, what was not, what the speeds are."""
    held_out = f"held-out recordings ({comparison.split})"
    where = held_out if comparison.split != "train" else "recordings, none of them held out"
    band = comparison.band
    windows = (
        f"{comparison.n_windows} windows of {comparison.window_seconds:g} s from {len(comparison.recordings)} {where}; "
        f"{comparison.n_rows} channels of windows scored, {comparison.n_left_out} left out "
        "(bad, rejected, constant, or without codes of one tokenizer)"
    )
    domain = (
        f"waveforms of {band.low:g} to {band.high:g} Hz at {comparison.sfreq:g} Hz, mean 0 and deviation 1 per window; "
        "err: share of a band's power that is wrong, 1 is as good as silence"
    )
    speed = (
        f"* seconds of signal times channels encoded per second, measured on this machine ({comparison.device}, "
        f"{comparison.n_threads} threads): another machine, other numbers"
    )
    spectra = [_spectra(one) for one in comparison.tokenizers if one.amplitude_error]
    return [windows, domain, *spectra, speed, *(f"left out: {reason}" for reason in comparison.refused)]


def _spectra(one: Compared) -> str:
    """What the columns do not score: the codebook for spectra."""
    frequency, temporal = (one.amplitude_error[codebook] for codebook in ("frequency", "temporal"))
    listed = ", ".join(f"{name} {value:.2f} / {temporal[name]:.2f}" for name, value in frequency.items())
    return (
        f"{one.name}: the columns score the waveform, which its temporal codebook makes alone; the frequency codebook, "
        "half of its bits, makes spectra. Error of the amplitudes of patches by the latter / by the waveform, "
        f"1 is as good as the mean of the band: {listed}"
    )


def contents_of(comparison: Comparison) -> ComparisonContents:
    """Hand over what the picture shows."""
    from neuromill.reports.comparison import ComparisonContents, Contestant

    bands, shown = bands_within(comparison.band), comparison.shown
    columns, rows = table_of(comparison)
    pairs = zip(comparison.tokenizers, shown.reconstructions, strict=True)
    return ComparisonContents(
        title=f"Tokenizers compared: {comparison.pipeline}",
        caption=". ".join(notes_of(comparison)),
        bands=tuple(f"{band.name} {band.low:g}-{band.high:g} Hz" for band in bands),
        contestants=tuple(
            Contestant(
                name=one.name,
                bits=one.rate.nominal,
                entropy_bits=one.rate.entropy,
                correlation=one.fidelity.correlation,
                si_sdr_db=one.fidelity.si_sdr_db,
                band_error=tuple(one.fidelity.band_error[band.name] for band in bands),
                reconstruction=reconstruction,
            )
            for one, reconstruction in pairs
        ),
        seconds=shown.start_seconds + np.arange(len(shown.original)) / comparison.sfreq,
        original=shown.original,
        shown=f"{shown.recording}, {shown.channel}",
        columns=columns,
        rows=tuple(rows),
    )
