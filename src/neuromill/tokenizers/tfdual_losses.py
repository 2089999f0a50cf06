"""What a TFDual tokenizer is trained to make small (CodeBrain paper, targets and loss of stage 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from neuromill.tokenizers.tfdual_config import TfDualLossConfig, TfDualTokenizerConfig
    from neuromill.tokenizers.tfdual_network import TfDualPass

DEVIATION_FLOOR = 1e-8


@dataclass(frozen=True, slots=True)
class TfDualLosses:
    """Scalars: the parts unweighted, and the weighted ``total`` to minimise."""

    total: Tensor
    time: Tensor
    amplitude: Tensor
    phase: Tensor
    commitment: Tensor
    contrastive: Tensor


@dataclass(frozen=True, slots=True)
class Spectra:
    """Targets of the frequency decoder: float32 [window, channel, patch, bin], phase perhaps twice as wide."""

    amplitude: Tensor
    phase: Tensor


def spectral_targets(x: Tensor, config: TfDualTokenizerConfig, valid: Tensor | None = None) -> Spectra:
    """Magnitude and phase of every patch of float32 [window, channel, patch, sample].

    The magnitude, and the phase where it is an angle, are z-scored over all (valid) channels, patches and bins of a
    window. Cosine and sine stand side by side and are left as they are.
    """
    spectrum = torch.fft.fft(x)[..., : config.n_bins]
    angle = torch.atan2(spectrum.imag, spectrum.real)
    phase = zscore(angle, valid) if config.uses_angle else torch.cat([angle.cos(), angle.sin()], dim=-1)
    return Spectra(zscore(spectrum.abs(), valid), phase)


def zscore(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Subtract the mean of each window and divide by its standard deviation (n - 1), over valid channels.

    ``x`` is float32 [window, channel, patch, bin], as is what comes back; ``valid`` is bool [window, channel], None
    takes all.
    """
    weights = x.new_ones(x.shape[:2]) if valid is None else valid.to(x.dtype)
    weights = weights[:, :, None, None]
    n = weights.sum(dim=(1, 2, 3), keepdim=True) * x.shape[2] * x.shape[3]
    mean = (x * weights).sum(dim=(1, 2, 3), keepdim=True) / n.clamp_min(1)
    variance = ((x - mean).square() * weights).sum(dim=(1, 2, 3), keepdim=True) / (n - 1).clamp_min(1)
    return (x - mean) / variance.sqrt().clamp_min(DEVIATION_FLOOR)


def squared_error(output: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean squared error over valid channels, float32 scalar.

    ``output`` and ``target`` are float [window, channel, patch, sample or bin]; ``valid`` is bool [window, channel],
    None takes all.
    """
    errors = (output.float() - target).square().mean(dim=(2, 3))
    return errors.mean() if valid is None else (errors * valid).sum() / valid.sum().clamp_min(1)


def contrastive_loss(halves: Tensor, temperature: float) -> Tensor:
    """NT-Xent between the two halves of each window.

    Parameters
    ----------
    halves
        float [2 x window, ...]: features of all first halves, then of all second halves in the same order. Everything
        behind the first axis is one vector; the halves of one window are each other's positive, all others negative.
    temperature
        Cosines are divided by it.

    Notes
    -----
    The cosines are one matrix product of normalised vectors: at 86 windows of 57,000 numbers 39 MB, where the published
    broadcast takes 6.7 GB.
    """
    vectors = functional.normalize(halves.flatten(1).float(), dim=-1)
    similarity = vectors @ vectors.t() / temperature
    n = len(vectors) // 2
    similarity = similarity.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=halves.device), -torch.inf)
    partners = torch.arange(2 * n, device=halves.device).roll(n)
    return functional.cross_entropy(similarity, partners)


def split_halves(x: Tensor) -> Tensor:
    """First and second halves of the patches, stacked along windows; a middle patch is left out.

    float32 [window, channel, patch, sample] -> [2 x window, channel, patch // 2, sample].
    """
    n = x.shape[2] // 2
    return torch.cat([x[:, :, :n], x[:, :, -n:]])


def tfdual_losses(
    result: TfDualPass,
    x: Tensor,
    halves: Tensor | None,
    tokenizer: TfDualTokenizerConfig,
    config: TfDualLossConfig,
    valid: Tensor | None = None,
) -> TfDualLosses:
    """Compare a pass with its input float32 [window, channel, patch, sample]; ``halves``: features of its halves."""
    with torch.autocast(x.device.type, enabled=False):
        targets = spectral_targets(x, tokenizer, valid)
        time = squared_error(result.waveform, x, valid)
        amplitude = squared_error(result.amplitude, targets.amplitude, valid)
        phase = squared_error(result.phase, targets.phase, valid)
        commitment = result.commitments.sum()
        contrastive = time.new_zeros(()) if halves is None else contrastive_loss(halves, config.temperature)
        total = (
            config.time_weight * time
            + config.amplitude_weight * amplitude
            + config.phase_weight * phase
            + config.commitment_weight * commitment
            + config.contrastive_weight * contrastive
        )
    return TfDualLosses(total, time, amplitude, phase, commitment, contrastive)
