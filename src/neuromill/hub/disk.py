"""Files of models and tokenizers: there as a whole or not at all, and unpickled under restriction only."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from neuromill.records import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

WEIGHTS, CONFIG = "model.safetensors", "config.json"
UNPICKLING_ERRORS = (
    OSError, RuntimeError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError,
    pickle.UnpicklingError, struct.error,
)  # fmt: skip
"""What torch's restricted unpickler was seen to raise on truncated and foreign files."""


def flush(*paths: Path) -> None:
    """Wait until files, or folders with the names in them, are on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a file beside ``path``; once on the disk it takes the name, also from one that is there."""
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to fill: ``folder`` where it exists, else one beside it that takes the name at the end.

    What fills a folder that exists has to replace file by file. After an error the one beside stays until the next
    attempt.
    """
    if folder.is_dir():
        yield folder
        return
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    temporary.rename(folder)
    flush(folder.parent)


def write_model(
    folder: Path, state: Mapping[str, Tensor], document: Mapping[str, Any], metadata: dict[str, str] | None = None
) -> None:
    """Write ``model.safetensors``, with ``metadata`` in its header, and ``document`` as ``config.json``.

    A new folder appears complete or not at all; in one that exists each file is replaced by a complete one, the weights
    first.
    """
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    with whole_folder(folder) as place:
        replace_file(place / WEIGHTS, lambda new: save_file(weights, new, metadata=metadata))
        replace_file(place / CONFIG, lambda new: new.write_text(text, encoding="utf-8"))


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a file in the safetensors format, by name, on the CPU.

    Raises
    ------
    ConfigError
        The file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"weights cannot be read: {error}", where=str(path), next_step="fetch them again") from error


def load_plain(path: str | os.PathLike[str], next_step: str) -> Any:
    """Read a file of ``torch.save`` that holds tensors and plain values and nothing else, on the CPU.

    Raises
    ------
    ConfigError
        The file is damaged, or holds objects, whose code is not run.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UNPICKLING_ERRORS as error:
        foreign = re.findall(r"GLOBAL ([\w.]+)", str(error))
        reason = (
            f"objects of type {foreign[0]}, which may run code"
            if foreign
            else (str(error) or type(error).__name__).splitlines()[0]
        )
        raise ConfigError(
            f"cannot be read as tensors and plain values: {reason}", where=str(path), next_step=next_step
        ) from error
