"""What the Hub mixin calls to write, read and build a tokenizer of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from neuromill.records import ConfigError
from neuromill.tokenizers.biocodec import BioCodec
from neuromill.tokenizers.config import TokenizerConfig
from neuromill.tokenizers.files import open_tokenizer
from neuromill.tokenizers.files import save_pretrained as write
from neuromill.tokenizers.fixed import FixedTokenizer
from neuromill.tokenizers.fixed_config import MuLawConfig, QuantileConfig
from neuromill.tokenizers.tfdual import TfDualTokenizer
from neuromill.tokenizers.tfdual_config import TfDualTokenizerConfig
from neuromill.tokenizers.tfdual_network import TfDual
from neuromill.tokenizers.tokenizer import RvqTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from neuromill.tokenizers.protocol import Tokenizer


def save_pretrained(tokenizer: Tokenizer, folder: Path) -> None:
    """Write settings and weights into a folder, complete or not at all."""
    write(tokenizer, folder)


def from_pretrained(folder: Path, kind: type) -> Tokenizer:
    """Open a tokenizer; ``ConfigError`` where it is of another class."""
    tokenizer = open_tokenizer(folder)
    if not isinstance(tokenizer, kind):
        raise ConfigError(
            f"the folder holds a {type(tokenizer).__name__}, not a {kind.__name__}",
            where=str(folder),
            next_step="open it with neuromill.tokenizers.files.open_tokenizer, which takes every kind",
        )
    return tokenizer


def from_config(config: Mapping[str, Any], kind: type) -> Tokenizer:
    """Build a tokenizer of random weights; ``ConfigError`` where the settings are wrong, or of another class."""
    named = str(config.get("kind", "biocodec"))
    if named not in BUILDERS:
        raise ConfigError(f"tokenizers of kind {named!r} are unknown here", where="kind", next_step="update neuromill")
    try:
        tokenizer = BUILDERS[named](config)
    except ValidationError as error:
        raise ConfigError(f"settings of the tokenizer are wrong: {error}", where=kind.__name__) from error
    return tokenizer


def _biocodec(config: Mapping[str, Any]) -> Tokenizer:
    settings = TokenizerConfig.model_validate(config)
    return RvqTokenizer(settings, BioCodec(settings.network))


def _tfdual(config: Mapping[str, Any]) -> Tokenizer:
    settings = TfDualTokenizerConfig.model_validate(config)
    return TfDualTokenizer(settings, TfDual(settings))


BUILDERS: dict[str, Callable[[Mapping[str, Any]], Tokenizer]] = {
    "biocodec": _biocodec,
    "tfdual": _tfdual,
    "mu_law": lambda config: FixedTokenizer(MuLawConfig.model_validate(config)),
    "quantile": lambda config: FixedTokenizer(QuantileConfig.model_validate(config)),
}
