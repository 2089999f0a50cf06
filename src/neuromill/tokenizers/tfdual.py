"""The TFDual tokenizer: scaling and network together, frozen. All channels of a window are seen jointly."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neuromill.hub.mixin import HubMixin
from neuromill.records import ConfigError
from neuromill.tokenizers.fixed import robust_deviation
from neuromill.tokenizers.montage import MISSING, channel_groups, present
from neuromill.tokenizers.protocol import CodeBlock, RoundTrip, as_codes
from neuromill.tokenizers.tfdual_checks import require_windows
from neuromill.tokenizers.tfdual_losses import spectral_targets
from neuromill.tokenizers.tfdual_network import FREQUENCY, TEMPORAL
from neuromill.tokenizers.tokenizer import tokenizer_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from neuromill.records import ChannelTable
    from neuromill.tokenizers.montage import Group
    from neuromill.tokenizers.protocol import Read
    from neuromill.tokenizers.tfdual_config import TfDualInputConfig, TfDualTokenizerConfig
    from neuromill.tokenizers.tfdual_network import TfDual

TFDUAL_CODE_VERSION = "1"
"""Raised whenever the same weights and signal would give other codes."""


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """What the network sees.

    Attributes
    ----------
    x
        float32 [window, channel, patch, sample]; zeros for channels that are not there and behind the last sample.
    scale
        float32 [window, channel]: physical values are ``x * scale``; NaN for channels that are not there.
    """

    x: Tensor
    scale: Tensor

    @property
    def valid(self) -> Tensor:
        """Bool [window, channel]: which channels are there."""
        return self.scale.isfinite()


@dataclass(frozen=True, slots=True, eq=False)
class Amplitudes:
    """Magnitudes of patches, float32 [segment, channel, patch, bin]; NaN for channels that are not there.

    Attributes
    ----------
    target
        Of the signal.
    frequency
        What the frequency decoder gives back.
    temporal
        Of the waveform that the temporal decoder gives back.
    freqs
        Hz, float64 [bin].
    """

    target: NDArray[np.float32]
    frequency: NDArray[np.float32]
    temporal: NDArray[np.float32]
    freqs: NDArray[np.float64]


def scale_windows(windows: Tensor, config: TfDualInputConfig, patch_samples: int) -> Scaled:
    """Scale float32 [window, channel, time] in physical units and cut it into patches, the last one filled with zeros.

    A channel with a non-finite sample, or without spread where spread is the scale, is not there.
    """
    there = torch.isfinite(windows).all(dim=-1)
    rows = torch.where(there[..., None], windows, 0.0).float()
    if config.scaling == "fixed":
        scale = torch.full(there.shape, config.unit_volts, device=rows.device)
    else:
        scale = robust_deviation(rows)
        there = there & (scale > 0)
    scaled = torch.where(there[..., None], rows / torch.where(there, scale, 1.0)[..., None], 0.0)
    if config.clip is not None:
        scaled = scaled.clamp(-config.clip, config.clip)
    n_patches = -(-rows.shape[-1] // patch_samples)
    filled = torch.nn.functional.pad(scaled, (0, n_patches * patch_samples - rows.shape[-1]))
    return Scaled(filled.view(*there.shape, n_patches, patch_samples), torch.where(there, scale, torch.nan))


@dataclass(frozen=True, eq=False)
class TfDualTokenizer(HubMixin, files="neuromill.tokenizers.sharing"):
    """A fitted TFDual network with its input scaling; implements ``Tokenizer``.

    The network must not be trained further behind its back: the digest is computed once.
    """

    config: TfDualTokenizerConfig
    network: TfDual = field(repr=False)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(requires_grad=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over code version, configuration and weights."""
        return tokenizer_digest(self.config, self.network.state_dict(), TFDUAL_CODE_VERSION)

    @property
    def sfreq(self) -> float:
        """Rate in Hz of the signals it takes."""
        return self.config.sfreq

    @property
    def hop_samples(self) -> int:
        """Samples per frame: a patch."""
        return self.config.hop_samples

    @property
    def window_samples(self) -> int | None:
        """Samples of a whole window."""
        return self.config.window_samples

    @property
    def is_joint(self) -> bool:
        """Yes: channels attend to each other, and the stem normalises over all of a window."""
        return True

    @property
    def n_quantizers(self) -> int:
        """Two: temporal, then frequency."""
        return self.config.n_quantizers

    @property
    def codebook_size(self) -> int:
        """Codes are below this."""
        return self.config.codebook_size

    @property
    def n_parameters(self) -> int:
        """Learned numbers, codebooks aside."""
        return sum(p.numel() for p in self.network.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def state(self) -> Mapping[str, Tensor]:
        """Weights and codebooks."""
        return self.network.state_dict()

    def require(self, channels: ChannelTable, n_times: int, read: Read) -> None:
        """Refuse recordings without the channels, shorter than a window, or in another unit.

        Raises
        ------
        RecordingError
            ``no_usable_channels``, ``duplicate_channels``, ``too_short``; with ``fixed`` scaling ``unit_conflict`` for
            channels that are not in volts, and for amplitudes that only a wrong unit explains.
        """
        require_windows(self.config, channels, n_times, read)

    def encode_segments(
        self, signal: NDArray[np.float32], channels: ChannelTable | None, rows_per_forward: int
    ) -> CodeBlock:
        """Encode float32 [segment, channel, time]; channels of a group see each other.

        Bad channels and those with a non-finite sample enter as zeros; their codes are those of the zeros and their
        scale is NaN. Channels that the tokenizer has no position for have code 0 and scale NaN.
        """
        table = _known(channels)
        n_frames = -(-signal.shape[-1] // self.hop_samples)
        codes = np.zeros((len(signal), n_frames, self.n_quantizers, len(table)), np.int64)
        scale = np.full((len(signal), len(table)), np.nan, np.float32)
        for group in channel_groups(self.config, table):
            scaled = self._scaled(_gather(signal, group, table.bads))
            result = self._encode(scaled.x, rows_per_forward).permute(0, 3, 1, 2).cpu().numpy()
            at, members = _members(group)
            codes[..., members] = result[..., at]
            scale[:, members] = scaled.scale.cpu().numpy()[:, at]
        return CodeBlock(as_codes(codes, self.codebook_size), scale)

    def decode_segments(
        self, block: CodeBlock, channels: ChannelTable | None, n_times: int, rows_per_forward: int
    ) -> NDArray[np.float32]:
        """Return float32 [segment, channel, n_times] in physical units from the temporal codes.

        NaN where the scale is NaN. Positions that no recorded channel had enter the decoder as zero vectors.
        """
        table = _known(channels)
        out = np.full((len(block.codes), len(table), n_times), np.nan, np.float32)
        for group in channel_groups(self.config, table):
            at, members = _members(group)
            rows = self._decode(block, group, TEMPORAL, rows_per_forward).flatten(2)[:, at, :n_times].cpu().numpy()
            out[:, members] = rows * block.scale[:, members, None]
        return out

    def amplitudes(
        self, signal: NDArray[np.float32], block: CodeBlock, channels: ChannelTable | None, rows_per_forward: int
    ) -> Amplitudes:
        """What both codebooks say of the magnitudes of every patch of float32 [segment, channel, time].

        All are z-scored over the valid channels of a window, as the frequency decoder learns them.
        """
        table = _known(channels)
        shape = (len(signal), len(table), block.codes.shape[1], self.config.n_bins)
        freqs = np.arange(self.config.n_bins, dtype=np.float64) * (self.sfreq / self.hop_samples)
        blank = np.full(shape, np.nan, np.float32)
        out = Amplitudes(blank, blank.copy(), blank.copy(), freqs)
        for group in channel_groups(self.config, table):
            scaled = self._scaled(_gather(signal, group, table.bads))
            waves = self._decode(block, group, TEMPORAL, rows_per_forward)
            target, temporal = (spectral_targets(x, self.config, scaled.valid).amplitude for x in (scaled.x, waves))
            frequency = self._decode(block, group, FREQUENCY, rows_per_forward)
            at, members = _members(group)
            pairs = ((out.target, target), (out.frequency, frequency), (out.temporal, temporal))
            for array, found in pairs:
                known = torch.where(scaled.valid[..., None, None], found, torch.nan)
                array[:, members] = known[:, at].cpu().numpy()
        return out

    def _decode(self, block: CodeBlock, group: Group, level: int, rows_per_forward: int) -> Tensor:
        """Decode the temporal or the frequency codes of a group: [segment, position, patch, sample or bin]."""
        codes = block.codes[:, :, level].astype(np.int64)
        at, members = _members(group)
        grid = torch.zeros(len(codes), len(group), codes.shape[1], dtype=torch.int64)
        grid[:, at] = torch.from_numpy(codes[..., members].transpose(0, 2, 1).copy())
        known = torch.tensor([channel != MISSING for channel in group], device=self.device)
        decode = self.network.decode if level == TEMPORAL else self.network.decode_amplitude
        size = max(1, rows_per_forward // len(group))
        return torch.cat([decode(part.to(self.device), known) for part in grid.split(size)])

    def round_trip(self, windows: Tensor) -> RoundTrip:
        """Encode and decode float32 [window, position, time] in physical units; the target is the scaled signal."""
        scaled = self._scaled(windows.to(self.device))
        codes = self._encode(scaled.x, len(scaled.x) * scaled.x.shape[1])
        known = torch.ones(codes.shape[2], dtype=torch.bool, device=self.device)
        output = self.network.decode(codes[:, TEMPORAL], known)
        n_times = windows.shape[-1]
        target, output = (rows.flatten(2)[..., :n_times] for rows in (scaled.x, output))
        alive = scaled.valid & (target.std(dim=-1, unbiased=False) > 0)
        return RoundTrip(target[alive], output[alive], codes.transpose(1, 2)[alive])

    def _scaled(self, windows: Tensor) -> Scaled:
        return scale_windows(windows.to(self.device), self.config.input, self.hop_samples)

    def _encode(self, x: Tensor, rows_per_forward: int) -> Tensor:
        """Codes int64 [window, quantizer, channel, patch], in forward passes of one fixed number of windows."""
        size = max(1, rows_per_forward // x.shape[1])
        parts = []
        for start in range(0, len(x), size):
            batch = x[start : start + size]
            filled = x.new_zeros(size, *x.shape[1:])
            filled[: len(batch)] = batch
            parts.append(self.network.encode(filled)[: len(batch)])
        return torch.cat(parts)


def _known(channels: ChannelTable | None) -> ChannelTable:
    if channels is None:
        raise ConfigError(
            "this tokenizer must know which channels it is given", where="tokenizer", next_step="pass a channel table"
        )
    return channels


def _members(group: Group) -> tuple[list[int], list[int]]:
    """Positions of a group that have a channel, and their channels."""
    at = [position for position, channel in enumerate(group) if channel != MISSING]
    return at, [group[position] for position in at]


def _gather(signal: NDArray[np.float32], group: Group, bads: tuple[str, ...]) -> Tensor:
    """Channels of a group in the order of its positions, NaN where there is none or a bad one."""
    windows = np.full((len(signal), len(group), signal.shape[-1]), np.nan, np.float32)
    at = np.flatnonzero(present(group, bads))
    windows[:, at] = signal[:, [group[position] for position in at]]
    return torch.from_numpy(windows)
