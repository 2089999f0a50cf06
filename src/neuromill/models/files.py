"""Weights on disk: our own folder (safetensors and JSON) and the published checkpoint."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from neuromill.hub.disk import CONFIG, WEIGHTS, flush, load_plain, read_weights, write_model
from neuromill.models.config import CrissCrossConfig
from neuromill.models.criss_cross import CrissCross
from neuromill.models.eegssm import EEGSSM
from neuromill.models.eegssm_config import EEGSSMConfig
from neuromill.models.ndt3 import Ndt3
from neuromill.models.ndt3_config import Ndt3Config
from neuromill.records import Config, ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from torch import Tensor

__all__ = [
    "CONFIG", "WEIGHTS", "Architecture", "PublishedCheckpoint", "flush", "from_config", "from_pretrained",
    "import_published", "is_complete", "load_plain", "save_pretrained",
]  # fmt: skip
"""Training knows models and not the Hub; it takes ``flush`` and ``load_plain`` from here for what it saves beside."""

Model = TypeVar("Model", bound=nn.Module)

FORMAT_VERSION = 1
PUBLISHED_HEADS = 8  # the only size that the shapes of a state dict do not tell


@dataclass(frozen=True, slots=True)
class Architecture:
    """One kind of model: its name in ``config.json``, its settings, and the class that is built from them alone."""

    name: str
    config: type[Config]
    model: type[nn.Module]


ARCHITECTURES = (
    Architecture("criss_cross", CrissCrossConfig, CrissCross),
    Architecture("ndt3", Ndt3Config, Ndt3),
    Architecture("eegssm", EEGSSMConfig, EEGSSM),
)


@dataclass(frozen=True, slots=True)
class PublishedCheckpoint:
    """What a published MEG-XL checkpoint holds: the model, and the weights of the codec it was trained with."""

    model: CrissCross
    tokenizer_weights: dict[str, Tensor]


def save_pretrained(model: nn.Module, folder: Path) -> None:
    """Write ``model.safetensors`` and ``config.json``: a new folder appears complete or not at all.

    ``model`` is of one of the ``ARCHITECTURES``.

    In a folder that exists (of a run that is finished again, say) each file is replaced by a complete one.
    """
    document = {
        "architecture": _architecture_of(type(model)).name,
        "format_version": FORMAT_VERSION,
        "config": cast("Config", model.config).model_dump(mode="json"),
    }
    write_model(folder, model.state_dict(), document)


def is_complete(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a whole model: settings that can be read, and weights of the size their header names."""
    where = Path(folder)
    try:
        _read_config(where / CONFIG)
        with safe_open(where / WEIGHTS, framework="pt"):
            return True
    except (ConfigError, OSError, SafetensorError):
        return False


@overload
def from_pretrained(folder: str | os.PathLike[str]) -> CrissCross: ...


@overload
def from_pretrained(folder: str | os.PathLike[str], kind: type[Model]) -> Model: ...


def from_pretrained(folder: str | os.PathLike[str], kind: type[nn.Module] = CrissCross) -> nn.Module:
    """Read back what :func:`save_pretrained` wrote, on the CPU, in evaluation mode.

    Parameters
    ----------
    folder
        What :func:`save_pretrained` was given.
    kind
        Class of the model that is expected; ``torch.nn.Module`` takes any.

    Raises
    ------
    ConfigError
        A file is missing, damaged, or belongs to another architecture.
    """
    where = Path(folder)
    architecture, config = _read_config(where / CONFIG)
    if not issubclass(architecture.model, kind):
        raise ConfigError(
            f"the folder holds a model of architecture {architecture.name!r}, {kind.__name__} was expected",
            where=str(where),
        )
    weights = read_weights(where / WEIGHTS)
    return _assemble(architecture.model(config), weights, where=str(where))


def from_config(config: Mapping[str, Any], kind: type[Model]) -> Model:
    """Build a model of random weights from all or some of its settings; ``ConfigError`` where they are wrong."""
    try:
        return kind(_architecture_of(kind).config.model_validate(config))
    except ValidationError as error:
        raise ConfigError(f"settings of the model are wrong: {error}", where=kind.__name__) from error


def import_published(
    path: str | os.PathLike[str], *, n_heads: int = PUBLISHED_HEADS, parity: bool = False
) -> PublishedCheckpoint:
    """Load a published MEG-XL checkpoint: a Lightning dict whose ``state_dict`` has the model's names.

    Nothing in the file can run code. Rotary caches are skipped (their length differs between uses); sizes are read
    from the shapes; codec weights (``tokenizer.*``) come back without their prefix.

    Parameters
    ----------
    path
        A ``.ckpt`` file.
    n_heads
        Heads of both branches together.
    parity
        Evaluate as published; see :class:`CrissCrossConfig`.

    Raises
    ------
    ConfigError
        The file holds anything but tensors and plain values, or no such model.
    """
    where = str(path)
    content = load_plain(
        path, "where you trust its origin, save its 'state_dict' alone: torch.save({'state_dict': ...})"
    )
    state = _state_dict(content, where)
    tokenizer = {k.removeprefix("tokenizer."): v for k, v in state.items() if k.startswith("tokenizer.")}
    weights = {k: v for k, v in state.items() if not k.startswith("tokenizer.") and ".rope_embedding_layer." not in k}
    config = _config_from_shapes(weights, n_heads=n_heads, parity=parity, where=where)
    return PublishedCheckpoint(_assemble(CrissCross(config), weights, where=where), tokenizer)


def _state_dict(document: Any, where: str) -> dict[str, Tensor]:
    state = document.get("state_dict", document) if isinstance(document, dict) else {}
    roots = [key for key in state if isinstance(key, str) and key.endswith("mask_token")]
    if len(roots) != 1:
        raise ConfigError("no criss-cross transformer in this file", where=where)
    prefix = roots[0].removesuffix("mask_token")  # empty, or what a wrapper (torch.compile, DDP) put in front
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _config_from_shapes(weights: Mapping[str, Tensor], *, n_heads: int, parity: bool, where: str) -> CrissCrossConfig:
    layers = {int(m[1]) for m in (re.match(r"criss_cross_transformer\.layers\.(\d+)\.", k) for k in weights) if m}
    levels = [key for key in weights if key.startswith("biocodec_embedding_")]
    try:
        latent_dim = weights["mask_token"].shape[0]
        codebook_size, codebook_dim = weights["biocodec_embedding_0"].shape
        return CrissCrossConfig(
            latent_dim=latent_dim,
            n_layers=len(layers),
            n_heads=n_heads,
            feedforward_factor=weights["criss_cross_transformer.layers.0.ff.layer.0.weight"].shape[0] // latent_dim,
            fourier_dim=weights["position_projector.weight"].shape[1],
            n_sensor_types=weights["sensor_type_layer.weight"].shape[0],
            n_quantizers=len(levels),
            codebook_size=codebook_size,
            codebook_dim=codebook_dim,
            parity=parity,
        )
    except (KeyError, ValidationError, ValueError) as error:
        raise ConfigError(f"not a criss-cross transformer: {error}", where=where) from error


def _architecture_of(kind: type[nn.Module]) -> Architecture:
    for architecture in ARCHITECTURES:
        if issubclass(kind, architecture.model):
            return architecture
    raise ConfigError(f"{kind.__name__} is no model that can be saved")


def _read_config(path: Path) -> tuple[Architecture, Config]:
    try:
        document = json.loads(path.read_text())
        name, version, settings = document["architecture"], document["format_version"], document["config"]
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"model settings cannot be read: {error}", where=str(path)) from error
    known = [architecture for architecture in ARCHITECTURES if architecture.name == name]
    if not known or version != FORMAT_VERSION:
        raise ConfigError(
            f"architecture {name!r}, format {version} is not known here",
            where=str(path),
            next_step="install the version of neuromill that wrote it",
        )
    try:
        return known[0], known[0].config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"model settings cannot be read: {error}", where=str(path)) from error


def _assemble(model: Model, weights: Mapping[str, Tensor], *, where: str) -> Model:
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"weights do not fit the model: {reason[:300]}", where=where) from error
    return model.eval()
