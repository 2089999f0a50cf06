"""Files of models and tokenizers: flushed to the disk, and unpickled under restriction only."""

from __future__ import annotations

import os
import pickle
import re
import struct
from typing import TYPE_CHECKING, Any

from neuromill.records import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

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
