"""Signals of examples as a model takes them: at its rate, in its unit, silent where they are not fit for use."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuromill.models.eegssm_config import ModelInput
from neuromill.records import ConfigError
from neuromill.stages.eegssm_training import unchecked_input
from neuromill.stages.probe_examples import usable_patches, window_samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from neuromill.models.eegssm import EEGSSM
    from neuromill.records import Recording
    from neuromill.stages.probe_examples import Example
    from neuromill.store.reader import StoreReader
    from neuromill.training.probe_config import ProbeConfig

BATCH = 16
DEFAULT_UNIT_VOLTS = 100e-6  # of CodeBrain's published weights


@dataclass(frozen=True, slots=True)
class ProbeInput:
    """Volts per unit of what the model is given, and what could not be checked about it."""

    unit_volts: float
    notes: tuple[str, ...] = ()


def probe_input(known: ModelInput, rates: Mapping[str, float], unit_volts: float | None) -> ProbeInput:
    """Decide in which unit a model is given signals, and refuse those that it was not trained on.

    A model that does not know its rate or unit (of an older folder, or of bare weights) takes any rate, and the unit of
    the task, else 100 uV; a note says so.

    Parameters
    ----------
    known
        What the model was trained on.
    rates
        Rate of each prepared recording, by its name.
    unit_volts
        What the task says.

    Raises
    ------
    ConfigError
        A recording has another rate than the model or than the others, the task another unit; or the model was trained
        on segments that its tokenizer scaled, each by what it found there.
    """
    if known.unit_volts == "segment":
        raise ConfigError(
            "the model was trained on segments that its tokenizer scaled, and a probe has no tokenizer",
            next_step="probe a model whose tokenizer has `input.scaling: fixed`",
        )
    conflict = known.conflict(ModelInput(unit_volts=unit_volts))
    if conflict:
        raise ConfigError(conflict, where="unit_volts", next_step="leave it out: the model knows its unit")
    first = next(iter(rates.values()))
    wanted = known if known.sfreq is not None else ModelInput(first)
    for name, sfreq in rates.items():
        if wanted.conflict(ModelInput(sfreq)):
            whose = "a model trained at" if known.sfreq is not None else "others at"
            raise ConfigError(
                f"a signal at {sfreq:g} Hz beside {whose} {wanted.sfreq:g} Hz",
                where=name,
                next_step=f"resample to {wanted.sfreq:g} Hz in `prepare`",
            )
    unit = known.unit_volts or unit_volts or DEFAULT_UNIT_VOLTS
    note = unchecked_input(known, ModelInput(first, unit))
    return ProbeInput(unit, (note,) if note else ())


def rates_of(readers: Mapping[str, StoreReader], recordings: Sequence[Recording]) -> dict[str, float]:
    """Rate of each prepared recording in Hz, by its name."""
    return {str(one.id): readers[str(one.id.dataset_version)].recording(one.id.name).sfreq for one in recordings}


class Signals:
    """Windows of examples as the model takes them."""

    def __init__(
        self,
        readers: Mapping[str, StoreReader],
        rows: Sequence[Example],
        task: ProbeConfig,
        patch_size: int,
        unit_volts: float,
    ) -> None:
        self.readers, self.rows, self.task, self.patch, self.unit = readers, rows, task, patch_size, unit_volts

    def shape(self, row: int) -> tuple[int, int]:
        """Channels and samples of an example."""
        reader, name = self._place(row)
        about = reader.recording(name)
        return about.n_channels, window_samples(self.task, about.sfreq, self.patch)

    def read(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Signal float32 [channel, time] and which patches are fit for use, bool [channel, patch].

        What is bad, rejected or not finite is silence.
        """
        reader, name = self._place(row)
        about, start = reader.recording(name), self.rows[row].start
        _, length = self.shape(row)
        _require_volts(about.attributes, name)
        signal = reader.read_physical(name, start, start + length).T / np.float32(self.unit)
        patches = signal.reshape(len(signal), -1, self.patch)
        usable = usable_patches(reader, name, start, self.task, self.patch) & np.isfinite(patches).all(axis=-1)
        return np.where(usable[..., None], patches, 0).astype(np.float32).reshape(signal.shape), usable

    def batches(self, rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
        """Cut rows into batches of windows of one shape."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row in rows.tolist():
            groups[self.shape(row)].append(row)
        for members in groups.values():
            yield from (np.array(members[first : first + size]) for first in range(0, len(members), size))

    def stack(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Several examples of one shape: float32 [batch, channel, time], bool [batch, channel, patch]."""
        import torch

        parts = [self.read(row) for row in rows.tolist()]
        return torch.from_numpy(np.stack([x for x, _ in parts])), torch.from_numpy(np.stack([u for _, u in parts]))

    def _place(self, row: int) -> tuple[StoreReader, str]:
        one = self.rows[row].recording.id
        return self.readers[str(one.dataset_version)], one.name


def _require_volts(attributes: Mapping[str, Any], name: str) -> None:
    others = set(attributes["channel_units"]) - {"V"}
    if others:
        raise ConfigError(
            f"channels in {', '.join(sorted(others))}; the model takes volts over unit_volts",
            where=name,
            next_step="pick channels in volts in `prepare`",
        )


def features_of(model: EEGSSM, signals: Signals, rows: NDArray[np.int64], pool: str) -> NDArray[np.float32]:
    """Pooled features of the frozen backbone, float32 [example, feature]; means are over patches fit for use.

    Raises
    ------
    ConfigError
        Windows have several shapes and are not pooled to one.
    """
    import torch

    device = next(model.parameters()).device
    parts: dict[int, NDArray[np.float32]] = {}
    with torch.no_grad():
        for batch in signals.batches(rows, BATCH):
            x, usable = (one.to(device) for one in signals.stack(batch))
            features, weight = model.features(x), usable[..., None].float()
            if pool == "mean":
                pooled = (features * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1)
            elif pool == "channels":
                pooled = ((features * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1)).flatten(1)
            else:
                pooled = features.flatten(1)
            parts |= dict(zip(batch.tolist(), pooled.cpu().numpy(), strict=True))
    if len({part.shape for part in parts.values()}) > 1:
        raise ConfigError(
            "recordings differ in channels or rate, so their features differ in number",
            where=f"pool: {pool}",
            next_step="take pool: mean, or one montage in `prepare` (pick_montage)",
        )
    return np.stack([parts[row] for row in rows.tolist()])
