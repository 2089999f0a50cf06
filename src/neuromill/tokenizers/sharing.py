"""What the Hub mixin calls to write and read a tokenizer of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuromill.records import ConfigError
from neuromill.tokenizers.files import open_tokenizer
from neuromill.tokenizers.files import save_pretrained as write

if TYPE_CHECKING:
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
