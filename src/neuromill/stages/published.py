"""The published system's quick start on ours: checkpoint in, signals of a recording in, features out.

::

    system = open_published(Path("meg-xl-med-v2.ckpt"))
    features = embed_signal(system, signal, channels)     # float32 [channel, frame, dim]
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neuromill.records import ConfigError
from neuromill.stages.channels import good_channels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from neuromill.models.criss_cross import CrissCross
    from neuromill.records import ChannelTable
    from neuromill.tokenizers.tokenizer import RvqTokenizer

TOKENIZER, MODEL = "tokenizer", "model"


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """A codec with its normalisation, and the model that reads its codes (None for a checkpoint of a codec alone)."""

    tokenizer: RvqTokenizer
    model: CrissCross | None


def open_published(path: Path, *, n_heads: int = 8, parity: bool = False) -> System:
    """Open a published checkpoint: MEG-XL (Lightning, codec inside) or BioCodec alone.

    Parameters
    ----------
    path
        ``.ckpt`` or ``.pt``; read without unrestricted unpickling.
    n_heads
        Heads of both attention branches together: the only size that the shapes of the weights do not tell.
    parity
        Evaluate the model as published (dropout of attention weights, no key mask); see ``docs/training.md``.

    Raises
    ------
    ConfigError
        The file holds neither, or objects that only running code could read.
    """
    from neuromill.models.files import import_published as import_model
    from neuromill.tokenizers.files import import_published as import_tokenizer

    tokenizer = import_tokenizer(path)
    try:
        model = import_model(path, n_heads=n_heads, parity=parity).model
    except ConfigError:
        return System(tokenizer, None)
    return System(tokenizer, model)


def save_system(system: System, folder: Path) -> tuple[Path, ...]:
    """Write a system as our own folders, ``tokenizer`` and ``model``, for ``pretrained`` and ``embed --model``.

    The folder around them appears complete or not at all.

    Raises
    ------
    ConfigError
        The folder exists: nothing is overwritten.
    """
    from neuromill.models.files import save_pretrained as save_model
    from neuromill.tokenizers.files import save_pretrained as save_tokenizer

    if folder.exists():
        raise ConfigError("the folder exists", where=str(folder), next_step="choose another one")
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    save_tokenizer(system.tokenizer, temporary / TOKENIZER)
    if system.model is not None:
        save_model(system.model, temporary / MODEL)
    temporary.rename(folder)
    return tuple(folder / name for name in (TOKENIZER, MODEL) if (folder / name).is_dir())


def embed_signal(system: System, signal: NDArray[np.float32], channels: ChannelTable) -> NDArray[np.float32]:
    """Features of one stretch of prepared signal, seen in one context.

    Parameters
    ----------
    system
        From ``open_published``.
    signal
        float32 [time, channel] at the tokenizer's rate, in SI units, filtered as the pipeline says.
    channels
        Its columns, with positions in the device frame; bad ones are masked.

    Returns
    -------
    float32 [channel, frame, dim]; NaN for channels the model does not look at.

    Raises
    ------
    ConfigError
        The checkpoint holds no model.
    """
    import torch

    from neuromill.models.sensors import place_sensors, sensor_types
    from neuromill.tokenizers.encoding import encode_rows
    from neuromill.training.embedding import embed

    if system.model is None:
        raise ConfigError("this checkpoint holds a codec and no model", next_step="give a MEG-XL checkpoint")
    rows = torch.from_numpy(np.ascontiguousarray(signal.T, dtype=np.float32))
    codes = encode_rows(system.tokenizer, rows, rows_per_forward=16).codes.cpu().numpy()
    good = np.zeros(len(channels), dtype=bool)
    good[list(good_channels(channels))] = True
    types = sensor_types(channels.coils, parity=system.model.config.parity)
    geometry = place_sensors(channels.positions, channels.orientations, types, good)
    return np.asarray(embed(system.model, codes[None], geometry)[0].cpu().numpy(), np.float32)
