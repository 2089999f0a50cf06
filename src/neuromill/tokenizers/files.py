"""The one file of this room that touches a disk: weights, JSON, checkpoints of a fit, published checkpoints.

A folder tells by ``config.kind`` which tokenizer it holds; one without is a BioCodec, as all were once.

Nothing is unpickled without restriction: weights are safetensors, foreign checkpoints go through
``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from neuromill.hub.disk import CONFIG, WEIGHTS, flush, load_plain, read_weights, replace_file
from neuromill.hub.mixin import folder_of
from neuromill.records import ConfigError
from neuromill.tokenizers.biocodec import BioCodec
from neuromill.tokenizers.config import BioCodecConfig, NormalizationConfig, TokenizerConfig
from neuromill.tokenizers.fixed import FIXED_CODE_VERSION, FixedTokenizer
from neuromill.tokenizers.fixed_config import MuLawConfig, QuantileConfig
from neuromill.tokenizers.tfdual import TFDUAL_CODE_VERSION, TfDualTokenizer
from neuromill.tokenizers.tfdual_config import TfDualTokenizerConfig
from neuromill.tokenizers.tfdual_network import TfDual
from neuromill.tokenizers.tokenizer import CODE_VERSION, RvqTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from neuromill.tokenizers.protocol import Tokenizer

N = TypeVar("N", bound=torch.nn.Module)

FORMAT, FORMAT_VERSION = "neuromill-tokenizer", 1
COMPILED = "_orig_mod."
"""What ``torch.compile`` puts into names."""
OWNER = "tokenizer."
"""Where a MEG-XL model keeps its codec."""


def save_pretrained(tokenizer: Tokenizer, folder: Path, *, facts: Mapping[str, Any] | None = None) -> Path:
    """Write a tokenizer as a new folder, complete or not at all.

    Parameters
    ----------
    tokenizer
        What to write.
    folder
        Must not exist; its parent is made. ``config.json`` and ``model.safetensors`` go in.
    facts
        JSON values kept under ``facts`` and handed back by ``read_facts``: fit report, what it was fitted on.

    Returns
    -------
    Path
        ``folder``.

    Raises
    ------
    ConfigError
        If the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise ConfigError("a tokenizer is never overwritten", where=str(folder), next_step="choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "code_version": CODE_VERSIONS[tokenizer.config.kind],
        "digest": tokenizer.digest,
        "config": tokenizer.config.model_dump(mode="json"),
        "facts": dict(facts or {}),
    }
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save_file(_plain(tokenizer.state()), temporary / WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False)
        (temporary / CONFIG).write_text(text + "\n", encoding="utf-8")
        flush(temporary / WEIGHTS, temporary / CONFIG, temporary)
        temporary.chmod(0o755)
        temporary.rename(folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def open_tokenizer(source: str | Path, *, revision: str | None = None) -> Tokenizer:
    """Open a tokenizer of any kind written by ``save_pretrained``.

    Parameters
    ----------
    source
        A folder, or the id of a Hugging Face Hub repository (``owner/name``). Folders need no network.
    revision
        Commit, tag or branch of the repository; give a commit to pin.

    Raises
    ------
    ConfigError
        If it is not there, not of this format, of a newer format, or its weights are not those its digest names.
    """
    folder = _folder_of(source, revision)
    document = _read_document(folder)
    kind = _kind_of(document)
    if kind not in CODE_VERSIONS:
        raise ConfigError(
            f"tokenizers of kind {kind!r} are unknown here", where=str(folder / CONFIG), next_step="update neuromill"
        )
    try:
        tokenizer = _OPENERS[kind](document.get("config"), read_weights(folder / WEIGHTS), str(folder))
    except ValidationError as error:
        raise ConfigError(f"settings of the tokenizer are wrong: {error}", where=str(folder / CONFIG)) from error
    if document.get("code_version") == CODE_VERSIONS[kind] and document.get("digest") != tokenizer.digest:
        raise ConfigError(
            "weights or settings are not the ones the digest names", where=str(folder), next_step="fetch them again"
        )
    return tokenizer


def from_pretrained(source: str | Path, *, revision: str | None = None) -> RvqTokenizer:
    """Open a BioCodec tokenizer: ``open_tokenizer`` for callers that need its levels.

    Raises
    ------
    ConfigError
        As ``open_tokenizer``, and if it is a tokenizer of another kind.
    """
    tokenizer = open_tokenizer(source, revision=revision)
    if not isinstance(tokenizer, RvqTokenizer):
        raise ConfigError(
            f"a tokenizer of kind {tokenizer.config.kind!r} stands where a BioCodec is needed",
            where=str(source),
            next_step="give a BioCodec tokenizer",
        )
    return tokenizer


def kind_of(source: str | Path, *, revision: str | None = None) -> str:
    """Return the kind of a tokenizer without opening its weights; ConfigError as ``open_tokenizer`` has it."""
    return _kind_of(_read_document(_folder_of(source, revision)))


def read_facts(source: str | Path, *, revision: str | None = None) -> dict[str, Any]:
    """Return what was saved beside a tokenizer: JSON values, empty if nothing was."""
    return dict(_read_document(_folder_of(source, revision)).get("facts", {}))


def import_published(
    path: Path, *, config: BioCodecConfig | None = None, normalization: NormalizationConfig | None = None
) -> RvqTokenizer:
    """Read a checkpoint of the published BioCodec, or the codec inside a MEG-XL checkpoint.

    Parameters
    ----------
    path
        A torch file: a dict with ``model_state_dict`` (BioCodec; names prefixed ``_orig_mod.``) or ``state_dict``
        (MEG-XL; the codec's names prefixed ``tokenizer.``), or a bare state dict. Optimiser states are ignored.
    config, normalization
        Sizes and normalisation to go with it; by default the published EEG preset as MEG-XL uses it.

    Raises
    ------
    ConfigError
        If the file cannot be read without unrestricted unpickling, or names or shapes differ from ``config``.
    """
    content = load_plain(path, "only tensors and plain values are accepted: save the state dict on its own")
    network = config or BioCodecConfig()
    codec = _codec_with(network, codec_state(content, str(path)), str(path))
    settings = TokenizerConfig(network=network, normalization=normalization or NormalizationConfig())
    return RvqTokenizer(settings, codec)


def codec_state(content: Any, where: str = "") -> dict[str, Tensor]:
    """Find the codec's tensors in a loaded checkpoint and take the prefixes off their names.

    Raises
    ------
    ConfigError
        If there is no tensor in it.
    """
    for key in ("model_state_dict", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)} if isinstance(content, dict) else {}
    owned = {name: tensor for name, tensor in tensors.items() if OWNER in name} or tensors
    if not owned:
        raise ConfigError("no tensors of a codec in this file", where=where, next_step="give a BioCodec checkpoint")
    return {_strip(name): tensor for name, tensor in owned.items()}


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of an unfinished fit (tensors and plain values), atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda new: torch.save(dict(state), new))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read back ``save_checkpoint``; refuses anything that is not tensors and plain values."""
    return dict(load_plain(path, "delete it to start over"))


def _strip(name: str) -> str:
    """``model.tokenizer._orig_mod.encoder.x`` -> ``encoder.x``."""
    return name.rsplit(OWNER, 1)[-1].replace(COMPILED, "")


def _open_biocodec(config: Any, weights: Mapping[str, Tensor], where: str) -> Tokenizer:
    settings = TokenizerConfig.model_validate(config)
    return RvqTokenizer(settings, _codec_with(settings.network, weights, where))


def _open_tfdual(config: Any, weights: Mapping[str, Tensor], where: str) -> Tokenizer:
    settings = TfDualTokenizerConfig.model_validate(config)
    return TfDualTokenizer(settings, _with_weights(lambda: TfDual(settings), weights, where))


def _open_fixed(config: Any, weights: Mapping[str, Tensor], where: str) -> Tokenizer:
    if weights:
        raise ConfigError("a fixed tokenizer has no weights", where=where, next_step="fetch it again")
    kind = MuLawConfig if config["kind"] == "mu_law" else QuantileConfig
    return FixedTokenizer(kind.model_validate(config))


CODE_VERSIONS = {
    "biocodec": CODE_VERSION,
    "tfdual": TFDUAL_CODE_VERSION,
    "mu_law": FIXED_CODE_VERSION,
    "quantile": FIXED_CODE_VERSION,
}
_OPENERS: dict[str, Callable[[Any, Mapping[str, Tensor], str], Tokenizer]] = {
    "biocodec": _open_biocodec,
    "tfdual": _open_tfdual,
    "mu_law": _open_fixed,
    "quantile": _open_fixed,
}


def _kind_of(document: Mapping[str, Any]) -> str:
    config = document.get("config")
    return str(config.get("kind", "biocodec")) if isinstance(config, dict) else "biocodec"


def _codec_with(config: BioCodecConfig, state: Mapping[str, Tensor], where: str) -> BioCodec:
    """Build a codec with exactly these tensors, or say which ones do not fit."""
    return _with_weights(lambda: BioCodec(config), state, where)


def _with_weights(build: Callable[[], N], state: Mapping[str, Tensor], where: str) -> N:
    with torch.random.fork_rng(devices=[]):
        codec = build()
    expected = codec.state_dict()
    problems = [f"missing {name}" for name in sorted(expected.keys() - state.keys())]
    problems += [f"unknown {name}" for name in sorted(state.keys() - expected.keys())]
    for name in sorted(expected.keys() & state.keys()):
        ours, theirs = tuple(expected[name].shape), tuple(state[name].shape)
        if ours != theirs:
            problems.append(f"{name} is {theirs}, expected {ours}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""  # noqa: PLR2004
        raise ConfigError(
            f"weights do not fit the configuration: {'; '.join(problems[:3])}{more}",
            where=where,
            next_step="give the configuration the weights were made with",
        )
    codec.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return codec


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            "no tokenizer can be read here", where=str(path), next_step="give a folder that save_pretrained wrote"
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ConfigError("not the settings of a NeuroMill tokenizer", where=str(path))
    if document.get("format_version", 0) > FORMAT_VERSION:
        raise ConfigError(
            f"written in format version {document['format_version']}, this is {FORMAT_VERSION}",
            where=str(path),
            next_step="update neuromill",
        )
    return document


def _folder_of(source: str | Path, revision: str | None) -> Path:
    return folder_of(source, revision=revision, absent="there is no tokenizer folder")


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
