"""Weights of EEGSSM: our own folder, a folder of the published class, and bare state dicts of either code base."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from neuromill.hub.disk import CONFIG, WEIGHTS, load_plain, read_weights, write_model
from neuromill.models.eegssm import EEGSSM, INPUT_FACTS, require_same_input, resolved, settings_of
from neuromill.models.eegssm_config import TAPS, EEGSSMConfig
from neuromill.records import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from torch import Tensor

ARCHITECTURE, FORMAT_VERSION = "eegssm", 1
CLASSIFIER, PUBLISHED_HEADS = "final_layer.", ("lm_head_t.", "lm_head_f.")
CODE_HEADS = (*PUBLISHED_HEADS, "lm_heads.")
WRAPPERS = ("module.", "_orig_mod.")
# What is known of the names in the authors' own checkpoint: weight normalisation as torch had it before 2.0, and
# each piece of a global kernel inside a module of its own. Three modules have other names there; which is not public.
OLD_NAMES = (
    (re.compile(r"\.weight_g$"), ".parametrizations.weight.original0"),
    (re.compile(r"\.weight_v$"), ".parametrizations.weight.original1"),
    (re.compile(r"(\.kernel_list\.\d+)\.\w+$"), r"\1"),
)


def save_pretrained(model: EEGSSM, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``; a new folder appears complete or not at all.

    In a folder that exists each file is replaced by a complete one, the weights first.
    """
    document = {"architecture": ARCHITECTURE, "format_version": FORMAT_VERSION, "config": model.get_config()}
    write_model(folder, model.state_dict(), document, {"format": "pt"})


def from_pretrained(folder: str | os.PathLike[str], kind: type[EEGSSM] = EEGSSM, **changes: Any) -> EEGSSM:
    """Open a folder that ``save_pretrained`` or the published class wrote, on the CPU, in evaluation mode.

    Parameters
    ----------
    folder
        Holds ``config.json`` and ``model.safetensors``.
    kind
        Class to build.
    changes
        Settings that shall differ. Heads the folder has and the changed settings do not ask for are left out; heads
        they ask for and the folder does not have start from random weights. ``sfreq`` and ``unit_volts`` of the
        training may be said of a folder that does not know them.

    Raises
    ------
    ConfigError
        A file is missing, damaged, or of another architecture; or the weights know another rate or unit.
    """
    where = Path(folder)
    weights = read_weights(where / WEIGHTS)
    settings = _read_settings(where / CONFIG)
    require_same_input(settings_of({name: settings.get(name) for name in INPUT_FACTS}), changes)
    return assemble({**settings, **_exclusive(changes, settings)}, weights, kind, fresh=changes, where=str(where))


def import_published(
    path: str | os.PathLike[str], *, renames: Mapping[str, str] | None = None, **changes: Any
) -> EEGSSM:
    """Load a bare state dict (``.safetensors`` or a torch file) of the published class or of the authors' code.

    Nothing in the file can run code. Sizes are read from the shapes; wrappers' prefixes, old names of weight
    normalisation and wrapped kernels are translated. The classifier of such a file is left out, the code heads come
    along unless ``changes`` say ``pretrain_mode=False`` or name ``n_outputs``.

    Parameters
    ----------
    path
        The file.
    renames
        Parts of names in the file -> what they are called here, applied in order after the known translations. The
        authors' checkpoint has three modules whose names there are not public: the error names those that are left.
    changes
        Settings that the shapes do not tell (dropout, window of the attention), and heads.

    Raises
    ------
    ConfigError
        The file cannot be read safely, or tensors are missing, left over or of another shape.
    """
    where = str(path)
    weights = translate(_tensors(Path(path)), renames or {})
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(CLASSIFIER)}
    settings = sizes_of(weights, where)
    return assemble({**settings, **_exclusive(changes, settings)}, weights, EEGSSM, fresh=changes, where=where)


def translate(state: Mapping[str, Tensor], renames: Mapping[str, str]) -> dict[str, Tensor]:
    """Names of a foreign state dict as they are here."""
    translated = {}
    for key, tensor in state.items():
        name = key
        while name.startswith(WRAPPERS):
            name = name.split(".", 1)[1]
        for pattern, replacement in OLD_NAMES:
            name = pattern.sub(replacement, name)
        for old, new in renames.items():
            name = name.replace(old, new)
        translated[name] = tensor
    return translated


def sizes_of(weights: Mapping[str, Tensor], where: str = "") -> dict[str, Any]:
    """Settings that the shapes of a backbone tell.

    Raises
    ------
    ConfigError
        It lacks a tensor that a size is read from.
    """
    block = "residual_layer.residual_blocks.0"
    try:
        stem = weights["patch_embedding.proj_in.0.weight"].shape
        settings: dict[str, Any] = {
            "patch_size": weights["patch_embedding.mask_encoding"].shape[0],
            "conv_out_chans": stem[0],
            "proj_kernel_size": stem[3],
            "proj_refine_kernel": weights["patch_embedding.proj_in.3.weight"].shape[3],
            "pos_kernel": tuple(weights["patch_embedding.positional_encoding.0.weight"].shape[2:]),
            "res_channels": weights["init_conv.0.conv.bias"].shape[0],
            "skip_channels": weights["final_conv.0.conv.bias"].shape[0],
            "out_channels": weights["norm.weight"].shape[0],
            "num_res_layers": _count(weights, r"residual_layer\.residual_blocks\.(\d+)\."),
            "s4_lmax": TAPS * 2 ** (_count(weights, rf"{re.escape(block)}\.sgconv\.kernel_list\.(\d+)") - 1),
            "s4_bidirectional": weights[f"{block}.sgconv.kernel_list.0"].shape[0]
            > weights[f"{block}.sgconv.skip_weight"].shape[0],
            "s4_layernorm": f"{block}.layer_norm.weight" in weights,
        }
    except (KeyError, IndexError) as error:
        raise ConfigError(
            f"no backbone of EEGSSM: {error} is missing or of another shape",
            where=where,
            next_step="where the name differs, say so with renames={'name in the file': 'name here'}",
        ) from error
    if all(f"{head}weight" in weights for head in PUBLISHED_HEADS):
        sizes = [weights[f"{head}weight"].shape[0] for head in PUBLISHED_HEADS]
        settings |= {"pretrain_mode": True, "codebook_size_t": sizes[0], "codebook_size_f": sizes[1]}
    return settings


def assemble(
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    kind: type[EEGSSM] = EEGSSM,
    *,
    fresh: Iterable[str] = (),
    where: str = "",
) -> EEGSSM:
    """Build a model and load what fits it.

    Heads may be missing (they stay random) or left over (they are left out); the backbone has to be whole.
    ``fresh`` holds the names of settings that were changed on purpose: heads that belong to them start anew.
    """
    model = kind(settings_of(settings))
    expected = model.state_dict()
    heads = {name for name in expected if name.startswith((CLASSIFIER, *CODE_HEADS))}
    new = _named_anew(expected, set(fresh))
    given = {name: tensor for name, tensor in _in_order(weights, expected).items() if name not in new}
    given = {name: tensor for name, tensor in given.items() if name in expected or not _is_head(name)}
    problems = [f"missing {name}" for name in sorted(expected.keys() - given.keys() - heads)]
    problems += [f"unknown {name}" for name in sorted(given.keys() - expected.keys())]
    for name in sorted(expected.keys() & given.keys()):
        ours, theirs = tuple(expected[name].shape), tuple(given[name].shape)
        if ours != theirs:
            problems.append(f"{name} is {theirs}, expected {ours}")
    if problems:
        more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""  # noqa: PLR2004 - enough to see why
        raise ConfigError(f"weights do not fit the model: {'; '.join(problems[:6])}{more}", where=where)
    model.load_state_dict(given, strict=False)
    return model.eval()


def _is_head(name: str) -> bool:
    return name.startswith((CLASSIFIER, *CODE_HEADS))


def _named_anew(expected: Mapping[str, Tensor], changed: set[str]) -> set[str]:
    prefixes = [CLASSIFIER] if changed & {"n_outputs", "head", "n_chans", "n_times"} else []
    sizes = zip(CODE_HEADS, ("codebook_size_t", "codebook_size_f", "codebook_sizes"), strict=True)
    prefixes += [head for head, size in sizes if size in changed]
    return {name for name in expected if name.startswith(tuple(prefixes))}


def _in_order(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a classifier of three layers our names, layer by layer; its names in other code differ in numbers only."""
    ours = [name for name in expected if name.startswith(CLASSIFIER)]
    theirs = [name for name in weights if name.startswith(CLASSIFIER)]
    shapes = [tuple(expected[name].shape) for name in sorted(ours, key=_numbers)]
    if [tuple(weights[name].shape) for name in sorted(theirs, key=_numbers)] != shapes:
        return dict(weights)
    names = dict(zip(sorted(theirs, key=_numbers), sorted(ours, key=_numbers), strict=True))
    return {names.get(name, name): tensor for name, tensor in weights.items()}


def _numbers(name: str) -> tuple[tuple[int, ...], str]:
    return tuple(int(number) for number in re.findall(r"\d+", name)), name.rsplit(".", 1)[-1]


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, name) for name in weights)
    return len({match[1] for match in found if match})


def _exclusive(changes: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Let a change of one kind of head take the other away."""
    wanted = dict(changes)
    if changes.get("n_outputs"):
        wanted.setdefault("pretrain_mode", False)
        if settings.get("head") == "flatten" and not {"n_chans", "n_times"} <= settings.keys():
            wanted.setdefault("head", "mean")
    elif changes.get("pretrain_mode"):
        wanted.setdefault("n_outputs", None)
    return wanted


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"model settings cannot be read: {error}", where=str(path)) from error
    if not isinstance(document, dict):
        raise ConfigError("model settings cannot be read: no mapping", where=str(path))
    if "architecture" not in document and "patch_size" in document:
        return _of_published_class(document)
    known = document.get("architecture") == ARCHITECTURE and document.get("format_version") == FORMAT_VERSION
    if not known or not isinstance(document.get("config"), dict):
        raise ConfigError(
            f"architecture {document.get('architecture')!r}, format {document.get('format_version')!r} is not EEGSSM",
            where=str(path),
            next_step="install the version of neuromill that wrote it",
        )
    return dict(document["config"])


def _of_published_class(document: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in a ``config.json`` that the published class wrote; what is not a setting of ours changes no number."""
    settings = {key: value for key, value in resolved(document).items() if key in EEGSSMConfig.model_fields}
    if settings.get("pretrain_mode"):
        settings["n_outputs"] = None
    complete = settings.get("n_chans") and settings.get("n_times")
    return settings | {"head": "flatten" if complete else "mean"}


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_weights(path)
    content = load_plain(path, "where you trust its origin, save its state dict on its own")
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(value, torch.Tensor) for value in content.values()):
        raise ConfigError("no tensors in this file", where=str(path))
    return {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
