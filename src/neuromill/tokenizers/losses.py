"""What a codec is trained to make small (BioCodec paper, training losses)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from neuromill.records import ConfigError

if TYPE_CHECKING:
    from neuromill.tokenizers.biocodec import Reconstruction
    from neuromill.tokenizers.config import LossConfig

PART_WEIGHTS = (1.0, 0.2, 0.2)
"""Log magnitude, cosine and sine of the phase."""
PHASE_FLOOR = 1e-3
"""Magnitudes far below this have no phase; keeps the gradient finite for silent rows."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars: waveform, spectra, commitment (each unweighted), and the weighted ``total`` to minimise."""

    time: Tensor
    frequency: Tensor
    commitment: Tensor
    total: Tensor


def codec_losses(result: Reconstruction, config: LossConfig) -> Losses:
    """Compare ``output`` with ``target`` [row, time] in float32 whatever autocast says."""
    with torch.autocast(result.output.device.type, enabled=False):
        time = functional.smooth_l1_loss(result.output, result.target, beta=config.huber_beta)
        frequency = spectral_loss(result.output, result.target, config.stft_windows)
    times = 2 if config.parity else 1
    total = (
        config.time_weight * time
        + config.frequency_weight * frequency
        + times * config.commitment_weight * result.commitment
    )
    return Losses(time, frequency, result.commitment, total)


def spectral_loss(output: Tensor, target: Tensor, windows: tuple[int, ...]) -> Tensor:
    """Mean absolute plus mean squared difference of ``spectral_parts``, summed over the windows that fit.

    Parameters
    ----------
    output, target
        float32 [row, time].
    windows
        Lengths in samples; those longer than the rows are left out.

    Returns
    -------
    float32 scalar

    Raises
    ------
    ConfigError
        If even the shortest window is longer than the rows.
    """
    fitting = [window for window in windows if window <= output.shape[-1]]
    if not fitting:
        raise ConfigError(
            f"no STFT window fits rows of {output.shape[-1]} samples",
            where="fit.losses.stft_windows",
            next_step="use longer segments or shorter windows",
        )
    total = output.new_zeros(())
    for window in fitting:
        ours, theirs = spectral_parts(output, window), spectral_parts(target, window)
        total = total + functional.l1_loss(ours, theirs) + functional.mse_loss(ours, theirs)
    return total


def spectral_parts(x: Tensor, window: int) -> Tensor:
    """Weighted log magnitude and phase of a Hann STFT of float32 [row, time]: float32 [row, 3, frequency, frame].

    ``window`` is its length in samples, the hop an eighth of it.
    """
    hop = window // 8
    padded = functional.pad(x[:, None], ((window - hop) // 2,) * 2, mode="reflect")[:, 0]
    hann = torch.hann_window(window, device=x.device)
    spectrum = torch.stft(padded, window, hop, window=hann, center=False, return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()
    magnitude = (power + PHASE_FLOOR**2).sqrt()
    parts = (torch.log1p(magnitude), spectrum.real / magnitude, spectrum.imag / magnitude)
    return torch.stack([weight * part for weight, part in zip(PART_WEIGHTS, parts, strict=True)], dim=1)
